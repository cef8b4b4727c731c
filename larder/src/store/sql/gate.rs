//! The way to a database: open, shut for a moment after a failure, or being opened.
//!
//! Attempts to connect run in tasks of their own, one at a time. After a failed one callers fail at
//! once; when the pause is over one of them tries again.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{Clock, Error, ErrorKind, Result};

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Makes connections; its text is the address, without a password.
#[async_trait]
pub(super) trait Connect: fmt::Display + fmt::Debug + Send + Sync + 'static {
    /// What is connected.
    type Link: Send + Sync + 'static;

    /// What errors call the store.
    const PLACE: &'static str;

    /// A connection, made within limits of its own.
    async fn connect(&self) -> Result<Self::Link>;

    /// Whether the connection is known to have ended.
    fn is_over(link: &Self::Link) -> bool;
}

/// Gives out the one connection, or makes it.
pub(super) struct Gate<C: Connect> {
    pub(super) connect: C,
    pub(super) clock: Clock,
    /// How long an attempt may take at most.
    patience: Duration,
    state: Mutex<State<C::Link>>,
}

struct State<L> {
    phase: Phase<L>,
    /// Whether an attempt has ever succeeded.
    was_live: bool,
    /// The last attempt, if it failed.
    failure: Option<Failure>,
}

enum Phase<L> {
    Apart,
    Connecting(Attempt<L>),
    Live(Arc<L>),
}

struct Failure {
    error: Error,
    pause: Duration,
    next_attempt: Instant,
}

type Attempt<L> = watch::Receiver<Option<Result<Arc<L>>>>;

enum Step<L> {
    Take(Arc<L>),
    Wait(Attempt<L>),
    Fail(Error),
}

impl<C: Connect> Gate<C> {
    pub(super) fn new(connect: C, clock: Clock, patience: Duration) -> Arc<Self> {
        let state = State {
            phase: Phase::Apart,
            was_live: false,
            failure: None,
        };
        Arc::new(Self {
            connect,
            clock,
            patience,
            state: Mutex::new(state),
        })
    }

    /// The live connection; waits for one only if none has failed just now.
    pub(super) async fn link(self: &Arc<Self>) -> Result<Arc<C::Link>> {
        let mut attempt = match self.step() {
            Step::Take(link) => return Ok(link),
            Step::Fail(error) => return Err(error),
            Step::Wait(attempt) => attempt,
        };
        // The attempt limits itself; this one is for a runtime that does not run it.
        let outcome = self
            .clock
            .timeout(self.patience, attempt.wait_for(Option::is_some))
            .await;
        if let Some(Ok(outcome)) = outcome {
            return outcome.clone().expect("waited for an outcome");
        }
        let text = format!("cannot connect to `{}`", self.connect);
        let error = Error::new(ErrorKind::Unavailable, C::PLACE, text);
        Err(error.with_source("the attempt was given up"))
    }

    fn step(self: &Arc<Self>) -> Step<C::Link> {
        let mut state = self.state();
        match &state.phase {
            Phase::Live(link) if !C::is_over(link) => return Step::Take(Arc::clone(link)),
            // A sender that is gone without an outcome went with its runtime.
            Phase::Connecting(attempt) if attempt.has_changed().is_ok() => {
                return match &state.failure {
                    Some(failure) => Step::Fail(failure.error.clone()),
                    None => Step::Wait(attempt.clone()),
                };
            }
            _ => {}
        }
        state.phase = Phase::Apart;
        if let Some(failure) = &state.failure
            && Instant::now() < failure.next_attempt
        {
            return Step::Fail(failure.error.clone());
        }
        let (sender, attempt) = watch::channel(None);
        state.phase = Phase::Connecting(attempt.clone());
        drop(state);
        let gate = Arc::clone(self);
        self.clock.spawn(async move {
            let outcome = gate.connect.connect().await.map(Arc::new);
            gate.settle(&outcome);
            sender.send_replace(Some(outcome));
        });
        Step::Wait(attempt)
    }

    fn settle(&self, outcome: &Result<Arc<C::Link>>) {
        let mut state = self.state();
        match outcome {
            Ok(link) => {
                state.failure = None;
                state.was_live = true;
                state.phase = Phase::Live(Arc::clone(link));
            }
            Err(error) => {
                // Who asked first is told; later only the first of a row of failures is news.
                let is_news = state.was_live && state.failure.is_none();
                let pause = state.failure.take().map_or(SHORTEST_PAUSE, |failure| {
                    (failure.pause * 2).min(LONGEST_PAUSE)
                });
                state.failure = Some(Failure {
                    error: error.clone(),
                    pause,
                    next_attempt: Instant::now() + self.clock.jittered(pause),
                });
                state.phase = Phase::Apart;
                if is_news {
                    tracing::warn!(store = %self.connect, %error, "sql_connection_failed");
                }
            }
        }
    }

    /// Forgets the last failure: the next call tries at once.
    pub(super) fn forgive(&self) {
        self.state().failure = None;
    }

    /// Gives `link` up, if it is still the one in use.
    pub(super) fn discard(&self, link: &Arc<C::Link>) {
        let mut state = self.state();
        if matches!(&state.phase, Phase::Live(live) if Arc::ptr_eq(live, link)) {
            state.phase = Phase::Apart;
        }
    }

    /// Lets go of the connection, and returns it; the next call makes another.
    pub(super) fn close(&self) -> Option<Arc<C::Link>> {
        let mut state = self.state();
        match std::mem::replace(&mut state.phase, Phase::Apart) {
            Phase::Live(link) => Some(link),
            _ => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<C::Link>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Connect> fmt::Debug for Gate<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.state().phase {
            Phase::Apart => "Apart",
            Phase::Connecting(_) => "Connecting",
            Phase::Live(_) => "Live",
        };
        f.debug_struct("Gate")
            .field("connect", &self.connect)
            .field("phase", &phase)
            .finish_non_exhaustive()
    }
}
