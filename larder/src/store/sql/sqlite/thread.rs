//! A thread that owns a connection and does what it is asked, one after the other.
//!
//! The writer does what is waiting in one transaction and answers after the commit, so that many
//! writers pay for one. An act that fails is undone alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use crate::{Clock, Result};

/// Acts in one transaction, at most.
const GROUP: usize = 256;
/// Acts that wait for a thread, at most: more than that it does not do before their callers have gone.
const WAITING: usize = 4096;

/// Turns what SQLite says into what a caller is told.
pub(super) type Tell = Arc<dyn Fn(&rusqlite::Error) -> crate::Error + Send + Sync>;

/// What a thread does.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Read,
    Write,
}

/// Why a thread gave no answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum NoAnswer {
    Late,
    /// So many others wait that nothing was asked.
    Full,
    /// The thread has ended.
    Over,
}

/// The way to a thread; the thread ends after this value.
pub(super) struct Thread {
    jobs: SyncSender<Box<dyn Job>>,
    is_over: Arc<AtomicBool>,
}

/// An act that somebody waits for.
trait Job: Send {
    /// Whether somebody still waits for it.
    fn is_wanted(&self) -> bool;
    /// Acts; whether all is well.
    fn run(&mut self, connection: &Connection, tell: &Tell) -> bool;
    /// Answers; `failure` is of the whole transaction.
    fn answer(self: Box<Self>, failure: Option<&crate::Error>);
}

struct Asked<A, T> {
    act: Option<A>,
    outcome: Option<Result<T>>,
    caller: oneshot::Sender<Result<T>>,
}

impl<A, T> Job for Asked<A, T>
where
    A: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn is_wanted(&self) -> bool {
        !self.caller.is_closed()
    }

    fn run(&mut self, connection: &Connection, tell: &Tell) -> bool {
        // Nobody waits for it any more, and whoever gave up does not know whether it happened.
        if !self.is_wanted() {
            return true;
        }
        let Some(act) = self.act.take() else {
            return true;
        };
        let outcome = act(connection).map_err(|error| tell(&error));
        self.outcome.insert(outcome).is_ok()
    }

    fn answer(self: Box<Self>, failure: Option<&crate::Error>) {
        let outcome = match (failure, self.outcome) {
            (Some(failure), _) => Err(failure.clone()),
            (None, Some(outcome)) => outcome,
            (None, None) => return,
        };
        // An error says that the caller is gone.
        let _ = self.caller.send(outcome);
    }
}

/// Says that a thread has ended, however it ended.
struct SaysOver(Arc<AtomicBool>);

impl Drop for SaysOver {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Thread {
    pub(super) fn start(role: Role, connection: Connection, tell: Tell) -> std::io::Result<Self> {
        let (jobs, asked) = sync_channel(WAITING);
        let is_over = Arc::default();
        let says_over = SaysOver(Arc::clone(&is_over));
        let name = match role {
            Role::Read => "larder-read",
            Role::Write => "larder-write",
        };
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let _held = says_over;
                match role {
                    Role::Read => read(&connection, &asked, &tell),
                    Role::Write => write(connection, &asked, &tell),
                }
            })?;
        Ok(Self { jobs, is_over })
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// What `act` gives, if the thread has done it within `limit`.
    pub(super) async fn ask<A, T>(
        &self,
        clock: &Clock,
        limit: std::time::Duration,
        act: A,
    ) -> std::result::Result<Result<T>, NoAnswer>
    where
        A: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let job = Asked {
            act: Some(act),
            outcome: None,
            caller,
        };
        match self.jobs.try_send(Box::new(job)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(NoAnswer::Full),
            Err(TrySendError::Disconnected(_)) => return Err(NoAnswer::Over),
        }
        match clock.timeout(limit, answer).await {
            Some(Ok(outcome)) => Ok(outcome),
            Some(Err(_)) => Err(NoAnswer::Over),
            None => Err(NoAnswer::Late),
        }
    }
}

fn read(connection: &Connection, jobs: &Receiver<Box<dyn Job>>, tell: &Tell) {
    while let Ok(mut job) = jobs.recv() {
        job.run(connection, tell);
        job.answer(None);
    }
}

fn write(mut connection: Connection, jobs: &Receiver<Box<dyn Job>>, tell: &Tell) {
    while let Ok(first) = jobs.recv() {
        // The file may have to be waited for, which is for somebody.
        if !first.is_wanted() {
            continue;
        }
        let mut group = vec![first];
        let committed = write_group(&mut connection, jobs, &mut group, tell);
        let failure = committed.err().map(|error| tell(&error));
        if failure.is_some() {
            // Those behind have waited as long, and would wait as long again, one after the other.
            group.extend(jobs.try_iter());
        }
        for job in group {
            job.answer(failure.as_ref());
        }
    }
}

fn write_group(
    connection: &mut Connection,
    jobs: &Receiver<Box<dyn Job>>,
    group: &mut Vec<Box<dyn Job>>,
    tell: &Tell,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    while let Some(job) = group.last_mut() {
        run_alone(job, &transaction, tell)?;
        if group.len() == GROUP {
            break;
        }
        let Ok(next) = jobs.try_recv() else { break };
        group.push(next);
    }
    transaction.commit()
}

/// Runs a job so that it is undone alone if it fails.
fn run_alone(job: &mut Box<dyn Job>, connection: &Connection, tell: &Tell) -> rusqlite::Result<()> {
    let execute = |text| connection.prepare_cached(text)?.execute([]);
    execute("SAVEPOINT act")?;
    if !job.run(connection, tell) {
        execute("ROLLBACK TO act")?;
    }
    execute("RELEASE act").map(|_| ())
}
