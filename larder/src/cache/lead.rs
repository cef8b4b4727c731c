//! Being the one who loads: lease, load, check, write, and an end to the lease whatever happens.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Cache;
use super::counts::count;
use super::fetch::Departure;
use super::look::{For, life};
use super::policy::{LEASE, PASS, Policy};
use super::rules::Rule;
use super::scope::{Gathered, Scope};
use crate::entry::{Entry, Mark, Stamp, State, Tag, Tagged, Value, hard_tag};
use crate::event::Miss;
use crate::flight::{Failure, Flight, Landed, Landing, Noted, Pilot};
use crate::store::When;
use crate::{Error, ErrorKind, Key, Moment, Ttl};

/// A load, as the engine sees it.
pub(crate) trait Load: Send + Sized {
    /// What the caller gets.
    type Out: Send;
    /// Why an entry that is there is a miss, if it is not one that such a caller can use.
    const MISFIT: Miss;

    /// Loads. `flight` is there to let waiters go before the end.
    fn run(
        self,
        flight: Arc<Flight>,
    ) -> impl Future<Output = Result<(Self::Out, Keep), Failure>> + Send;
}

/// What is to become of what was loaded.
pub(crate) enum Keep {
    /// It is kept and shared.
    Value(Kept),
    /// It is neither kept nor shared.
    Pass,
    /// The same, and it says nothing of what the next load gives: whoever comes may load at once.
    #[cfg_attr(
        not(feature = "page"),
        expect(dead_code, reason = "values know no load that is one caller's own")
    )]
    Leave,
}

/// A value to keep.
pub(crate) struct Kept {
    pub(crate) value: Value,
    pub(crate) codec: u8,
    pub(crate) ttl: Ttl,
    /// How long it may be served past its TTL.
    pub(crate) grace: Duration,
    pub(crate) tags: Vec<Tag>,
    /// What a page hands to its waiters besides.
    pub(crate) extra: Option<Arc<dyn Any + Send + Sync>>,
}

/// What the one who loads tells its caller.
pub(crate) enum Told<L: Load> {
    /// What was loaded, the tags it depends on, and when the first thing it was made of expires.
    Loaded(L::Out, Option<Arc<Tagged>>, Option<Moment>),
    Failed(Failure),
    /// Somebody else has the lease; the load has not run.
    NotPlaced(L),
    /// Nobody has the lease, and the store takes none for now; the load has not run.
    Refused(L),
    StoreFailed(Error, L),
}

/// What became of a lease that was to be put into its slot.
pub(super) enum Placing {
    Placed,
    /// Somebody else was there first.
    Late,
    /// The store takes none for now, though nobody else has one.
    Refused,
}

/// How long a store is asked again that takes no lease for now, at growing distances from the
/// shortest on.
const LONGEST_REFUSAL: Duration = Duration::from_millis(500);
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// What is known of a load's value at its end.
pub(super) struct Verdict {
    pub(super) tagged: Option<Arc<Tagged>>,
    pub(super) life: Option<Moment>,
}

impl Cache {
    /// Loads under a lease, writes what was loaded if nothing has happened to the key or its tags
    /// meanwhile, and tells the waiters.
    pub(crate) async fn lead<L: Load>(&self, departure: Departure, load: L) -> Told<L> {
        let Departure {
            pilot,
            seen,
            policy,
            is_counted,
            ..
        } = departure;
        let flight = pilot.flight().clone();
        if self.shared.rules.keep(Rule::LeaseBeforeLoad) {
            // Dropped while the answer is outstanding, the lease may be in its slot all the same.
            let release = Release::new(self, &pilot);
            match self.place_patiently(&pilot, seen, &policy).await {
                Ok(Placing::Placed) => flight.placed(),
                Ok(Placing::Late) => {
                    release.disarm();
                    return Told::NotPlaced(load);
                }
                Ok(Placing::Refused) => {
                    release.disarm();
                    return Told::Refused(load);
                }
                Err(error) => {
                    flight.land(Landing::StoreFailed(error.clone()));
                    return Told::StoreFailed(error, load);
                }
            }
            if is_counted {
                self.count_expiries(&policy).await;
            }
            let told = self.load_under_lease(&pilot, &policy, load).await;
            release.disarm();
            return told;
        }
        flight.placed();
        self.load_under_lease(&pilot, &policy, load).await
    }

