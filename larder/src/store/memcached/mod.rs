//! One memcached server or several.
//!
//! A client of our own, for the meta protocol of memcached 1.6 and newer: one connection to each
//! server, shared by all who call and made again when it breaks. A read is one round trip per server;
//! so is a write that asks for nothing. A write under a condition reads first, and compares the item's
//! CAS unique when it writes.
//!
//! *What is kept there.* A slot is an item under the key's name: a frame, or bare digits for an
//! integer that is not negative and lives for about a minute or more, since a server counts whole
//! seconds and stops at zero. The numbers of a tag space are items `space:@:seq` and
//! `space:@:t:tag`, all on one server.
//!
//! *Several servers.* A key belongs to a server by consistent hashing, as libmemcached does it
//! (`KETAMA_WEIGHTED`), and stays there: while one of several servers is down, reads of its keys are
//! misses, and writes of them errors. Where it is the one that keeps the numbers, entries with tags are
//! misses as well, nothing made with tags is kept, and invalidations are errors.
//!
//! *Restarts.* A server that was restarted has forgotten everything, tags' numbers included, so that
//! tagged entries on other servers are misses. One that keeps its memory in a file (`-e`) is told by its
//! process and start time, which are read at each connect and stand in every frame, but not beside bare digits.
//!
//! *What it does not do.* It takes no part in SASL or the binary protocol. Never does it flush a
//! server: [`clear`](crate::store::Store::clear) lists the keys, and is an error where that is switched
//! off. An entry larger than the server's largest item (`-I`, 1 MiB unless told otherwise), or than 64 MiB,
//! is an error.
//!
//! | file | what |
//! | --- | --- |
//! | `act.rs` | how commands are sent, and once more |
//! | `address.rs` | URLs, and how to show them without the password |
//! | `away.rs` | reading on while the numbers' server is down |
//! | `builder.rs` | settings |
//! | `clear.rs` | removing by listing |
//! | `connection.rs` | one connection that many share |
//! | `connector.rs` | connecting, breaking, failing fast |
//! | `hello.rs` | the first words on a connection |
//! | `leases.rs` | the leases of this process |
//! | `numbers.rs` | the numbers of tags |
//! | `reply.rs`, `request.rs` | the protocol |
//! | `ring.rs` | which server keeps a key |
//! | `slots.rs` | reading a slot, and writing it by comparing |
//! | `sums.rs` | counting |

mod act;
mod address;
mod away;
mod builder;
mod clear;
mod connection;
mod connector;
mod hello;
mod leases;
mod numbers;
mod reply;
mod request;
mod ring;
mod slots;
mod sums;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;

use self::act::{Again, Part};
use self::address::Address;
pub use self::builder::MemcachedBuilder;
use self::connection::Link;
use self::connector::Connector;
use self::leases::Leases;
use self::numbers::Records;
use self::reply::{Code, Refusal, Reply};
use self::request::{Batch, Mode, What};
use self::ring::Ring;
use self::slots::{Slot, Verdict};
use super::{Found, Scan, Store, Sum, Tags, Watch, When};
use crate::entry::{Entry, Head, Mark, Stamp, State};
use crate::{Clock, ErrorKind, Key, Moment, Result};

/// Keeps entries on memcached servers; a clone shares the connections.
///
/// *Of several servers one may be down.* Reads of its keys are then misses, and writes of them errors;
/// no other server takes its keys, unless [told to](MemcachedBuilder::eject). The numbers of a tag space
/// are all on one server: while that one is down, what has tags is a miss, nothing made with tags is
/// kept, and what needs the numbers is an error: `invalidate`, `clear`, a `set` with tags. With one
/// server alone all of this is an error. A [`Forgiving`](crate::wrap::Forgiving) around several servers
/// knows them as one: while it owes one of them a write, it trusts none.
///
/// *What is listed is cleared.* `clear` lists the keys of every server, which takes a moment; a load that
/// begins meanwhile may be kept.
///
/// ```no_run
/// # async fn example() -> larder::Result<()> {
/// use larder::store::Memcached;
///
/// let memcached = Memcached::connect("memcached://a,b:11212?weight=2,1").await?;
/// assert_eq!(memcached.to_string(), "memcached://a:11211,b:11212?weight=2,1");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Memcached(Arc<Inner>);

struct Inner {
    servers: Vec<Arc<Connector>>,
    ring: Ring,
    leases: Leases,
    address: Address,
    clock: Clock,
    /// Reads that had to go without numbers.
    without: AtomicU64,
}

impl Memcached {
    /// The store at `url`, connected.
    ///
    /// `memcached://user:password@host:11211,host:11211`; `memcached+tls://` for TLS;
    /// `memcached+unix:///path` for a socket. User and password are for servers started with `-Y`.
    /// `?weight=2,1` gives the first of two servers twice as many keys; `?eject=true` is
    /// [`eject`](MemcachedBuilder::eject).
    pub async fn connect(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).connect().await
    }

    /// The store at `url`, which connects when it is first used.
    pub fn lazy(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).lazy()
    }

    /// Settings for the store at `url`.
    pub fn builder(url: impl Into<String>) -> MemcachedBuilder {
        MemcachedBuilder::new(url.into())
    }
}

