//! Writes down what happens in a course, and says which promise it breaks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::plan::{End, FetchPlan, Kind, Near, Plan};
use crate::{ErrorKind, FetchError};

/// How long a failed load is not tried again: the default.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What rounding to milliseconds may add to a bound.
const ROUNDING: Duration = Duration::from_millis(2);

/// How long a lease lasts that nobody renews.
const LEASE: Duration = Duration::from_secs(6);

/// A cached value: where it comes from, and what was read to make it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Value {
    /// The load that made it; none if it was set by hand.
    pub(crate) load: Option<usize>,
    /// The only call that may have it.
    pub(crate) only_for: Option<usize>,
    /// Whether it was loaded with others, whose tags it has as well.
    pub(crate) of_many: bool,
    pub(crate) readings: Vec<Reading>,
}

/// A row as it was read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) row: usize,
    pub(crate) version: u64,
    /// Read for the key itself, not for the inner one.
    pub(crate) is_direct: bool,
    /// Whether the tag of the row came with it.
    pub(crate) is_tagged: bool,
    /// The set by hand that wrote it.
    pub(crate) set: Option<usize>,
    /// Whether that was in a load, after which it was read.
    pub(crate) is_in_load: bool,
}

/// On what an invalidation acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Key(usize),
    Tag,
}

/// An invalidation that was acknowledged.
#[derive(Debug)]
struct Acknowledged {
    on: On,
    /// The process that was told so.
    process: u64,
    row: usize,
    version: u64,
    began: u64,
    tick: u64,
    at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Good,
    Failed,
    Passed,
    /// Dropped: timed out, crashed, or its caller went away.
    Dropped,
}

#[derive(Debug)]
struct LoadRecord {
    key: usize,
    call: Option<usize>,
    ttl: Duration,
    began: Duration,
    /// How, when, and at which tick.
    ended: Option<(Ended, Duration, u64)>,
}

