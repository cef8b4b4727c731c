//! The writes that a store has not heard of yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{Key, Tag};

/// Acts sent at once.
const BATCH: usize = 500;
/// A scope that holds no slot, since no name holds a blank: clearing it raises the floor and no more.
const NOTHING: &str = " ";

/// What has to be repeated. Each takes something away, so that doing it twice, or late, costs a load
/// and never an old value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Act {
    Delete(Key),
    Raise {
        space: Box<str>,
        tag: Tag,
    },
    Clear {
        scope: Box<str>,
        space: Box<str>,
    },
    /// A clear in place of what did not fit.
    Instead {
        scope: Box<str>,
        space: Box<str>,
    },
}

/// Acts in the order in which they were last wanted, each once, and not more than fit.
#[derive(Debug)]
pub(super) struct Owed {
    most: usize,
    acts: BTreeMap<u64, Act>,
    numbers: HashMap<Act, u64>,
    next: u64,
    lost: bool,
}

impl Owed {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            acts: BTreeMap::new(),
            numbers: HashMap::new(),
            next: 0,
            lost: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.acts.is_empty() && !self.lost
    }

    /// Whether more was owed than could be kept in any form.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// How many acts there are to send.
    pub(super) fn count(&self) -> usize {
        self.acts.len()
    }

    /// Owes `act`; past the limit, acts are replaced by fewer that take more away.
    pub(super) fn add(&mut self, act: Act) {
        if self.lost {
            return;
        }
        self.insert(act);
        if self.acts.len() > self.most {
            self.widen();
        }
    }

    fn insert(&mut self, act: Act) {
        self.next += 1;
        if let Some(before) = self.numbers.insert(act.clone(), self.next) {
            self.acts.remove(&before);
        }
        self.acts.insert(self.next, act);
    }

    /// The next acts to send, with their numbers.
    pub(super) fn batch(&self) -> Vec<(u64, Act)> {
        let acts = self.acts.iter().take(BATCH);
        acts.map(|(number, act)| (*number, act.clone())).collect()
    }

    /// The acts of these numbers are done; those wanted again meanwhile have others.
    pub(super) fn settle(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            if let Some(act) = self.acts.remove(&number) {
                self.numbers.remove(&act);
            }
        }
    }

    /// The number of the last act that was owed.
    pub(super) fn last(&self) -> u64 {
        self.next
    }

    /// Whatever was at `key` has been written over: there is nothing to delete any more, unless it
    /// was owed only after the act numbered `last`.
    pub(super) fn forget(&mut self, key: &Key, last: u64) {
        let delete = Act::Delete(key.clone());
        if let Some(number) = self.numbers.get(&delete).copied().filter(|it| *it <= last) {
            self.settle([number]);
        }
    }

    /// The acts of these numbers cannot be done at all: nothing that they were for can be trusted
    /// again, unless it was a clear that its caller could not have had.
    pub(super) fn give_up(&mut self, numbers: &[u64]) {
        let acts = numbers.iter().filter_map(|number| self.acts.get(number));
        let is_clear = |act: &Act| matches!(act, Act::Clear { .. });
        self.lost |= acts.into_iter().any(|act| !is_clear(act));
        self.settle(numbers.iter().copied());
    }

    /// Replaces all acts by clears: of the prefixes of the keys, with the floors of the spaces raised.
    fn widen(&mut self) {
        let (mut scopes, mut spaces) = (BTreeSet::new(), BTreeSet::new());
        self.numbers.clear();
        for act in std::mem::take(&mut self.acts).into_values() {
            match act {
                Act::Delete(key) => match prefix(key.name()) {
                    Some(prefix) => drop(scopes.insert(Box::from(prefix))),
                    None => self.lost = true,
                },
                Act::Raise { space, .. } => drop(spaces.insert(space)),
                Act::Clear { scope, space } | Act::Instead { scope, space } => {
                    scopes.insert(scope);
                    spaces.insert(space);
                }
            }
        }
        if self.lost || scopes.len().max(spaces.len()) > self.most {
            self.lost = true;
            return;
        }
        // Paired as they come: what is cleared once more than needed costs loads.
        let any = |set: &BTreeSet<Box<str>>, otherwise: &str| {
            set.first().cloned().unwrap_or_else(|| otherwise.into())
        };
        let (scope, space) = (any(&scopes, NOTHING), any(&spaces, ""));
        let count = scopes.len().max(spaces.len());
        let mut scopes = scopes.into_iter();
        let mut spaces = spaces.into_iter();
        for _ in 0..count {
            let scope = scopes.next().unwrap_or_else(|| scope.clone());
            let space = spaces.next().unwrap_or_else(|| space.clone());
            self.insert(Act::Instead { scope, space });
        }
    }
}

