//! A Redis or Valkey server.
//!
//! One connection, shared by all who call and made again when it breaks. A read is one round trip,
//! a write is one command or one script, and a batch is one pipeline. Needs Redis 6, or Valkey.
//!
//! *What is kept there.* A slot is a string under the key's name: bare digits, or a frame. The
//! numbers of a tag space are one hash `space:@:numbers` with the fields `seq`, `era`, `floor` and
//! `t:tag`. The hash `:@:restarts` says per `prefix:version:` since which start of the server its bare
//! digits are known to be good.
//!
//! *Restarts.* A server that comes back with an older snapshot has forgotten writes that it had
//! acknowledged, invalidations among them. So every frame states the server's `run_id` at the time,
//! which is read at each connect; what an earlier run wrote is a miss. See
//! [`trust_restarts`](RedisBuilder::trust_restarts). Bare digits under `prefix:version:` that the server
//! may have from an earlier run are deleted before they are read.
//!
//! A failover to a replica is a restart, since that one has a `run_id` of its own. Not seen is a
//! *failback*: a primary that became a replica and then the primary again without being restarted has
//! the `run_id` of its first time, and with it what it took then and another has forgotten. (Its
//! `master_replid` would tell, but that changes as well when a first replica comes and when the last
//! one has been gone for an hour: processes that connected before and after would read past each
//! other.) Restart a server that comes back as the primary.
//!
//! *What it does not do.* It speaks to one server: no cluster, no sentinel, no reads from replicas.
//! Never does it flush a database.
//!
//! | file | what |
//! | --- | --- |
//! | `act.rs` | how an act is sent, and once more |
//! | `address.rs` | URLs, and how to show them without the password |
//! | `builder.rs` | settings |
//! | `clear.rs` | removing what begins with a prefix |
//! | `connection.rs` | the shared connection: connecting, breaking, failing fast |
//! | `errors.rs` | what callers are told |
//! | `restarts.rs` | bare integers across a restart of the server |
//! | `scripts.rs`, `lua/` | the scripts |
//! | `reply.rs` | replies to values |
//! | `scan.rs` | listing keys |
//! | `glob.rs` | patterns |
//! | `watch.rs` | telling what changes |

mod act;
mod address;
mod builder;
mod clear;
mod connection;
mod errors;
mod glob;
mod reply;
mod restarts;
mod scan;
mod scripts;
mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use redis::{Cmd, Pipeline, Value as Reply, cmd};

use self::act::Again;
pub use self::builder::RedisBuilder;
use self::connection::{Connector, Link};
use super::{Found, Numbers, Scan, Store, Sum, Tags, Watch, When};
use crate::entry::{Entry, Head, Mark, Stamp, State, Value};
use crate::{Clock, Error, ErrorKind, Key, MAX_DECODED, Moment, Result};

/// What an entry's life is cut to: past what servers take, and past all who wait for it.
const LONGEST_LIFE: u64 = 1_000_000_000_000_000;
/// How often a read is sent that meets old integers.
const MOST_READS: usize = 4;

/// Keeps entries on a Redis or Valkey server; a clone shares the connection.
///
/// ```no_run
/// # async fn example() -> larder::Result<()> {
/// use larder::store::Redis;
///
/// let redis = Redis::connect("redis://:secret@cache:6379/1").await?;
/// assert_eq!(redis.to_string(), "redis://cache:6379/1");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Redis(Arc<Connector>);

impl Redis {
    /// The store at `url`, connected.
    ///
    /// `redis://user:password@host:6379/0`; `rediss://` for TLS; `redis+unix:///path?db=1` or
    /// `unix://` for a socket; `valkey://` and `valkeys://` mean the same as `redis://` and
    /// `rediss://`.
    pub async fn connect(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).connect().await
    }

    /// The store at `url`, which connects when it is first used.
    pub fn lazy(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).lazy()
    }

    /// Settings for the store at `url`.
    pub fn builder(url: impl Into<String>) -> RedisBuilder {
        RedisBuilder::new(url.into())
    }
}

impl fmt::Display for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.address.fmt(f)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redis").field(&self.0).finish()
    }
}

impl Redis {
    /// A call of a script about one slot, with what all of them begin with.
    fn slot(&self, script: &scripts::Script, key: &Key, link: &Link) -> Cmd {
        let mut call = script.call(&[key.name(), clear::UNDER_WAY]);
        call.arg(&link.incarnation.to_be_bytes()[..]);
        call.arg(&self.now().as_millis().to_be_bytes()[..]);
        call.arg(if key.is_hashed() { key.whole() } else { "" });
        call
    }

