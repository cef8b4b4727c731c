//! The numbers of tags: when each was last invalidated, counted, never timed.

use crate::entry::{Tag, Tagged};

/// The numbers of a tag space at one moment.
///
/// ```
/// use larder::store::Numbers;
/// use larder::Tagged;
///
/// let numbers = Numbers { era: 9, seq: 5, floor: 0, of: vec![Some(5)] };
/// let names = ["object:5".into()];
/// let old = Tagged { era: 9, good_from: vec![("object:5".into(), 4)] };
/// let new = Tagged { era: 9, good_from: vec![("object:5".into(), 5)] };
/// assert_eq!(numbers.moved(&names, &old).as_deref(), Some("object:5"));
/// assert_eq!(numbers.moved(&names, &new), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Numbers {
    /// Random, drawn when the counter was made: numbers of another era say nothing.
    pub era: u64,
    /// The last number given.
    pub seq: u64,
    /// The highest number ever dropped: a tag without a number may have had this one.
    pub floor: u64,
    /// For each tag asked, in order, the number of its last invalidation.
    pub of: Vec<Option<u64>>,
}

impl Numbers {
    /// The number that the tag at `position` counts as.
    pub fn at(&self, position: usize) -> u64 {
        self.of
            .get(position)
            .copied()
            .flatten()
            .unwrap_or(self.floor)
    }

    /// Whether there is a number for every tag that was asked for, and one was.
    pub(crate) fn are_all_there(&self) -> bool {
        !self.of.is_empty() && self.of.iter().all(Option::is_some)
    }

    /// The numbers of the first `count` tags, and those of the others.
    pub(crate) fn split_at(&self, count: usize) -> (Self, Self) {
        let (first, rest) = self.of.split_at(count.min(self.of.len()));
        let with = |of: &[Option<u64>]| Self {
            of: of.to_vec(),
            ..*self
        };
        (with(first), with(rest))
    }

    /// The first tag of `tagged` that has been invalidated since its entry was made.
    ///
    /// `names` are the tags that were asked for; one of `tagged` that is not among them counts as
    /// moved, as does every tag of another era.
    pub fn moved(&self, names: &[Tag], tagged: &Tagged) -> Option<Tag> {
        self.moved_at(|tag| names.iter().position(|name| name == tag), tagged)
    }

    /// The same, where `position` tells the place of each tag that was asked for.
    pub(crate) fn moved_at(
        &self,
        position: impl Fn(&Tag) -> Option<usize>,
        tagged: &Tagged,
    ) -> Option<Tag> {
        let moved = |(tag, good_from): &&(Tag, u64)| {
            let number = position(tag).map(|at| self.at(at));
            self.era != tagged.era || number.is_none_or(|number| number > *good_from)
        };
        tagged
            .good_from
            .iter()
            .find(moved)
            .map(|(tag, _)| tag.clone())
    }
}

#[cfg(any(
    feature = "memory",
    feature = "simulation",
    all(feature = "file", unix)
))]
pub(crate) use space::Space;
#[cfg(any(feature = "memory", feature = "simulation"))]
pub(crate) use spaces::Spaces;

#[cfg(any(
    feature = "memory",
    feature = "simulation",
    all(feature = "file", unix)
))]
mod space {
    use std::collections::HashMap;

    use super::Numbers;
    use crate::entry::Tag;

    /// The numbers of one tag space, for a store that counts by itself.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Space {
        pub(crate) era: u64,
        pub(crate) seq: u64,
        pub(crate) floor: u64,
        pub(crate) of: HashMap<Tag, u64>,
        /// What they cost.
        bytes: u64,
    }

    /// What a number costs besides the name of its tag.
    const OVERHEAD: usize = 64;

    fn cost(tag: &Tag) -> u64 {
        (tag.len() + OVERHEAD) as u64
    }

    impl Space {
        pub(crate) fn new(era: u64) -> Self {
            Self::of(era, 0, 0, HashMap::new())
        }

        pub(crate) fn of(era: u64, seq: u64, floor: u64, of: HashMap<Tag, u64>) -> Self {
            let bytes = of.keys().map(cost).sum();
            Self {
                era,
                seq,
                floor,
                of,
                bytes,
            }
        }

        pub(crate) fn numbers(&self, names: &[Tag]) -> Numbers {
            let of = names
                .iter()
                .map(|name| self.of.get(name).copied())
                .collect();
            Numbers {
                era: self.era,
                seq: self.seq,
                floor: self.floor,
                of,
            }
        }

        /// Takes the next number and raises `names` to it; while the numbers cost more than `most`
        /// bytes, the oldest half is dropped.
        pub(crate) fn raise(&mut self, names: &[Tag], most: u64) -> u64 {
            self.seq += 1;
            for name in names {
                if self.of.insert(name.clone(), self.seq).is_none() {
                    self.bytes += cost(name);
                }
            }
            while self.bytes > most {
                self.drop_oldest_half();
            }
            self.seq
        }

        /// Raises the floor over every number given, and drops them: a number of its own would keep a
        /// tag below the floor.
        pub(crate) fn raise_floor(&mut self) {
            self.seq += 1;
            self.floor = self.seq;
            self.of.clear();
            self.bytes = 0;
        }

        pub(crate) fn drop_oldest_half(&mut self) {
            let mut numbers: Vec<u64> = self.of.values().copied().collect();
            let middle = numbers.len() / 2;
            let (_, &mut median, _) = numbers.select_nth_unstable(middle);
            self.of.retain(|_, number| *number > median);
            self.floor = self.floor.max(median);
            self.bytes = self.of.keys().map(cost).sum();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn dropped_numbers_raise_the_floor_over_them() {
            let mut space = Space::new(1);
            for tag in ["a", "b", "c", "d"] {
                space.raise(&[tag.into()], 3 * cost(&"a".into()));
            }

            let numbers = space.numbers(&["a".into(), "d".into()]);
            assert_eq!((numbers.at(0), numbers.at(1), numbers.floor), (3, 4, 3));
        }
    }
}

