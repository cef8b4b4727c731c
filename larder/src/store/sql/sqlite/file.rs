//! The file: opening it, and who reads and writes it.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, TryLockError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};
use tokio::sync::oneshot;

use super::thread::{Role, Thread};
use crate::store::sql::gate::Connect;
use crate::store::sql::statements::{Ask, Way};
use crate::store::sql::table::Table;
use crate::{Clock, Error, ErrorKind, Result};

/// The row of the numbers' table that says in which run of the machine the file was last used: in a
/// space that no cache can have, so that whoever clears his own leaves it.
const BOOT: [&str; 2] = [":boot", "boot"];

/// A file and how to open it.
#[derive(Clone)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) table: Table,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) clock: Clock,
    pub(super) trust_restarts: bool,
    pub(super) sync_commits: bool,
}

/// The open file.
pub(super) struct Open {
    /// Read by the callers themselves.
    readers: Box<[Mutex<Connection>]>,
    next: AtomicUsize,
    /// Reads when all readers are busy, or when it takes longer.
    pub(super) reader: Thread,
    pub(super) writer: Thread,
    texts: Arc<Texts>,
}

/// The text of each statement, made once.
pub(super) struct Texts {
    table: Table,
    of: [OnceLock<String>; Ask::COUNT],
}

impl Texts {
    pub(super) fn has_outbox(&self) -> bool {
        self.table.has_outbox()
    }

    pub(super) fn of(&self, ask: Ask) -> &str {
        self.of[ask as usize].get_or_init(|| ask.text(Way::InPlace, &self.table))
    }
}

impl Open {
    pub(super) fn texts(&self) -> &Arc<Texts> {
        &self.texts
    }

