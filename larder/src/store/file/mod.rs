//! Files in a folder of this machine.
//!
//! *What is kept there.* A slot is the file `ab/cdef…` under the SHA-256 of its name, with the name
//! in it and a sum over all of it: what is torn, foreign or another's is a miss. A write makes a
//! file beside it and renames that, so that a reader, who needs no lock, finds the old one or the
//! new. Who changes a slot locks its folder for every thread and process, for one act.
//!
//! *Limits.* Nothing is listed on the way of a get or a set. A thread sweeps the folders about once
//! a minute, and at once when what this process has written passes a limit; see [`File`].
//!
//! *Restarts.* Nothing waits until the disk has really written, so that a crash of the machine may
//! undo writes that were acknowledged, invalidations among them. So every frame states the start of
//! the machine at the time, and what an earlier one wrote is a miss. See
//! [`trust_restarts`](FileBuilder::trust_restarts).
//!
//! *What it does not do.* A folder belongs to one machine: locks do not reach farther on most network
//! file systems, and starts of two machines differ.
//!
//! | file | what |
//! | --- | --- |
//! | `act.rs` | acts on one slot |
//! | `builder.rs` | settings |
//! | `clearing.rs` | clears that are under way |
//! | `errors.rs` | what callers are told |
//! | `job.rs` | the hop to a thread that may block |
//! | `numbers.rs` | the numbers of tags |
//! | `room.rs` | a folder: its lock, its files |
//! | `scan.rs` | listing keys |
//! | `slot.rs` | the bytes of a slot's file |
//! | `sweep.rs` | removing what has expired, and what is too much |
//! | `usage.rs` | how much is kept |

mod act;
mod builder;
mod clearing;
mod errors;
mod job;
mod numbers;
mod room;
mod scan;
mod slot;
mod sweep;
mod usage;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

pub use self::builder::FileBuilder;
use self::clearing::Clearing;
use self::numbers::NumberFiles;
use self::room::Room;
use self::usage::{Amount, Usage};
use super::{Found, Scan, Store, Sum, Tags, Watch, When};
use crate::entry::{Entry, Head, Mark, Stamp, State, Tag, Value};
use crate::{Clock, ErrorKind, Key, Moment, Result};

/// Folders over which the slots are spread.
const ROOMS: usize = 256;
/// Files that one job of a clear looks at.
const BATCH: usize = 256;

/// Keeps entries as files in a folder of this machine; a clone shares it.
///
/// Several processes can share the folder. Each entry is a file of its own, so that a get or a set
/// costs the same however many there are. Folders and files are for their user alone (0700, 0600).
///
/// *Limits* are kept by sweeps in the background. What has expired leaves first, about once a
/// minute and without being read, then what was written longest ago, down to nine tenths of the
/// limit. Between two sweeps a process may write the tenth that is missing, and what it writes while
/// a sweep runs (a second or two for a million entries), and so may each process of the folder.
///
/// *A full disk* is a miss to a [`fetch`](crate::Cache::fetch): its load runs, and is not kept. A set
/// is an error then, and what it was to replace is gone.
///
/// *While it is cleared* nothing that is loaded is kept: a fetch waits for half a second, then loads
/// beside the cache.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// # let folder = std::env::temp_dir().join(format!("larder-file-{}", std::process::id()));
/// use larder::{Cache, store::File};
///
/// let cache = Cache::new(File::open(&folder)?);
/// cache.set("greeting", "hello").await?;
/// assert_eq!(cache.get("greeting").await?, Some("hello".to_owned()));
/// # let _ = std::fs::remove_dir_all(folder);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct File(Arc<Inner>);

struct Inner {
    root: PathBuf,
    rooms: Box<[Room]>,
    numbers: NumberFiles,
    clock: Clock,
    timeout: Duration,
    incarnation: u64,
    usage: Usage,
    sweeping: Mutex<()>,
}