#[cfg(any(feature = "memory", feature = "simulation"))]
mod spaces {
    use std::collections::HashMap;
    use std::sync::{PoisonError, RwLock, RwLockReadGuard};

    use super::{Numbers, Space};
    use crate::Clock;
    use crate::entry::Tagged;
    use crate::store::Tags;
    use crate::store::cells::{Cells, InSight};

    /// Bytes of numbers that a space keeps before the oldest half is dropped and the floor raised over
    /// it, unless told otherwise.
    const MOST: u64 = 64 * 1024 * 1024;
    /// What it keeps at least: some hundreds of tags.
    const LEAST: u64 = 64 * 1024;
    /// The tag spaces of a store in this process, under one lock.
    #[derive(Debug)]
    pub(crate) struct Spaces {
        spaces: RwLock<HashMap<Box<str>, Counted>>,
        /// How many bytes of numbers each may keep.
        most: u64,
    }

    /// A space, and what entries see of it.
    #[derive(Debug)]
    struct Counted {
        space: Space,
        cells: Cells,
    }

    impl Default for Spaces {
        fn default() -> Self {
            Self::within(MOST)
        }
    }

    impl Spaces {
        /// Spaces that keep numbers of `most` bytes each.
        pub(crate) fn within(most: u64) -> Self {
            Self {
                spaces: RwLock::default(),
                most: most.max(LEAST),
            }
        }

        /// The numbers of `tags`; a space that nobody has used gets its era now.
        pub(crate) fn read(&self, tags: Tags<'_>, clock: &Clock) -> Numbers {
            if let Some(space) = self.shared().get(tags.space) {
                return space.space.numbers(tags.names);
            }
            self.with(tags.space, clock, |counted| {
                counted.space.numbers(tags.names)
            })
        }

        /// Takes the next number and raises `tags` to it.
        pub(crate) fn raise(&self, tags: Tags<'_>, clock: &Clock) -> u64 {
            self.with(tags.space, clock, |Counted { space, cells }| {
                let number = space.raise(tags.names, self.most);
                cells.raise(tags.names, number, space.floor);
                number
            })
        }

        /// The cells of an entry's tags, if its era is that of a space here.
        pub(crate) fn in_sight(&self, tagged: &Tagged) -> InSight {
            let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
            let mut counted = spaces.values_mut();
            let found = counted.find(|counted| counted.cells.era() == tagged.era);
            found.map_or_else(InSight::default, |Counted { space, cells }| {
                cells.of(tagged, |tag| space.of.get(tag).copied())
            })
        }

        /// Raises the floor of `space` over every number given.
        pub(crate) fn raise_floor(&self, space: &str, clock: &Clock) {
            self.with(space, clock, |Counted { space, cells }| {
                space.raise_floor();
                cells.raise(&[], 0, space.floor);
            });
        }

        /// Drops the oldest half of the numbers, as happens when there are too many.
        #[cfg(feature = "simulation")]
        pub(crate) fn forget(&self) {
            let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
            let counted = spaces.values_mut();
            for Counted { space, cells } in counted.filter(|it| !it.space.of.is_empty()) {
                space.drop_oldest_half();
                cells.raise(&[], 0, space.floor);
            }
        }

        /// Drops all that is known of every space.
        #[cfg(feature = "simulation")]
        pub(crate) fn lose(&self) {
            let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
            spaces.clear();
        }

        fn shared(&self) -> RwLockReadGuard<'_, HashMap<Box<str>, Counted>> {
            self.spaces.read().unwrap_or_else(PoisonError::into_inner)
        }

        fn with<R>(&self, name: &str, clock: &Clock, act: impl FnOnce(&mut Counted) -> R) -> R {
            let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
            let new = || {
                let era = clock.random();
                Counted {
                    space: Space::new(era),
                    cells: Cells::new(name, era),
                }
            };
            act(spaces.entry(name.into()).or_insert_with(new))
        }
    }
}