    /// Runs a script about one slot; the answer.
    async fn act(
        &self,
        key: &Key,
        script: &scripts::Script,
        arguments: impl Fn(&Link, &mut Cmd) + Send + Sync,
    ) -> Result<Reply> {
        let build = |link: &Link| {
            let mut call = self.slot(script, key, link);
            arguments(link, &mut call);
            pipeline([call])
        };
        let unknown = |link: &Link| link.unknown([key]);
        let (_, answers) = self.call(unknown, Again::Never, build).await?;
        Ok(answers.into_iter().next().unwrap_or_default())
    }

    /// Sends what only reads. Where bare integers are found that may be older than this run of the
    /// server, these are looked after first and all is read again; other reads cost nothing more.
    async fn read<R>(
        &self,
        keys: &[Key],
        build: impl Fn(&Link) -> Pipeline + Send + Sync,
        read: impl Fn(&Link, Vec<Reply>) -> Result<(R, Vec<bool>)> + Send + Sync,
    ) -> Result<R> {
        for _ in 0..MOST_READS {
            let (link, answers) = self.call(none, Again::Once, &build).await?;
            let (found, are_bare) = read(&link, answers)?;
            let bare = keys.iter().zip(are_bare).filter(|(_, is_bare)| *is_bare);
            let doubted = link.unknown(bare.map(|(key, _)| key));
            if doubted.is_empty() {
                return Ok(found);
            }
            self.look_after(&link, &doubted).await?;
        }
        let does = "was connected to anew each time that old integers had been looked after";
        Err(self.0.complaint(ErrorKind::Unavailable, does))
    }

    /// The heads in `answers` to what was asked at `now`: what is left of an integer's life is counted
    /// from there, so that it is never told longer than it is.
    fn heads_in(
        &self,
        keys: &[Key],
        answers: Vec<Reply>,
        now: Moment,
    ) -> Result<Vec<Option<Head>>> {
        keys.iter()
            .zip(answers)
            .map(|(key, answer)| reply::head(&answer, key, now).map_err(|_| self.odd()))
            .collect()
    }

    /// The command that writes `entry` whatever is there, or why it cannot be written.
    fn write(&self, key: &Key, entry: &Entry, link: &Link) -> Result<Cmd, Cmd> {
        let delete = || unlink(key.name());
        let life = Life::of(entry, self.now());
        if life == Life::Gone {
            return Ok(delete());
        }
        if !fits(entry) {
            return Err(delete());
        }
        let mut set = cmd("SET");
        set.arg(key.name())
            .arg(&entry.to_frame(key, link.incarnation)[..]);
        if let Life::Ms(ms) = life {
            set.arg("PX").arg(ms);
        }
        Ok(set)
    }

    /// The numbers of a space that has none yet, or whose record is not ours.
    async fn draw_numbers(&self, tags: Tags<'_>) -> Result<Numbers> {
        let build = |_: &Link| {
            let mut call = self.numbers(&scripts::READ_NUMBERS, tags.space);
            call.arg(fields(tags));
            pipeline([call])
        };
        let (link, answers) = self.call(none, Again::Once, build).await?;
        let values = answers.into_iter().next().and_then(reply::list);
        values
            .and_then(|values| reply::numbers(&values, link.incarnation))
            .ok_or_else(|| self.odd())
    }

    /// A call of a script about a space's numbers.
    fn numbers(&self, script: &scripts::Script, space: &str) -> Cmd {
        let mut call = script.call(numbers_name(space));
        call.arg(self.0.clock.random());
        call
    }

    fn yes(&self, answer: &Reply) -> Result<bool> {
        match answer {
            Reply::Int(0) => Ok(false),
            Reply::Int(1) => Ok(true),
            _ => Err(self.odd()),
        }
    }
}

