//! Thousands of courses, one for each seed, and what is wrong in them.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use super::{Remote, world};
use crate::Rule;
use crate::store::Store;
use crate::wrap::NearRule;

/// How many courses are run unless told otherwise.
const SEEDS: u64 = 10_000;

type Wrap = Arc<dyn Fn(Remote) -> Arc<dyn Store> + Send + Sync>;

/// What a course is run over, and which rule is broken in it.
#[derive(Clone)]
pub(super) enum Setup {
    /// Each process asks the server.
    Plain(Option<Rule>),
    /// Each process has a near store before the server.
    Near(Option<NearRule>),
    /// And that hears of what changes at the server.
    Watched(Option<NearRule>),
    /// Each process goes on without the server, with a near store before that or without.
    Forgiving,
    /// Each process asks a store of the user's own, which asks the server.
    Own(Wrap),
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with =
            |f: &mut fmt::Formatter<'_>, name: &str, rule: Option<&dyn fmt::Debug>| match rule {
                Some(rule) => write!(f, "{name} without {rule:?}"),
                None => f.write_str(name),
            };
        match self {
            Self::Plain(rule) => with(f, "plain", rule.as_ref().map(|rule| rule as _)),
            Self::Near(rule) => with(f, "near", rule.as_ref().map(|rule| rule as _)),
            Self::Watched(rule) => with(f, "watched", rule.as_ref().map(|rule| rule as _)),
            Self::Forgiving => f.write_str("forgiving"),
            Self::Own(_) => f.write_str("own"),
        }
    }
}

/// The engine in thousands of courses: processes that fetch, set, delete, invalidate and crash, over one
/// server that delays, loses and forgets. Each course is drawn from its seed and is the same every time.
///
/// Checked in each course:
///
/// - nothing older than an acknowledged invalidation is served, or, from near stores, no longer after it than
///   they say;
/// - where nobody writes and nothing is lost, a key is loaded once for each time that it is fresh;
/// - what is not to be shared is had by its caller alone;
/// - nothing is served past its TTL but as the policy says;
/// - no caller hangs, and when all is well again each key is loaded once and is then a hit.
///
/// To test a wrapper of your own, put it [between](Self::over) the engine and the server. What a store
/// must do by itself is asked by `conformance`.
///
/// ```
/// use larder::simulation::Simulation;
/// use larder::wrap::Instrumented;
///
/// let simulation = Simulation::over(|remote| Instrumented::new(remote));
/// simulation.seeds(0..20).run()?;
/// # Ok::<(), larder::simulation::Breach>(())
/// ```
///
/// That it can fail shows a rule that is broken on purpose:
///
/// ```
/// use larder::{Rule, simulation::Simulation};
///
/// let unsound = Simulation::plain().break_rule(Rule::CheckTags);
/// let breach = unsound.seeds(0..500).run().unwrap_err();
/// assert!(breach.to_string().contains("outdated"), "{breach}");
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is run until it is told to"]
pub struct Simulation {
    setup: Setup,
    seeds: Range<u64>,
}

/// A promise that a course broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    setup: String,
    seed: u64,
    what: String,
}

impl Breach {
    /// The seed of the course; [`Simulation::trace`] shows each of its steps.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What happened that must not.
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setup, seed, what } = self;
        write!(f, "{setup}, seed {seed}: {what}")
    }
}

impl std::error::Error for Breach {}

impl Simulation {
    fn of(setup: Setup) -> Self {
        Self {
            setup,
            seeds: 0..SEEDS,
        }
    }

    /// Processes that ask the server themselves.
    pub fn plain() -> Self {
        Self::of(Setup::Plain(None))
    }

    /// Processes with a near store before the server: [`Tiered`](crate::wrap::Tiered).
    pub fn near() -> Self {
        Self::of(Setup::Near(None))
    }

    /// The same, where the near store hears of what changes, over a connection that breaks and stalls.
    pub fn watched() -> Self {
        Self::of(Setup::Watched(None))
    }

    /// Processes that go on without the server: [`Forgiving`](crate::wrap::Forgiving), with near stores
    /// and without.
    pub fn forgiving() -> Self {
        Self::of(Setup::Forgiving)
    }

    /// Processes that ask what `wrap` makes of their way to the server.
    pub fn over<S: Store>(wrap: impl Fn(Remote) -> S + Send + Sync + 'static) -> Self {
        Self::of(Setup::Own(Arc::new(move |remote| Arc::new(wrap(remote)))))
    }

    /// Breaks a rule of the engine, in [`plain`](Self::plain) courses.
    pub fn break_rule(mut self, rule: Rule) -> Self {
        self.setup = Setup::Plain(Some(rule));
        self
    }

    /// Breaks a rule of near stores, in [`near`](Self::near) and [`watched`](Self::watched) courses.
    pub fn break_near_rule(mut self, rule: NearRule) -> Self {
        self.setup = match self.setup {
            Setup::Watched(_) => Setup::Watched(Some(rule)),
            _ => Setup::Near(Some(rule)),
        };
        self
    }

    /// Which courses to run. Default: the first 10,000, some ten seconds.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// Runs the courses, on two threads; the breach with the lowest seed of those found.
    ///
    /// Loads that are planned to panic are kept out of the output, by a hook for the whole process.
    pub fn run(&self) -> Result<(), Breach> {
        hush();
        let next = AtomicU64::new(self.seeds.start);
        let found: Mutex<Option<Breach>> = Mutex::default();
        let run = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= self.seeds.end {
                    return;
                }
                let Some(breach) = self.course(seed) else {
                    continue;
                };
                // Those below are under way already; those above need not be run.
                next.fetch_max(self.seeds.end, Ordering::Relaxed);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                if found.as_ref().is_none_or(|known| known.seed > seed) {
                    *found = Some(breach);
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(run);
            run();
        });
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.map_or(Ok(()), Err)
    }

    fn course(&self, seed: u64) -> Option<Breach> {
        let what = world::run(seed, &self.setup, false)?;
        let setup = format!("{:?}", self.setup);
        Some(Breach { setup, seed, what })
    }

    /// Runs the course of `seed` and prints each of its steps to stderr; what is wrong in it.
    pub fn trace(&self, seed: u64) -> Option<String> {
        hush();
        world::run(seed, &self.setup, true)
    }

    /// All that happens in the course of `seed`: the same each time.
    pub fn record(&self, seed: u64) -> String {
        hush();
        world::record(seed, &self.setup)
    }
}

/// Keeps the panics that loads are planned to have out of the output.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some("planted") {
                tell(info);
            }
        }));
    });
}
