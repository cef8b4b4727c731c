//! A file of SQLite.
//!
//! Reads happen on the caller's own thread, on one of a few connections that only read: a page of the
//! file is in memory as a rule, and a hop to another thread costs ten times what the read does. Writes
//! go to one thread, which commits together what is waiting. The journal is a WAL, so readers and the
//! writer do not wait for each other, in this process and in others that have the file open.
//!
//! *Restarts.* A commit is not waited for until it is on the disk, so a power cut can take back the last
//! ones, invalidations among them. The file says in which run of the machine it was written; in another
//! run it is emptied when it is opened. See [`trust_restarts`](SqliteBuilder::trust_restarts) and
//! [`sync_commits`](SqliteBuilder::sync_commits).
//!
//! *What it does not do.* A file on a network drive: its locks do not hold there.
//!
//! | file | what |
//! | --- | --- |
//! | `acts.rs` | the acts on a connection |
//! | `builder.rs` | settings |
//! | `errors.rs` | what callers are told |
//! | `file.rs` | opening, making, and who reads |
//! | `thread.rs` | who writes |

mod acts;
mod builder;
mod errors;
mod file;
mod thread;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;

use self::acts::{Acts, Condition, Slots};
pub use self::builder::SqliteBuilder;
use self::file::{File, Open, Texts};
use self::thread::{NoAnswer, Thread};
use super::cull::{self, BATCH, Cull, Culler};
use super::found;
use super::gate::Gate;
use super::outbox::{self, Outgoing, Waiting, settle};
use super::row::{Row, after_all, fits, stamp};
use super::settings::Settings;
use crate::entry::{Entry, Head, Mark, Stamp};
use crate::store::{Found, Numbers, Scan, Scanned, Store, Sum, Tags, Watch, When};
use crate::{Clock, Error, ErrorKind, Key, Moment, Result};

/// Keys that a caller reads by itself; more are read by a thread.
const FEW: usize = 128;

/// Keeps entries in a file of SQLite, which processes of one machine can share; a clone shares the
/// open file.
///
/// ```
/// use larder::{Cache, store::Sqlite};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("larder-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let url = format!("sqlite://{}/cache.db", folder.display());
/// let sqlite = Sqlite::lazy(url)?;
/// sqlite.create_table().await?;
///
/// let cache = Cache::new(sqlite);
/// cache.set("k", "v").await?;
/// assert_eq!(cache.get::<String>("k").await?.as_deref(), Some("v"));
/// # let _ = std::fs::remove_dir_all(&folder);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sqlite(Arc<Inner>);

struct Inner {
    gate: Arc<Gate<File>>,
    settings: Settings,
    culler: Culler,
    /// Whose turn it is to work off the outbox.
    turn: tokio::sync::Mutex<()>,
}