#[derive(Debug)]
struct Call {
    key: usize,
    process: u64,
    began: Duration,
    tick: u64,
    waits_for_one: bool,
    /// A plain get, which may be answered from a near store.
    is_plain: bool,
    ended: Option<Duration>,
    /// When its caller went away.
    dropped: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Judge {
    began: Instant,
    trace: bool,
    /// The longest an act of the store takes.
    slowest: Duration,
    /// Whether acts of the store may fail at all.
    may_fail: bool,
    near: Option<Near>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    tick: u64,
    versions: Vec<u64>,
    acknowledged: Vec<Acknowledged>,
    /// When each set by hand was acknowledged.
    sets: Vec<Option<u64>>,
    loads: Vec<LoadRecord>,
    calls: Vec<Call>,
    /// Key, from, to.
    tickets: Vec<(usize, Duration, Option<Duration>)>,
    breach: Option<String>,
}

/// What a fetch came to.
pub(crate) type Fetched = Result<Value, FetchError<usize>>;

impl Judge {
    pub(crate) fn new(plan: &Plan, near: Option<Near>, trace: bool) -> Self {
        let book = Book {
            versions: vec![0; plan.rows],
            ..Book::default()
        };
        Self {
            began: Instant::now(),
            trace,
            slowest: plan.faults.slowest(),
            may_fail: plan.kind == Kind::Faulty,
            near,
            book: Mutex::new(book),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.tick += 1;
        book
    }

    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>9.3} {}", self.now().as_secs_f64(), what());
        }
    }

    fn blame(&self, book: &mut Book, what: impl FnOnce() -> String) {
        let what = what();
        self.say(|| format!("BREACH: {what}"));
        book.breach.get_or_insert(what);
    }

    /// The rows in their present versions.
    pub(crate) fn read(&self, rows: &[usize], is_tagged: bool, set: Option<usize>) -> Vec<Reading> {
        let book = self.book();
        let reading = |&row: &usize| Reading {
            row,
            version: book.versions[row],
            is_direct: true,
            is_tagged,
            set,
            is_in_load: false,
        };
        rows.iter().map(reading).collect()
    }

    /// Writes rows; who invalidates afterwards says so with [`Self::acknowledge`].
    pub(crate) fn write(&self, rows: &[usize]) {
        let mut book = self.book();
        for row in rows {
            book.versions[*row] += 1;
        }
        self.say(|| format!("rows {rows:?} written, now {:?}", book.versions));
    }

    /// What an invalidation that begins now promises, once it is acknowledged.
    pub(crate) fn begin(&self) -> (u64, Vec<u64>) {
        let book = self.book();
        (book.tick, book.versions.clone())
    }

    pub(crate) fn acknowledge(
        &self,
        (began, versions): (u64, Vec<u64>),
        process: u64,
        on: On,
        rows: &[usize],
    ) {
        let mut book = self.book();
        let (tick, at) = (book.tick, self.now());
        for &row in rows {
            let version = versions[row];
            book.acknowledged.push(Acknowledged {
                on,
                process,
                row,
                version,
                began,
                tick,
                at,
            });
        }
        self.say(|| format!("acknowledged: {on:?} of {rows:?} from {versions:?} on"));
    }

    pub(crate) fn begin_set(&self) -> usize {
        let mut book = self.book();
        book.sets.push(None);
        book.sets.len() - 1
    }

    pub(crate) fn end_set(&self, set: usize) {
        let mut book = self.book();
        book.sets[set] = Some(book.tick);
    }

    pub(crate) fn begin_ticket(&self, key: usize) -> usize {
        let mut book = self.book();
        book.tickets.push((key, self.now(), None));
        book.tickets.len() - 1
    }

    pub(crate) fn end_ticket(&self, ticket: usize) {
        self.book().tickets[ticket].2 = Some(self.now());
    }

    pub(crate) fn begin_load(&self, key: usize, call: Option<usize>, ttl: Duration) -> usize {
        let mut book = self.book();
        book.loads.push(LoadRecord {
            key,
            call,
            ttl,
            began: self.now(),
            ended: None,
        });
        let load = book.loads.len() - 1;
        self.say(|| format!("load {load} of key {key} for call {call:?} begins"));
        load
    }

    /// Only the first word counts.
    pub(crate) fn end_load(&self, load: usize, how: Ended) {
        let mut book = self.book();
        let end = (how, self.now(), book.tick);
        if book.loads[load].ended.is_none() {
            book.loads[load].ended = Some(end);
            self.say(|| format!("load {load} ends: {how:?}"));
        }
    }

    pub(crate) fn loads(&self) -> usize {
        self.book().loads.len()
    }

    pub(crate) fn begin_call(&self, key: usize, what: &str, process: u64) -> usize {
        let mut book = self.book();
        let tick = book.tick;
        book.calls.push(Call {
            key,
            process,
            began: self.now(),
            tick,
            // Who wants many keys waits for all of them.
            waits_for_one: what == "fetch",
            is_plain: what == "get",
            ended: None,
            dropped: None,
        });
        let call = book.calls.len() - 1;
        self.say(|| format!("call {call}: {what} key {key}"));
        call
    }

    /// Judges what a get or a fetch returned.
    pub(crate) fn end_call(
        &self,
        call: usize,
        plan: Option<&FetchPlan>,
        fetched: Option<&Fetched>,
    ) {
        self.say(|| format!("call {call} returns {fetched:?}"));
        let mut book = self.book();
        book.calls[call].ended = Some(self.now());
        match fetched {
            Some(Ok(value)) => self.judge_value(&mut book, call, plan, value),
            Some(Err(error)) => self.judge_error(&mut book, call, error),
            None => {}
        }
    }

    /// The caller of `call` went away, if it has not returned.
    pub(crate) fn drop_call(&self, call: usize) {
        let mut book = self.book();
        book.calls[call].dropped = Some(self.now());
    }

    pub(crate) fn hung(&self, call: usize) {
        let mut book = self.book();
        let began = book.calls[call].began;
        self.blame(&mut book, || format!("call {call} hangs since {began:?}"));
    }

    pub(crate) fn complain(&self, what: String) {
        let mut book = self.book();
        self.blame(&mut book, || what);
    }

    fn judge_value(&self, book: &mut Book, call: usize, plan: Option<&FetchPlan>, value: &Value) {
        let Call {
            key, began, tick, ..
        } = book.calls[call];
        let now = self.now();
        if value.only_for.is_some_and(|only| only != call) {
            self.blame(book, || {
                format!("call {call} was given another's: {value:?}")
            });
        }
        // Who serves an old value in place of a load that failed or is slow looks again first.
        let own = |(_, load): &(usize, &LoadRecord)| load.call == Some(call);
        let own = book.loads.iter().enumerate().rfind(own);
        let own = own.filter(|(number, _)| value.load != Some(*number));
        let mut must_know: (u64, Duration) = (tick, Duration::ZERO);
        let mut looked = began;
        if let Some((_, load)) = own {
            match load.ended {
                Some((Ended::Failed, at, tick)) => (must_know.0, looked) = (tick, at),
                Some(_) => {}
                None => {
                    let limit = plan.and_then(|plan| plan.soft_limit);
                    must_know.1 = limit.map_or(Duration::ZERO, |limit| began + limit);
                }
            }
        }
        looked = looked.max(must_know.1);
        for reading in &value.readings {
            let outdates = |act: &&Acknowledged| {
                let concerns = match act.on {
                    On::Key(of) => reading.is_direct && of == key,
                    On::Tag => reading.is_tagged,
                };
                let is_newer = match reading.set {
                    None => act.version > reading.version,
                    Some(_) if reading.is_in_load && act.on == On::Tag => {
                        act.version > reading.version
                    }
                    Some(set) => book.sets[set].is_some_and(|ended| act.began > ended),
                };
                let is_known = match self.lag(&book.calls[call], act, value) {
                    None => act.tick < must_know.0 || act.at < must_know.1,
                    Some(lag) => act.at + lag <= looked,
                };
                act.row == reading.row && concerns && is_known && is_newer
            };
            if let Some(act) = book.acknowledged.iter().find(outdates) {
                let what = format!("call {call} of key {key} got {value:?}, outdated by {act:?}");
                self.blame(book, || what);
                break;
            }
        }
        self.judge_age(book, call, plan, value, now);
    }

    /// By how much a call may lag behind `act`, where that is bounded and not promised: a near store
    /// does not hear of the keys that other processes write.
    fn lag(&self, call: &Call, act: &Acknowledged, value: &Value) -> Option<Duration> {
        let Near {
            near_for,
            numbers_only,
            is_watched,
        } = self.near?;
        if is_watched {
            // What others do is heard a moment later; what one does oneself holds at once.
            return (act.process != call.process).then_some(near_for + ROUNDING);
        }
        let has_tags = value.of_many || value.readings.iter().any(|reading| reading.is_tagged);
        let is_near = call.is_plain || (numbers_only && has_tags);
        let is_heard = act.on == On::Tag || act.process == call.process;
        (is_near && !is_heard).then_some(near_for + ROUNDING)
    }

    /// A value past its TTL is served as the policy says, and no longer.
    fn judge_age(
        &self,
        book: &mut Book,
        call: usize,
        plan: Option<&FetchPlan>,
        value: &Value,
        now: Duration,
    ) {
        let Call { key, began, .. } = book.calls[call];
        let Some(load) = value.load else { return };
        let load = &book.loads[load];
        let Some((_, ended, _)) = load.ended else {
            return;
        };
        let fresh_until = ended + load.ttl + 4 * self.slowest;
        let (grace, if_error) =
            plan.map_or_else(Default::default, |plan| (plan.grace, plan.if_error));
        if began <= fresh_until + grace {
            return;
        }
        let since = began.saturating_sub(RETRY_AFTER + 4 * self.slowest);
        let failed = [Ended::Failed, Ended::Dropped];
        let excuse = |load: &LoadRecord| {
            let ended = |(how, at, _)| failed.contains(&how) && at >= since;
            load.key == key && load.ended.is_some_and(ended)
        };
        let soft_limit = plan.and_then(|plan| plan.soft_limit);
        let was_slow = soft_limit.is_some_and(|limit| now >= began + limit);
        let is_excused = was_slow || book.loads.iter().any(excuse);
        if began > fresh_until + if_error || !is_excused {
            let what = format!("call {call} was given {value:?}, too old since {fresh_until:?}");
            self.blame(book, || what);
        }
    }

    /// An error is of a load of this key that failed during the call, or a moment before.
    fn judge_error(&self, book: &mut Book, call: usize, error: &FetchError<usize>) {
        let Call { key, began, .. } = book.calls[call];
        let since = began.saturating_sub(RETRY_AFTER + 4 * self.slowest);
        let is_recent = |load: &LoadRecord| {
            let failed = [Ended::Failed, Ended::Dropped];
            let ended = |(how, at, _)| failed.contains(&how) && at >= since;
            load.ended.is_some_and(ended)
        };
        let is_known = |load: &LoadRecord| load.key == key && is_recent(load);
        let is_known = book.loads.iter().any(is_known);
        let may = match error {
            // One of many may bear the name of another that was loaded along with it.
            FetchError::Load(load) => is_known && is_recent(&book.loads[**load]),
            FetchError::Store(error) if error.kind() != ErrorKind::LoadFailed => self.may_fail,
            _ => is_known,
        };
        if !may {
            self.blame(book, || {
                format!("call {call} was told of no load's failure: {error:?}")
            });
        }
    }

    /// An error of many is the error of one of them.
    pub(crate) fn end_with_error(&self, calls: &BTreeMap<usize, usize>, error: &FetchError<usize>) {
        let mut book = self.book();
        let since = |call: usize, book: &Book| {
            book.calls[call]
                .began
                .saturating_sub(RETRY_AFTER + 4 * self.slowest)
        };
        let failed = calls.iter().any(|(key, call)| {
            let since = since(*call, &book);
            book.loads.iter().any(|load| {
                let ended = [Ended::Failed, Ended::Dropped];
                load.key == *key
                    && load
                        .ended
                        .is_some_and(|(how, at, _)| ended.contains(&how) && at >= since)
            })
        });
        let may = match error {
            FetchError::Store(error) if error.kind() != ErrorKind::LoadFailed => self.may_fail,
            _ => failed,
        };
        if !may {
            self.blame(&mut book, || {
                format!("calls {calls:?} were told of no load's failure: {error:?}")
            });
        }
    }

    /// All that happened, to compare.
    pub(crate) fn record(&self) -> String {
        let book = self.book();
        format!("{:?} {:?}", book.calls, book.loads)
    }

    /// What can be judged only when all is over.
    pub(crate) fn verdict(&self, plan: &Plan) -> Option<String> {
        let mut book = self.book();
        if plan.kind == Kind::Calm {
            self.judge_loads(&mut book, plan);
        }
        if plan.kind != Kind::Faulty {
            self.judge_waits(&mut book);
        }
        book.breach.take()
    }

    /// Where nothing goes wrong, there is one load per key and freshness period.
    fn judge_loads(&self, book: &mut Book, plan: &Plan) {
        for key in 0..plan.keys.len() {
            let loads: Vec<&LoadRecord> =
                book.loads.iter().filter(|load| load.key == key).collect();
            let too_early = loads.windows(2).find_map(|pair| {
                let (how, ended, _) = pair[0].ended?;
                let period = match how {
                    // What it is made of may expire earlier.
                    _ if plan.keys[key].inner.is_some() => Duration::ZERO,
                    Ended::Good => pair[0].ttl,
                    Ended::Failed => RETRY_AFTER,
                    Ended::Passed | Ended::Dropped => Duration::ZERO,
                };
                (pair[1].began < ended + period).then(|| format!("a load too many: {pair:?}"))
            });
            if let Some(what) = too_early {
                self.blame(book, || what);
            }
        }
    }

    /// Where nothing is lost, whoever waits waits for a load or a ticket.
    fn judge_waits(&self, book: &mut Book) {
        let slack = 12 * self.slowest + Duration::from_secs(1);
        let end = |ended: Option<Duration>| ended.map_or(Duration::MAX, |at| at + 8 * self.slowest);
        for (number, call) in book.calls.iter().enumerate() {
            let Some(ended) = call.ended.filter(|_| call.waits_for_one) else {
                continue;
            };
            let loads = (book.loads.iter())
                .filter(|load| load.key == call.key)
                .map(|load| (load.began, end(load.ended.map(|(_, at, _)| at))));
            let tickets = (book.tickets.iter())
                .filter(|(key, ..)| *key == call.key)
                .map(|(_, from, to)| (*from, end(*to)));
            // A lease still on its way when its caller goes away may arrive after its release.
            let dropped = book.calls.iter().filter(|other| other.key == call.key);
            let dropped = dropped.filter_map(|other| {
                let dropped = other.dropped.filter(|_| other.ended.is_none())?;
                Some((other.began, dropped + LEASE + 8 * self.slowest))
            });
            let mut spans: Vec<_> = loads.chain(tickets).chain(dropped).collect();
            spans.sort_unstable();
            let (mut idle, mut at) = (Duration::ZERO, call.began);
            for (from, to) in spans {
                idle += from.min(ended).saturating_sub(at);
                at = at.max(to);
            }
            idle += ended.saturating_sub(at);
            if idle > slack {
                let what = format!("call {number} waited {idle:?} for nothing: {call:?}");
                self.blame(book, || what);
                return;
            }
        }
    }
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        match end {
            End::Good => Self::Good,
            End::Fails | End::Panics => Self::Failed,
            End::Passes => Self::Passed,
            End::Never => Self::Dropped,
        }
    }
}
