//! The engine: read, then serve, or wait for the one load, or be the one who loads.
//!
//! Everything above (typed values, pages) comes through [`Cache::fetch_spawned`] or
//! [`Cache::fetch_inline`]; neither has a lookup, a guard against stampedes or a rule of staleness
//! of its own. `lead.rs` is the other half: what the one who loads does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::Cache;
use super::lead::{Load, Told};
use super::look::{Look, STALE_LIFE, life};
use super::policy::Policy;
use super::rules::Rule;
use super::scope::Scope;
use crate::entry::{Entry, Stamp, State};
use crate::event::{Bypass, Miss, Outcome, Stale};
use crate::flight::{Boarding, Failure, Flight, Landed, Landing, Noted, Pilot};
use crate::{Error, Key, Moment, Result};

/// Says whether an entry is what the caller can use; a typed caller decodes it here.
pub(crate) type Accept<'a> = &'a mut (dyn FnMut(&Entry) -> bool + Send);

/// A value served without a load of one's own.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) entry: Arc<Entry>,
    pub(crate) outcome: Outcome,
    #[cfg_attr(
        not(feature = "page"),
        expect(dead_code, reason = "values need nothing of it but the entry")
    )]
    pub(crate) landed: Option<Arc<Landed>>,
}

impl Served {
    /// What the slot itself holds.
    fn of(entry: &Arc<Entry>, outcome: Outcome) -> Self {
        Self {
            entry: Arc::clone(entry),
            outcome,
            landed: None,
        }
    }
}

impl std::fmt::Debug for Landed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Landed")
            .field("noted", &self.noted)
            .finish_non_exhaustive()
    }
}

/// What a fetch came to.
pub(crate) enum Fetched<L: Load> {
    /// A value from the store, or of another's load; and the load, unless it runs behind it.
    Served(Served, Option<L>),
    /// What the caller's own load gave, kept or not.
    Loaded(L::Out, Miss),
    /// The caller's load failed, or another's did and the caller's did not run.
    Failed(Failure, Miss, Option<L>),
    /// The load is to run beside the cache; nothing of it may be kept or shared.
    Alone(L, Bypass, Noted),
    /// The store failed before the load ran.
    StoreFailed(Error, L),
}

/// What to do next about a key.
enum Step {
    Serve(Served),
    Fail(Failure, Miss),
    Alone(Bypass, Noted),
    Lead(Departure),
    /// Serve this, and load behind it.
    Refresh(Served, Option<Departure>),
}

/// Everything that the one who loads needs.
pub(crate) struct Departure {
    pub(crate) pilot: Pilot,
    /// The stamp that the slot had.
    pub(crate) seen: Option<Stamp>,
    pub(crate) policy: Arc<Policy>,
    /// The value to serve should the load fail, if it is still there then.
    spare: Option<Arc<Entry>>,
    miss: Miss,
    /// Whether the server gives a number to every tag that it is asked for.
    pub(crate) is_counted: bool,
}

/// How far a caller has come with a key.
struct Approach<'a> {
    key: &'a Key,
    policy: &'a Arc<Policy>,
    began: Moment,
    doubted: Option<Stamp>,
    /// How often it was about to load, and was told to look again.
    rounds: u32,
    /// Whether the store took no lease for now.
    is_refused: bool,
    /// Whether a stale value may be refreshed behind the caller's back.
    can_refresh: bool,
    /// Why an entry that the caller cannot use is a miss.
    misfit: Miss,
}

/// How often a caller whose patience is at an end may still be told to look again.
const MOST_ROUNDS: u32 = 8;

impl Approach<'_> {
    /// For how long past its TTL a value may stand in for a load that fails or is slow. Who cannot
    /// refresh behind the caller's back has the grace for it as well.
    fn spare(&self) -> Duration {
        if self.can_refresh {
            self.policy.if_error
        } else {
            self.policy.kept_stale()
        }
    }

    /// What is left of the time after which a stale value stands in for a slow load.
    fn soft_limit(&self, now: Moment) -> Option<Duration> {
        self.began.plus(self.policy.soft_limit?).left(now)
    }

    /// How much longer to wait for others.
    fn patience(&self, now: Moment) -> Duration {
        self.began
            .plus(self.policy.wait)
            .left(now)
            .unwrap_or(self.policy.wait)
    }
}