impl Sqlite {
    /// The store at `url`, opened; its table has to be [there](Self::create_table).
    ///
    /// `sqlite:///path/to/file.db?table=larder`, where the table's name can be left out.
    pub async fn connect(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).connect().await
    }

    /// The store at `url`, which opens its file when it is first used.
    pub fn lazy(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).lazy()
    }

    /// Settings for the store at `url`.
    pub fn builder(url: impl Into<String>) -> SqliteBuilder {
        SqliteBuilder::new(url.into())
    }

    fn new(file: File, settings: Settings) -> Self {
        let patience = settings.connect_timeout + settings.timeout;
        Self(Arc::new(Inner {
            gate: Gate::new(file, settings.clock.clone(), patience),
            settings,
            culler: Culler::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Makes the file, readable by its owner only, and the tables; whether they were not there.
    pub async fn create_table(&self) -> Result<bool> {
        let made = self.0.file().apart(File::create).await?;
        self.0.gate.forgive();
        Ok(made)
    }

    /// The statements that make the tables, without running them.
    ///
    /// ```
    /// let sqlite = larder::store::Sqlite::lazy("sqlite:///tmp/cache.db?table=pages")?;
    /// assert!(sqlite.table_sql()[0].starts_with("CREATE TABLE IF NOT EXISTS \"pages\""));
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn table_sql(&self) -> Vec<String> {
        self.0.file().table.sql()
    }

    /// What the outbox is called, behind its schema.
    pub(crate) fn outbox_name(&self) -> String {
        self.0.file().table.outbox_path()
    }

    /// Removes what has expired, and what is past `max_entries`; how many rows.
    ///
    /// A background task of the store does so about every minute.
    pub async fn cull(&self) -> Result<u64> {
        let Inner {
            settings, culler, ..
        } = &*self.0;
        cull::cull(&*self.0, culler, settings.max_entries).await
    }
}

impl fmt::Display for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.file().fmt(f)
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sqlite").field(&self.0.gate).finish()
    }
}

impl Inner {
    fn file(&self) -> &File {
        &self.gate.connect
    }

    fn clock(&self) -> &Clock {
        &self.settings.clock
    }

    fn random(&self) -> u64 {
        self.clock().random()
    }

    /// What `read` gives on this thread, if it can be had without waiting.
    fn read_here<T>(
        &self,
        open: &Arc<Open>,
        read: impl Fn(Acts<'_>) -> rusqlite::Result<T>,
    ) -> Option<Result<T>> {
        let (texts, now) = (open.texts(), self.clock().now());
        let outcome = open.read_now(|connection| {
            read(Acts {
                connection,
                texts,
                now,
            })
        });
        Some(outcome?.map_err(|error| self.told(open, &error)))
    }

    /// What `write` gives, once it is committed.
    async fn write<T, W>(self: &Arc<Self>, write: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(Acts<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let open = self.gate.link().await?;
        let Settings {
            cull_every,
            max_entries,
            ..
        } = self.settings;
        self.culler
            .start(self, self.clock(), cull_every, max_entries, |inner| {
                &inner.culler
            });
        self.ask(&open, &open.writer, write).await
    }

    async fn ask<T, A>(&self, open: &Arc<Open>, thread: &Thread, act: A) -> Result<T>
    where
        T: Send + 'static,
        A: FnOnce(Acts<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (texts, now) = (Arc::clone(open.texts()), self.clock().now());
        let act = move |connection: &Connection| {
            let texts: &Texts = &texts;
            act(Acts {
                connection,
                texts,
                now,
            })
        };
        let limit = self.settings.timeout;
        match thread.ask(self.clock(), limit, act).await {
            Ok(outcome) => outcome,
            Err(NoAnswer::Late) => Err(self.file().late()),
            Err(NoAnswer::Full) => {
                let does = "has too many writes waiting already";
                Err(self.file().complaint(ErrorKind::Unavailable, does))
            }
            Err(NoAnswer::Over) => {
                self.gate.discard(open);
                let does = "lost the thread that works on it";
                Err(self.file().complaint(ErrorKind::Unavailable, does))
            }
        }
    }

    /// What a caller is told; after an error that may come from the connection it is made anew.
    fn told(&self, open: &Arc<Open>, error: &rusqlite::Error) -> Error {
        self.gate.discard(open);
        self.file().tell(error)
    }

    async fn write_row(
        self: &Arc<Self>,
        key: &Key,
        entry: &Entry,
        when: Condition,
    ) -> Result<bool> {
        let key = key.clone();
        if fits(entry) {
            let row = Row::of(entry, &key);
            return self.write(move |acts| acts.put(&key, &row, when)).await;
        }
        let nothing = Row::nothing(Stamp::draw(self.clock()), &key);
        if self
            .write(move |acts| acts.put(&key, &nothing, when))
            .await?
        {
            return Err(super::too_large("sqlite"));
        }
        Ok(false)
    }

    async fn look(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Slots> {
        let open = self.gate.link().await?;
        let here = (keys.len() <= FEW)
            .then(|| self.read_here(&open, |acts| acts.get(keys, tags)))
            .flatten();
        if let Some(found) = here {
            return found;
        }
        let asked = keys.to_vec();
        let of = tags.map(|tags| (tags.space.to_owned(), tags.names.to_vec()));
        let read = move |acts: Acts<'_>| {
            let tags = of.as_ref().map(|(space, names)| Tags { space, names });
            acts.get(&asked, tags)
        };
        self.ask(&open, &open.reader, read).await
    }

    async fn numbers(self: &Arc<Self>, tags: Tags<'_>) -> Result<Numbers> {
        let (space, names, era) = (tags.space.to_owned(), tags.names.to_vec(), self.random());
        let numbers = self
            .write(move |acts| acts.draw_numbers(&space, &names, era))
            .await?;
        numbers.ok_or_else(|| {
            let does = "gave an unexpected answer";
            self.file().complaint(ErrorKind::Unavailable, does)
        })
    }
}

#[async_trait]
impl Store for Sqlite {
    fn clock(&self) -> &Clock {
        self.0.clock()
    }

    /// Never without waiting: a page of the file may have to come from the disk.
    fn get_now(&self, _: &Key) -> Option<Option<Arc<Entry>>> {
        None
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let mut slots = self.0.look(keys, tags).await?;
        if let Some(tags) = tags.filter(|_| slots.is_waiting) {
            settle(self, &self.0.turn, self.0.settings.timeout, tags.space).await?;
            slots = self.0.look(keys, Some(tags)).await?;
        }
        let Slots { rows, numbers, .. } = slots;
        let numbers = match (tags, numbers) {
            (Some(tags), None) => Some(self.0.numbers(tags).await?),
            (_, numbers) => numbers,
        };
        Ok(Found {
            entries: entries(keys, rows),
            numbers,
        })
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let open = self.0.gate.link().await?;
        let here = (keys.len() <= FEW)
            .then(|| self.0.read_here(&open, |acts| acts.heads(keys)))
            .flatten();
        let live = if let Some(live) = here {
            live?
        } else {
            let asked = keys.to_vec();
            let read = move |acts: Acts<'_>| acts.heads(&asked);
            self.0.ask(&open, &open.reader, read).await?
        };
        Ok(heads(keys, &live))
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        self.0.write_row(key, &entry, Condition::When(when)).await
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let refused = |(at, (_, entry)): (usize, &(Key, Entry))| (!fits(entry)).then_some(at);
        let refused = entries.iter().enumerate().filter_map(refused).collect();
        let clock = self.clock();
        let row = |(key, entry): &(Key, Entry)| {
            if fits(entry) {
                Row::of(entry, key)
            } else {
                Row::nothing(Stamp::draw(clock), key)
            }
        };
        let rows: Vec<(Key, Row)> = entries.iter().map(|it| (it.0.clone(), row(it))).collect();
        let write = move |acts: Acts<'_>| {
            let always = Condition::When(When::Always);
            rows.iter()
                .try_for_each(|(key, row)| acts.put(key, row, always).map(|_| ()))
        };
        self.0.write(write).await?;
        Ok(refused)
    }

    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        let Some(seen) = seen else {
            return self
                .0
                .write_row(key, &Entry::bare(mark), Condition::Gone)
                .await;
        };
        let key = key.clone();
        self.0
            .write(move |acts| acts.mark(&key, stamp(seen), mark))
            .await
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        let (asked, new) = (key.clone(), stamp(Stamp::draw(self.clock())));
        let before = self
            .0
            .write(move |acts| acts.touch(&asked, fresh_until, new))
            .await?;
        Ok(before.and_then(|before| before.head(key)))
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        let (key, new) = (key.clone(), stamp(Stamp::draw(self.clock())));
        self.0.write(move |acts| acts.add(&key, delta, new)).await
    }

    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        self.0.culler.note(tags.space);
        let (space, names, era) = (tags.space.to_owned(), tags.names.to_vec(), self.0.random());
        self.0
            .write(move |acts| acts.raise(&space, &names, era))
            .await
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let asked = keys.to_vec();
        let live = self.0.write(move |acts| acts.delete(&asked)).await?;
        Ok(heads(keys, &live))
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        self.0.culler.note(space);
        let (space, era) = (space.to_owned(), self.0.random());
        self.0
            .write(move |acts| acts.raise_floor(&space, era))
            .await?;
        let end = after_all(scope);
        let mut next = Some(scope.to_owned());
        while let Some(from) = next {
            let end = end.clone();
            next = self
                .0
                .write(move |acts| acts.remove_batch(&from, end.as_deref()))
                .await?;
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        let Some(open) = self.0.gate.close() else {
            return Ok(());
        };
        // What was asked before is done before.
        self.0.ask(&open, &open.writer, |_| Ok(())).await
    }

    fn scan(&self) -> Option<&dyn Scan> {
        Some(self)
    }

    fn watch(&self) -> Option<&dyn Watch> {
        None
    }
}

#[async_trait]
impl Outgoing for Sqlite {
    async fn waiting(&self, space: &str) -> Result<Vec<Waiting>> {
        let (open, space) = (self.0.gate.link().await?, space.to_owned());
        let read = move |acts: Acts<'_>| acts.waiting(&space, outbox::BATCH);
        self.0.ask(&open, &open.reader, read).await
    }

    async fn remove(&self, ids: &[i64]) -> Result<()> {
        let (open, ids) = (self.0.gate.link().await?, ids.to_vec());
        let remove = move |acts: Acts<'_>| acts.remove(&ids);
        self.0.ask(&open, &open.writer, remove).await
    }
}

#[async_trait]
impl Scan for Sqlite {
    async fn page(&self, scope: &str, from: Option<&str>, limit: usize) -> Result<Scanned> {
        let open = self.0.gate.link().await?;
        let (first, end) = (found::first_name(scope, from), after_all(scope));
        let limit = limit.max(1);
        let read = move |acts: Acts<'_>| acts.names(&first, end.as_deref(), limit);
        let rows = self.0.ask(&open, &open.reader, read).await?;
        Ok(found::page(&rows, limit))
    }
}

#[async_trait]
impl Cull for Inner {
    async fn remove_gone(&self) -> Result<u64> {
        self.write_apart(|acts| acts.remove_gone(BATCH)).await
    }

    async fn count(&self, most: u64) -> Result<u64> {
        let open = self.gate.link().await?;
        self.ask(&open, &open.reader, move |acts| acts.count(most))
            .await
    }

    async fn remove_soonest(&self, most: u64) -> Result<u64> {
        self.write_apart(move |acts| acts.remove_soonest(most))
            .await
    }

    async fn lift_floor(&self, space: &str) -> Result<i64> {
        let (open, space) = (self.gate.link().await?, space.to_owned());
        self.ask(&open, &open.writer, move |acts| acts.lift_floor(&space))
            .await
    }

    async fn drop_numbers(&self, space: &str, floor: i64) -> Result<u64> {
        let space = space.to_owned();
        self.write_apart(move |acts| acts.drop_numbers(&space, floor, BATCH))
            .await
    }
}

impl Inner {
    /// A write of the background task itself.
    async fn write_apart(
        &self,
        write: impl FnOnce(Acts<'_>) -> rusqlite::Result<usize> + Send + 'static,
    ) -> Result<u64> {
        let open = self.gate.link().await?;
        self.ask(&open, &open.writer, write)
            .await
            .map(|removed| removed as u64)
    }
}

fn entries(keys: &[Key], rows: Vec<Option<Row>>) -> Vec<Option<Entry>> {
    let entry = |(key, row): (&Key, Option<Row>)| Some(row?.into_entry(key));
    keys.iter().zip(rows).map(entry).collect()
}

fn heads(keys: &[Key], live: &[Option<found::Live>]) -> Vec<Option<Head>> {
    let head = |(key, live): (&Key, &Option<found::Live>)| live.as_ref()?.head(key);
    keys.iter().zip(live).map(head).collect()
}