impl Inner {
    fn new(
        root: PathBuf,
        clock: Clock,
        timeout: Duration,
        incarnation: u64,
        limits: Amount,
    ) -> Self {
        let make = |number| Room::new(root.join(format!("{number:02x}")));
        Self {
            rooms: (0..ROOMS).map(make).collect(),
            numbers: NumberFiles::new(root.join("numbers")),
            root,
            clock,
            timeout,
            incarnation,
            usage: Usage::new(limits),
            sweeping: Mutex::default(),
        }
    }
}

impl File {
    /// The store in the folder `path`, which is made if it is missing.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(path).open()
    }

    /// Settings for the store in the folder `path`.
    pub fn builder(path: impl Into<PathBuf>) -> FileBuilder {
        FileBuilder::new(path.into())
    }

    /// Removes now what has expired and what is past the limits, unless another process does so;
    /// blocks meanwhile. A thread of the store does so about once a minute.
    pub fn sweep(&self) {
        self.0.sweep();
    }

    /// Removes the slots of `names` in a folder that belong to `scope`.
    fn clear_batch(
        inner: &Inner,
        room: &Room,
        names: &[String],
        scope: &str,
        caller: &job::Caller,
    ) -> Result<()> {
        let failed = |path: &std::path::Path, error| inner.failed("clear", path, error);
        let lock = room
            .lock(caller)
            .map_err(|error| failed(room.path(), error))?;
        for name in names {
            let path = room.path().join(name);
            let start = match room::read_start(&path, slot::HEAD) {
                Err(error) if is_nothing(&error) => continue,
                start => start.map_err(|error| failed(&path, error))?,
            };
            // The place vouches for the name.
            let is_within = slot::name(&start)
                .is_some_and(|slot| slot.starts_with(scope) && slot::place(slot).1 == *name);
            if is_within {
                lock.remove(name).map_err(|error| failed(&path, error))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file://{}", self.0.root.display())
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("root", &self.0.root)
            .field("usage", &self.0.usage.now())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for File {
    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn get_now(&self, _: &Key) -> Option<Option<Arc<Entry>>> {
        None
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let keys = keys.to_vec();
        let tags = tags.map(Asked::from);
        self.job(move |inner, caller| {
            let entries = keys.iter().map(|key| inner.read(key)).collect();
            // After the entries: numbers older than the entry could hide an invalidation.
            let read = |tags: Asked| inner.numbers.read(tags.tags(), &inner.clock, caller);
            let numbers = tags.map(read);
            Ok(Found { entries, numbers })
        })
        .await
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let keys = keys.to_vec();
        self.job(move |inner, _| {
            let now = inner.clock.now();
            let head = |key| {
                let entry = inner.read(key).filter(|entry| entry.is_live(now))?;
                Some(entry.head())
            };
            Ok(keys.iter().map(head).collect())
        })
        .await
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        let key = key.clone();
        self.job(move |inner, caller| {
            let slot = inner.slot(&key, caller)?;
            let may = match when {
                When::Always => true,
                When::IfAbsent => slot.live()?.is_none(),
                When::IfPresent => slot.live()?.is_some(),
                When::IfStamp(stamp) => {
                    slot.entry()?.is_some_and(|found| found.stamp == stamp)
                        && !clearing::covers(&inner.root, key.name())
                }
            };
            if may {
                slot.put(&entry)?;
            }
            Ok(may)
        })
        .await
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        self.job(move |inner, caller| {
            let mut refused = Vec::new();
            for (at, (key, entry)) in entries.iter().enumerate() {
                match inner.slot(key, caller)?.put(entry) {
                    Err(error) if error.kind() == ErrorKind::TooLarge => refused.push(at),
                    put => put?,
                }
            }
            Ok(refused)
        })
        .await
    }

    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        let key = key.clone();
        self.job(move |inner, caller| {
            match inner.mark(&key, seen, mark, caller) {
                // A lease that is on no disk, for want of room, say: the load may run, and nothing is
                // written under it.
                Err(error)
                    if mark.state == State::Loading && error.kind() != ErrorKind::Timeout =>
                {
                    tracing::debug!(%error, "lease_not_written");
                    Ok(true)
                }
                marked => marked,
            }
        })
        .await
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        let key = key.clone();
        self.job(move |inner, caller| {
            let slot = inner.slot(&key, caller)?;
            let Some(mut entry) = slot.live()? else {
                return Ok(None);
            };
            let head = entry.head();
            let grace = entry.grace();
            entry = entry.fresh_until(fresh_until).with_grace(grace);
            entry.stamp = Stamp::draw(&inner.clock);
            entry.state = State::Idle;
            slot.change(&entry)?;
            Ok(Some(head))
        })
        .await
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        let key = key.clone();
        self.job(move |inner, caller| {
            let slot = inner.slot(&key, caller)?;
            let Some(mut entry) = slot.live()? else {
                return Ok(Sum::NoSuchKey);
            };
            let (true, Some(Value::Integer(number))) = (entry.is_plain(), &entry.value) else {
                return Ok(Sum::NotPlain);
            };
            let Some(sum) = number.checked_add(delta) else {
                return Ok(Sum::Overflow);
            };
            entry.value = Some(Value::Integer(sum));
            entry.stamp = Stamp::draw(&inner.clock);
            slot.change(&entry)?;
            Ok(Sum::Is(sum))
        })
        .await
    }

    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        let tags = Asked::from(tags);
        self.job(move |inner, caller| {
            let raised = inner.numbers.raise(tags.tags(), &inner.clock, caller);
            raised.map_err(|error| inner.failed("write", inner.numbers.room().path(), error))
        })
        .await
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let keys = keys.to_vec();
        self.job(move |inner, caller| {
            let delete = |key| {
                let slot = inner.slot(key, caller)?;
                // What cannot be read goes all the same, uncounted.
                let live = slot.live().ok().flatten();
                let head = live.map(|entry| entry.head());
                slot.remove()?;
                Ok(head)
            };
            keys.iter().map(delete).collect()
        })
        .await
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        let space = space.to_owned();
        self.job(move |inner, caller| {
            let raised = inner.numbers.raise_floor(&space, &inner.clock, caller);
            raised.map_err(|error| inner.failed("write", inner.numbers.room().path(), error))
        })
        .await?;
        let (within, draw) = (scope.to_owned(), self.0.clock.random());
        let clearing = self
            .job(move |inner, _| {
                let begun = Clearing::begin(&inner.root, &within, draw);
                begun.map_err(|error| inner.failed("write", &inner.root, error))
            })
            .await?;
        for number in 0..ROOMS {
            // Listed while nobody can replace a file, which a listing could miss.
            let mut names = self
                .job(move |inner, caller| {
                    let room = &inner.rooms[number];
                    if !room.path().exists() {
                        return Ok(Vec::new());
                    }
                    let failed = |error| inner.failed("list", room.path(), error);
                    let _lock = room.lock(caller).map_err(failed)?;
                    room.names().map_err(failed)
                })
                .await?;
            names.retain(|name| slot::is_place(name));
            for batch in names.chunks(BATCH) {
                let (batch, scope) = (batch.to_vec(), scope.to_owned());
                self.job(move |inner, caller| {
                    Self::clear_batch(inner, &inner.rooms[number], &batch, &scope, caller)
                })
                .await?;
            }
        }
        self.job(move |_, _| {
            drop(clearing);
            Ok(())
        })
        .await
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    fn scan(&self) -> Option<&dyn Scan> {
        Some(self)
    }

    fn watch(&self) -> Option<&dyn Watch> {
        None
    }
}

/// Whether there is no file: nothing at all, or a folder.
fn is_nothing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{IsADirectory, NotFound};
    matches!(error.kind(), IsADirectory | NotFound)
}

/// Tags that a job can take along.
struct Asked {
    space: Box<str>,
    names: Box<[Tag]>,
}

impl Asked {
    fn tags(&self) -> Tags<'_> {
        Tags {
            space: &self.space,
            names: &self.names,
        }
    }
}

impl From<Tags<'_>> for Asked {
    fn from(tags: Tags<'_>) -> Self {
        Self {
            space: tags.space.into(),
            names: tags.names.into(),
        }
    }
}
