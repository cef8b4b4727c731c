//! Loading all that is missing at once: one read, one load, one lease for each key.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Cache;
use super::lead::{Keep, Kept, caught};
use super::load::{FetchError, policy};
use super::look::{Look, Noted, STALE_LIFE, life};
use super::policy::{LEASE, Policy};
use super::scope::Scope;
use super::write::Boxed;
use crate::codec::Encoded;
use crate::entry::{Entry, Stamp, State};
use crate::event::{Bypass, Miss, Outcome, Stale};
use crate::flight::{Boarding, Failure, Flight, Landing, Pilot};
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

/// A key that this caller is to load.
struct Departure {
    name: String,
    pilot: Pilot,
    seen: Option<Stamp>,
}

/// What is to be done about the keys that are not answered yet.
#[derive(Default)]
struct Plan {
    departures: Vec<Departure>,
    /// Values were served for these, stale or soon to be; they are loaded behind the caller.
    behind: Vec<Departure>,
    joins: Vec<(String, Arc<Flight>, u64, Miss)>,
    holds: Vec<Arc<Flight>>,
    /// To be loaded beside the cache, and what was noted before.
    alone: Vec<String>,
    noted: Noted,
    /// To be looked at again.
    again: Vec<String>,
}

impl Cache {
    /// Returns the values at `keys`; `load` is called once with all that are missing, and returns
    /// those it has.
    ///
    /// Every key is loaded under a lease of its own, with all that [`fetch`](Self::fetch) promises;
    /// keys that others are loading are waited for. A key that `load` does not return is not in the
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
        let give_up = clock.now().plus(policy.wait);
        let mut found = HashMap::new();
        let mut doubted = HashMap::new();
        while !pending.is_empty() {
            let keys: Vec<Key> = pending.iter().map(|name| self.key(name)).collect();
            let looks = self.look_at_many(&keys).await.map_err(FetchError::Store)?;
            let late = clock.now() >= give_up;
            let slots = pending.drain(..).zip(keys).zip(looks);
            let mut plan = self.plan(slots, policy, late, &mut found, &mut doubted)?;
            if !plan.behind.is_empty() {
                drop(self.depart_many(plan.behind, policy, &load));
            }
            pending.append(&mut plan.again);
            if !plan.departures.is_empty() {
                let told = self.depart_many(plan.departures, policy, &load);
                let (loaded, not_placed) = told
                    .await
                    .unwrap_or(Err(Failure::Panicked))
                    .map_err(FetchError::from)?;
                found.extend(loaded);
                pending.extend(not_placed);
            }
            if !plan.alone.is_empty() {
                let loaded = self.load_many_alone(plan.alone, plan.noted, policy, &*load);
                let loaded = loaded.await.ok_or(FetchError::Timeout)?;
                found.extend(loaded.map_err(|error| FetchError::Load(Arc::new(error)))?);
            }
            for flight in plan.holds {
                let patience = give_up.left(clock.now()).unwrap_or_default();
                let _ = clock.timeout(patience, flight.until_placed()).await;
            }
            for (name, flight, noted, miss) in plan.joins {
                let patience = give_up.left(clock.now()).unwrap_or_default();
                match clock.timeout(patience, flight.until_landed()).await {
                    Some(Landing::Value(landed)) if landed.is_for(noted) => {
                        let Some(value) = self.decode(&landed.entry) else {
                            pending.push(name);
                            continue;
                        };
                        self.hear(&self.key(&name), || Outcome::Joined(miss));
                        self.absorb(landed.entry.tags.as_deref(), life(landed.entry.fresh_until));
                        found.insert(name, value);
                    }
                    Some(Landing::Failed(failure)) => return Err(failure.into()),
                    Some(Landing::StoreFailed(error)) => return Err(FetchError::Store(error)),
                    // What is not shared has left a marker: the next look sends it to `alone`.
                    _ => pending.push(name),
                }
            }
        }
        Ok(found)
    }

    /// Loads beside the cache. Nothing is kept of it, but what the caller makes of it may be.
    async fn load_many_alone<R, Fut>(
        &self,
        names: Vec<String>,
        noted: Noted,
        policy: &Policy,
        load: impl Fn(Vec<String>) -> Fut,
    ) -> Option<R>
    where
        Fut: Future<Output = R>,
    {
        let first = names.first().map(|name| self.key(name))?;
        let scope = Scope::new(self, first, noted.era, noted.seq);
        let load = scope.clone().around(async { load(names).await });
        let limit = policy.time_limit.unwrap_or(Duration::MAX);
        let loaded = self.shared.clock.timeout(limit, load).await;
        let verdict = self.not_kept(noted, policy, Ttl::Default, Vec::new(), scope.take());
        self.absorb(verdict.tagged.as_deref(), verdict.life);
        loaded
    }

    /// Answers what can be answered from what was read, and sorts the rest.
    fn plan<T, E>(
        &self,
        slots: impl Iterator<Item = ((String, Key), Look)>,
        policy: &Policy,
        late: bool,
        found: &mut HashMap<String, T>,
        doubted: &mut HashMap<String, Stamp>,
    ) -> Result<Plan, FetchError<E>>
    where
        T: DeserializeOwned,
        E: Send + Sync + 'static,
    {
        let shared = &self.shared;
        let now = shared.clock.now();
        let mut plan = Plan::default();
        for ((name, key), look) in slots {
            let value = look
                .usable(now)
                .and_then(|entry| Some((entry, self.decode::<T>(entry)?)));
            let state = look.state(now);
            let is_behind = match value {
                Some((entry, value)) if entry.is_live(now) => {
                    self.hear(&key, || Outcome::Hit(entry.fresh_until.left(now)));
                    self.absorb(entry.tags.as_deref(), life(entry.fresh_until));
                    let is_due = !late && policy.is_due(entry, &shared.clock);
                    if !is_due || state != State::Idle || shared.flights.has(&key) {
                        found.insert(name, value);
                        continue;
                    }
                    found.insert(name.clone(), value);
                    true
                }
                Some((entry, value)) if is_in_grace(entry, policy, now) => {
                    self.hear(&key, || Outcome::Stale(Stale::Refreshing));
                    self.absorb(entry.tags.as_deref(), Some(now.plus(STALE_LIFE)));
                    found.insert(name.clone(), value);
                    if state != State::Idle || shared.flights.has(&key) {
                        continue;
                    }
                    true
                }
                _ => false,
            };
            if state == State::Failed {
                return Err(shared.failures.of(&key, look.stamp()).into());
            }
            let cycle = Scope::is_loading(self.identity(), &key);
            if state == State::Pass || late || cycle {
                self.hear(&key, || Outcome::Bypass(Bypass::Passed));
                plan.noted = look.noted();
                plan.alone.push(name);
                continue;
            }
            let noted = (look.era, look.seq);
            let doubt = doubted.get(&name).copied();
            let mark = Stamp::draw(&shared.clock);
            match shared
                .flights
                .board(&key, look.lease(now), doubt, noted, mark)
            {
                // Somebody else refreshes what was served.
                Boarding::Join(_) | Boarding::Hold(_) | Boarding::Doubt(_) if is_behind => {}
                Boarding::Lead(pilot) if pilot.is_foreign => {
                    plan.joins
                        .push((name, pilot.flight().clone(), look.seq, look.miss()));
                    self.watch(pilot, policy.wait);
                }
                Boarding::Lead(pilot) => {
                    let seen = look.stamp();
                    let departure = Departure { name, pilot, seen };
                    if is_behind {
                        plan.behind.push(departure);
                    } else {
                        self.hear(&key, || Outcome::Miss(look.miss()));
                        plan.departures.push(departure);
                    }
                }
                Boarding::Join(flight) => plan.joins.push((name, flight, look.seq, look.miss())),
                Boarding::Hold(flight) => {
                    plan.holds.push(flight);
                    plan.again.push(name);
                }
                Boarding::Doubt(mark) => {
                    doubted.insert(name.clone(), mark);
                    plan.again.push(name);
                }
            }
        }
        Ok(plan)
    }

    /// Starts one load for all of `departures`, in a task of its own.
    fn depart_many<T, E, F, Fut>(
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
        let (placed, not_placed) = self.place_many(departures).await?;
        let Some((_, first)) = placed.first() else {
            return Ok((HashMap::new(), not_placed));
        };
        let seq = placed
            .iter()
            .map(|(_, pilot)| pilot.flight().seq)
            .min()
            .unwrap_or_default();
        let scope = Scope::new(self, first.key().clone(), first.flight().era, seq);
        let names = placed.iter().map(|(name, _)| name.clone()).collect();
        let run = caught(scope.clone().around(async { load(names).await }));
        let limit = policy.time_limit.unwrap_or(Duration::MAX);
        let began = self.shared.clock.now();
        let ended = tokio::select! {
            biased;
            ended = self.shared.clock.timeout(limit, run) => ended,
            () = self.renew_many(&placed) => unreachable!("renewing has no end of its own"),
        };
        let failure = match ended {
            Some(Some(Ok(values))) => {
                let encode = |(name, value): (&String, &T)| {
                    Some((name.clone(), self.shared.coding.encode(value).ok()?))
                };
                let encoded = values.iter().filter_map(encode).collect();
                self.settle_many(placed, policy, encoded, &scope, began)
                    .await;
                return Ok((values, not_placed));
            }
            Some(Some(Err(error))) => Failure::Load(Arc::new(error)),
            Some(None) => Failure::Panicked,
            None => Failure::Timeout,
        };
        for (_, pilot) in &placed {
            self.fail(pilot, policy, &failure).await;
        }
        Err(failure)
    }

    /// Puts all leases into their slots, side by side. If the store fails, those that are in their
    /// slots are ended again.
    async fn place_many(&self, departures: Vec<Departure>) -> Result<Placed, Failure> {
        let mut placing = JoinSet::new();
        for Departure { name, pilot, seen } in departures {
            let cache = self.clone();
            placing.spawn(async move {
                let placed = cache.place(pilot.flight(), pilot.key(), seen).await;
                (name, pilot, placed)
            });
        }
        let (mut placed, mut not_placed, mut failed) = (Vec::new(), Vec::new(), None);
        while let Some(done) = placing.join_next().await {
            match done {
                Ok((name, pilot, Ok(true))) => {
                    pilot.flight().placed();
                    placed.push((name, pilot));
                }
                Ok((name, _, Ok(false))) => not_placed.push(name),
                Ok((_, pilot, Err(error))) => {
                    pilot.flight().land(Landing::StoreFailed(error.clone()));
                    failed = Some(Failure::Store(error));
                }
                Err(_) => failed = Some(Failure::Panicked),
            }
        }
        let Some(failure) = failed else {
            return Ok((placed, not_placed));
        };
        for (_, pilot) in &placed {
            let mark = Some(pilot.flight().mark);
            self.end(pilot.key(), mark, State::Idle, Duration::ZERO)
                .await;
        }
        Err(failure)
    }

    async fn renew_many(&self, placed: &[(String, Pilot)]) {
        loop {
            self.shared.clock.sleep(LEASE / 3).await;
            for (_, pilot) in placed {
                // A lease that is lost shows when the value is written.
                let _ = self
                    .place(pilot.flight(), pilot.key(), Some(pilot.flight().mark))
                    .await;
            }
        }
    }

    async fn settle_many(
        &self,
        placed: Vec<(String, Pilot)>,
        policy: &Arc<Policy>,
        mut encoded: HashMap<String, Encoded>,
        scope: &Scope,
        began: Moment,
    ) {
        let gathered = scope.take();
        let mut settling = JoinSet::new();
        for (name, pilot) in placed {
            let keep = encoded
                .remove(&name)
                .map_or(Keep::Pass, |Encoded { value, codec }| {
                    Keep::Value(Kept {
                        value,
                        codec,
                        ttl: Ttl::Default,
                        grace: policy.kept_stale(),
                        tags: Vec::new(),
                        extra: None,
                    })
                });
            let (cache, policy, gathered) = (self.clone(), policy.clone(), gathered.clone());
            settling.spawn(async move {
                cache
                    .settle(&pilot, &policy, keep, gathered, true, began)
                    .await
            });
        }
        while let Some(verdict) = settling.join_next().await {
            if let Ok(verdict) = verdict {
                self.absorb(verdict.tagged.as_deref(), verdict.life);
            }
        }
    }
}

/// The keys whose lease is in its slot, and those whose lease somebody else has.
type Placed = (Vec<(String, Pilot)>, Vec<String>);

/// What was loaded, and the keys whose lease somebody else has.
type Loaded<T> = Result<(HashMap<String, T>, Vec<String>), Failure>;

fn is_in_grace(entry: &Entry, policy: &Policy, now: Moment) -> bool {
    entry.fresh_until.plus(policy.grace) > now
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
