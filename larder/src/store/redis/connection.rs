//! One shared connection, made again when it breaks.
//!
//! A [`Link`] is a connection together with the incarnation of the server behind it: every act
//! takes both from the same link, so that no answer is judged by another server's incarnation.
//! Attempts to connect run in tasks of their own, one at a time. After a failed one, or after an
//! answer that did not come in time, callers fail at once; when the pause is over one of them starts
//! the next attempt, and does not wait for it. A connection that could be made ends the pause: one
//! slow command costs the others no more than that.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ErrorKind as Fault, Pipeline, PushInfo, RedisError, RedisResult,
    ServerErrorKind, Value, cmd,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::address::Address;
use super::hello::{INFOS, field, has_older, hello, incarnation, run};
use super::replicas::Replicas;
use super::restarts::Group;
use super::scripts;
use super::sentinels::Sentinels;
use crate::{Clock, Error, ErrorKind, Result};

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A failure that nobody has met for so long says nothing about now.
const FORGOTTEN: Duration = Duration::from_secs(10);
/// How old a link is at least when it is given up because its server has become a replica or asks for
/// a login: a new one would most likely be told the same.
const SHORTEST_LINK: Duration = Duration::from_secs(1);

/// A connection and the incarnation of the server that it leads to.
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// Which start of the server this is; 0 if it does not say.
    run: u64,
    /// The same for frames and numbers, with the failover that made this server the primary; 0 where
    /// restarts are trusted.
    pub(super) incarnation: u64,
    /// Which failover that was, where there are any; the last one of all if the server does not say.
    pub(super) epoch: u64,
    /// Whether bare digits are integers here. In a cluster slots wander from server to server, and
    /// digits do not say which one took them.
    pub(super) takes_digits: bool,
    /// Where the sentinels said that the server is.
    pub(super) named: Option<String>,
    /// Whether the server may hold keys of an earlier run, or of another server.
    pub(super) has_older: bool,
    born: Instant,
    /// The server's name for this connection.
    client: Option<i64>,
    /// Whether the connection is known to have ended.
    over: Arc<AtomicBool>,
    /// The groups of slots whose bare integers have been looked after.
    pub(super) groups: Mutex<HashMap<Box<str>, Group>>,
}

impl Link {
    /// Sends the commands in one trip; the answers, errors of single commands among them.
    pub(super) async fn send(&self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        let mut answers = self.send_once(commands).await?;
        let unknown = |answer: &Value| matches!(answer, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript));
        if !answers.iter().any(unknown) {
            return Ok(answers);
        }
        // The server has forgotten its scripts; what asked for one has not been done.
        let mut again = Pipeline::new();
        let loads = scripts::load();
        let count = loads.len();
        for load in loads {
            again.add_command(load);
        }
        for (command, answer) in commands.cmd_iter().zip(&answers) {
            if unknown(answer) {
                again.add_command(command.clone());
            }
        }
        let mut late = self.send_once(&again).await?.into_iter().skip(count);
        for answer in answers.iter_mut().filter(|answer| unknown(answer)) {
            *answer = late.next().unwrap_or_default();
        }
        Ok(answers)
    }

    async fn send_once(&self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        let mut connection = self.connection.clone();
        connection
            .send_packed_commands(commands, 0, commands.len())
            .await
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// Says that a connection has ended, when the last who could use it lets go of this.
struct SaysOver(Arc<AtomicBool>);

impl Drop for SaysOver {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What a server is to us.
pub(super) enum Role {
    /// The one server there is.
    Alone,
    /// The primary that sentinels name.
    Named(Box<Sentinels>),
    /// A node of a cluster.
    Node,
    /// A replica, which is only read from.
    Replica,
}

/// Gives out the live link, or makes one.
pub(super) struct Connector {
    pub(super) address: Address,
    pub(super) role: Role,
    /// The replicas of this server, where they may be read from.
    pub(super) replicas: Option<Replicas>,
    /// When the sentinels last named the server of the live link.
    named_at: Mutex<Option<Instant>>,
    /// Held by who asks them first.
    pub(super) asking: tokio::sync::Mutex<()>,
    pub(super) clock: Clock,
    /// How long an operation may take.
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) trust_restarts: bool,
    state: Mutex<State>,
    /// Whether no answer has come since one did not come in time.
    was_late: AtomicBool,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// Whether an attempt has ever succeeded.
    was_live: bool,
    /// The last pause after an answer that did not come, until one comes.
    late_pause: Option<Duration>,
    /// The last attempt, if it failed; or that an answer did not come.
    failure: Option<Failure>,
    /// A link that was given up while it may still hold commands that the server has not read.
    suspect: Option<(u64, i64)>,
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

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("address", &self.address)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("trust_restarts", &self.trust_restarts)
            .field("state", &*self.state())
            .finish_non_exhaustive()
    }
}

