//! Rendering where the store would have to be waited for.
//!
//! A rendering that cannot wait cannot take a lease before it begins, and what is written without one
//! may be older than an invalidation. So the first such rendering has a note left in the slot behind
//! its back and is not kept; one that begins when the note is known to be there is written, if the
//! note still is. Notes hold nobody up.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Handle;

use super::errors::Shared;
use crate::cache::Noting;
use crate::event::{Bypass, Outcome};
use crate::{Cache, FetchError, Key, Moment, Policy, Ticket};

/// How many keys are thought of at a time; others are rendered and not kept.
const MOST: usize = 1024;
/// How long a note is of use, and how long nobody asks for another.
const NOTE: Duration = Duration::from_secs(30);
/// For how long a key is left alone whose slot had a value, or was somebody else's.
const QUIET: Duration = Duration::from_secs(1);

/// What is known of the slots of a few keys.
#[derive(Default)]
pub(super) struct Unawaited(Mutex<HashMap<(usize, Key), Place>>);

/// A key about which nothing is to be done until then, but to use its note.
struct Place {
    until: Moment,
    note: Option<Ticket>,
}

impl Unawaited {
    fn places(&self) -> MutexGuard<'_, HashMap<(usize, Key), Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a value without waiting; it is written behind the caller's back if that can be done.
    pub(super) fn make<T: Serialize>(
        self: &Arc<Self>,
        cache: &Cache,
        key: &Key,
        policy: &Policy,
        make: impl FnOnce() -> Option<Result<T, Shared>>,
    ) -> Result<T, FetchError<Shared>> {
        cache.hear(key, || Outcome::Bypass(Bypass::NotAwaited));
        let value = match self.take_note(cache, key) {
            None => {
                self.ask(cache, key, policy);
                cache.make_beside(policy, make)
            }
            Some(note) => {
                let (value, gathered) = cache.make_under(&note, policy, make);
                let kept = match &value {
                    Some(Ok(text)) => cache.kept(text, policy),
                    _ => None,
                };
                let (this, place) = (Arc::clone(self), place_of(cache, key));
                let cache = cache.clone();
                cache.clone().spawn_quietly(async move {
                    let written = match kept {
                        Some(kept) => note.fill(kept, gathered).await,
                        None => Ok(false),
                    };
                    cache.tell_health(&written);
                    this.settle(&cache, place, None);
                });
                value
            }
        };
        match value {
            Some(value) => value.map_err(|error| FetchError::Load(Arc::new(error))),
            None => Err(FetchError::Panicked),
        }
    }

    /// The note for `key`, which nobody else gets.
    fn take_note(&self, cache: &Cache, key: &Key) -> Option<Ticket> {
        // Without a runtime nothing could be written.
        Handle::try_current().ok()?;
        let now = cache.now();
        let mut places = self.places();
        let place = places.get_mut(&place_of(cache, key))?;
        if place.until <= now {
            return None;
        }
        let note = place.note.take()?;
        place.until = now.plus(NOTE);
        Some(note)
    }

    /// Lets a note be left in the slot of `key`, unless that was tried a moment ago.
    fn ask(self: &Arc<Self>, cache: &Cache, key: &Key, policy: &Policy) {
        if Handle::try_current().is_err() {
            return;
        }
        let (now, place) = (cache.now(), place_of(cache, key));
        // Dropped when the lock is: a note that is dropped goes to the store.
        let mut over = Vec::new();
        {
            let mut places = self.places();
            if places.get(&place).is_some_and(|place| place.until > now) {
                return;
            }
            if places.len() >= MOST {
                over.extend(places.extract_if(|_, place| place.until <= now));
            }
            if places.len() >= MOST {
                return;
            }
            let until = now.plus(NOTE);
            let old = places.insert(place.clone(), Place { until, note: None });
            over.extend(old.map(|old| (place.clone(), old)));
        }
        drop(over);
        let (this, cache, key) = (Arc::clone(self), cache.clone(), key.clone());
        let tags = policy.tags.clone();
        cache.clone().spawn_quietly(async move {
            let noting = cache.note(&key, &tags).await;
            cache.tell_health(&noting);
            let note = match noting {
                Ok(Noting::Left(note)) => Some(note),
                Ok(Noting::Fresh | Noting::Busy) | Err(_) => None,
            };
            this.settle(&cache, place, note);
        });
    }

    /// Puts what came of a key into its place.
    fn settle(&self, cache: &Cache, place: (usize, Key), note: Option<Ticket>) {
        let span = if note.is_some() { NOTE } else { QUIET };
        let until = cache.now().plus(span);
        let old = self.places().insert(place, Place { until, note });
        drop(old);
    }
}

fn place_of(cache: &Cache, key: &Key) -> (usize, Key) {
    (cache.identity(), key.clone())
}

impl fmt::Debug for Unawaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unawaited")
            .field("keys", &self.places().len())
            .finish()
    }
}
