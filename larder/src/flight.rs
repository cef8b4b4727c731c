//! One load per key in this process.
//!
//! A flight begins when somebody is about to load a key and ends when it has landed. Whoever wants
//! the same key meanwhile waits for the landing, provided that the slot still holds the flight's
//! lease: a `set` or `delete` takes the lease away, and who comes after it must not be given what
//! was loaded before it.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::cache::{Rule, Rules};
use crate::entry::{Entry, Stamp};
use crate::{Error, Key};

/// One load under way, here or in another process.
pub(crate) struct Flight {
    /// The lease in the slot.
    pub(crate) mark: Stamp,
    /// The numbers noted before the load.
    pub(crate) noted: Noted,
    stage: Mutex<Stage>,
    /// Wakes those who wait in the order in which they came.
    changed: Notify,
}

#[derive(Clone)]
enum Stage {
    /// The lease is being put into the slot.
    Placing,
    Flying,
    Landed(Landing),
}

/// How a flight ended, as its waiters learn it.
#[derive(Clone)]
pub(crate) enum Landing {
    /// With a value that they may have.
    Value(Arc<Landed>),
    /// With something that is not theirs: each loads for itself.
    NotShared,
    /// With an error.
    Failed(Failure),
    /// With nothing to tell: look at the slot again.
    Again,
    /// The store did not take the lease.
    StoreFailed(Error),
    /// Another process did not finish in time.
    TooLong,
}

/// A value loaded, and from when on it is good.
pub(crate) struct Landed {
    pub(crate) entry: Arc<Entry>,
    /// Era and number noted before the load.
    pub(crate) noted: Noted,
    /// Whether a tag of the value had moved when the load ended.
    pub(crate) moved: bool,
    /// The last number given when that was looked at.
    pub(crate) checked: u64,
    /// What a page hands to its waiters besides.
    #[cfg_attr(
        not(feature = "page"),
        expect(dead_code, reason = "only pages hand on more")
    )]
    pub(crate) extra: Option<Arc<dyn Any + Send + Sync>>,
}

impl Landed {
    /// Whether a caller that noted `theirs` before it joined may have this value.
    ///
    /// One that began after an invalidation may not have what was loaded before it; one that began
    /// after the numbers were looked at, or in another era, cannot know, and looks at the slot again.
    pub(crate) fn is_for(&self, theirs: Noted, rules: Rules) -> bool {
        if self.entry.tags.is_none() {
            return true;
        }
        let Noted { era, seq } = self.noted;
        if theirs.era != era && rules.keep(Rule::JoinInOneEra) {
            return false;
        }
        let is_for = theirs.seq <= seq || (!self.moved && theirs.seq <= self.checked);
        is_for || !rules.keep(Rule::StartOver)
    }
}

/// Era and counter of a tag space, as they were before something was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Noted {
    pub(crate) era: u64,
    pub(crate) seq: u64,
}

/// Why a load gave no value.
#[derive(Clone)]
pub(crate) enum Failure {
    /// The load's own error, an `Arc<E>`.
    Load(Arc<dyn Any + Send + Sync>),
    Timeout,
    Panicked,
    /// It failed in another process, a moment ago.
    Elsewhere,
    /// The store failed before it began.
    Store(Error),
}

impl Flight {
    fn new(mark: Stamp, noted: Noted, stage: Stage) -> Arc<Self> {
        Arc::new(Self {
            mark,
            noted,
            stage: Mutex::new(stage),
            changed: Notify::new(),
        })
    }

    /// Says that the lease is in its slot, so that others may join.
    pub(crate) fn placed(&self) {
        *self.stage() = Stage::Flying;
        self.changed.notify_waiters();
    }

    /// Says how it ended; only the first word counts.
    pub(crate) fn land(&self, landing: Landing) {
        {
            let mut stage = self.stage();
            if matches!(*stage, Stage::Landed(_)) {
                return;
            }
            *stage = Stage::Landed(landing);
        }
        self.changed.notify_waiters();
    }

    /// Waits until the lease is in its slot, or will never be.
    pub(crate) async fn until_placed(&self) {
        let is_placed = |stage: &Stage| (!matches!(stage, Stage::Placing)).then_some(());
        self.wait_for(is_placed).await;
    }

