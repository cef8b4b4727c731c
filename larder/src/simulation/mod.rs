//! A server that delays, loses and forgets, and processes that crash: all from one seed.
//!
//! A test that runs several caches over one [`Server`], on a paused current-thread runtime, takes
//! the same course every time it is run with the same seed. What a cache promises must hold in
//! every course: [`Simulation`] draws thousands, and judges them.
//!
//! ```
//! use std::time::Duration;
//! use larder::Cache;
//! use larder::simulation::{Faults, Server};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mut runtime = tokio::runtime::Builder::new_current_thread();
//! # let runtime = runtime.enable_time().start_paused(true).build()?;
//! # runtime.block_on(async {
//! let server = Server::new(7);
//! server.set_faults(Faults { longest: Duration::from_millis(40), ..Faults::default() });
//! let (here, there) = (Cache::new(server.connect()), Cache::new(server.connect()));
//!
//! here.set("k", "value").await?;
//! assert_eq!(there.get("k").await?, Some("value".to_owned()));
//! server.restart();
//! assert_eq!(there.get::<String>("k").await?, None);
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Server`] and [`Remote`]: the store with faults |
//! | `watch.rs` | what it tells of changes, over connections that break |
//! | `kit.rs` | [`Simulation`]: courses by the thousand |
//! | `plan.rs` | what happens in a course: drawn from its seed |
//! | `world.rs` | runs it |
//! | `judge.rs` | writes down what happens, and says which promise it breaks |

mod judge;
mod kit;
mod plan;
mod watch;
mod world;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use self::kit::Setup;
pub use self::kit::{Breach, Simulation};
use self::watch::{Lines, Session};
use crate::entry::{Entry, Head, Mark, Tag};
use crate::store::{Found, Memory, News, Scan, Store, Sum, Tags, Watch, When};
use crate::{Clock, Error, ErrorKind, Key, Moment, Result, State};

/// How many times longer than usual a rare delay is.
const RARE: u64 = 4;
/// How late an act may come of which the caller heard only that nobody answered.
const LATEST: Duration = Duration::from_secs(3);

/// What goes wrong on the way to a [`Server`] and back. Default: nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The longest usual delay before an act, and again after it; now and then it is four times
    /// that.
    pub longest: Duration,
    /// Of a thousand acts, how many are refused: the caller gets an error, and nothing happens.
    pub refused: u16,
    /// Of a thousand acts, how many lose their answer: they happen, and the caller gets an error.
    pub lost: u16,
    /// Of a thousand acts, how many happen only after the caller has got its error.
    pub late: u16,
    /// Whether slots can be looked at without waiting, as in a process's own memory.
    pub at_once: bool,
}

impl Faults {
    /// The longest that an act may take, there and back.
    pub fn slowest(&self) -> Duration {
        let usual = self.longest * u32::try_from(2 * RARE).unwrap_or(u32::MAX);
        usual + Duration::from_millis(4)
    }
}

/// A store that simulated processes share, in a [`Memory`]; a clone is the same server.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    clock: Clock,
    content: Mutex<Content>,
    log: Option<fn(&str)>,
}

struct Content {
    memory: Memory,
    faults: Faults,
    snapshot: Vec<(Key, Arc<Entry>)>,
    /// Who listens.
    sessions: Vec<Session>,
}

/// What becomes of one act.
struct Fate {
    before: Duration,
    after: Duration,
    fault: Option<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Refused,
    Lost,
    Late,
}

impl Server {
    /// A server without faults. To be called inside the runtime whose time it follows.
    pub fn new(seed: u64) -> Self {
        Self::with_log(seed, None)
    }

    /// A server that tells `log` of every act.
    pub fn with_log(seed: u64, log: Option<fn(&str)>) -> Self {
        let clock = Clock::seeded(seed);
        let content = Content {
            memory: memory(&clock),
            faults: Faults::default(),
            snapshot: Vec::new(),
            sessions: Vec::new(),
        };
        Self(Arc::new(Inner {
            clock,
            content: Mutex::new(content),
            log,
        }))
    }

    /// Another process's way to this server.
    pub fn connect(&self) -> Remote {
        Remote {
            clock: self.0.clock.process(),
            lines: Lines::default(),
            server: self.clone(),
        }
    }

    /// From now on, acts meet `faults`.
    pub fn set_faults(&self, faults: Faults) {
        self.content().faults = faults;
    }

    /// Loses everything: values, leases, numbers and their era.
    pub fn restart(&self) {
        self.say(|| "server restarts".to_owned());
        self.content().memory = memory(&self.0.clock);
        self.close_sessions();
    }

    /// Keeps what is there, for [`restore`](Self::restore).
    pub fn take_snapshot(&self) {
        self.say(|| "server takes a snapshot".to_owned());
        let mut content = self.content();
        content.snapshot = content.memory.values();
    }

    /// Goes back to the last snapshot, as another incarnation: numbers begin a new era, and what
    /// has no numbers, or is a lease, is not shown again.
    pub async fn restore(&self) {
        self.say(|| "server restores its snapshot".to_owned());
        let memory = memory(&self.0.clock);
        let snapshot = self.content().snapshot.clone();
        for (key, entry) in snapshot {
            let mut entry = Arc::unwrap_or_clone(entry);
            entry.state = State::Idle;
            if entry.tags.is_some() {
                // It fitted before.
                let _ = memory.put(&key, entry, When::Always).await;
            }
        }
        self.content().memory = memory;
        self.close_sessions();
    }

    /// Forgets the oldest half of the tags' numbers, as stores do that hold too many.
    pub fn forget_numbers(&self) {
        self.say(|| "server forgets numbers".to_owned());
        self.content().memory.forget_numbers();
        self.publish(&[News::Space("".into())]);
    }

    /// Loses the numbers of all tag spaces, as a server does that evicts them: the next to ask begins
    /// another era. Slots and their leases stay.
    pub fn lose_numbers(&self) {
        self.say(|| "server loses numbers".to_owned());
        self.content().memory.lose_numbers();
        self.publish(&[News::Space("".into())]);
    }

    /// Removes what has expired, as stores do now and then.
    pub fn sweep(&self) {
        self.content().memory.sweep();
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0
            .content
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> Memory {
        self.content().memory.clone()
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if let Some(log) = self.0.log {
            log(&what());
        }
    }

    fn fate(&self) -> Fate {
        let faults = self.content().faults;
        let chance = self.0.clock.random() % 1000;
        let [refused, lost, late] = [faults.refused, faults.lost, faults.late].map(u64::from);
        let fault = match chance {
            _ if chance < refused => Some(Fault::Refused),
            _ if chance < refused + lost => Some(Fault::Lost),
            _ if chance < refused + lost + late => Some(Fault::Late),
            _ => None,
        };
        let mut before = self.delay(faults.longest);
        if fault == Some(Fault::Late) {
            before += self.delay(LATEST / 4);
        }
        let after = self.delay(faults.longest);
        Fate {
            before,
            after,
            fault,
        }
    }

    fn delay(&self, longest: Duration) -> Duration {
        let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let number = self.0.clock.random();
        let longest = match number >> 60 {
            0 => longest * RARE,
            // Many delays of nothing, so that acts also meet in the same moment.
            1..=6 => 0,
            _ => longest,
        };
        Duration::from_millis((number & 0xFFFF_FFFF) % (longest + 1))
    }
}

fn memory(clock: &Clock) -> Memory {
    Memory::builder()
        .max_bytes(1 << 18)
        .clock(clock.clone())
        .build()
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.memory()).finish()
    }
}

/// One process's way to a [`Server`]: a store for its caches. A clone is the same process.
#[derive(Debug, Clone)]
pub struct Remote {
    server: Server,
    clock: Clock,
    lines: Lines,
}

impl Remote {
    /// Runs `work` as a task of this process.
    pub fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.clock.spawn(work)
    }

    /// Ends this process: all its tasks stop where they are, loads of its caches included. What it
    /// has sent still arrives.
    pub fn crash(&self) {
        self.clock.crash();
    }

    /// Sends an act to the server. It is on its way even if the caller does not wait for the answer.
    async fn act<F, Fut, R>(&self, what: impl FnOnce() -> String, act: F) -> Result<R>
    where
        F: FnOnce(Memory) -> Fut + Send + 'static,
        Fut: Future<Output = Result<R>> + Send,
        R: fmt::Debug + Send + 'static,
    {
        self.change(what, Vec::new(), |_| false, act).await
    }

    /// The same for an act that those who listen are told of, if by its answer it `changes` something.
    async fn change<F, Fut, R>(
        &self,
        what: impl FnOnce() -> String,
        news: Vec<News>,
        changes: fn(&R) -> bool,
        act: F,
    ) -> Result<R>
    where
        F: FnOnce(Memory) -> Fut + Send + 'static,
        Fut: Future<Output = Result<R>> + Send,
        R: fmt::Debug + Send + 'static,
    {
        let fate = self.server.fate();
        let (server, fault) = (self.server.clone(), fate.fault);
        let what = self.server.0.log.map(|_| what());
        if fault == Some(Fault::Refused) {
            self.clock.sleep(fate.before).await;
            server.say(|| format!("{what:?}: refused"));
            let what = "the simulated server refused";
            return Err(Error::new(ErrorKind::Unavailable, "remote", what));
        }
        let acting = tokio::spawn(async move {
            pause(fate.before).await;
            let done = act(server.memory()).await;
            if done.as_ref().is_ok_and(changes) {
                server.publish(&news);
            }
            server.say(|| format!("{}: {done:?} {fault:?}", what.as_deref().unwrap_or("")));
            pause(fate.after).await;
            done
        });
        let no_answer = || {
            let what = "the simulated server did not answer";
            Error::new(ErrorKind::Timeout, "remote", what)
        };
        match fault {
            Some(Fault::Late) => {
                self.clock.sleep(fate.after).await;
                Err(no_answer())
            }
            Some(_) => {
                let _ = acting.await;
                Err(no_answer())
            }
            None => acting.await.unwrap_or_else(|_| Err(no_answer())),
        }
    }
}

async fn pause(span: Duration) {
    if !span.is_zero() {
        tokio::time::sleep(span).await;
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("remote")
    }
}

fn changed(key: &Key) -> News {
    News::Changed(vec![key.name().into()])
}

/// Tags, to be sent.
struct Named {
    space: String,
    names: Vec<Tag>,
}

impl From<Tags<'_>> for Named {
    fn from(tags: Tags<'_>) -> Self {
        Self {
            space: tags.space.to_owned(),
            names: tags.names.to_vec(),
        }
    }
}

impl Named {
    fn tags(&self) -> Tags<'_> {
        Tags {
            space: &self.space,
            names: &self.names,
        }
    }
}

#[async_trait]
impl Store for Remote {
    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn get_now(&self, key: &Key) -> Option<Option<Arc<Entry>>> {
        let (at_once, memory) = {
            let content = self.server.content();
            (content.faults.at_once, content.memory.clone())
        };
        at_once.then(|| memory.get_now(key))?
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let (keys, tags) = (keys.to_vec(), tags.map(Named::from));
        let what = || format!("get {keys:?} {:?}", tags.as_ref().map(|tags| &tags.names));
        let what = self.server.0.log.map(|_| what());
        self.act(
            || what.unwrap_or_default(),
            async move |memory: Memory| memory.get(&keys, tags.as_ref().map(Named::tags)).await,
        )
        .await
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let sent = keys.to_vec();
        self.act(
            || format!("heads {keys:?}"),
            async move |memory: Memory| memory.heads(&sent).await,
        )
        .await
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        let sent = key.clone();
        let what = self.server.0.log.map(|_| format!("{entry:?}"));
        self.change(
            || format!("put {key:?} {when:?} {}", what.unwrap_or_default()),
            vec![changed(key)],
            |put| *put,
            async move |memory: Memory| memory.put(&sent, entry, when).await,
        )
        .await
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        let news = entries.iter().map(|(key, _)| changed(key)).collect();
        self.change(
            || "put_many".to_owned(),
            news,
            |_| true,
            async move |memory: Memory| memory.put_many(entries).await,
        )
        .await
    }

    async fn mark(&self, key: &Key, seen: Option<crate::Stamp>, mark: Mark) -> Result<bool> {
        let sent = key.clone();
        self.change(
            || format!("mark {key:?} {seen:?} {mark:?}"),
            vec![changed(key)],
            |marked| *marked,
            async move |memory: Memory| memory.mark(&sent, seen, mark).await,
        )
        .await
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        let sent = key.clone();
        self.change(
            || format!("touch {key:?}"),
            vec![changed(key)],
            Option::is_some,
            async move |memory: Memory| memory.touch(&sent, fresh_until).await,
        )
        .await
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        let sent = key.clone();
        self.change(
            || format!("add_to {key:?} {delta}"),
            vec![changed(key)],
            |_| true,
            async move |memory: Memory| memory.add_to(&sent, delta).await,
        )
        .await
    }

    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        let sent = Named::from(tags);
        self.change(
            || format!("raise {:?}", tags.names),
            vec![News::Space(tags.space.into())],
            |_| true,
            async move |memory: Memory| memory.raise(sent.tags()).await,
        )
        .await
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let sent = keys.to_vec();
        self.change(
            || format!("delete {keys:?}"),
            keys.iter().map(changed).collect(),
            |_| true,
            async move |memory: Memory| memory.delete(&sent).await,
        )
        .await
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        let news = vec![News::Space(space.into()), News::Scope(scope.into())];
        let (sent, space) = (scope.to_owned(), space.to_owned());
        self.change(
            || format!("clear {scope}"),
            news,
            |()| true,
            async move |memory: Memory| memory.clear(&sent, &space).await,
        )
        .await
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    fn scan(&self) -> Option<&dyn Scan> {
        None
    }

    fn watch(&self) -> Option<&dyn Watch> {
        Some(self)
    }
}
