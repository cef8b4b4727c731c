//! The rules of the near tier that a simulation can break on purpose, one at a time.

#[cfg(feature = "simulation")]
use std::collections::HashMap;
#[cfg(feature = "simulation")]
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::{Numbers, Tags};

/// A rule whose breach lets an old value through the near store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    not(feature = "simulation"),
    expect(
        unreachable_pub,
        reason = "public in a simulation, where it can be broken"
    )
)]
#[non_exhaustive]
pub enum NearRule {
    /// The near slot is marked before the far store is asked, and filled under the mark.
    MarkBeforeTheQuestion,
    /// The near slot is dropped after the far store has taken a write.
    DropAfterTheWrite,
    /// The numbers of tags are asked of the far store after the entry, however near that is.
    AskForNumbers,
    /// Copies are served past `near_for` only while the watch is current.
    TrustWhileHeard,
    /// All is forgotten when the watch was lost, before it is trusted again.
    ForgetWhenLost,
    /// A copy is dropped when its slot is told to have changed.
    DropWhenTold,
    /// So is the mark of a refill.
    UnmarkWhenTold,
    /// Numbers are dropped when those of their space are told to have changed.
    ForgetNumbersWhenTold,
    /// Numbers that were asked for before a change was told are not kept.
    NumbersInFlight,
    /// Numbers are dropped when this process raises them.
    ForgetOwnNumbers,
}

/// The rules that are in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    #[cfg(feature = "simulation")]
    broken: Option<NearRule>,
    #[cfg(feature = "simulation")]
    numbers: Arc<Mutex<HashMap<Vec<crate::Tag>, Numbers>>>,
}

#[cfg(feature = "simulation")]
impl Rules {
    pub(super) fn broken(rule: NearRule) -> Self {
        Self {
            broken: Some(rule),
            ..Self::default()
        }
    }

    /// Whether `rule` is kept.
    pub(super) fn keep(&self, rule: NearRule) -> bool {
        self.broken != Some(rule)
    }

    /// Keeps the numbers of `tags` for [`remembered`](Self::remembered).
    pub(super) fn remember(&self, tags: Option<Tags<'_>>, numbers: Option<&Numbers>) {
        if let (Some(tags), Some(numbers)) = (tags, numbers)
            && !self.keep(NearRule::AskForNumbers)
        {
            let mut kept = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            kept.insert(tags.names.to_vec(), numbers.clone());
        }
    }

    /// The numbers of `tags` as they were before the entry was read.
    pub(super) fn remembered(&self, tags: Option<Tags<'_>>) -> Option<Numbers> {
        let kept = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(tags?.names).cloned()
    }
}

#[cfg(not(feature = "simulation"))]
#[expect(
    clippy::unused_self,
    reason = "asked the same way with and without a simulation"
)]
impl Rules {
    /// Whether `rule` is kept: always.
    pub(super) const fn keep(&self, _: NearRule) -> bool {
        true
    }

    pub(super) const fn remember(&self, _: Option<Tags<'_>>, _: Option<&Numbers>) {}

    pub(super) const fn remembered(&self, _: Option<Tags<'_>>) -> Option<Numbers> {
        None
    }
}
