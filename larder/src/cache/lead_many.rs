//! Being the one who loads many keys at once: a lease for each, one load, one write for each.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{Semaphore, oneshot};

use super::Cache;
use super::lead::{Keep, Kept, Placing, Release, Renewal, caught};
use super::policy::Policy;
use super::scope::Scope;
use crate::codec::Encoded;
use crate::entry::Stamp;
use crate::flight::{Failure, Landing, Noted, Pilot};
use crate::{Moment, Ttl};

/// A key that this caller is to load.
pub(super) struct Departure {
    pub(super) name: String,
    pub(super) pilot: Pilot,
    pub(super) seen: Option<Stamp>,
    /// Whether the server gives a number to every tag that it is asked for.
    pub(super) is_counted: bool,
}

/// A key whose lease is in its slot.
struct Placed {
    name: String,
    pilot: Pilot,
    /// Ends the lease if whoever loads is dropped in mid-air.
    release: Release,
    renewal: Renewal,
}

/// How many keys of a batch are on their way at a time: with thousands, the last would be late before the
/// store has come to them.
const SIDE_BY_SIDE: usize = 64;

/// The keys whose lease is not in its slot.
#[derive(Default)]
pub(super) struct NotPlaced {
    /// Somebody else was there first.
    pub(super) late: Vec<String>,
    /// The store takes none for now.
    pub(super) refused: Vec<String>,
}

/// What was loaded, and the keys that were not.
pub(super) type Loaded<T> = Result<(HashMap<String, T>, NotPlaced), Failure>;

