//! Where entries are kept.
//!
//! | file | what |
//! | --- | --- |
//! | `cells.rs` | the numbers of an entry's tags at a glance |
//! | `file/` | files in a folder of this machine |
//! | `memcached/` | memcached servers |
//! | `memory.rs` | in this process, bounded by bytes and entries |
//! | `redis/` | a Redis or Valkey server, or several |
//! | `marks.rs` | leases and markers in this process, within bounds |
//! | `sql/` | tables of SQLite, PostgreSQL, MySQL and MariaDB |
//! | `null.rs` | nowhere: for development and for turning a cache off |
//! | `scan.rs`, `watch.rs` | rarer powers: to list keys, to tell what changes |

pub(crate) mod cells;
#[cfg(all(feature = "file", unix))]
mod file;
#[cfg(feature = "memory")]
mod marks;
#[cfg(feature = "memcached")]
mod memcached;
#[cfg(feature = "memory")]
mod memory;
mod null;
mod numbers;
#[cfg(feature = "redis")]
mod redis;
mod scan;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod sql;
mod watch;

use std::fmt::{Debug, Display};
use std::sync::Arc;

use async_trait::async_trait;

use crate::entry::{Entry, Head, Mark, Stamp, Tag};
use crate::{Clock, Key, Moment, Result};
#[cfg(all(feature = "file", unix))]
pub use file::{File, FileBuilder};
#[cfg(feature = "memcached")]
pub use memcached::{Memcached, MemcachedBuilder};
#[cfg(feature = "memory")]
pub use memory::{Memory, MemoryBuilder};
pub use null::Null;
pub use numbers::Numbers;
#[cfg(any(feature = "memory", feature = "simulation"))]
pub(crate) use numbers::Spaces;
#[cfg(feature = "redis")]
pub use redis::{Redis, RedisBuilder};
pub use scan::{Scan, Scanned};
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) use sql::{BATCH, Outgoing};
#[cfg(feature = "mysql")]
pub use sql::{Mysql, MysqlBuilder};
#[cfg(feature = "postgres")]
pub use sql::{Postgres, PostgresBuilder};
#[cfg(feature = "sqlite")]
pub use sql::{Sqlite, SqliteBuilder};
pub use watch::{Ears, News, Watch};

/// When [`Store::put`] may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// Only where no verb sees a value.
    IfAbsent,
    /// Only where a verb sees a value.
    IfPresent,
    /// Only if the slot still has this stamp. [`Stamp::PLAIN`] tells nothing apart: where that is
    /// all that a slot has, nothing is written.
    IfStamp(Stamp),
}

/// Which tags to read along with entries.
#[derive(Debug, Clone, Copy)]
pub struct Tags<'a> {
    /// The tag space, one set of numbers shared by caches that invalidate together.
    pub space: &'a str,
    /// The tags whose numbers are wanted; none still gives counter, floor and era.
    pub names: &'a [Tag],
}

/// What [`Store::get`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What each slot holds, in the order asked.
    pub entries: Vec<Option<Entry>>,
    /// The numbers, if they were asked for; read after the entries, never before.
    pub numbers: Option<Numbers>,
}

/// The answer of [`Store::add_to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// The new value.
    Is(i64),
    /// No verb sees a value there.
    NoSuchKey,
    /// There is a value, but not a plain integer: change it by compare-and-set, or refuse.
    NotPlain,
    /// The result does not fit 64 bits; nothing was changed.
    Overflow,
}