    /// Waits until it has landed.
    pub(crate) async fn until_landed(&self) -> Landing {
        let landing = |stage: &Stage| match stage {
            Stage::Landed(landing) => Some(landing.clone()),
            _ => None,
        };
        self.wait_for(landing).await
    }

    async fn wait_for<R>(&self, until: impl Fn(&Stage) -> Option<R>) -> R {
        loop {
            // Listens before it looks, so that no change falls between the two.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = until(&self.stage()) {
                return found;
            }
            changed.await;
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_placing(&self) -> bool {
        matches!(*self.stage(), Stage::Placing)
    }

    fn has_landed(&self) -> bool {
        matches!(*self.stage(), Stage::Landed(_))
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("mark", &self.mark)
            .field("noted", &self.noted)
            .finish_non_exhaustive()
    }
}

/// What a caller does about a key that has to be loaded.
pub(crate) enum Boarding {
    /// Load it, or watch for the process that does.
    Lead(Pilot),
    /// Wait for the landing.
    Join(Arc<Flight>),
    /// Wait until the lease is in its slot, then look again.
    Hold(Arc<Flight>),
    /// Look again: the slot may have been read before this flight's lease was put there.
    Doubt(Stamp),
}

/// The flights of a cache, by key.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    by_key: Mutex<HashMap<Key, Arc<Flight>>>,
    /// How many have not ended, those that nobody finds any more included.
    in_the_air: AtomicUsize,
}

impl Flights {
    /// Finds or makes the flight for `key`, for a caller that has just read its slot.
    ///
    /// `lease` is the lease it saw there, `doubted` the flight that it has doubted already,
    /// `noted` era and number, and `mark` a new mark.
    pub(crate) fn board(
        self: &Arc<Self>,
        key: &Key,
        lease: Option<Stamp>,
        doubted: Option<Stamp>,
        noted: Noted,
        mark: Stamp,
    ) -> Boarding {
        let mut flights = self.lock();
        let place = flights.entry(key.clone());
        if let Place::Occupied(place) = &place {
            let flight = place.get();
            if flight.is_placing() {
                return Boarding::Hold(flight.clone());
            }
            if !flight.has_landed() {
                if lease == Some(flight.mark) {
                    return Boarding::Join(flight.clone());
                }
                if doubted != Some(flight.mark) {
                    return Boarding::Doubt(flight.mark);
                }
            }
        }
        // A lease without a flight is another process's. A flight whose lease is gone goes on for
        // those who joined it before, but nobody finds it any more.
        let (mark, stage) = lease.map_or((mark, Stage::Placing), |lease| (lease, Stage::Flying));
        let flight = Flight::new(mark, noted, stage);
        place.insert_entry(flight.clone());
        self.in_the_air.fetch_add(1, Ordering::Relaxed);
        let flights = Arc::clone(self);
        Boarding::Lead(Pilot {
            flights,
            key: key.clone(),
            flight,
            is_foreign: lease.is_some(),
        })
    }

    /// Whether a load of `key` is under way.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.lock()
            .get(key)
            .is_some_and(|flight| !flight.has_landed())
    }

    /// The lease of the flight to `key`, whatever the slot holds.
    pub(crate) fn mark(&self, key: &Key) -> Option<Stamp> {
        self.lock().get(key).map(|flight| flight.mark)
    }

    /// How many loads are under way.
    pub(crate) fn len(&self) -> usize {
        self.in_the_air.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Flight>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever brings a flight to its end. Dropped in mid-air, it tells the waiters to look again.
#[derive(Debug)]
pub(crate) struct Pilot {
    flights: Arc<Flights>,
    key: Key,
    flight: Arc<Flight>,
    /// Whether another process holds the lease.
    pub(crate) is_foreign: bool,
}

impl Pilot {
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.flight.land(Landing::Again);
        let mut flights = self.flights.lock();
        if let Place::Occupied(place) = flights.entry(self.key.clone())
            && Arc::ptr_eq(place.get(), &self.flight)
        {
            place.remove();
        }
        self.flights.in_the_air.fetch_sub(1, Ordering::Release);
    }
}