impl Cache {
    /// Gets `key`, running `load` in a task of its own if it comes to that.
    pub(crate) async fn fetch_spawned<L>(
        &self,
        key: &Key,
        policy: &Arc<Policy>,
        accept: Accept<'_>,
        mut load: L,
    ) -> Fetched<L>
    where
        L: Load + 'static,
        L::Out: 'static,
    {
        if let Some(served) = self.hit_now(key, policy, accept) {
            return self.served(served, Some(load));
        }
        let mut approach = self.approach(key, policy, L::MISFIT, true);
        loop {
            let departure = match self.step(&mut approach, accept).await {
                Err(error) => return Fetched::StoreFailed(error, load),
                Ok(Step::Serve(served)) => return self.served(served, Some(load)),
                Ok(Step::Fail(failure, miss)) => {
                    return Fetched::Failed(failure, miss, Some(load));
                }
                Ok(Step::Alone(why, noted)) => return Fetched::Alone(load, why, noted),
                Ok(Step::Refresh(served, departure)) => {
                    let unused = match departure {
                        None => Some(load),
                        Some(departure) => {
                            drop(self.depart(departure, load));
                            None
                        }
                    };
                    return self.served(served, unused);
                }
                Ok(Step::Lead(departure)) => departure,
            };
            let (spare, miss) = (departure.spare.clone(), departure.miss.clone());
            let told = self.depart(departure, load);
            let limit = approach.soft_limit(self.shared.clock.now());
            let told = match limit.filter(|_| spare.is_some()) {
                None => told.await,
                Some(limit) => {
                    tokio::pin!(told);
                    match self.shared.clock.timeout(limit, &mut told).await {
                        Some(told) => told,
                        None => match self
                            .spare(&approach, accept, spare.as_ref(), Stale::LoadSlow)
                            .await
                        {
                            Some(served) => return self.served(served, None),
                            None => told.await,
                        },
                    }
                }
            };
            match told {
                Ok(Told::NotPlaced(unused)) => load = unused,
                Ok(Told::Refused(unused)) => {
                    approach.is_refused = true;
                    load = unused;
                }
                Ok(told) => return self.told(told, &approach, accept, spare, miss).await,
                // The task died outside of the load: the runtime is shutting down.
                Err(_) => return Fetched::Failed(Failure::Panicked, miss, None),
            }
        }
    }

    /// Gets `key`, running `load` on the caller's own way if it comes to that.
    pub(crate) async fn fetch_inline<L: Load>(
        &self,
        key: &Key,
        policy: &Arc<Policy>,
        accept: Accept<'_>,
        mut load: L,
    ) -> Fetched<L> {
        if let Some(served) = self.hit_now(key, policy, accept) {
            return self.served(served, Some(load));
        }
        let mut approach = self.approach(key, policy, L::MISFIT, false);
        loop {
            let departure = match self.step(&mut approach, accept).await {
                Err(error) => return Fetched::StoreFailed(error, load),
                Ok(Step::Serve(served) | Step::Refresh(served, _)) => {
                    return self.served(served, Some(load));
                }
                Ok(Step::Fail(failure, miss)) => {
                    return Fetched::Failed(failure, miss, Some(load));
                }
                Ok(Step::Alone(why, noted)) => return Fetched::Alone(load, why, noted),
                Ok(Step::Lead(departure)) => departure,
            };
            let (spare, miss) = (departure.spare.clone(), departure.miss.clone());
            match self.lead(departure, load).await {
                Told::NotPlaced(unused) => load = unused,
                Told::Refused(unused) => {
                    approach.is_refused = true;
                    load = unused;
                }
                told => return self.told(told, &approach, accept, spare, miss).await,
            }
        }
    }

    /// A fresh value that can be told without waiting, where nothing else has to be thought of.
    fn hit_now(&self, key: &Key, policy: &Policy, accept: Accept<'_>) -> Option<Served> {
        if policy.is_ever_early() {
            return None;
        }
        let look = self.look_now(key)?;
        let now = self.shared.clock.now();
        let entry = look.live(now).filter(|entry| !entry.copied.0)?;
        let outcome = Outcome::Hit(entry.fresh_until.left(now));
        accept(entry).then(|| Served::of(entry, outcome))
    }