    /// Has numbers given to what tells an invalidation of the policy's tags from an expiry, where the
    /// server gives one to whoever asks: given after the load, they would look like an invalidation.
    pub(super) async fn count_expiries(&self, policy: &Policy) {
        if policy.wanted() == For::Stale {
            let names: Vec<Tag> = policy.tags.iter().map(hard_tag).collect();
            if let Err(error) = self.numbers(&names).await {
                tracing::debug!(%error, "tags_not_counted");
            }
        }
    }

    /// Puts the lease of `pilot` into its slot.
    ///
    /// A store may refuse it though nobody else has one: a folder does while it is cleared. Then it is
    /// asked again for a moment, by this caller alone: the others of this process hold meanwhile.
    pub(super) async fn place_patiently(
        &self,
        pilot: &Pilot,
        seen: Option<Stamp>,
        policy: &Policy,
    ) -> crate::Result<Placing> {
        let (clock, flight, key) = (&self.shared.clock, pilot.flight(), pilot.key());
        let mut left = policy.wait.clamp(SHORTEST_PAUSE, LONGEST_REFUSAL);
        let mut pause = SHORTEST_PAUSE;
        while !self.place(flight, key, seen).await? {
            let look = self.look(key).await?;
            if look.stamp() != seen || look.lease(clock.now()).is_some() {
                return Ok(Placing::Late);
            }
            if left.is_zero() {
                flight.land(Landing::TooLong);
                return Ok(Placing::Refused);
            }
            let next = clock.jittered(pause).min(left);
            clock.sleep(next).await;
            left -= next;
            pause *= 2;
        }
        Ok(Placing::Placed)
    }

    pub(super) async fn place(
        &self,
        flight: &Flight,
        key: &Key,
        seen: Option<Stamp>,
    ) -> crate::Result<bool> {
        let until = self.shared.clock.now().plus(LEASE);
        let mark = Mark {
            stamp: flight.mark,
            state: State::Loading,
            until,
        };
        self.shared.store.mark(key, seen, mark).await
    }

    async fn load_under_lease<L: Load>(&self, pilot: &Pilot, policy: &Policy, load: L) -> Told<L> {
        let (flight, key) = (pilot.flight(), pilot.key());
        count(&self.shared.counters.loads);
        let scope = Scope::new(self, vec![key.clone()], flight.noted);
        let run = caught(scope.clone().around(load.run(flight.clone())));
        let run = async {
            match policy.time_limit {
                None => Some(run.await),
                Some(limit) => self.shared.clock.timeout(limit, run).await,
            }
        };
        let renewal = self.renew(pilot);
        // Lets the renewal's timer start: a task just spawned sits on this thread, which the load may
        // keep busy.
        tokio::task::yield_now().await;
        let began = self.shared.clock.now();
        let ended = run.await;
        let held = renewal.is_held();
        drop(renewal);
        let failure = match ended {
            Some(Some(Ok((out, keep)))) => {
                let gathered = scope.take();
                let verdict = self.settle(pilot, policy, keep, gathered, held, began);
                let verdict = verdict.await;
                return Told::Loaded(out, verdict.tagged, verdict.life);
            }
            Some(Some(Err(failure))) => failure,
            Some(None) => Failure::Panicked,
            None => Failure::Timeout,
        };
        self.fail(pilot, policy, &failure).await;
        Told::Failed(failure)
    }

    /// Renews the lease of `pilot` until the answer is dropped.
    ///
    /// In a task of its own: a load that keeps its thread busy must not lose its lease by that. On a
    /// runtime with one thread it still does, once it has been busy for as long as a lease lasts.
    pub(super) fn renew(&self, pilot: &Pilot) -> Renewal {
        let held = Arc::new(AtomicBool::new(true));
        let (cache, is_held) = (self.clone(), Arc::clone(&held));
        let (flight, key) = (pilot.flight().clone(), pilot.key().clone());
        let task = self.shared.clock.spawn(async move {
            loop {
                cache.shared.clock.sleep(LEASE / 3).await;
                if !cache.shared.rules.keep(Rule::RenewLease) {
                    continue;
                }
                // An error is no answer: the lease may still be there, and the next write will tell.
                if let Ok(false) = cache.place(&flight, &key, Some(flight.mark)).await {
                    is_held.store(false, Ordering::Release);
                    return;
                }
            }
        });
        Renewal { task, held }
    }

