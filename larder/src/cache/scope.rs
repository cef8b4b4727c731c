//! What a load depends on, gathered while it runs.
//!
//! A scope is a task-local: whatever is read from a cache inside a load adds its tags, with the
//! numbers they are good from, to the load's entry. Plain verbs add tags only; fetches add tags
//! and life.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Cache;
use crate::entry::{Tag, Tagged};
use crate::flight::Noted;
use crate::{Key, Moment};

tokio::task_local! {
    static CURRENT: Arc<Scope>;
}

/// The surroundings of one load.
#[derive(Debug)]
pub(crate) struct Scope {
    parent: Option<Arc<Self>>,
    /// Which cache and which keys are being loaded, to notice a load that needs itself.
    cache: usize,
    keys: Vec<Key>,
    /// The tag space whose numbers are noted.
    pub(crate) space: Box<str>,
    /// The numbers noted before the load.
    pub(crate) era: u64,
    pub(crate) seq: u64,
    gathered: Mutex<Gathered>,
}

/// What was read inside a scope.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gathered {
    /// Tags read, each with the smallest number that something made of it is good from.
    pub(crate) tags: BTreeMap<Tag, u64>,
    /// When the first of the values read stops being fresh.
    pub(crate) life: Option<Moment>,
    /// Whether tags of another space, or another era, were among them: then nothing can be kept.
    pub(crate) mixed: bool,
}

#[cfg(feature = "page")]
impl Gathered {
    /// The tags as an entry of the era carries them.
    pub(crate) fn tagged(&self, era: u64) -> Option<Tagged> {
        let good_from = self.tags.iter().map(|(tag, from)| (tag.clone(), *from));
        let good_from: Vec<_> = good_from.collect();
        (!good_from.is_empty()).then_some(Tagged { era, good_from })
    }
}

impl Scope {
    /// A scope for the load of `keys`, inside the present one.
    pub(crate) fn new(cache: &Cache, keys: Vec<Key>, noted: Noted) -> Arc<Self> {
        let Noted { era, seq } = noted;
        let gathered = Mutex::default();
        Arc::new(Self {
            parent: Self::current(),
            cache: cache.identity(),
            space: cache.shared.space.clone(),
            keys,
            era,
            seq,
            gathered,
        })
    }

    /// The scope in which the caller runs, if it runs in a load.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Runs `work` in this scope.
    pub(crate) fn around<F: Future>(self: Arc<Self>, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// Runs `work`, which does not wait for futures, in this scope.
    pub(crate) fn around_now<R>(self: Arc<Self>, work: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(self, work)
    }

    /// Whether the caller is inside a load of `key`.
    pub(crate) fn is_loading(cache: usize, key: &Key) -> bool {
        let scope = Self::current();
        let mut chain = std::iter::successors(scope.as_ref(), |scope| scope.parent.as_ref());
        chain.any(|scope| scope.cache == cache && scope.keys.contains(key))
    }

    /// Adds what was read to the caller's scope, if there is one.
    pub(crate) fn absorb(tagged: Option<&Tagged>, life: Option<Moment>) {
        let _ = CURRENT.try_with(|scope| scope.take_in(tagged, life));
    }

    fn take_in(&self, tagged: Option<&Tagged>, life: Option<Moment>) {
        let mut gathered = self.gathered();
        if let Some(life) = life {
            gathered.life = Some(gathered.life.map_or(life, |known| known.min(life)));
        }
        let Some(tagged) = tagged else { return };
        gathered.mixed |= tagged.era != self.era;
        for (tag, good_from) in &tagged.good_from {
            let known = gathered.tags.entry(tag.clone()).or_insert(*good_from);
            *known = (*known).min(*good_from);
        }
    }

    /// Hands what was read so far on to the scope around this one, for a load whose caller does not
    /// wait for its end.
    #[cfg(feature = "page")]
    pub(crate) fn hand_on(&self, life: Option<Moment>) {
        let Some(parent) = &self.parent else { return };
        let gathered = self.so_far();
        parent.take_in(gathered.tagged(self.era).as_ref(), gathered.life);
        parent.take_in(None, life);
        parent.gathered().mixed |= gathered.mixed;
    }

    /// What was read in this scope so far, which stays in it.
    #[cfg(feature = "page")]
    pub(crate) fn so_far(&self) -> Gathered {
        self.gathered().clone()
    }

    /// Adds tags of the load itself, which are good from when it began.
    pub(crate) fn absorb_own(tags: Vec<Tag>) {
        let _ = CURRENT.try_with(|scope| {
            let mut gathered = scope.gathered();
            for tag in tags {
                let known = gathered.tags.entry(tag).or_insert(scope.seq);
                *known = scope.seq.min(*known);
            }
        });
    }

    /// The same for tags of a value that `cache` could not be asked about. The numbers of another cache's
    /// scope may not be theirs: then nothing is kept of it.
    #[cfg(feature = "fragment")]
    pub(crate) fn absorb_beside(cache: usize, tags: &[Tag]) {
        let is_own = CURRENT.try_with(|scope| scope.cache == cache);
        match is_own {
            Ok(false) if !tags.is_empty() => {
                let _ = CURRENT.try_with(|scope| scope.gathered().mixed = true);
            }
            _ => Self::absorb_own(tags.to_vec()),
        }
    }

    /// What was read in this scope so far.
    pub(crate) fn take(&self) -> Gathered {
        std::mem::take(&mut self.gathered())
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