    fn approach<'a>(
        &self,
        key: &'a Key,
        policy: &'a Arc<Policy>,
        misfit: Miss,
        spawned: bool,
    ) -> Approach<'a> {
        Approach {
            key,
            policy,
            began: self.shared.clock.now(),
            doubted: None,
            rounds: 0,
            is_refused: false,
            can_refresh: spawned,
            misfit,
        }
    }

    /// Starts the load in a task of its own; a caller that goes away does not take it along.
    fn depart<L>(&self, departure: Departure, load: L) -> oneshot::Receiver<Told<L>>
    where
        L: Load + 'static,
        L::Out: 'static,
    {
        let (tell, told) = oneshot::channel();
        let cache = self.clone();
        self.spawn_in_scope(async move {
            let _ = tell.send(cache.lead(departure, load).await);
        });
        told
    }

    /// Spawns `work` in the caller's span and scope, which a spawned task has not by itself.
    pub(super) fn spawn_in_scope(&self, work: impl Future<Output = ()> + Send + 'static) {
        let work = work.instrument(tracing::Span::current());
        match Scope::current() {
            Some(scope) => drop(self.shared.clock.spawn(scope.around(work))),
            None => drop(self.shared.clock.spawn(work)),
        }
    }

    /// What the caller gets of its own load.
    async fn told<L: Load>(
        &self,
        told: Told<L>,
        approach: &Approach<'_>,
        accept: Accept<'_>,
        spare: Option<Arc<Entry>>,
        miss: Miss,
    ) -> Fetched<L> {
        match told {
            Told::Loaded(out, tagged, life) => {
                self.absorb(tagged.as_deref(), life);
                Fetched::Loaded(out, miss)
            }
            Told::Failed(failure) => {
                let stale = Stale::LoadFailed;
                match self.spare(approach, accept, spare.as_ref(), stale).await {
                    Some(served) => self.served(served, None),
                    None => Fetched::Failed(failure, miss, None),
                }
            }
            Told::StoreFailed(error, load) => Fetched::StoreFailed(error, load),
            // The callers look again instead. Noted is an era in which nothing can be kept.
            Told::NotPlaced(load) | Told::Refused(load) => {
                Fetched::Alone(load, Bypass::WaitedTooLong, Noted::default())
            }
        }
    }

    /// Hands a served value on to the scope that asked for it.
    fn served<L: Load>(&self, served: Served, unused: Option<L>) -> Fetched<L> {
        let life = match served.outcome {
            Outcome::Stale(_) => Some(self.shared.clock.now().plus(STALE_LIFE)),
            _ => life(served.entry.fresh_until),
        };
        self.absorb(served.entry.tags.as_deref(), life);
        Fetched::Served(served, unused)
    }

    /// Looks at the slot until there is something to do.
    async fn step(&self, approach: &mut Approach<'_>, accept: Accept<'_>) -> Result<Step> {
        let shared = &self.shared;
        let (key, policy) = (approach.key, approach.policy);
        loop {
            let look = self
                .look_before_load(key, &policy.tags, policy.wanted())
                .await?;
            let now = shared.clock.now();
            let usable = look.usable(now).filter(|entry| accept(entry));
            let miss = match usable {
                None if look.usable(now).is_some() => approach.misfit.clone(),
                _ => look.miss(),
            };
            if let Some(entry) = usable.filter(|entry| entry.is_live(now)) {
                let outcome = Outcome::Hit(entry.fresh_until.left(now));
                let served = Served::of(entry, outcome);
                let is_due = approach.can_refresh && policy.is_due(entry, &shared.clock);
                if is_due && look.state(now) == State::Idle && !shared.flights.has(key) {
                    let departure = self.departure(&look, approach, now, miss);
                    return Ok(Step::Refresh(served, departure));
                }
                return Ok(Step::Serve(served));
            }
            if let Some(entry) = usable.filter(|entry| within(entry, policy.grace, now)) {
                let idle = look.state(now) == State::Idle && !shared.flights.has(key);
                let served = Served::of(entry, Outcome::Stale(Stale::Refreshing));
                if !idle {
                    return Ok(Step::Refresh(served, None));
                }
                if approach.can_refresh {
                    let departure = self.departure(&look, approach, now, miss);
                    return Ok(Step::Refresh(served, departure));
                }
            }
            let spare = usable
                .filter(|entry| within(entry, approach.spare(), now))
                .cloned();
            match look.state(now) {
                State::Pass => return Ok(Step::Alone(Bypass::Passed, look.noted())),
                State::Failed => {
                    if let Some(entry) = spare {
                        let served = Served::of(&entry, Outcome::Stale(Stale::LoadFailed));
                        return Ok(Step::Serve(served));
                    }
                    return Ok(Step::Fail(shared.failures.of(key, look.stamp()), miss));
                }
                State::Idle | State::Loading => {}
            }
            if Scope::is_loading(self.identity(), key) {
                tracing::warn!(key = %key, "load_needs_itself");
                return Ok(Step::Alone(Bypass::Cycle, look.noted()));
            }
            // Patience is for the loads of others: to load oneself takes none.
            let is_late = approach.patience(now).is_zero();
            approach.rounds += 1;
            let is_refused = approach.is_refused && look.lease(now).is_none();
            if is_refused || is_late && approach.rounds > MOST_ROUNDS {
                return Ok(Step::Alone(Bypass::WaitedTooLong, look.noted()));
            }
            match self.board(&look, approach, now) {
                Boarding::Doubt(mark) => approach.doubted = Some(mark),
                Boarding::Hold(_) | Boarding::Join(_) if is_late => {
                    return Ok(Step::Alone(Bypass::WaitedTooLong, look.noted()));
                }
                Boarding::Lead(pilot) if pilot.is_foreign && is_late => {
                    return Ok(Step::Alone(Bypass::WaitedTooLong, look.noted()));
                }
                Boarding::Hold(flight) => {
                    approach.is_refused |= self.hold(&flight, approach.patience(now)).await;
                }
                Boarding::Lead(pilot) if !pilot.is_foreign => {
                    let (seen, policy) = (look.stamp(), policy.clone());
                    return Ok(Step::Lead(Departure {
                        pilot,
                        seen,
                        policy,
                        spare,
                        miss,
                        is_counted: look.is_counted,
                    }));
                }
                Boarding::Lead(pilot) => {
                    let flight = pilot.flight().clone();
                    self.watch(pilot, policy.wait);
                    let join = self.join(&flight, &look, approach, accept, spare, miss);
                    if let Some(step) = join.await? {
                        return Ok(step);
                    }
                }
                Boarding::Join(flight) => {
                    let join = self.join(&flight, &look, approach, accept, spare, miss);
                    if let Some(step) = join.await? {
                        return Ok(step);
                    }
                }
            }
        }
    }

    /// Waits until the lease of `flight` is in its slot, or will never be; says whether the store took
    /// none for now.
    pub(super) async fn hold(&self, flight: &Flight, patience: Duration) -> bool {
        let placed = self.shared.clock.timeout(patience, flight.until_placed());
        if placed.await.is_none() {
            return false;
        }
        tokio::select! {
            biased;
            landing = flight.until_landed() => matches!(landing, Landing::TooLong),
            () = std::future::ready(()) => false,
        }
    }

    fn board(&self, look: &Look, approach: &Approach<'_>, now: Moment) -> Boarding {
        let shared = &self.shared;
        let mut lease = look.lease(now);
        if !shared.rules.keep(Rule::JoinUnderLease) {
            lease = shared.flights.mark(approach.key).or(lease);
        }
        let mark = Stamp::draw(&shared.clock);
        shared
            .flights
            .board(approach.key, lease, approach.doubted, look.noted(), mark)
    }

    /// A load of one's own, if nobody else is about to load.
    fn departure(
        &self,
        look: &Look,
        approach: &Approach<'_>,
        now: Moment,
        miss: Miss,
    ) -> Option<Departure> {
        match self.board(look, approach, now) {
            Boarding::Lead(pilot) if !pilot.is_foreign => {
                let policy = approach.policy.clone();
                Some(Departure {
                    pilot,
                    seen: look.stamp(),
                    policy,
                    spare: None,
                    miss,
                    is_counted: look.is_counted,
                })
            }
            _ => None,
        }
    }

    /// Waits for another's load; `None` means to look at the slot again.
    async fn join(
        &self,
        flight: &Arc<Flight>,
        look: &Look,
        approach: &Approach<'_>,
        accept: Accept<'_>,
        spare: Option<Arc<Entry>>,
        miss: Miss,
    ) -> Result<Option<Step>> {
        let clock = &self.shared.clock;
        let mut patience = approach.patience(clock.now());
        if let Some(limit) = approach
            .soft_limit(clock.now())
            .filter(|limit| spare.is_some() && *limit < patience)
        {
            if let Some(landing) = clock.timeout(limit, flight.until_landed()).await {
                return self
                    .landed(landing, look, approach, accept, spare, miss)
                    .await;
            }
            if let Some(served) = self
                .spare(approach, accept, spare.as_ref(), Stale::LoadSlow)
                .await
            {
                return Ok(Some(Step::Serve(served)));
            }
            patience = approach.patience(clock.now());
        }
        match clock.timeout(patience, flight.until_landed()).await {
            None => Ok(Some(Step::Alone(Bypass::WaitedTooLong, look.noted()))),
            Some(landing) => {
                self.landed(landing, look, approach, accept, spare, miss)
                    .await
            }
        }
    }

    async fn landed(
        &self,
        landing: Landing,
        look: &Look,
        approach: &Approach<'_>,
        accept: Accept<'_>,
        spare: Option<Arc<Entry>>,
        miss: Miss,
    ) -> Result<Option<Step>> {
        let step = match landing {
            Landing::Again => return Ok(None),
            Landing::StoreFailed(error) => return Err(error),
            Landing::NotShared => Step::Alone(Bypass::Passed, look.noted()),
            // Somebody with less patience has watched the slot.
            Landing::TooLong if !approach.patience(self.shared.clock.now()).is_zero() => {
                return Ok(None);
            }
            Landing::TooLong => Step::Alone(Bypass::WaitedTooLong, look.noted()),
            Landing::Value(landed) => {
                if !landed.is_for(look.noted(), self.shared.rules) {
                    return Ok(None);
                }
                if !accept(&landed.entry) {
                    // A page learns here which variant it is, and looks elsewhere.
                    return Ok(Some(Step::Alone(Bypass::Passed, look.noted())));
                }
                let outcome = Outcome::Joined(miss);
                let entry = landed.entry.clone();
                Step::Serve(Served {
                    entry,
                    outcome,
                    landed: Some(landed),
                })
            }
            Landing::Failed(failure) => {
                let stale = Stale::LoadFailed;
                match self.spare(approach, accept, spare.as_ref(), stale).await {
                    Some(served) => Step::Serve(served),
                    None => Step::Fail(failure, miss),
                }
            }
        };
        Ok(Some(step))
    }

    /// The stale value in place of a load, if there was one and, read again now, the slot still
    /// holds it.
    async fn spare(
        &self,
        approach: &Approach<'_>,
        accept: Accept<'_>,
        seen: Option<&Arc<Entry>>,
        why: Stale,
    ) -> Option<Served> {
        let seen = seen?;
        if !self.shared.rules.keep(Rule::ReadAgain) {
            accept(seen);
            return Some(Served::of(seen, Outcome::Stale(why)));
        }
        let look = self.look_for_stale(approach.key).await.ok()?;
        let now = self.shared.clock.now();
        let entry = look.usable(now).filter(|entry| accept(entry))?;
        if entry.is_live(now) {
            let outcome = Outcome::Hit(entry.fresh_until.left(now));
            return Some(Served::of(entry, outcome));
        }
        let may = within(entry, approach.spare(), now);
        may.then(|| Served::of(entry, Outcome::Stale(why)))
    }
}

/// Whether `entry` is at most `span` past its TTL.
pub(super) fn within(entry: &Entry, span: Duration, now: Moment) -> bool {
    entry.fresh_until.plus(span) > now && entry.is_within_grace(now)
}
