//! Gives out the live link of one server, or makes one.
//!
//! Attempts to connect run in tasks of their own, one at a time. After a failed one callers fail at
//! once; when the pause is over one of them tries again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::address::Server;
use super::connection::{Fault, Link};
use super::hello::{self, Refused};
use crate::{Clock, Error, ErrorKind, Result};

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What all servers of a store have in common.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// How long a server may take to answer.
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) trust_restarts: bool,
}

/// One server, and the way to it.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) server: Server,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// Whether an attempt has ever succeeded.
    was_live: bool,
    /// The last attempt, if it failed.
    failure: Option<Failure>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Apart,
    Connecting(Attempt),
    Live(Arc<Link>),
}

struct Failure {
    error: Error,
    pause: Duration,
    next_attempt: Instant,
}

type Attempt = watch::Receiver<Option<Result<Arc<Link>>>>;

enum Step {
    Take(Arc<Link>),
    Wait(Attempt),
    Fail(Error),
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.phase {
            Phase::Apart => "Apart",
            Phase::Connecting(_) => "Connecting",
            Phase::Live(_) => "Live",
        })
    }
}

impl Connector {
    pub(super) fn new(server: Server, clock: Clock, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            server,
            clock,
            limits,
            state: Mutex::default(),
        })
    }

    /// The live link; waits for a connection only if none has failed just now.
    pub(super) async fn link(self: &Arc<Self>) -> Result<Arc<Link>> {
        let mut attempt = match self.step() {
            Step::Take(link) => return Ok(link),
            Step::Fail(error) => return Err(error),
            Step::Wait(attempt) => attempt,
        };
        // The attempt limits itself; this one is for a runtime that does not run it.
        let limit = self.limits.connect_timeout + self.limits.timeout;
        let settled = attempt.wait_for(Option::is_some);
        match self.clock.timeout(limit, settled).await {
            Some(Ok(outcome)) => outcome.clone().expect("waited for an outcome"),
            _ => Err(self.cannot_connect("the attempt was given up")),
        }
    }

    fn step(self: &Arc<Self>) -> Step {
        let mut state = self.state();
        match &state.phase {
            Phase::Live(link) if !link.is_over() => return Step::Take(Arc::clone(link)),
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
        Step::Wait(self.begin(&mut state))
    }

    /// Starts an attempt to connect.
    fn begin(self: &Arc<Self>, state: &mut State) -> Attempt {
        let (sender, attempt) = watch::channel(None);
        state.phase = Phase::Connecting(attempt.clone());
        let connector = Arc::clone(self);
        drop(self.clock.spawn(async move {
            let outcome = connector.connect().await.map(Arc::new);
            connector.settle(&outcome);
            sender.send_replace(Some(outcome));
        }));
        attempt
    }

    fn settle(&self, outcome: &Result<Arc<Link>>) {
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
                drop(state);
                if is_news {
                    tracing::warn!(store = %self.server, %error, "memcached_connection_failed");
                }
            }
        }
    }

    /// Whether the last attempt to connect failed. Who asks goes elsewhere, so that the next attempt is
    /// made behind their back.
    pub(super) fn is_out(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        let Some(failure) = &state.failure else {
            return false;
        };
        let is_due = Instant::now() >= failure.next_attempt;
        let is_trying =
            matches!(&state.phase, Phase::Connecting(attempt) if attempt.has_changed().is_ok());
        if is_due && !is_trying {
            self.begin(&mut state);
        }
        true
    }

    /// Lets go of the connection; the next call makes another.
    pub(super) fn close(&self) {
        self.state().phase = Phase::Apart;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Link> {
        let limit = self.limits.connect_timeout;
        let seconds = self.clock.now().as_millis() / 1000;
        let trusted_at = self.limits.trust_restarts.then_some(seconds);
        let opened = hello::open(&self.server, trusted_at);
        match self.clock.timeout(limit, opened).await {
            Some(Ok((stream, hello))) => {
                let timeout = self.limits.timeout;
                Ok(Link::new(stream, hello, &self.clock, timeout))
            }
            Some(Err(refused)) => Err(self.connect_error(&refused)),
            None => Err(self.cannot_connect(&format!("no answer within {limit:?}"))),
        }
    }

    pub(super) fn connect_error(&self, refused: &Refused) -> Error {
        let (does, hint, says) = match refused {
            Refused::Stream(cause) => return self.cannot_connect(cause),
            Refused::Login(says) => (
                "refuses the login",
                "check the user and the password in the URL",
                says,
            ),
            Refused::Stats(says) => (
                "does not tell its start time",
                "let it answer `stats`, or set `trust_restarts`",
                says,
            ),
            Refused::NoCas => (
                "was started without CAS",
                "start it without `-C`",
                &String::new(),
            ),
            Refused::TooOld(says) => (
                "does not speak the meta protocol",
                "memcached 1.6 or newer is needed",
                says,
            ),
        };
        let error = self.complaint(ErrorKind::Unavailable, does).with_hint(hint);
        if says.is_empty() {
            return error;
        }
        error.with_source(self.server.without_password(says))
    }

    fn cannot_connect(&self, cause: &str) -> Error {
        let text = format!("cannot connect to `{}`", self.server);
        Error::new(ErrorKind::Unavailable, "memcached", text)
            .with_hint("is the server running?")
            .with_source(self.server.without_password(cause))
    }

    /// An error whose text is "the server `address` does such and such".
    pub(super) fn complaint(&self, kind: ErrorKind, does: &str) -> Error {
        Error::new(kind, "memcached", format!("`{}` {does}", self.server))
    }

    pub(super) fn broke(&self, fault: Fault) -> Error {
        match fault {
            Fault::Late => self.complaint(ErrorKind::Unavailable, "still owes earlier answers"),
            Fault::Full => self.complaint(ErrorKind::Unavailable, "takes less than it is sent"),
            Fault::Over(why) => self
                .complaint(ErrorKind::Unavailable, "broke the connection")
                .with_source(self.server.without_password(&why)),
        }
    }

    pub(super) fn odd(&self, says: &str) -> Error {
        let error = self.complaint(ErrorKind::Unavailable, "gave an unexpected reply");
        if says.is_empty() {
            return error;
        }
        error.with_source(self.server.without_password(says))
    }
}
