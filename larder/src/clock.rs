//! The one place that asks the time, and beside it the seams for sleeping, spawning and chance.
//!
//! Everything in the crate that waits, runs in the background or draws a number goes through a
//! [`Clock`], so that a test can hold the time still and repeat a schedule from a seed.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::task::{AbortHandle, JoinHandle};

/// A moment: milliseconds since 1970, wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// Before everything; a deadline here has always passed.
    pub const START: Self = Self(0);
    /// A deadline that never passes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `ms` milliseconds after the start of 1970.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the start of 1970.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment plus `span`, rounded up to a millisecond; [`NEVER`](Self::NEVER) past the end of time.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis_up(span)))
    }

    /// How long until this moment, seen from `now`: zero once it has passed, `None` for never.
    pub fn left(self, now: Self) -> Option<Duration> {
        (self != Self::NEVER).then(|| Duration::from_millis(self.0.saturating_sub(now.0)))
    }

    /// This moment for those who speak [`SystemTime`].
    pub fn to_system_time(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0)
    }
}

/// Whole milliseconds, rounded up: a TTL of a microsecond is a TTL of a millisecond, not of nothing.
fn millis_up(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Tells the time, sleeps, spawns and draws numbers.
///
/// ```
/// use std::time::Duration;
/// use larder::Clock;
///
/// let clock = Clock::manual();
/// let before = clock.now();
/// clock.advance(Duration::from_millis(1500));
/// assert_eq!(clock.now().as_millis() - before.as_millis(), 1500);
/// ```
#[derive(Clone, Default)]
pub struct Clock(Kind);

#[derive(Clone, Default)]
enum Kind {
    #[default]
    System,
    Manual(Arc<AtomicU64>),
    Seeded(Arc<Seeded>),
}

struct Seeded {
    start: tokio::time::Instant,
    chance: Arc<Mutex<fastrand::Rng>>,
    process: Process,
}

/// What runs by one seeded clock, so that a simulation can end it all at once.
#[derive(Default)]
struct Process {
    tasks: Mutex<Vec<AbortHandle>>,
    has_crashed: AtomicBool,
}

impl Process {
    fn adopt(&self, task: AbortHandle) {
        if self.has_crashed.load(Ordering::Acquire) {
            task.abort();
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.push(task);
    }
}

/// Where test clocks begin: 14 November 2023, 22:13:20 UTC.
const TEST_START: u64 = 1_700_000_000_000;

impl Clock {
    /// The machine's clock, read without a system call, a few milliseconds coarse.
    pub const fn system() -> Self {
        Self(Kind::System)
    }

    /// A clock that stands still until [`advance`](Self::advance) moves it, for tests.
    pub fn manual() -> Self {
        Self(Kind::Manual(Arc::new(AtomicU64::new(TEST_START))))
    }

    /// A clock that follows tokio's, which a test can pause, and draws every number from `seed`.
    ///
    /// On a paused current-thread runtime two runs with one seed take the same course.
    pub fn seeded(seed: u64) -> Self {
        Self(Kind::Seeded(Arc::new(Seeded {
            start: tokio::time::Instant::now(),
            chance: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
            process: Process::default(),
        })))
    }

    /// A clock of the same time and chance, whose tasks can crash apart from this one's.
    #[cfg(feature = "simulation")]
    pub(crate) fn process(&self) -> Self {
        match &self.0 {
            Kind::Seeded(seeded) => Self(Kind::Seeded(Arc::new(Seeded {
                start: seeded.start,
                chance: Arc::clone(&seeded.chance),
                process: Process::default(),
            }))),
            _ => self.clone(),
        }
    }

    /// Ends every task that was spawned by this clock, and lets no other begin.
    #[cfg(feature = "simulation")]
    pub(crate) fn crash(&self) {
        let Kind::Seeded(seeded) = &self.0 else {
            return;
        };
        let process = &seeded.process;
        process.has_crashed.store(true, Ordering::Release);
        let mut tasks = process.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for task in std::mem::take(&mut *tasks) {
            task.abort();
        }
    }

    /// Whether other threads can tell the time by this clock: a seeded one belongs to its runtime.
    #[cfg(any(feature = "memory", all(feature = "file", unix)))]
    pub(crate) fn is_for_all_threads(&self) -> bool {
        !matches!(self.0, Kind::Seeded(_))
    }

    /// The present moment.
    #[inline]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Kind::System => system_now(),
            Kind::Manual(now) => Moment(now.load(Ordering::Acquire)),
            Kind::Seeded(seeded) => Moment(TEST_START).plus(seeded.start.elapsed()),
        }
    }

    /// Moves a [manual](Self::manual) clock forward; others move by themselves.
    pub fn advance(&self, span: Duration) {
        if let Kind::Manual(now) = &self.0 {
            now.fetch_add(millis_up(span), Ordering::AcqRel);
        }
    }

    /// A random number: from the seed where there is one, else from the operating system's entropy.
    pub fn random(&self) -> u64 {
        match &self.0 {
            Kind::Seeded(seeded) => seeded
                .chance
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .u64(..),
            _ => fastrand::u64(..),
        }
    }

    /// A random part of one: never zero, at most one.
    pub(crate) fn chance(&self) -> f64 {
        let drawn = u32::try_from(self.random() >> 32).unwrap_or(0);
        (f64::from(drawn) + 1.0) / (f64::from(u32::MAX) + 1.0)
    }

    /// `span` give or take a quarter, so that many who wait do not wake together.
    pub(crate) fn jittered(&self, span: Duration) -> Duration {
        let quarter = span / 4;
        let spread = millis_up(quarter).max(1) * 2;
        span.saturating_sub(quarter) + Duration::from_millis(self.random() % spread)
    }

    pub(crate) async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    /// Runs `work` for at most `span`; `None` if it took longer.
    pub(crate) async fn timeout<F: Future>(&self, span: Duration, work: F) -> Option<F::Output> {
        tokio::time::timeout(span, work).await.ok()
    }

    pub(crate) fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = tokio::spawn(work);
        if let Kind::Seeded(seeded) = &self.0 {
            seeded.process.adopt(task.abort_handle());
        }
        task
    }

    /// Runs `work` in the background if there is a runtime to run it; for use in `Drop`.
    pub(crate) fn spawn_if_running<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if tokio::runtime::Handle::try_current().is_ok() {
            drop(self.spawn(work));
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::System => "Clock::system",
            Kind::Manual(_) => "Clock::manual",
            Kind::Seeded(_) => "Clock::seeded",
        })
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn system_now() -> Moment {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let ms = now
        .tv_sec
        .saturating_mul(1000)
        .saturating_add(now.tv_nsec / 1_000_000);
    Moment(u64::try_from(ms).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
fn system_now() -> Moment {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Moment::START.plus(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_microsecond_is_rounded_up_to_a_millisecond() {
        assert_eq!(
            Moment::START.plus(Duration::from_micros(1)),
            Moment::from_millis(1)
        );
    }

    #[test]
    fn never_has_nothing_left_to_count() {
        assert_eq!(Moment::NEVER.left(Moment::START), None);
        assert_eq!(Moment::NEVER.plus(Duration::from_secs(1)), Moment::NEVER);
    }

    #[test]
    fn the_coarse_clock_keeps_step_with_the_fine_one() {
        let fine = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970");
        let coarse = u128::from(Clock::system().now().as_millis());

        assert!(coarse.abs_diff(fine.as_millis()) < 1000);
    }
}