impl fmt::Display for Memcached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.address.fmt(f)
    }
}

impl fmt::Debug for Memcached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memcached")
            .field("servers", &self.0.servers)
            .field("clock", &self.0.clock)
            .finish_non_exhaustive()
    }
}

/// The keys of one server, by their positions.
struct Group {
    server: usize,
    keys: Vec<usize>,
}

impl Group {
    fn part(&self, per_key: usize) -> Part {
        Part {
            server: self.server,
            count: self.keys.len() * per_key,
        }
    }
}

impl Memcached {
    /// Which keys each server keeps.
    fn groups<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for (at, key) in keys.into_iter().enumerate() {
            let server = self.server_of(key.name());
            match groups.iter_mut().find(|group| group.server == server) {
                Some(group) => group.keys.push(at),
                None => groups.push(Group {
                    server,
                    keys: vec![at],
                }),
            }
        }
        groups
    }

    /// Puts what `replies` say of `group` into `entries`.
    fn fill(
        &self,
        group: &Group,
        keys: &[Key],
        link: &Link,
        replies: &[Reply],
        entries: &mut [Option<Entry>],
    ) -> Result<()> {
        for (at, reply) in group.keys.iter().zip(replies) {
            let Slot { entry, .. } = self.slot(group.server, &keys[*at], link, reply)?;
            entries[*at] = entry;
        }
        Ok(())
    }

    /// Puts what is found at the keys of `groups` into `entries`.
    async fn get_entries(
        &self,
        keys: &[Key],
        groups: &[Group],
        entries: &mut [Option<Entry>],
    ) -> Result<()> {
        let parts: Vec<Part> = groups.iter().map(|group| group.part(1)).collect();
        let read = |part: usize, _: &Link, batch: &mut Batch| {
            for at in &groups[part].keys {
                batch.get(keys[*at].name(), What::Value);
            }
        };
        let answers = self.ask_each(&parts, Again::Once, read).await;
        for (group, answer) in groups.iter().zip(answers) {
            match answer {
                Ok((link, replies)) => self.fill(group, keys, &link, &replies, entries)?,
                // Its keys are misses.
                Err(error) if self.is_away(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the keys of a space's own server, and after them the space's numbers.
    async fn get_with_numbers(
        &self,
        keys: &[Key],
        home: Group,
        tags: Tags<'_>,
        entries: &mut [Option<Entry>],
    ) -> Result<super::Numbers> {
        let records = Records::of(tags.space);
        let count = home.keys.len() + tags.names.len() + 1;
        let read = |_: &Link, batch: &mut Batch| {
            for at in &home.keys {
                batch.get(keys[*at].name(), What::Value);
            }
            numbers::ask_numbers(batch, &records, tags);
        };
        let (link, replies) = self.ask(home.server, count, Again::Once, read).await?;
        let (slots, numbers) = replies.split_at(home.keys.len().min(replies.len()));
        self.fill(&home, keys, &link, slots, entries)?;
        let numbers = self.read_numbers(home.server, &link, numbers, tags).await?;
        match numbers {
            Some(numbers) => Ok(numbers),
            None => self.numbers(tags).await,
        }
    }
}

impl Memcached {
    /// [`mark`](Store::mark), or an error where there is no room for it.
    async fn try_mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        let bare = Entry::bare(mark);
        if seen.is_none() && mark.until > self.now() {
            let server = self.server_of(key.name());
            let link = self.link(server).await?;
            if self.write_on(server, key, &link, &bare, Mode::Add).await? {
                return Ok(true);
            }
        }
        if let Some(seen) = seen
            && self.write_under(key, seen, &bare).await?
        {
            return Ok(true);
        }
        let judge = |found: Option<&Entry>| match found {
            found if found.map(|found| found.stamp) != seen => Verdict::Leave(false),
            None => Verdict::Write(Box::new(bare.clone()), true),
            Some(found) => Verdict::Write(Box::new(found.clone().marked(mark)), true),
        };
        self.change(key, judge).await
    }
}

#[async_trait]
impl Store for Memcached {
    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn get_now(&self, _: &Key) -> Option<Option<Arc<Entry>>> {
        None
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let mut entries = vec![None; keys.len()];
        let mut groups = self.groups(keys);
        let Some(tags) = tags else {
            self.get_entries(keys, &groups, &mut entries).await?;
            let numbers = None;
            return Ok(Found { entries, numbers });
        };
        let server = self.server_of(&Records::of(tags.space).seq());
        let home = match groups.iter().position(|group| group.server == server) {
            Some(at) => groups.swap_remove(at),
            None => Group {
                server,
                keys: Vec::new(),
            },
        };
        // Numbers older than an entry could hide an invalidation: other servers answer first.
        self.get_entries(keys, &groups, &mut entries).await?;
        let numbers = self.get_with_numbers(keys, home, tags, &mut entries);
        let numbers = match numbers.await {
            // Who asks for numbers alone wants to know.
            Err(error) if !keys.is_empty() && self.is_away(&error) => {
                self.go_without_numbers(tags, &mut entries)
            }
            numbers => numbers?,
        };
        Ok(Found {
            entries,
            numbers: Some(numbers),
        })
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let mut entries = vec![None; keys.len()];
        self.get_entries(keys, &self.groups(keys), &mut entries)
            .await?;
        let head = |entry: Option<Entry>| live_head(entry.as_ref(), self.now());
        Ok(entries.into_iter().map(head).collect())
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        if when == When::Always {
            let server = self.server_of(key.name());
            let link = self.link(server).await?;
            let mode = Mode::Always;
            if self.write_on(server, key, &link, &entry, mode).await? {
                return Ok(true);
            }
        }
        if let When::IfStamp(stamp) = when
            && self.write_under(key, stamp, &entry).await?
        {
            return Ok(true);
        }
        let judge = |found: Option<&Entry>| {
            let live = found.is_some_and(|found| found.is_live(self.now()));
            let may = match when {
                When::Always => true,
                When::IfAbsent => !live,
                When::IfPresent => live,
                // All digits have the same.
                When::IfStamp(Stamp::PLAIN) => false,
                When::IfStamp(stamp) => found.is_some_and(|found| found.stamp == stamp),
            };
            if may {
                Verdict::Write(Box::new(entry.clone()), true)
            } else {
                Verdict::Leave(false)
            }
        };
        self.change(key, judge).await
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        let groups = self.groups(entries.iter().map(|(key, _)| key));
        let parts: Vec<Part> = groups.iter().map(|group| group.part(1)).collect();
        let write = |part: usize, link: &Link, batch: &mut Batch| {
            for at in &groups[part].keys {
                let (key, entry) = &entries[*at];
                self.write(batch, key, entry, link, Mode::Always);
            }
        };
        let answers = self.ask_all(&parts, Again::Never, write).await?;
        let mut left_out = Vec::new();
        for (group, (link, replies)) in groups.iter().zip(answers) {
            let mut refused = Vec::new();
            for (at, reply) in group.keys.iter().zip(&replies) {
                let (key, entry) = &entries[*at];
                match &reply.line.code {
                    Code::Done | Code::NotFound if slots::fits(key, entry, &link) => {}
                    Code::Done | Code::NotFound => left_out.push(*at),
                    Code::Refused(Refusal::TooLarge | Refusal::NoMemory) => {
                        left_out.push(*at);
                        refused.push(key);
                    }
                    _ => return Err(self.odd(group.server, Some(reply))),
                }
            }
            self.drop_refused(group.server, &link, &refused, Mode::Always)
                .await?;
        }
        left_out.sort_unstable();
        Ok(left_out)
    }

    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        match self.try_mark(key, seen, mark).await {
            // What was there is gone, and a lease with it. A new one counts as placed: the load runs, and
            // what it gives finds no lease to be kept under.
            Err(error) if error.kind() == ErrorKind::TooLarge => Ok(seen != Some(mark.stamp)),
            marked => marked,
        }
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        let judge = |found: Option<&Entry>| {
            let Some(found) = found.filter(|found| found.is_live(self.now())) else {
                return Verdict::Leave(None);
            };
            let grace = found.grace();
            let mut entry = found.clone().fresh_until(fresh_until).with_grace(grace);
            entry.stamp = Stamp::draw(&self.0.clock);
            entry.state = State::Idle;
            entry.state_until = Moment::START;
            Verdict::Write(Box::new(entry), Some(found.head()))
        };
        self.change(key, judge).await
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        self.add(key, delta).await
    }

    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        self.raise_all(tags).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let groups = self.groups(keys);
        let parts: Vec<Part> = groups.iter().map(|group| group.part(2)).collect();
        let delete = |part: usize, _: &Link, batch: &mut Batch| {
            for at in &groups[part].keys {
                batch.get(keys[*at].name(), What::Value);
                batch.delete(keys[*at].name(), None);
            }
        };
        let answers = self.ask_all(&parts, Again::Never, delete).await?;
        let mut heads = vec![None; keys.len()];
        for (group, (link, replies)) in groups.iter().zip(answers) {
            let (pairs, _) = replies.as_chunks::<2>();
            for (at, [before, done]) in group.keys.iter().zip(pairs) {
                let slot = self.slot(group.server, &keys[*at], &link, before)?;
                match done.line.code {
                    Code::Done => heads[*at] = live_head(slot.entry.as_ref(), self.now()),
                    // Somebody else has removed it.
                    Code::NotFound => {}
                    _ => return Err(self.odd(group.server, Some(done))),
                }
            }
        }
        Ok(heads)
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        self.clear_all(scope, space).await
    }

    async fn close(&self) -> Result<()> {
        for server in &self.0.servers {
            server.close();
        }
        Ok(())
    }

    fn scan(&self) -> Option<&dyn Scan> {
        // A server lists all its keys in one go, and not which of them hold a value.
        None
    }

    fn watch(&self) -> Option<&dyn Watch> {
        None
    }
}

fn live_head(entry: Option<&Entry>, now: Moment) -> Option<Head> {
    entry.filter(|entry| entry.is_live(now)).map(Entry::head)
}