    /// Writes what was loaded, or ends the lease without; then tells the waiters.
    pub(super) async fn settle(
        &self,
        pilot: &Pilot,
        policy: &Policy,
        keep: Keep,
        mut gathered: Gathered,
        held: bool,
        began: Moment,
    ) -> Verdict {
        let (flight, key) = (pilot.flight(), pilot.key());
        if !self.shared.rules.keep(Rule::Inherit) {
            gathered.tags.clear();
        }
        let is_left = matches!(keep, Keep::Leave);
        let kept = match keep {
            Keep::Pass | Keep::Leave => None,
            Keep::Value(_) if gathered.mixed => {
                tracing::warn!(key = %key, "not_kept_since_made_from_another_tag_space");
                None
            }
            Keep::Value(kept) => Some(kept),
        };
        let Some(kept) = kept else {
            if is_left {
                let mark = Some(flight.mark);
                self.end(key, mark, State::Idle, Duration::ZERO).await;
            } else {
                self.pass(key, flight.mark).await;
            }
            flight.land(Landing::NotShared);
            return self.not_kept(flight.noted, policy, Ttl::Default, Vec::new(), gathered);
        };
        let tagged = self
            .good_from(flight, policy, &kept.tags, gathered.tags)
            .await;
        let now = self.shared.clock.now();
        let ttl = kept.ttl.or(policy.ttl).or(self.shared.default_ttl);
        let deadline = self
            .deadline(ttl)
            .min(gathered.life.unwrap_or(Moment::NEVER));
        let extra = kept.extra.clone();
        let mut entry = Entry::new(&self.shared.clock, kept.value)
            .fresh_until(deadline)
            .with_grace(if deadline == Moment::NEVER {
                Duration::ZERO
            } else {
                kept.grace
            })
            .framed();
        entry.codec = kept.codec;
        entry.took = (policy.early > 0.0).then(|| now.left(began).unwrap_or_default());
        if let Some(tagged) = &tagged {
            entry = entry.with_tags(Tagged::clone(tagged));
        }
        let (moved, checked) = self.look_at_tags(flight, tagged.as_deref()).await;
        if moved || !held {
            count(&self.shared.counters.refused);
            self.end(key, Some(flight.mark), State::Idle, Duration::ZERO)
                .await;
        } else if ttl.is_zero() {
            self.pass(key, flight.mark).await;
        } else if deadline <= now {
            // Made of what is over already: those who waited may have it, nobody after them, and the
            // next load is one for all again.
            self.end(key, Some(flight.mark), State::Idle, Duration::ZERO)
                .await;
        } else {
            self.write(flight, key, entry.clone()).await;
        }
        let verdict = Verdict {
            tagged,
            life: life(deadline),
        };
        if ttl.is_zero() {
            flight.land(Landing::NotShared);
        } else {
            let landed = Landed {
                entry: Arc::new(entry),
                noted: flight.noted,
                moved,
                checked,
                extra,
            };
            flight.land(Landing::Value(Arc::new(landed)));
        }
        verdict
    }

    /// What is made of a value that is not kept depends on the same.
    pub(super) fn not_kept(
        &self,
        noted: Noted,
        policy: &Policy,
        ttl: Ttl,
        own: Vec<Tag>,
        gathered: Gathered,
    ) -> Verdict {
        let ttl = ttl.or(policy.ttl).or(self.shared.default_ttl);
        let deadline = ttl
            .deadline(self.shared.clock.now())
            .min(gathered.life.unwrap_or(Moment::NEVER));
        let life = life(deadline);
        if !self.shared.rules.keep(Rule::PassOn) {
            return Verdict { tagged: None, life };
        }
        let mut tags = gathered.tags;
        for tag in policy.tags.iter().cloned().chain(own) {
            let number = tags.entry(tag).or_insert(noted.seq);
            *number = noted.seq.min(*number);
        }
        let tagged = Tagged {
            // Nobody's era, where what was read mixes: then what is made of this mixes as well.
            era: if gathered.mixed {
                !noted.era
            } else {
                noted.era
            },
            good_from: tags.into_iter().collect(),
        };
        let tagged = Some(Arc::new(tagged));
        Verdict { tagged, life }
    }