impl Connector {
    pub(super) fn new(
        address: Address,
        role: Role,
        clock: Clock,
        (timeout, connect_timeout): (Duration, Duration),
        trust_restarts: bool,
        read_replicas: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            address,
            role,
            replicas: read_replicas.then(Replicas::default),
            named_at: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            clock,
            timeout,
            connect_timeout,
            trust_restarts,
            state: Mutex::default(),
            was_late: AtomicBool::new(false),
        })
    }

    /// The live link; waits for a connection only if none has failed just now.
    pub(super) async fn link(self: &Arc<Self>) -> Result<Arc<Link>> {
        self.ask_again().await;
        let mut attempt = match self.step() {
            Step::Take(link) => return Ok(link),
            Step::Fail(error) => return Err(error),
            Step::Wait(attempt) => attempt,
        };
        // The attempt limits itself; this one is for a runtime that does not run it.
        let limit = self.connect_timeout.saturating_add(self.timeout);
        let outcome = self
            .clock
            .timeout(limit, attempt.wait_for(Option::is_some))
            .await;
        match outcome {
            Some(Ok(outcome)) => outcome.clone().expect("waited for an outcome"),
            _ => Err(self.cannot_connect("the attempt was given up")),
        }
    }

    /// A connector with the same settings to another server.
    pub(super) fn to_another(&self, address: Address, role: Role) -> Arc<Self> {
        let limits = (self.timeout, self.connect_timeout);
        let has_replicas = self.replicas.is_some() && matches!(role, Role::Node);
        let clock = self.clock.clone();
        Self::new(
            address,
            role,
            clock,
            limits,
            self.trust_restarts,
            has_replicas,
        )
    }

    pub(super) fn is_node(&self) -> bool {
        matches!(self.role, Role::Node)
    }

    /// The link, if there is one already.
    pub(super) fn live(&self) -> Option<Arc<Link>> {
        match &self.state().phase {
            Phase::Live(link) if !link.is_over() => Some(Arc::clone(link)),
            _ => None,
        }
    }

    pub(super) fn named_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.named_at.lock().unwrap_or_else(PoisonError::into_inner)
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
        let now = Instant::now();
        if let Some(failure) = &state.failure
            && now < failure.next_attempt
        {
            return Step::Fail(failure.error.clone());
        }
        let known = state.failure.as_ref();
        let known = known.filter(|failure| now < failure.next_attempt + FORGOTTEN);
        let known = known.map(|failure| failure.error.clone());
        let (sender, attempt) = watch::channel(None);
        state.phase = Phase::Connecting(attempt.clone());
        drop(state);
        let connector = Arc::clone(self);
        self.clock.spawn(async move {
            let outcome = connector.connect().await.map(Arc::new);
            connector.settle(&outcome);
            sender.send_replace(Some(outcome));
        });
        known.map_or(Step::Wait(attempt), Step::Fail)
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
                let pause = next_pause(state.failure.take().map(|failure| failure.pause));
                state.failure = Some(self.failure(error.clone(), pause));
                state.phase = Phase::Apart;
                if is_news {
                    tracing::warn!(store = %self.address, %error, "redis_connection_failed");
                }
            }
        }
    }

    /// Gives `link` up, if it is still the one in use.
    pub(super) fn discard(&self, link: &Arc<Link>) {
        let mut state = self.state();
        if matches!(&state.phase, Phase::Live(live) if Arc::ptr_eq(live, link)) {
            state.phase = Phase::Apart;
        }
    }

    /// Gives `link` up because its server says that it cannot serve us, unless it is quite new.
    pub(super) fn discard_refused(&self, link: &Arc<Link>) {
        if link.born.elapsed() >= SHORTEST_LINK {
            self.discard(link);
        }
    }

    /// Gives `link` up after an answer did not come in time.
    ///
    /// Commands on their way could reach the server after those of the next link, and undo them;
    /// so the next link first makes the server close this one.
    pub(super) fn suspect(&self, link: &Arc<Link>) {
        let mut state = self.state();
        if let Some(client) = link.client {
            state.suspect = Some((link.run, client));
        }
        if matches!(&state.phase, Phase::Live(live) if Arc::ptr_eq(live, link)) {
            state.phase = Phase::Apart;
            let pause = next_pause(state.late_pause);
            state.late_pause = Some(pause);
            self.was_late.store(true, Ordering::Release);
            let does = "did not answer a moment ago, and is not asked again yet";
            let error = self.complaint(ErrorKind::Unavailable, does);
            state.failure = Some(self.failure(error, pause));
        }
    }

    /// An answer has come.
    pub(super) fn answered(&self) {
        if self.was_late.load(Ordering::Acquire) {
            self.state().late_pause = None;
            self.was_late.store(false, Ordering::Release);
        }
    }

    fn failure(&self, error: Error, pause: Duration) -> Failure {
        Failure {
            error,
            pause,
            next_attempt: Instant::now() + self.clock.jittered(pause),
        }
    }

    /// Lets go of the connection; the next call makes another.
    pub(super) fn close(&self) {
        self.state().phase = Phase::Apart;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Link> {
        match self
            .clock
            .timeout(self.connect_timeout, self.shake_hands())
            .await
        {
            Some(Ok(link)) => Ok(link),
            Some(Err(error)) => Err(self.connect_error(&error)),
            None => {
                let limit = self.connect_timeout;
                Err(self.cannot_connect(&format!("no answer within {limit:?}")))
            }
        }
    }

    async fn shake_hands(&self) -> RedisResult<Link> {
        let named = self.primary().await.transpose()?;
        let address = named.as_ref().map_or(&self.address, |named| &named.address);
        let over = Arc::default();
        let connection = match self.open(address, &over).await {
            Err(error) if error.kind() == Fault::RESP3NotSupported => {
                over.store(false, Ordering::Release);
                self.open(&address.with_resp2(), &over).await?
            }
            opened => opened?,
        };
        let mut link = Link {
            connection,
            run: 0,
            incarnation: 0,
            epoch: named.as_ref().map_or(0, |named| named.epoch),
            takes_digits: true,
            named: named.as_ref().map(|named| named.address.to_string()),
            has_older: true,
            born: Instant::now(),
            client: None,
            over,
            groups: Mutex::default(),
        };
        let answers = link.send_once(&hello(&self.role)).await?;
        let (info, own) = answers.split_at(INFOS.len());
        for answer in &answers {
            match answer {
                Value::ServerError(error) if error.code() == "LOADING" => {
                    return Err(error.clone().into());
                }
                _ => {}
            }
        }
        if named.is_some() && field(info, "role").is_some_and(|role| role != "master") {
            let detail = format!("`{address}`, which the sentinels name, is no primary");
            return Err((Fault::Client, "a failover is under way", detail).into());
        }
        match run(info.first()) {
            Ok(run) => link.run = run,
            Err(error) if !self.trust_restarts && !matches!(self.role, Role::Replica) => {
                return Err(error);
            }
            Err(_) => {}
        }
        if matches!(self.role, Role::Node) {
            let epoch = field(&own[1..2], "cluster_my_epoch");
            link.epoch = epoch.and_then(|it| it.parse().ok()).unwrap_or(u64::MAX);
        }
        if !self.trust_restarts {
            link.incarnation = incarnation(link.run, link.epoch);
            link.takes_digits = !matches!(self.role, Role::Node);
        }
        link.has_older = has_older(&info[1..]);
        if let Some(Value::Int(client)) = own.first() {
            link.client = Some(*client);
        }
        if let Some(replicas) = &self.replicas {
            replicas.learn(&info[2], self);
        }
        self.close_suspect(&link).await?;
        *self.named_at() = Some(Instant::now());
        Ok(link)
    }

    async fn open(
        &self,
        address: &Address,
        over: &Arc<AtomicBool>,
    ) -> RedisResult<MultiplexedConnection> {
        // Both limits are set around each act by our own clock.
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        if address.speaks_resp3() {
            let says_over = SaysOver(Arc::clone(over));
            config = config.set_push_sender(move |_: PushInfo| {
                let _held = &says_over;
                Ok::<(), ()>(())
            });
        }
        address
            .client()?
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    async fn close_suspect(&self, link: &Link) -> RedisResult<()> {
        let suspect = self.state().suspect;
        if let Some((run, client)) = suspect
            && run == link.run
        {
            let mut close = Pipeline::new();
            close.add_command(cmd("CLIENT").arg("KILL").arg("ID").arg(client).to_owned());
            // An error of the server says that it is closed already, or that we may not.
            link.send_once(&close).await?;
        }
        let mut state = self.state();
        if state.suspect == suspect {
            state.suspect = None;
        }
        Ok(())
    }
}

fn next_pause(last: Option<Duration>) -> Duration {
    last.map_or(SHORTEST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE))
}

/// Whether the connection can no longer be used.
pub(super) fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error()
}
