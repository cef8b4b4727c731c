//! The numbers of an entry's tags at a glance, in a store that counts in this process.
//!
//! To look each tag up by name would cost more than the hit itself. An entry is therefore given the
//! cells of its tags when it is written; whoever reads it compares numbers, and takes no lock.

#![cfg_attr(
    not(any(feature = "memory", feature = "simulation")),
    expect(dead_code, reason = "only a store in this process has cells")
)]

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use crate::entry::{Tag, Tagged};

/// What one needs to know of a tag space besides the numbers of its tags.
#[derive(Debug)]
struct Rim {
    space: Box<str>,
    era: u64,
    floor: AtomicU64,
    /// Odd while numbers are given: several tags are raised in one act.
    turn: AtomicU64,
}

/// The cells of a tag space.
#[derive(Debug)]
pub(crate) struct Cells {
    rim: Arc<Rim>,
    of: HashMap<Tag, Weak<AtomicU64>>,
    /// How many there may be before those that nobody needs are dropped.
    most: usize,
}

/// Cells are not looked through for unused ones below this number.
const LEAST: usize = 1024;

impl Cells {
    /// The cells of `space`, which has this era.
    pub(crate) fn new(space: &str, era: u64) -> Self {
        let rim = Rim {
            space: space.into(),
            era,
            floor: AtomicU64::new(0),
            turn: AtomicU64::new(0),
        };
        Self {
            rim: Arc::new(rim),
            of: HashMap::new(),
            most: LEAST,
        }
    }

    /// The era of the space.
    pub(crate) fn era(&self) -> u64 {
        self.rim.era
    }

    /// The cells of an entry's tags; `number` tells the number that a tag has.
    pub(crate) fn of(&mut self, tagged: &Tagged, number: impl Fn(&Tag) -> Option<u64>) -> InSight {
        if self.of.len() >= self.most {
            self.of.retain(|_, cell| cell.strong_count() > 0);
            self.most = LEAST.max(2 * self.of.len());
        }
        let of = tagged.good_from.iter().map(|(tag, _)| {
            if let Some(cell) = self.of.get(tag).and_then(Weak::upgrade) {
                return cell;
            }
            let cell = Arc::new(AtomicU64::new(number(tag).unwrap_or(0)));
            self.of.insert(tag.clone(), Arc::downgrade(&cell));
            cell
        });
        InSight(Some(Box::new(Seen {
            of: of.collect(),
            rim: Arc::clone(&self.rim),
        })))
    }

    /// Raises the cells of `names` to `number`, and the floor to `floor`; one act.
    pub(crate) fn raise(&self, names: &[Tag], number: u64, floor: u64) {
        self.rim.turn.fetch_add(1, SeqCst);
        for name in names {
            if let Some(cell) = self.of.get(name).and_then(Weak::upgrade) {
                cell.fetch_max(number, SeqCst);
            }
        }
        self.rim.floor.fetch_max(floor, SeqCst);
        self.rim.turn.fetch_add(1, SeqCst);
    }
}

/// What is lost is judged no more.
impl Drop for Cells {
    fn drop(&mut self) {
        self.rim.floor.store(u64::MAX, SeqCst);
    }
}

/// The cells of an entry's tags, in their order; none in most stores.
///
/// A copy of the entry has none: it may be on its way into a store that counts by itself.
#[derive(Default)]
pub(crate) struct InSight(Option<Box<Seen>>);

struct Seen {
    of: Box<[Arc<AtomicU64>]>,
    rim: Arc<Rim>,
}

impl InSight {
    /// Whether no tag of `tagged`, whose cells these are, has moved in `space`. `false` says nothing.
    #[inline]
    pub(crate) fn is_unmoved(&self, space: &str, tagged: &Tagged) -> bool {
        let Some(seen) = &self.0 else { return false };
        let rim = &*seen.rim;
        let turn = rim.turn.load(SeqCst);
        let floor = rim.floor.load(SeqCst);
        let is_good = |(cell, (_, good_from)): (&Arc<AtomicU64>, &(Tag, u64))| {
            cell.load(SeqCst).max(floor) <= *good_from
        };
        turn.is_multiple_of(2)
            && rim.era == tagged.era
            && *rim.space == *space
            && seen.of.len() == tagged.good_from.len()
            && seen.of.iter().zip(&tagged.good_from).all(is_good)
            && rim.turn.load(SeqCst) == turn
    }
}

impl Clone for InSight {
    fn clone(&self) -> Self {
        Self(None)
    }
}

impl PartialEq for InSight {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for InSight {}

impl fmt::Debug for InSight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InSight({})", self.0.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(era: u64, tags: &[(&str, u64)]) -> Tagged {
        let good_from = tags.iter().map(|(tag, from)| ((*tag).into(), *from));
        Tagged {
            era,
            good_from: good_from.collect(),
        }
    }

    #[test]
    fn an_entry_sees_its_tags_and_the_floor_move() {
        let mut cells = Cells::new("s", 7);
        let ours = tagged(7, &[("a", 3), ("b", 2)]);
        let seen = cells.of(&ours, |_| Some(2));
        assert!(seen.is_unmoved("s", &ours));
        assert!(!seen.is_unmoved("other", &ours), "another space");
        assert!(!seen.is_unmoved("s", &tagged(8, &[("a", 3), ("b", 2)])));
        assert!(!seen.is_unmoved("s", &tagged(7, &[("a", 3)])), "other tags");

        cells.raise(&["c".into()], 5, 0);
        assert!(seen.is_unmoved("s", &ours));
        cells.raise(&["b".into(), "c".into()], 6, 0);
        assert!(!seen.is_unmoved("s", &ours));

        let later = tagged(7, &[("a", 6), ("b", 6)]);
        let seen = cells.of(&later, |_| unreachable!("both have cells"));
        assert!(seen.is_unmoved("s", &later));
        cells.raise(&[], 7, 7);
        assert!(!seen.is_unmoved("s", &later), "the floor is above it");
    }

    #[test]
    fn a_copy_and_what_was_lost_say_nothing() {
        let mut cells = Cells::new("", 7);
        let ours = tagged(7, &[("a", 3)]);
        let seen = cells.of(&ours, |_| None);
        assert!(seen.is_unmoved("", &ours));
        assert!(!seen.clone().is_unmoved("", &ours));
        drop(cells);
        assert!(!seen.is_unmoved("", &ours));
    }

    #[test]
    fn cells_that_nobody_needs_are_dropped() {
        let mut cells = Cells::new("", 7);
        let kept = tagged(7, &[("kept", 3)]);
        let seen = cells.of(&kept, |_| None);
        for number in 0..10 * LEAST {
            cells.of(&tagged(7, &[(&number.to_string(), 3)]), |_| None);
        }
        assert!(cells.of.len() <= 2 * LEAST, "{}", cells.of.len());
        cells.raise(&["kept".into()], 4, 0);
        assert!(!seen.is_unmoved("", &kept));
    }
}