/// What a clear has to name to take the slot `name` away: its prefix and the colon.
fn prefix(name: &str) -> Option<&str> {
    name.find(':').map(|colon| &name[..=colon])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(name: &str) -> Act {
        Act::Delete(Key::new(name))
    }

    fn raise(space: &str, tag: &str) -> Act {
        let (space, tag) = (space.into(), tag.into());
        Act::Raise { space, tag }
    }

    fn instead(scope: &str, space: &str) -> Act {
        let (scope, space) = (scope.into(), space.into());
        Act::Instead { scope, space }
    }

    fn acts(owed: &Owed) -> Vec<Act> {
        owed.batch().into_iter().map(|(_, act)| act).collect()
    }

    #[test]
    fn an_act_wanted_again_while_it_is_sent_is_owed_again() {
        let mut owed = Owed::new(10);
        owed.add(delete("a:1:k"));
        let sent = owed.batch();

        owed.add(delete("a:1:k"));
        owed.settle(sent.into_iter().map(|(number, _)| number));

        assert_eq!(acts(&owed), [delete("a:1:k")]);
    }

    #[test]
    fn a_value_written_over_needs_no_delete_unless_that_was_wanted_later() {
        let mut owed = Owed::new(10);
        let key = Key::new("a:1:k");
        owed.add(delete("a:1:k"));
        let last = owed.last();

        owed.add(delete("a:1:k"));
        owed.forget(&key, last);
        assert_eq!(acts(&owed), [delete("a:1:k")]);
        owed.forget(&key, owed.last());
        assert!(owed.is_empty());
    }

    #[test]
    fn a_clear_that_the_store_does_not_know_is_dropped_and_one_that_stands_for_more_is_not() {
        let mut owed = Owed::new(1);
        let (scope, space) = ("a:".into(), "".into());
        owed.add(Act::Clear { scope, space });
        owed.give_up(&[owed.last()]);
        assert!(owed.is_empty());

        owed.add(delete("a:1:k"));
        owed.add(delete("a:1:l"));
        owed.give_up(&[owed.last()]);
        assert!(owed.is_lost());
    }

    #[test]
    fn what_does_not_fit_becomes_clears_that_cover_all_of_it() {
        let mut owed = Owed::new(4);
        for act in [
            delete("a:1:k"),
            delete("b:1:k"),
            raise("", "t"),
            raise("other", "t"),
            delete(":1:k"),
        ] {
            owed.add(act);
        }

        let expected = [instead(":", ""), instead("a:", "other"), instead("b:", "")];
        assert_eq!(acts(&owed), expected);
    }

    #[test]
    fn too_many_tags_raise_the_floor_and_clear_nothing() {
        let mut owed = Owed::new(2);
        for tag in ["a", "b", "c"] {
            owed.add(raise("s", tag));
        }

        assert_eq!(acts(&owed), [instead(NOTHING, "s")]);
    }

    #[test]
    fn what_no_clear_can_cover_is_lost_and_never_settled() {
        let mut owed = Owed::new(2);
        for name in ["a", "b", "c"] {
            owed.add(delete(name));
        }
        owed.settle(owed.batch().into_iter().map(|(number, _)| number));

        assert!(owed.is_lost() && !owed.is_empty());
    }
}
