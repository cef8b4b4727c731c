//! What the near tier hears of the far store, and for how long it trusts what it holds.
//!
//! A copy may be served past its `near_for` while the watch is *current*: the far store has said no
//! longer than `near_for` ago that all which was acknowledged until then has been told. So what is
//! served is never further behind than that, whatever happens to the connection. When it is lost, or
//! messages are, all is forgotten before anything is trusted again.
//!
//! *Numbers of tags* are kept as one state of a tag space: those that were read at another counter are
//! dropped, so that no number is older than the counter beside it. What was asked before a message and
//! answered after it is not kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::AbortHandle;

use super::rules::{NearRule, Rules};
use crate::entry::{State, Tag};
use crate::store::{Ears, News, Numbers, Store, Tags};
use crate::{Clock, ErrorKind, Key, Moment};

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a store is left alone that cannot be watched.
const UNSUPPORTED_PAUSE: Duration = Duration::from_mins(1);
/// Tags whose numbers are kept; past that, they are asked for anew.
const MOST_TAGS: usize = 10_000;

/// The near tier's ears, and the task that holds the connection; it ends with this.
pub(super) struct Watched {
    pub(super) hearing: Arc<Hearing>,
    task: Mutex<Option<AbortHandle>>,
}

impl Watched {
    pub(super) fn new(
        near: Arc<dyn Store>,
        clock: Clock,
        near_for: Duration,
        rules: Rules,
    ) -> Self {
        let hearing = Hearing {
            near,
            clock,
            near_for,
            rules,
            is_covered: AtomicBool::new(false),
            trusted_until: AtomicU64::new(0),
            known: Mutex::default(),
        };
        Self {
            hearing: Arc::new(hearing),
            task: Mutex::default(),
        }
    }

    /// Begins to listen, unless that has begun. A runtime that ends takes its task along.
    pub(super) fn listen(&self, far: &Arc<dyn Store>) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let listening = listen(Arc::clone(far), Arc::clone(&self.hearing));
        let spawned = self.hearing.clock.spawn(listening);
        *task = Some(spawned.abort_handle());
    }

    /// Listens no longer, and trusts nothing.
    pub(super) fn stop(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
        self.hearing.lose();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("is_current", &self.hearing.is_current())
            .finish_non_exhaustive()
    }
}

