//! Loading all that is missing at once: one read, one load, one lease for each key.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot::error::RecvError;

use super::Cache;
use super::counts::count;
use super::fetch::within;
use super::lead::caught;
use super::lead_many::{Departure, Loaded, NotPlaced};
use super::load::{FetchError, policy};
use super::look::{For, Look, STALE_LIFE, life};
use super::policy::Policy;
use super::scope::Scope;
use super::write::Boxed;
use crate::entry::{Stamp, State};
use crate::event::{Bypass, Miss, Outcome, Stale};
use crate::flight::{Boarding, Failure, Flight, Landing, Noted};
use crate::{Key, Moment, Ttl};

/// A [`fetch_many`](Cache::fetch_many) to be awaited.
#[must_use = "nothing is read until it is awaited"]
pub struct FetchMany<'a, F, T, E> {
    cache: &'a Cache,
    names: Vec<String>,
    policy: Policy,
    load: F,
    types: PhantomData<fn() -> (T, E)>,
}

/// What is to be done about the keys that are not answered yet.
#[derive(Default)]
struct Plan {
    departures: Vec<Departure>,
    /// Values were served for these, stale or soon to be; they are loaded behind the caller.
    behind: Vec<Departure>,
    joins: Vec<Join>,
    holds: Vec<(String, Arc<Flight>)>,
    /// To be loaded beside the cache, and what was noted before.
    alone: Vec<String>,
    noted: Noted,
    /// To be looked at again.
    again: Vec<String>,
}

/// A key that somebody else is loading.
struct Join {
    name: String,
    flight: Arc<Flight>,
    noted: Noted,
    miss: Miss,
}

/// How far a caller has come with its keys.
struct Approach<'a, T> {
    policy: &'a Arc<Policy>,
    began: Moment,
    rounds: u32,
    doubted: HashMap<String, Stamp>,
    /// Keys for which the store took no lease for now.
    refused: HashSet<String>,
    found: HashMap<String, T>,
    /// Keys with a stale value that may stand in for a load that fails or is slow.
    spares: HashSet<String>,
}

/// How often a caller whose patience is at an end may still be told to look again.
const MOST_ROUNDS: u32 = 8;