#[async_trait]
impl Store for Redis {
    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn get_now(&self, _: &Key) -> Option<Option<Arc<Entry>>> {
        None
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        if keys.is_empty() && tags.is_none() {
            return Ok(Found {
                entries: Vec::new(),
                numbers: None,
            });
        }
        let build = |_: &Link| {
            let names = keys.iter().map(Key::name).collect::<Vec<_>>();
            let entries = (!keys.is_empty()).then(|| cmd("MGET").arg(names).to_owned());
            // After the entries: numbers older than the entry could hide an invalidation.
            let numbers = tags.map(|tags| {
                let mut read = cmd("HMGET");
                read.arg(numbers_name(tags.space))
                    .arg(&["seq", "era", "floor"]);
                read.arg(fields(tags)).to_owned()
            });
            pipeline(entries.into_iter().chain(numbers))
        };
        let read = |link: &Link, mut answers: Vec<Reply>| {
            let numbers = answers.split_off(usize::from(!keys.is_empty())).pop();
            let slots = match answers.pop() {
                None => Vec::new(),
                Some(slots) => reply::list(slots).unwrap_or_default(),
            };
            if slots.len() != keys.len() {
                return Err(self.odd());
            }
            let entry =
                |(key, slot)| Entry::from_frame(&reply::bytes(slot)?, key, link.incarnation);
            let entries: Vec<_> = keys.iter().zip(slots).map(entry).collect();
            let are_bare = entries
                .iter()
                .map(|entry| is_bare(entry.as_ref()))
                .collect();
            Ok(((entries, numbers, link.incarnation), are_bare))
        };
        let (entries, numbers, incarnation) = self.read(keys, build, read).await?;
        let numbers = numbers
            .and_then(reply::list)
            .and_then(|values| reply::numbers(&values, incarnation));
        let numbers = match (tags, numbers) {
            (Some(tags), None) => Some(self.draw_numbers(tags).await?),
            (_, numbers) => numbers,
        };
        Ok(Found { entries, numbers })
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let build =
            |link: &Link| pipeline(keys.iter().map(|key| self.slot(&scripts::HEAD, key, link)));
        let now = self.now();
        let read = |_: &Link, answers: Vec<Reply>| {
            let are_bare = answers.iter().map(|answer| matches!(answer, Reply::Int(_)));
            let are_bare = are_bare.collect();
            Ok((self.heads_in(keys, answers, now)?, are_bare))
        };
        self.read(keys, build, read).await
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        let Some(condition) = condition(when) else {
            let build =
                |link: &Link| pipeline([self.write(key, &entry, link).unwrap_or_else(|it| it)]);
            self.call(|link| link.unknown(bare(key, &entry)), Again::Never, build)
                .await?;
            return if fits(&entry) {
                Ok(true)
            } else {
                Err(too_large())
            };
        };
        let entry = &entry;
        let fits = fits(entry);
        let answer = self
            .act(key, &scripts::PUT, move |link, call| {
                let life = Life::of(entry, self.now());
                call.arg(&condition[..]);
                match life {
                    Life::Gone => call.arg("").arg(0),
                    _ if !fits => call.arg("").arg(0),
                    Life::Ms(ms) => call.arg(&entry.to_frame(key, link.incarnation)[..]).arg(ms),
                    Life::Endless => call.arg(&entry.to_frame(key, link.incarnation)[..]).arg(-1),
                };
            })
            .await?;
        match answer {
            Reply::Int(0) => Ok(false),
            Reply::Int(1) if fits => Ok(true),
            Reply::Int(1) => Err(too_large()),
            _ => Err(self.odd()),
        }
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let build = |link: &Link| {
            let write = |(key, entry): &(Key, Entry)| self.write(key, entry, link);
            pipeline(
                entries
                    .iter()
                    .map(write)
                    .map(|it| it.unwrap_or_else(|it| it)),
            )
        };
        let bare = || entries.iter().filter_map(|(key, entry)| bare(key, entry));
        let unknown = |link: &Link| link.unknown(bare());
        self.call(unknown, Again::Never, build).await?;
        let refused = |(at, (_, entry)): (usize, &(Key, Entry))| (!fits(entry)).then_some(at);
        Ok(entries.iter().enumerate().filter_map(refused).collect())
    }

    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        let answer = self
            .act(key, &scripts::MARK, |link, call| {
                // Cut from frames, so that their bytes are known in one place; a state other than
                // idle makes a frame of an integer, which else is bare digits.
                let bare = Entry::bare(mark).to_frame(key, link.incarnation);
                let busy = Mark {
                    state: State::Loading,
                    ..mark
                };
                let integer = Entry::plain(0).marked(busy).to_frame(key, link.incarnation);
                match seen {
                    Some(seen) => call.arg(&seen.number().to_be_bytes()[..]),
                    None => call.arg(""),
                };
                call.arg(&bare[11..28]);
                call.arg(&bare[..]).arg(&integer[..integer.len() - 1]);
            })
            .await?;
        self.yes(&answer)
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        let now = self.now();
        let stamp = Stamp::draw(&self.0.clock);
        let answer = self
            .act(key, &scripts::TOUCH, |_, call| {
                call.arg(&fresh_until.as_millis().to_be_bytes()[..]);
                call.arg(&stamp.number().to_be_bytes()[..]);
            })
            .await?;
        reply::head(&answer, key, now).map_err(|_| self.odd())
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        let answer = self
            .act(key, &scripts::ADD_TO, |_, call| {
                call.arg(delta);
            })
            .await?;
        match answer {
            Reply::Int(0) => Ok(Sum::NoSuchKey),
            Reply::Int(1) => Ok(Sum::NotPlain),
            Reply::Int(2) => Ok(Sum::Overflow),
            Reply::BulkString(_) => reply::number(&answer)
                .map(Sum::Is)
                .ok_or_else(|| self.odd()),
            _ => Err(self.odd()),
        }
    }

    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        let build = |_: &Link| {
            let mut call = self.numbers(&scripts::RAISE, tags.space);
            call.arg(scripts::MOST_NUMBERS).arg(fields(tags));
            pipeline([call])
        };
        let (_, answers) = self.call(none, Again::Never, build).await?;
        answers
            .first()
            .and_then(reply::number)
            .ok_or_else(|| self.odd())
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let build = |link: &Link| {
            pipeline(
                keys.iter()
                    .map(|key| self.slot(&scripts::DELETE, key, link)),
            )
        };
        let unknown = |link: &Link| link.unknown(keys);
        let now = self.now();
        let (_, answers) = self.call(unknown, Again::Never, build).await?;
        self.heads_in(keys, answers, now)
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        let build = |_: &Link| pipeline([self.numbers(&scripts::RAISE_FLOOR, space)]);
        self.call(none, Again::Never, build).await?;
        self.clear_slots(scope).await
    }

    async fn close(&self) -> Result<()> {
        self.0.close();
        Ok(())
    }

    fn scan(&self) -> Option<&dyn Scan> {
        Some(self)
    }

    fn watch(&self) -> Option<&dyn Watch> {
        Some(self)
    }
}