/// Holds the connection, and makes it again when it is lost.
async fn listen(far: Arc<dyn Store>, hearing: Arc<Hearing>) {
    let Some(watch) = far.watch() else {
        tracing::warn!(store = %far, "store_cannot_be_watched");
        // Until the tier is gone: nothing is to be tried again.
        return std::future::pending().await;
    };
    let clock = &hearing.clock;
    let (mut pause, mut is_news) = (SHORTEST_PAUSE, true);
    loop {
        let pace = (hearing.near_for / 4).max(Duration::from_millis(10));
        let Err(error) = watch.watch(&*hearing, pace).await;
        if hearing.lose() {
            (pause, is_news) = (SHORTEST_PAUSE, true);
        }
        if is_news {
            tracing::warn!(store = %far, %error, "watch_lost");
            is_news = false;
        }
        if error.kind() == ErrorKind::Unsupported {
            pause = UNSUPPORTED_PAUSE;
        }
        clock.sleep(clock.jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What has been heard.
pub(super) struct Hearing {
    near: Arc<dyn Store>,
    clock: Clock,
    near_for: Duration,
    rules: Rules,
    /// Whether all that is held has been read since the watch began, and no message was lost.
    is_covered: AtomicBool,
    trusted_until: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Raised whenever numbers are dropped.
    generation: u64,
    tags: usize,
    spaces: HashMap<Box<str>, Space>,
}

struct Space {
    era: u64,
    seq: u64,
    floor: u64,
    of: HashMap<Tag, Option<u64>>,
}

impl Hearing {
    /// Whether copies may be served for as long as they live.
    pub(super) fn is_current(&self) -> bool {
        if !self.rules.keep(NearRule::TrustWhileHeard) {
            return self.is_covered.load(Ordering::Acquire);
        }
        self.trusted_until.load(Ordering::Acquire) > self.clock.now().as_millis()
    }

    /// The watch is lost; whether there was one.
    fn lose(&self) -> bool {
        if self.rules.keep(NearRule::TrustWhileHeard) {
            self.trusted_until.store(0, Ordering::Release);
            return self.is_covered.swap(false, Ordering::AcqRel);
        }
        self.is_covered.load(Ordering::Acquire)
    }

    /// To be asked before the numbers that are to be kept.
    pub(super) fn generation(&self) -> u64 {
        self.known().generation
    }

    /// The numbers of `tags`, if all of them are known.
    pub(super) fn numbers(&self, tags: Tags<'_>) -> Option<Numbers> {
        let known = self.known();
        let space = known.spaces.get(tags.space)?;
        let of = tags.names.iter().map(|tag| space.of.get(tag).copied());
        Some(Numbers {
            era: space.era,
            seq: space.seq,
            floor: space.floor,
            of: of.collect::<Option<Vec<_>>>()?,
        })
    }

    /// Keeps what the far store said of `tags`, when it was asked in that `generation`.
    pub(super) fn remember(&self, tags: Tags<'_>, numbers: &Numbers, generation: u64) {
        let mut known = self.known();
        let is_late = known.generation != generation;
        // No store gives era 0: that is the answer of who does not know.
        if numbers.era == 0 || is_late && self.rules.keep(NearRule::NumbersInFlight) {
            return;
        }
        if known.tags + tags.names.len() > MOST_TAGS {
            known.spaces.clear();
            known.tags = 0;
        }
        let new = || Space {
            era: numbers.era,
            seq: numbers.seq,
            floor: numbers.floor,
            of: HashMap::new(),
        };
        let space = known.spaces.entry(tags.space.into()).or_insert_with(new);
        let is_same_era = space.era == numbers.era;
        if is_same_era && space.seq > numbers.seq {
            return;
        }
        let is_same = is_same_era && (space.seq, space.floor) == (numbers.seq, numbers.floor);
        let mut dropped = 0;
        if !is_same {
            dropped = space.of.len();
            *space = new();
        }
        let before = space.of.len();
        let of = numbers.of.iter().copied();
        space.of.extend(tags.names.iter().cloned().zip(of));
        let added = space.of.len() - before;
        known.tags = known.tags.saturating_sub(dropped) + added;
    }

    /// Drops the numbers of `space`, those on their way included.
    pub(super) fn forget_numbers(&self, space: &str) {
        let mut known = self.known();
        known.generation += 1;
        let dropped = known.spaces.remove(space).map_or(0, |space| space.of.len());
        known.tags = known.tags.saturating_sub(dropped);
    }

    /// Forgets all that is held; whether the near store could.
    async fn forget(&self) -> bool {
        {
            let mut known = self.known();
            known.generation += 1;
            known.spaces.clear();
            known.tags = 0;
        }
        self.near.clear("", "").await.is_ok()
    }

    /// Drops the copies of `names`, and the marks of those on their way.
    async fn drop_copies(&self, names: Vec<Box<str>>) -> bool {
        let mut keys: Vec<Key> = names.into_iter().map(Key::of_slot).collect();
        if !self.rules.keep(NearRule::UnmarkWhenTold) {
            let Ok(found) = self.near.get(&keys, None).await else {
                return false;
            };
            let now = self.clock.now();
            let mut slots = found.entries.into_iter();
            keys.retain(|_| {
                let slot = slots.next().flatten();
                slot.is_some_and(|slot| slot.state_at(now) == State::Idle)
            });
        }
        self.near.delete(&keys).await.is_ok()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Ears for Hearing {
    async fn hear(&self, news: News) {
        let done = match news {
            News::Changed(_) | News::Scope(_) if !self.rules.keep(NearRule::DropWhenTold) => true,
            News::Changed(names) => self.drop_copies(names).await,
            News::Scope(scope) => self.near.clear(&scope, "").await.is_ok(),
            News::Space(space) => {
                if self.rules.keep(NearRule::ForgetNumbersWhenTold) {
                    self.forget_numbers(&space);
                }
                true
            }
            News::Everything => {
                self.lose();
                let is_kept = self.rules.keep(NearRule::ForgetWhenLost);
                let done = !is_kept || self.forget().await;
                self.is_covered.store(done, Ordering::Release);
                done
            }
            News::Current(moment) => {
                // A near store that could not forget is asked once more.
                if !self.is_covered.load(Ordering::Acquire) {
                    let done = self.forget().await;
                    self.is_covered.store(done, Ordering::Release);
                }
                if self.is_covered.load(Ordering::Acquire) {
                    let until = Moment::plus(moment, self.near_for);
                    self.trusted_until
                        .fetch_max(until.as_millis(), Ordering::AcqRel);
                }
                return;
            }
        };
        if !done {
            // What it does not let go of must not be served.
            self.lose();
        }
    }
}
