//! Leases that were said to be placed, and of which the store may hear later.

use std::collections::{HashSet, VecDeque};

use crate::entry::Stamp;

/// How many are remembered. One is added by a call that ends in doubt, of which an outage has a few.
const MOST: usize = 1 << 16;

/// The marks of leases whose placing ended in doubt.
///
/// Such a load began as if it had its lease. Should the mark arrive yet, after an invalidation that it
/// was to be found by, its load's value must not be written over it.
#[derive(Debug, Default)]
pub(super) struct Doubtful {
    marks: HashSet<Stamp>,
    oldest_first: VecDeque<Stamp>,
}

impl Doubtful {
    /// Remembers `mark`; past the limit the oldest is forgotten, whose load ended long ago.
    pub(super) fn add(&mut self, mark: Stamp) {
        if !self.marks.insert(mark) {
            return;
        }
        self.oldest_first.push_back(mark);
        if self.oldest_first.len() > MOST
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.marks.remove(&oldest);
        }
    }

    pub(super) fn has(&self, mark: Stamp) -> bool {
        self.marks.contains(&mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;

    #[test]
    fn so_many_are_remembered_and_the_oldest_goes_first() {
        let (mut doubtful, clock) = (Doubtful::default(), Clock::manual());
        let marks: Vec<Stamp> = (0..=MOST).map(|_| Stamp::draw(&clock)).collect();

        for mark in &marks {
            doubtful.add(*mark);
            doubtful.add(*mark);
        }

        assert!(!doubtful.has(marks[0]));
        assert!(marks[1..].iter().all(|mark| doubtful.has(*mark)));
    }
}