impl Cache {
    /// Starts one load for all of `departures`, in a task of its own.
    pub(super) fn depart_many<T, E, F, Fut>(
        &self,
        departures: Vec<Departure>,
        policy: &Arc<Policy>,
        load: &Arc<F>,
    ) -> oneshot::Receiver<Loaded<T>>
    where
        F: Fn(Vec<String>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HashMap<String, T>, E>> + Send + 'static,
        T: Serialize + Send + 'static,
        E: Send + Sync + 'static,
    {
        let (tell, told) = oneshot::channel();
        let (cache, policy, load) = (self.clone(), policy.clone(), load.clone());
        self.spawn_in_scope(async move {
            let _ = tell.send(cache.lead_many(departures, &policy, &*load).await);
        });
        told
    }

    async fn lead_many<T, E, F, Fut>(
        &self,
        departures: Vec<Departure>,
        policy: &Arc<Policy>,
        load: &F,
    ) -> Loaded<T>
    where
        F: Fn(Vec<String>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HashMap<String, T>, E>> + Send + 'static,
        T: Serialize + Send + 'static,
        E: Send + Sync + 'static,
    {
        let is_counted = departures.iter().any(|one| one.is_counted);
        let (placed, not_placed) = self.place_many(departures, policy).await?;
        if placed.is_empty() {
            return Ok((HashMap::new(), not_placed));
        }
        if is_counted {
            self.count_expiries(policy).await;
        }
        let scope = Scope::new(
            self,
            placed.iter().map(|one| one.pilot.key().clone()).collect(),
            earliest(&placed),
        );
        let names = placed.iter().map(|one| one.name.clone()).collect();
        let run = caught(scope.clone().around(async {
            let values = load(names).await?;
            let encoded = self.encode_all(&values);
            Ok::<_, E>((values, encoded))
        }));
        // As for a single load.
        tokio::task::yield_now().await;
        let began = self.shared.clock.now();
        let ended = match policy.time_limit {
            None => Some(run.await),
            Some(limit) => self.shared.clock.timeout(limit, run).await,
        };
        let failure = match ended {
            Some(Some(Ok((values, encoded)))) => {
                self.settle_many(placed, policy, encoded, &scope, began)
                    .await;
                return Ok((values, not_placed));
            }
            Some(Some(Err(error))) => Failure::Load(Arc::new(error)),
            Some(None) => Failure::Panicked,
            None => Failure::Timeout,
        };
        for one in &placed {
            self.fail(&one.pilot, policy, &failure).await;
            one.release.disarm();
        }
        Err(failure)
    }

    fn encode_all<T: Serialize>(&self, values: &HashMap<String, T>) -> HashMap<String, Encoded> {
        let encode = |(name, value): (&String, &T)| match self.coding.encode(value) {
            Ok(encoded) => Some((name.clone(), encoded)),
            Err(error) => {
                tracing::warn!(%error, "not_kept_since_not_encodable");
                None
            }
        };
        values.iter().filter_map(encode).collect()
    }

    /// Puts all leases into their slots, side by side. If the store fails, those that are, or may be,
    /// in their slots are taken back.
    async fn place_many(
        &self,
        departures: Vec<Departure>,
        policy: &Arc<Policy>,
    ) -> Result<(Vec<Placed>, NotPlaced), Failure> {
        let turns = Arc::new(Semaphore::new(SIDE_BY_SIDE));
        let place = |Departure {
                         name, pilot, seen, ..
                     }| {
            let (cache, policy, turns) = (self.clone(), policy.clone(), Arc::clone(&turns));
            self.shared.clock.spawn(async move {
                let _turn = turns.acquire().await;
                let release = Release::new(&cache, &pilot);
                let placed = cache.place_patiently(&pilot, seen, &policy).await;
                (name, pilot, release, placed)
            })
        };
        let placing: Vec<_> = departures.into_iter().map(place).collect();
        let (mut placed, mut not_placed, mut failed) = (Vec::new(), NotPlaced::default(), None);
        for done in placing {
            match done.await {
                Ok((name, pilot, release, Ok(Placing::Placed))) => {
                    pilot.flight().placed();
                    let renewal = self.renew(&pilot);
                    placed.push(Placed {
                        name,
                        pilot,
                        release,
                        renewal,
                    });
                }
                Ok((name, _, release, Ok(Placing::Late))) => {
                    release.disarm();
                    not_placed.late.push(name);
                }
                Ok((name, _, release, Ok(Placing::Refused))) => {
                    release.disarm();
                    not_placed.refused.push(name);
                }
                Ok((_, pilot, _, Err(error))) => {
                    pilot.flight().land(Landing::StoreFailed(error.clone()));
                    failed = Some(Failure::Store(error));
                }
                Err(_) => failed = Some(Failure::Panicked),
            }
        }
        match failed {
            Some(failure) => Err(failure),
            None => Ok((placed, not_placed)),
        }
    }

    /// Writes what was loaded, side by side.
    async fn settle_many(
        &self,
        placed: Vec<Placed>,
        policy: &Arc<Policy>,
        mut encoded: HashMap<String, Encoded>,
        scope: &Scope,
        began: Moment,
    ) {
        let gathered = scope.take();
        let turns = Arc::new(Semaphore::new(SIDE_BY_SIDE));
        let settle = |one: Placed| {
            let keep = encoded.remove(&one.name).map_or(Keep::Pass, |encoded| {
                Keep::Value(Kept {
                    value: encoded.value,
                    codec: encoded.codec,
                    ttl: Ttl::Default,
                    grace: policy.kept_stale(),
                    tags: Vec::new(),
                    extra: None,
                })
            });
            let (cache, policy, gathered) = (self.clone(), policy.clone(), gathered.clone());
            let turns = Arc::clone(&turns);
            self.shared.clock.spawn(async move {
                let _turn = turns.acquire().await;
                let held = one.renewal.is_held();
                drop(one.renewal);
                let verdict = cache
                    .settle(&one.pilot, &policy, keep, gathered, held, began)
                    .await;
                one.release.disarm();
                verdict
            })
        };
        let settling: Vec<_> = placed.into_iter().map(settle).collect();
        for settled in settling {
            if let Ok(verdict) = settled.await {
                self.absorb(verdict.tagged.as_deref(), verdict.life);
            }
        }
    }
}

/// What all of a batch is good from: the smallest number noted, in the era of all, or in nobody's.
fn earliest(placed: &[Placed]) -> Noted {
    let noted = || placed.iter().map(|one| one.pilot.flight().noted);
    let era = noted().next().unwrap_or_default().era;
    let one_era = noted().all(|noted| noted.era == era);
    Noted {
        era: if one_era { era } else { !era },
        seq: noted().map(|noted| noted.seq).min().unwrap_or_default(),
    }
}