    /// Per tag, the number that the value is good from: the one noted before the load for its own,
    /// the inner value's for inherited ones, the smaller where both.
    async fn good_from(
        &self,
        flight: &Flight,
        policy: &Policy,
        own: &[Tag],
        mut inherited: BTreeMap<Tag, u64>,
    ) -> Option<Arc<Tagged>> {
        let mut noted = flight.noted.seq;
        if !self.shared.rules.keep(Rule::NoteBeforeLoad) {
            noted = self.numbers(&[]).await.map_or(noted, |numbers| numbers.seq);
        }
        for tag in policy.tags.iter().chain(own) {
            let number = inherited.entry(tag.clone()).or_insert(noted);
            *number = noted.min(*number);
        }
        let tagged = Tagged {
            era: flight.noted.era,
            good_from: inherited.into_iter().collect(),
        };
        (!tagged.good_from.is_empty()).then(|| Arc::new(tagged))
    }

    /// Whether a tag has moved since the load began, and the last number given then. What cannot be
    /// looked at counts as moved.
    async fn look_at_tags(&self, flight: &Flight, tagged: Option<&Tagged>) -> (bool, u64) {
        let Some(tagged) = tagged else {
            return (false, u64::MAX);
        };
        let look = self.shared.rules.keep(Rule::LookAtEnd);
        let names: Vec<Tag> = tagged
            .good_from
            .iter()
            .map(|(tag, _)| tag.clone())
            .collect();
        match self.numbers(&names).await {
            Ok(numbers) => {
                let moved = look && self.judge(&numbers, &names, tagged).is_some();
                let far = self.shared.rules.keep(Rule::KnowHowFar);
                (moved, if far { numbers.seq } else { u64::MAX })
            }
            Err(error) => {
                tracing::debug!(%error, "tags_not_checked");
                (true, flight.noted.seq)
            }
        }
    }

    async fn write(&self, flight: &Flight, key: &Key, entry: Entry) {
        let under_lease = self.shared.rules.keep(Rule::WriteUnderLease);
        let when = if under_lease {
            When::IfStamp(flight.mark)
        } else {
            When::Always
        };
        match self.shared.store.put(key, entry, when).await {
            Ok(true) => {}
            Ok(false) => count(&self.shared.counters.refused),
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                tracing::warn!(%error, key = %key, "too_large_to_keep");
                self.end(key, None, State::Pass, PASS).await;
            }
            // The waiters get the value all the same.
            Err(error) => {
                tracing::debug!(%error, key = %key, "value_not_written");
                self.take_back(key, flight.mark);
            }
        }
    }

    /// Ends the lease `mark` in the background, and tries again where the store does not answer: left
    /// in its slot, it would hold up everybody until it lapses.
    pub(super) fn take_back(&self, key: &Key, mark: Stamp) {
        if !self.shared.rules.keep(Rule::EndLease) {
            return;
        }
        let (cache, key) = (self.clone(), key.clone());
        self.shared.clock.spawn_if_running(async move {
            let clock = &cache.shared.clock;
            for _ in 0..3 {
                let none = Mark {
                    stamp: Stamp::draw(clock),
                    state: State::Idle,
                    until: clock.now(),
                };
                if cache
                    .shared
                    .store
                    .mark(&key, Some(mark), none)
                    .await
                    .is_ok()
                {
                    return;
                }
                clock.sleep(clock.jittered(LEASE / 6)).await;
            }
        });
    }

    pub(super) async fn fail(&self, pilot: &Pilot, policy: &Policy, failure: &Failure) {
        let (flight, key) = (pilot.flight(), pilot.key());
        count(&self.shared.counters.failed_loads);
        let span = policy.retry_after;
        if let Some(stamp) = self.end(key, Some(flight.mark), State::Failed, span).await {
            let until = self.shared.clock.now().plus(span);
            self.shared
                .failures
                .remember(key, stamp, failure.clone(), until);
        }
        if matches!(failure, Failure::Panicked) && !self.shared.rules.keep(Rule::TellWaiters) {
            return std::future::pending().await;
        }
        flight.land(Landing::Failed(failure.clone()));
    }

    /// Ends the lease `seen` by a marker that stands for `span`; the marker's stamp, if it was put.
    pub(super) async fn end(
        &self,
        key: &Key,
        seen: Option<Stamp>,
        state: State,
        span: Duration,
    ) -> Option<Stamp> {
        if !self.shared.rules.keep(Rule::EndLease) {
            return None;
        }
        let clock = &self.shared.clock;
        let mark = Mark {
            stamp: Stamp::draw(clock),
            state,
            until: clock.now().plus(span),
        };
        match self.shared.store.mark(key, seen, mark).await {
            Ok(done) => done.then_some(mark.stamp),
            Err(error) => {
                tracing::debug!(%error, key = %key, "lease_not_ended");
                if let Some(seen) = seen {
                    self.take_back(key, seen);
                }
                None
            }
        }
    }

    /// Ends the lease `seen` by a Pass marker, and drops the value: what is not kept now must not be
    /// served stale either.
    async fn pass(&self, key: &Key, seen: Stamp) {
        if !self.shared.rules.keep(Rule::EndLease) {
            return;
        }
        if let Err(error) = self.put_pass(key, seen).await {
            tracing::debug!(%error, key = %key, "lease_not_ended");
            self.take_back(key, seen);
        }
    }

    /// Writes a Pass marker over value and lease if the slot still has the stamp `seen`; says whether
    /// it did.
    pub(super) async fn put_pass(&self, key: &Key, seen: Stamp) -> crate::Result<bool> {
        let clock = &self.shared.clock;
        let until = clock.now().plus(PASS);
        let mark = Mark {
            stamp: Stamp::draw(clock),
            state: State::Pass,
            until,
        };
        let marker = Entry::bare(mark);
        self.shared
            .store
            .put(key, marker, When::IfStamp(seen))
            .await
    }

    /// Polls the slot for what another process loads.
    pub(super) fn watch(&self, pilot: Pilot, limit: Duration) {
        let cache = self.clone();
        drop(self.shared.clock.spawn(async move {
            let landing = cache.watch_slot(pilot.flight(), pilot.key(), limit).await;
            pilot.flight().land(landing);
        }));
    }

    async fn watch_slot(&self, flight: &Flight, key: &Key, limit: Duration) -> Landing {
        let clock = &self.shared.clock;
        let give_up = clock.now().plus(limit);
        let mut pause = Duration::from_millis(20);
        loop {
            clock.sleep(clock.jittered(pause)).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(250));
            let look = match self.look(key).await {
                Ok(look) => look,
                Err(error) => return Landing::StoreFailed(error),
            };
            let now = clock.now();
            if let Some(entry) = look.live(now) {
                let landed = Landed {
                    entry: entry.clone(),
                    noted: look.noted(),
                    moved: false,
                    checked: look.seq,
                    extra: None,
                };
                return Landing::Value(Arc::new(landed));
            }
            if look.lease(now) != Some(flight.mark) {
                return Landing::Again;
            }
            if now >= give_up {
                return Landing::TooLong;
            }
        }
    }
}