    /// What `read` gives on a reader that nobody uses just now; `None` where there is none, or the
    /// file has to be waited for.
    pub(super) fn read_now<T>(
        &self,
        read: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Option<rusqlite::Result<T>> {
        let count = self.readers.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for at in 0..count {
            let connection = match self.readers[(first + at) % count].try_lock() {
                Ok(connection) => connection,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            let outcome = read(&connection);
            return match &outcome {
                Err(error) if is_busy(error) => None,
                _ => Some(outcome),
            };
        }
        None
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

#[async_trait]
impl Connect for File {
    type Link = Open;

    const PLACE: &'static str = "sqlite";

    async fn connect(&self) -> Result<Open> {
        self.apart(Self::open).await
    }

    fn is_over(link: &Open) -> bool {
        link.writer.is_over() || link.reader.is_over()
    }
}

impl File {
    /// Runs `work`, which may wait for the disk or for other processes, on a thread of its own.
    pub(super) async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, answer) = oneshot::channel();
        let file = self.clone();
        let started = std::thread::Builder::new()
            .name("larder-open".into())
            // An error says that nobody waits any more.
            .spawn(move || drop(sender.send(work(&file))));
        if let Err(error) = started {
            return Err(self.no_thread(error));
        }
        if let Some(Ok(outcome)) = self.clock.timeout(self.connect_timeout, answer).await {
            return outcome;
        }
        let does = format!("did not open within {:?}", self.connect_timeout);
        Err(self.complaint(ErrorKind::Timeout, &does))
    }

    fn open(&self) -> Result<Open> {
        if !self.path.exists() {
            return Err(self.no_table());
        }
        let mut writer = self.connection(false).map_err(|error| self.tell(&error))?;
        self.prepare(&mut writer)
            .map_err(|error| self.tell(&error))?;
        let reader = |timeout| {
            let reader = self.connection(true)?;
            reader.busy_timeout(timeout)?;
            Ok(reader)
        };
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        // A caller does not wait for the file: who would have to is sent to the thread.
        let readers = (0..cores.clamp(2, 16)).map(|_| reader(Duration::ZERO).map(Mutex::new));
        let readers: rusqlite::Result<Box<[_]>> = readers.collect();
        let readers = readers.map_err(|error| self.tell(&error))?;
        let patient = reader(self.timeout).map_err(|error| self.tell(&error))?;
        Ok(Open {
            readers,
            next: AtomicUsize::new(0),
            reader: self.thread(Role::Read, patient)?,
            writer: self.thread(Role::Write, writer)?,
            texts: Arc::new(Texts {
                table: self.table.clone(),
                of: [const { OnceLock::new() }; Ask::COUNT],
            }),
        })
    }

    fn thread(&self, role: Role, connection: Connection) -> Result<Thread> {
        let file = self.clone();
        let tell = Arc::new(move |error: &rusqlite::Error| file.tell(error));
        Thread::start(role, connection, tell).map_err(|error| self.no_thread(error))
    }

    fn no_thread(&self, error: std::io::Error) -> Error {
        self.complaint(ErrorKind::Unavailable, "cannot be given a thread")
            .with_source(error)
    }

    /// A connection to a file that is there.
    fn connection(&self, only_reads: bool) -> rusqlite::Result<Connection> {
        let mode = if only_reads {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE
        };
        let connection =
            Connection::open_with_flags(&self.path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    }

    /// Makes the file ours: its mode, its table, and no entry from before a restart of the machine.
    fn prepare(&self, writer: &mut Connection) -> rusqlite::Result<()> {
        writer.busy_timeout(self.timeout)?;
        if self.table.has_outbox() {
            for ask in [Ask::IsWaiting, Ask::Remove] {
                writer.prepare(&ask.text(Way::InPlace, &self.table))?;
            }
        }
        if !self.table.has_entries() {
            // Somebody else's file: how it is written is theirs to say.
            return Ok(());
        }
        writer.pragma_update(None, "journal_mode", "wal")?;
        let boot = boot_number();
        // Without a mark of the machine's run nothing would tell that commits were taken back.
        let sync = self.sync_commits || (boot.is_none() && !self.trust_restarts);
        writer.pragma_update(None, "synchronous", if sync { "full" } else { "normal" })?;
        for ask in [Ask::Get, Ask::Put, Ask::RemoveGone, Ask::RaiseFloor] {
            writer.prepare(&ask.text(Way::InPlace, &self.table))?;
        }
        boot.map_or(Ok(()), |boot| self.forget_other_runs(writer, boot))
    }

    /// Empties the file if commits may have been taken back since it was last used, unless restarts are
    /// trusted; and notes in which run of the machine it has commits that are not synced.
    fn forget_other_runs(&self, writer: &mut Connection, boot: i64) -> rusqlite::Result<()> {
        let (entries, numbers) = (self.table.entries(), self.table.numbers());
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let before: Option<i64> = transaction
            .query_row(
                &format!("SELECT number FROM {numbers} WHERE space = ?1 AND tag = ?2"),
                BOOT,
                |row| row.get(0),
            )
            .optional()?;
        // Without the row every commit so far was synced.
        let is_good = before.is_none_or(|before| before == boot) || self.trust_restarts;
        // Who trusts restarts leaves an older note to those who do not.
        let is_noted = is_good && before.is_some();
        if !is_good {
            transaction.execute(&format!("DELETE FROM {entries}"), [])?;
            transaction.execute(&format!("DELETE FROM {numbers}"), [])?;
        }
        if !self.sync_commits && !is_noted {
            let note = "INSERT INTO {} (space, tag, number) VALUES (?1, ?2, ?3) \
                        ON CONFLICT (space, tag) DO UPDATE SET number = excluded.number";
            transaction.execute(&note.replace("{}", &numbers), (BOOT[0], BOOT[1], boot))?;
        }
        transaction.commit()
    }

    /// Makes file and table; whether the table was not there.
    pub(super) fn create(&self) -> Result<bool> {
        self.create_file().map_err(|error| {
            self.complaint(ErrorKind::Unavailable, "cannot be made")
                .with_source(error)
        })?;
        self.create_table().map_err(|error| self.tell(&error))
    }

    /// Others on the machine may not read what users see; the files beside it follow its mode.
    fn create_file(&self) -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&self.path).map(|_| ())
    }

    fn create_table(&self) -> rusqlite::Result<bool> {
        let mut connection = self.connection(false)?;
        connection.busy_timeout(self.timeout)?;
        if self.table.has_entries() {
            connection.pragma_update(None, "journal_mode", "wal")?;
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut there = true;
        for name in self.table.names() {
            let is_there: bool = transaction.query_row(
                "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1",
                [name],
                |row| row.get(0),
            )?;
            there &= is_there;
        }
        for text in self.table.sql() {
            transaction.execute(&text, [])?;
        }
        transaction.commit()?;
        Ok(!there)
    }
}

/// Which run of the machine this is, by the number that Linux draws at each.
fn boot_number() -> Option<i64> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    Some(u64::from_str_radix(&digits, 16).ok()?.cast_signed())
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite://{}", self.path.display())?;
        let settings = self.table.settings();
        let mark = if settings.is_empty() { "" } else { "?" };
        write!(f, "{mark}{}", settings.join("&"))
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({self})")
    }
}