/// A place that keeps entries by key: bytes in, bytes out.
///
/// Prefixes, versions, default TTLs, typed values, loads and scopes live above. The crate's
/// `conformance` module holds every clause of this contract as a test; run it over your own store.
///
/// *For implementers.* Each method is one atomic act per key of the engine underneath, and a batch
/// is one round trip per server. A caller may drop any future at any time. `get` returns what the
/// slot physically holds; to every other method a slot without a value, or whose value is past its
/// TTL, is empty, except to [`mark`](Self::mark) and [`When::IfStamp`], which compare stamps. Every
/// write gives the slot the stamp it carries, or a new one. Nothing may wait without a time limit.
///
/// *For callers.* An error says that the act may or may not have happened, unless its kind is
/// `Invalid` or `Unsupported`: then nothing happened; or `TooLarge`: then nothing was written, and where
/// it was to be written nothing is left.
///
/// *For wrappers.* There are no default methods: forward every one, `get_now` included.
#[async_trait]
pub trait Store: Debug + Display + Send + Sync + 'static {
    /// The clock by which this store judges TTLs; the cache above uses the same.
    fn clock(&self) -> &Clock;

    /// What the slot holds, if that can be told without waiting; else `None`.
    ///
    /// It is the store's own word, which a fetch serves: who answers from a copy that may be behind says
    /// `None` here. May leave out the state of a slot whose value is live. Shared, since this is the way of a hit
    /// in memory, where a copy would cost as much as the rest.
    fn get_now(&self, key: &Key) -> Option<Option<Arc<Entry>>>;

    /// What the slots hold, and the numbers of `tags`.
    ///
    /// Without `tags` a verb asks that neither loads nor compares: a store that was told to may answer
    /// from a copy that lags, and says so in its docs.
    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found>;

    /// The heads of the live entries at `keys`; nothing is changed.
    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>>;

    /// Writes `entry`, replacing value, lease and marker; says whether it was written.
    ///
    /// `Ok(false)` under [`When::Always`] does not occur; an entry that the store cannot hold is
    /// an error of kind `TooLarge`, and what was there before is gone.
    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool>;

    /// Writes all `entries`; returns the positions of those that were not stored.
    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>>;

    /// Puts `mark` into the slot, leaving its value, if the slot's stamp is `seen` (`None`: the slot
    /// is empty, even of a lease). Marks, renews or ends a lease; says whether it did.
    ///
    /// A store may say that it did where it could not, if nothing can be written under that mark
    /// afterwards, also not later: the load then runs and is not kept. It may say that it did not
    /// though nobody else has the slot: who asks does so again for a moment.
    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool>;

    /// Moves the end of a live entry's TTL to `fresh_until`, its grace along with it; returns the
    /// head it had.
    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>>;

    /// Adds to a live plain integer, keeping its TTL.
    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum>;

    /// Takes the next number of the space and raises every tag to it; returns it.
    ///
    /// One act: nobody sees some of the tags raised. With no tags it still takes a number.
    async fn raise(&self, tags: Tags<'_>) -> Result<u64>;

    /// Removes what is in the slots, leases and markers too; returns the heads of what was live.
    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>>;

    /// Raises the floor of the tag space `space` over every number given, so that each tag counts as
    /// the floor, then removes every slot whose name starts with `scope`, leases included. Counter
    /// and era of the space stay.
    async fn clear(&self, scope: &str, space: &str) -> Result<()>;

    /// Lets go of connections and finishes what is under way.
    async fn close(&self) -> Result<()>;

    /// The power to list keys, if the store has it.
    fn scan(&self) -> Option<&dyn Scan>;

    /// The power to tell what changes, if the store has it.
    fn watch(&self) -> Option<&dyn Watch>;
}

macro_rules! forward_to_inner {
    ($pointer:ty) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: Store + ?Sized> Store for $pointer {
            fn clock(&self) -> &Clock {
                (**self).clock()
            }
            fn get_now(&self, key: &Key) -> Option<Option<Arc<Entry>>> {
                (**self).get_now(key)
            }
            async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
                (**self).get(keys, tags).await
            }
            async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
                (**self).heads(keys).await
            }
            async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
                (**self).put(key, entry, when).await
            }
            async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
                (**self).put_many(entries).await
            }
            async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
                (**self).mark(key, seen, mark).await
            }
            async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
                (**self).touch(key, fresh_until).await
            }
            async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
                (**self).add_to(key, delta).await
            }
            async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
                (**self).raise(tags).await
            }
            async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
                (**self).delete(keys).await
            }
            async fn clear(&self, scope: &str, space: &str) -> Result<()> {
                (**self).clear(scope, space).await
            }
            async fn close(&self) -> Result<()> {
                (**self).close().await
            }
            fn scan(&self) -> Option<&dyn Scan> {
                (**self).scan()
            }
            fn watch(&self) -> Option<&dyn Watch> {
                (**self).watch()
            }
        }
    };
}

forward_to_inner!(Arc<S>);
forward_to_inner!(Box<S>);