/// A lease that is being renewed.
pub(super) struct Renewal {
    task: JoinHandle<()>,
    held: Arc<AtomicBool>,
}

impl Renewal {
    /// Whether nobody is known to have taken it away.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes a lease back whose holder was dropped in mid-air.
pub(super) struct Release {
    cache: Cache,
    key: Key,
    mark: Stamp,
    armed: AtomicBool,
}

impl Release {
    pub(super) fn new(cache: &Cache, pilot: &Pilot) -> Self {
        let (cache, key, mark) = (cache.clone(), pilot.key().clone(), pilot.flight().mark);
        Self {
            cache,
            key,
            mark,
            armed: AtomicBool::new(true),
        }
    }

    pub(super) fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if self.armed.load(Ordering::Relaxed) {
            self.cache.take_back(&self.key, self.mark);
        }
    }
}

/// The failures of the last moments, so that callers of this process get the load's own error.
#[derive(Default)]
pub(super) struct Failures(Mutex<HashMap<Key, (Stamp, Failure, Moment)>>);

/// Failures remembered before those that are over are dropped.
const MOST_FAILURES: usize = 1024;

impl Failures {
    fn remember(&self, key: &Key, stamp: Stamp, failure: Failure, until: Moment) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MOST_FAILURES {
            let last = failures.values().map(|(_, _, until)| *until).max();
            failures.retain(|_, (_, _, until)| Some(*until) == last);
        }
        failures.insert(key.clone(), (stamp, failure, until));
    }

    /// The failure that the marker `stamp` in the slot of `key` stands for.
    pub(super) fn of(&self, key: &Key, stamp: Option<Stamp>) -> Failure {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(key) {
            Some((known, failure, _)) if Some(*known) == stamp => failure.clone(),
            _ => Failure::Elsewhere,
        }
    }
}

impl std::fmt::Debug for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Failures")
    }
}

/// Runs `work`; `None` if it panicked.
pub(crate) async fn caught<F: Future>(work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        let poll = AssertUnwindSafe(|| work.as_mut().poll(context));
        match std::panic::catch_unwind(poll) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}
