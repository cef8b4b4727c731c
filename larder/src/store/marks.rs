//! The leases and markers of a part of the keys, within bounds.

use std::collections::HashMap;

use crate::entry::{Mark, State};
use crate::{Key, Moment};

/// What a mark costs besides its key, in bytes.
const OVERHEAD: u64 = 128;
/// The bytes that a stripe has at least: leases for some dozens of loads at a time.
const LEAST: u64 = 16 * 1024;

/// Marks by key, of no more than a number of bytes.
///
/// When there is no room, what has lapsed goes first; then markers, without which the next caller loads;
/// then the leases that end soonest, whose loads are not kept.
#[derive(Debug)]
pub(super) struct Stripe {
    marks: HashMap<Key, Mark>,
    bytes: u64,
    most: u64,
}

impl Stripe {
    pub(super) fn new(most: u64) -> Self {
        Self {
            marks: HashMap::new(),
            bytes: 0,
            most: most.max(LEAST),
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Mark> {
        self.marks.get(key)
    }

    pub(super) fn insert(&mut self, key: &Key, mark: Mark, now: Moment) {
        if let Some(old) = self.marks.get_mut(key) {
            *old = mark;
            return;
        }
        let cost = cost(key);
        if self.bytes + cost > self.most {
            self.make_room(self.most.saturating_sub(cost), now);
        }
        self.bytes += cost;
        self.marks.insert(key.clone(), mark);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if self.marks.remove(key).is_some() {
            self.bytes -= cost(key);
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Key, &Mark) -> bool) {
        self.marks.retain(|key, mark| keep(key, mark));
        self.bytes = self.marks.keys().map(cost).sum();
    }

    /// Leaves no more than `room` bytes; where something is to go that matters, a quarter at once, so
    /// that a flood does not look through all for each.
    fn make_room(&mut self, room: u64, now: Moment) {
        self.retain(|_, mark| mark.until > now);
        if self.bytes <= room {
            return;
        }
        let mut by_end: Vec<(bool, Moment, Key)> = (self.marks.iter())
            .map(|(key, mark)| (mark.state == State::Loading, mark.until, key.clone()))
            .collect();
        by_end.sort_unstable_by_key(|(is_lease, until, _)| (*is_lease, *until));
        for (is_lease, _, key) in by_end {
            let enough = if is_lease { room } else { room / 4 * 3 };
            if self.bytes <= enough {
                return;
            }
            self.remove(&key);
        }
    }
}

fn cost(key: &Key) -> u64 {
    key.kept_len() as u64 + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stamp;

    fn mark(state: State, until: u64) -> Mark {
        Mark {
            stamp: Stamp::from_number(1),
            state,
            until: Moment::from_millis(until),
        }
    }

    #[test]
    fn markers_give_way_to_leases_and_what_has_lapsed_to_both() {
        let mut stripe = Stripe::new(0);
        let key = |number: u64| Key::new(format!(":1:{number:0250}"));
        stripe.insert(&key(1), mark(State::Loading, 90), Moment::START);
        stripe.insert(&key(2), mark(State::Loading, 10), Moment::START);

        for number in 3..1000 {
            let now = Moment::from_millis(20);
            stripe.insert(&key(number), mark(State::Pass, 50 + number), now);
            assert!(stripe.bytes <= LEAST);
        }

        assert!(stripe.get(&key(1)).is_some(), "a live lease");
        assert!(stripe.get(&key(2)).is_none(), "a lapsed lease");
        assert!(stripe.get(&key(3)).is_none(), "a marker");
        assert!(stripe.get(&key(999)).is_some(), "the last marker");
    }

    #[test]
    fn a_flood_of_leases_is_bounded_too() {
        let mut stripe = Stripe::new(0);

        for number in 0..1000 {
            let key = Key::new(format!(":1:{number}"));
            stripe.insert(&key, mark(State::Loading, 50 + number), Moment::START);
            assert!(stripe.get(&key).is_some() && stripe.bytes <= LEAST);
        }
    }
}