impl Cache {
    /// Returns the values at `keys`; `load` is called once with all that are missing, and returns
    /// those it has.
    ///
    /// Every key is loaded under a lease of its own, with all that [`fetch`](Self::fetch) promises;
    /// keys that others are loading are waited for. Where stale values may stand in, they do so for a
    /// whole load or not at all. A key that `load` does not return is not in the
    /// result, and nothing is kept for it. Called again only for keys whose lease another process
    /// lost meanwhile.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::collections::HashMap;
    ///
    /// let cache = larder::Cache::new(larder::store::Memory::new());
    /// cache.set("a", &1).await?;
    /// let load = |missing: Vec<String>| async {
    ///     Ok::<_, std::io::Error>(missing.into_iter().map(|key| (key, 2)).collect())
    /// };
    /// let found: HashMap<String, i32> = cache.fetch_many(["a", "b", "c"], load).await?;
    /// assert_eq!((found["a"], found["b"], found["c"]), (1, 2, 2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn fetch_many<T, E, I, F, Fut>(&self, keys: I, load: F) -> FetchMany<'_, F, T, E>
    where
        I: IntoIterator<Item: Into<String>>,
        F: Fn(Vec<String>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HashMap<String, T>, E>> + Send + 'static,
    {
        let mut names: Vec<String> = keys.into_iter().map(Into::into).collect();
        names.sort_unstable();
        names.dedup();
        FetchMany {
            cache: self,
            names,
            policy: Policy::new(),
            load,
            types: PhantomData,
        }
    }

    async fn run_many<T, E, F, Fut>(
        &self,
        mut pending: Vec<String>,
        policy: &Arc<Policy>,
        load: Arc<F>,
    ) -> Result<HashMap<String, T>, FetchError<E>>
    where
        F: Fn(Vec<String>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HashMap<String, T>, E>> + Send + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + Sync + 'static,
    {
        let clock = &self.shared.clock;
        let mut approach = Approach::new(policy, clock.now());
        while !pending.is_empty() {
            let keys: Vec<Key> = pending.iter().map(|name| self.key(name)).collect();
            let looks = self
                .look_at_many(&keys, &policy.tags, policy.wanted())
                .await
                .map_err(FetchError::Store)?;
            let slots = pending.drain(..).zip(keys).zip(looks);
            let mut plan = self.plan(slots, &mut approach)?;
            if !plan.behind.is_empty() {
                drop(self.depart_many(plan.behind, policy, &load));
            }
            pending.append(&mut plan.again);
            if !plan.departures.is_empty() {
                let left = self.load_many(plan.departures, &mut approach, &load);
                pending.extend(left.await?);
            }
            if !plan.alone.is_empty() {
                self.load_many_alone(plan.alone, plan.noted, &mut approach, &*load)
                    .await?;
            }
            for (name, flight) in plan.holds {
                let patience = approach.patience(clock.now());
                if self.hold(&flight, patience).await {
                    approach.refused.insert(name.clone());
                }
                pending.push(name);
            }
            for join in plan.joins {
                pending.extend(self.join_one(join, &mut approach).await?);
            }
        }
        Ok(approach.found)
    }

    /// Loads what is this caller's to load; the keys to be looked at again.
    async fn load_many<T, E, F, Fut>(
        &self,
        departures: Vec<Departure>,
        approach: &mut Approach<'_, T>,
        load: &Arc<F>,
    ) -> Result<Vec<String>, FetchError<E>>
    where
        F: Fn(Vec<String>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HashMap<String, T>, E>> + Send + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + Sync + 'static,
    {
        let clock = &self.shared.clock;
        let names: Vec<String> = departures.iter().map(|one| one.name.clone()).collect();
        let mut told = self.depart_many(departures, approach.policy, load);
        // It is one load: only where all of it can be stood in for, somebody can go on without it.
        let all_spare = names.iter().all(|name| approach.spares.contains(name));
        if let Some(limit) = approach.soft_limit(clock.now()).filter(|_| all_spare) {
            if let Some(ended) = clock.timeout(limit, &mut told).await {
                return self.loaded(ended, &names, approach).await;
            }
            if self.stand_in_for(&names, approach, Stale::LoadSlow).await {
                return Ok(Vec::new());
            }
        }
        self.loaded(told.await, &names, approach).await
    }

    async fn loaded<T, E>(
        &self,
        ended: Result<Loaded<T>, RecvError>,
        names: &[String],
        approach: &mut Approach<'_, T>,
    ) -> Result<Vec<String>, FetchError<E>>
    where
        T: DeserializeOwned,
        E: Send + Sync + 'static,
    {
        match ended.unwrap_or(Err(Failure::Panicked)) {
            Ok((loaded, NotPlaced { late, refused })) => {
                approach.found.extend(loaded);
                approach.refused.extend(refused.iter().cloned());
                Ok([late, refused].concat())
            }
            // A stale value stands in for a load, not for the store.
            Err(failure @ Failure::Store(_)) => Err(failure.into()),
            Err(failure) => {
                let stands_in = self.stand_in_for(names, approach, Stale::LoadFailed);
                if stands_in.await {
                    Ok(Vec::new())
                } else {
                    Err(failure.into())
                }
            }
        }
    }

    /// Waits for another's load of a key; the key, if it is to be looked at again.
    async fn join_one<T, E>(
        &self,
        join: Join,
        approach: &mut Approach<'_, T>,
    ) -> Result<Option<String>, FetchError<E>>
    where
        T: DeserializeOwned,
        E: Send + Sync + 'static,
    {
        let clock = &self.shared.clock;
        let names = [join.name];
        let has_spare = approach.spares.contains(&names[0]);
        let mut landing = None;
        if let Some(limit) = approach.soft_limit(clock.now()).filter(|_| has_spare) {
            landing = clock.timeout(limit, join.flight.until_landed()).await;
            if landing.is_none() && self.stand_in_for(&names, approach, Stale::LoadSlow).await {
                return Ok(None);
            }
        }
        if landing.is_none() {
            let patience = approach.patience(clock.now());
            landing = clock.timeout(patience, join.flight.until_landed()).await;
        }
        let rules = self.shared.rules;
        let [name] = names;
        match landing {
            Some(Landing::Value(landed)) if landed.is_for(join.noted, rules) => {
                let Some(value) = self.decode(&landed.entry) else {
                    return Ok(Some(name));
                };
                self.hear(&self.key(&name), || Outcome::Joined(join.miss));
                let entry = &landed.entry;
                self.absorb(entry.tags.as_deref(), life(entry.fresh_until));
                approach.found.insert(name, value);
                Ok(None)
            }
            Some(Landing::Failed(failure)) => {
                let names = [name];
                let stands_in = self.stand_in_for(&names, approach, Stale::LoadFailed);
                if stands_in.await {
                    Ok(None)
                } else {
                    Err(failure.into())
                }
            }
            Some(Landing::StoreFailed(error)) => Err(FetchError::Store(error)),
            // What is not shared has left a marker: the next look sends it to `alone`.
            _ => Ok(Some(name)),
        }
    }

    /// Answers `names` by their stale values, read again now: all of them, or none.
    async fn stand_in_for<T: DeserializeOwned>(
        &self,
        names: &[String],
        approach: &mut Approach<'_, T>,
        why: Stale,
    ) -> bool {
        if !names.iter().all(|name| approach.spares.contains(name)) {
            return false;
        }
        let keys: Vec<Key> = names.iter().map(|name| self.key(name)).collect();
        let Ok(looks) = self.look_at_many(&keys, &[], For::Stale).await else {
            return false;
        };
        let (now, span) = (self.shared.clock.now(), approach.policy.if_error);
        let value = |look: &Look| {
            let entry = look.usable(now)?;
            let may = entry.is_live(now) || within(entry, span, now);
            may.then(|| self.decode(entry))?
        };
        let Some(values) = looks.iter().map(value).collect::<Option<Vec<T>>>() else {
            return false;
        };
        for (((name, key), look), value) in names.iter().zip(keys).zip(looks).zip(values) {
            self.hear(&key, || Outcome::Stale(why));
            let tags = look.entry.as_ref().and_then(|entry| entry.tags.as_deref());
            self.absorb(tags, Some(now.plus(STALE_LIFE)));
            approach.found.insert(name.clone(), value);
        }
        true
    }

    /// Loads beside the cache. Nothing is kept of it, but what the caller makes of it may be.
    async fn load_many_alone<T, E, Fut>(
        &self,
        names: Vec<String>,
        noted: Noted,
        approach: &mut Approach<'_, T>,
        load: impl Fn(Vec<String>) -> Fut,
    ) -> Result<(), FetchError<E>>
    where
        Fut: Future<Output = Result<HashMap<String, T>, E>>,
        T: DeserializeOwned,
        E: Send + Sync + 'static,
    {
        let policy = approach.policy;
        let keys = names.iter().map(|name| self.key(name)).collect();
        let scope = Scope::new(self, keys, noted);
        let asked = names.clone();
        let load = caught(scope.clone().around(async { load(asked).await }));
        let loaded = match policy.time_limit {
            None => Some(load.await),
            Some(limit) => self.shared.clock.timeout(limit, load).await,
        };
        let verdict = self.not_kept(noted, policy, Ttl::Default, Vec::new(), scope.take());
        let error = match loaded {
            Some(Some(Ok(loaded))) => {
                self.absorb(verdict.tagged.as_deref(), verdict.life);
                approach.found.extend(loaded);
                return Ok(());
            }
            Some(Some(Err(error))) => FetchError::Load(Arc::new(error)),
            Some(None) => FetchError::Panicked,
            None => FetchError::Timeout,
        };
        let stands_in = self.stand_in_for(&names, approach, Stale::LoadFailed);
        if stands_in.await { Ok(()) } else { Err(error) }
    }

    /// Answers what can be answered from what was read, and sorts the rest.
    fn plan<T, E>(
        &self,
        slots: impl Iterator<Item = ((String, Key), Look)>,
        approach: &mut Approach<'_, T>,
    ) -> Result<Plan, FetchError<E>>
    where
        T: DeserializeOwned,
        E: Send + Sync + 'static,
    {
        let shared = &self.shared;
        let now = shared.clock.now();
        let late = approach.patience(now).is_zero();
        approach.rounds += 1;
        let mut plan = Plan::default();
        for ((name, key), look) in slots {
            let is_behind = match self.answer_from(&look, &name, &key, approach) {
                Answer::Done => continue,
                Answer::Behind => true,
                Answer::None => false,
            };
            if look.state(now) == State::Failed {
                return Err(shared.failures.of(&key, look.stamp()).into());
            }
            let bypass = if Scope::is_loading(self.identity(), &key) {
                tracing::warn!(key = %key, "load_needs_itself");
                Some(Bypass::Cycle)
            } else if look.state(now) == State::Pass {
                Some(Bypass::Passed)
            } else {
                let is_refused = approach.refused.contains(&name) && look.lease(now).is_none();
                let is_over = is_refused || late && approach.rounds > MOST_ROUNDS;
                is_over.then_some(Bypass::WaitedTooLong)
            };
            if let Some(bypass) = bypass {
                self.hear(&key, || Outcome::Bypass(bypass));
                plan.load_alone(name, &look);
                continue;
            }
            let doubt = approach.doubted.get(&name).copied();
            let (lease, mark) = (look.lease(now), Stamp::draw(&shared.clock));
            let boarding = shared.flights.board(&key, lease, doubt, look.noted(), mark);
            match boarding {
                Boarding::Lead(pilot) if !pilot.is_foreign => {
                    let seen = look.stamp();
                    let is_counted = look.is_counted;
                    let departure = Departure {
                        name,
                        pilot,
                        seen,
                        is_counted,
                    };
                    if is_behind {
                        plan.behind.push(departure);
                    } else {
                        self.hear(&key, || Outcome::Miss(look.miss()));
                        plan.departures.push(departure);
                    }
                }
                // Somebody else refreshes what was served stale.
                _ if is_behind => {}
                Boarding::Doubt(mark) => {
                    approach.doubted.insert(name.clone(), mark);
                    plan.again.push(name);
                }
                // Patience is for the loads of others: to load oneself takes none.
                _ if late => {
                    self.hear(&key, || Outcome::Bypass(Bypass::WaitedTooLong));
                    plan.load_alone(name, &look);
                }
                Boarding::Lead(pilot) => {
                    plan.join(name, pilot.flight().clone(), &look);
                    self.watch(pilot, approach.policy.wait);
                }
                Boarding::Join(flight) => plan.join(name, flight, &look),
                Boarding::Hold(flight) => {
                    plan.holds.push((name, flight));
                }
            }
        }
        Ok(plan)
    }

    /// Answers a key by what is in its slot, if that can be.
    fn answer_from<T: DeserializeOwned>(
        &self,
        look: &Look,
        name: &str,
        key: &Key,
        approach: &mut Approach<'_, T>,
    ) -> Answer {
        let (now, policy) = (self.shared.clock.now(), approach.policy);
        approach.spares.remove(name);
        let Some(entry) = look.usable(now) else {
            return Answer::None;
        };
        let Some(value) = self.decode::<T>(entry) else {
            count(&self.shared.counters.unreadable);
            return Answer::None;
        };
        let (state, stale_life) = (look.state(now), Some(now.plus(STALE_LIFE)));
        let (outcome, life, answer) = if entry.is_live(now) {
            let outcome = Outcome::Hit(entry.fresh_until.left(now));
            let is_late = approach.patience(now).is_zero();
            let is_due = !is_late && policy.is_due(entry, &self.shared.clock);
            let busy = state != State::Idle || self.shared.flights.has(key);
            let answer = if is_due && !busy {
                Answer::Behind
            } else {
                Answer::Done
            };
            (outcome, life(entry.fresh_until), answer)
        } else if within(entry, policy.grace, now) {
            let busy = state != State::Idle || self.shared.flights.has(key);
            let answer = if busy { Answer::Done } else { Answer::Behind };
            (Outcome::Stale(Stale::Refreshing), stale_life, answer)
        } else if within(entry, policy.if_error, now) {
            if state != State::Failed {
                approach.spares.insert(name.to_owned());
                return Answer::None;
            }
            (Outcome::Stale(Stale::LoadFailed), stale_life, Answer::Done)
        } else {
            return Answer::None;
        };
        self.hear(key, || outcome);
        self.absorb(entry.tags.as_deref(), life);
        approach.found.insert(name.to_owned(), value);
        answer
    }
}

/// What a slot gave for its key.
enum Answer {
    Done,
    /// A stale value; it is to be loaded behind the caller.
    Behind,
    None,
}

impl Plan {
    fn load_alone(&mut self, name: String, look: &Look) {
        let noted = look.noted();
        // One load for all of them: it is good from the earliest number, in the era of all.
        if self.alone.is_empty() {
            self.noted = noted;
        } else if self.noted.era == noted.era {
            self.noted.seq = self.noted.seq.min(noted.seq);
        } else {
            self.noted = Noted::default();
        }
        self.alone.push(name);
    }

    fn join(&mut self, name: String, flight: Arc<Flight>, look: &Look) {
        let (noted, miss) = (look.noted(), look.miss());
        self.joins.push(Join {
            name,
            flight,
            noted,
            miss,
        });
    }
}

impl<'a, T> Approach<'a, T> {
    fn new(policy: &'a Arc<Policy>, began: Moment) -> Self {
        Self {
            policy,
            began,
            rounds: 0,
            doubted: HashMap::new(),
            refused: HashSet::new(),
            found: HashMap::new(),
            spares: HashSet::new(),
        }
    }

    /// How much longer to wait for others.
    fn patience(&self, now: Moment) -> Duration {
        let end = self.began.plus(self.policy.wait);
        end.left(now).unwrap_or(self.policy.wait)
    }

    /// What is left of the time after which stale values stand in for a slow load.
    fn soft_limit(&self, now: Moment) -> Option<Duration> {
        self.began.plus(self.policy.soft_limit?).left(now)
    }
}

impl<F, T, E> FetchMany<'_, F, T, E> {
    policy!();
}

impl<'a, F, Fut, T, E> IntoFuture for FetchMany<'a, F, T, E>
where
    F: Fn(Vec<String>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<HashMap<String, T>, E>> + Send + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    E: Send + Sync + 'static,
{
    type Output = Result<HashMap<String, T>, FetchError<E>>;
    type IntoFuture = Boxed<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self {
                cache,
                names,
                policy,
                load,
                ..
            } = self;
            cache
                .run_many(names, &Arc::new(policy), Arc::new(load))
                .await
        })
    }
}

impl<F, T, E> fmt::Debug for FetchMany<'_, F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchMany")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}