/// How long the server shall keep an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Gone,
    Ms(u64),
    Endless,
}

impl Life {
    fn of(entry: &Entry, now: Moment) -> Self {
        let end = entry.gone_after();
        match end.as_millis().saturating_sub(now.as_millis()) {
            _ if end == Moment::NEVER => Self::Endless,
            0 => Self::Gone,
            ms => Self::Ms(ms.min(LONGEST_LIFE)),
        }
    }
}

/// Whether what is written is read back, and is no longer than a string may be on a server.
fn fits(entry: &Entry) -> bool {
    let tags = entry.tags.as_ref().map_or(0, |tags| {
        tags.good_from.iter().map(|(tag, _)| tag.len() + 12).sum()
    });
    let body = entry.value.as_ref().map_or(0, Value::len);
    tags.max(body) as u64 <= MAX_DECODED
}

fn too_large() -> Error {
    let text = "the value is larger than the 64 MiB that are read back";
    Error::new(ErrorKind::TooLarge, "redis", text)
}

fn condition(when: When) -> Option<Vec<u8>> {
    match when {
        When::Always => None,
        When::IfAbsent => Some(b"absent".to_vec()),
        When::IfPresent => Some(b"present".to_vec()),
        When::IfStamp(stamp) => Some(stamp.number().to_be_bytes().to_vec()),
    }
}

fn pipeline(commands: impl IntoIterator<Item = Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::new();
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline
}

/// The key, if the entry is written as bare digits.
fn bare<'k>(key: &'k Key, entry: &Entry) -> Option<&'k Key> {
    entry.is_plain().then_some(key)
}

fn is_bare(entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| entry.stamp == Stamp::PLAIN)
}

/// For acts that neither meet nor write bare integers.
fn none(_: &Link) -> BTreeSet<Box<str>> {
    BTreeSet::new()
}

fn unlink(name: impl AsRef<[u8]>) -> Cmd {
    cmd("UNLINK").arg(name.as_ref()).to_owned()
}

fn numbers_name(space: &str) -> String {
    format!("{space}:@:numbers")
}

fn fields(tags: Tags<'_>) -> Vec<String> {
    tags.names.iter().map(|tag| format!("t:{tag}")).collect()
}
