//! A Redis or Valkey server, a cluster of them, or the primary that sentinels name.
//!
//! One connection to each server, shared by all who call and made again when it breaks. A read is one
//! round trip, a write is one command or one script, and a batch is one pipeline to each server. Needs Redis 6, or Valkey.
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
//! A failover to a replica is a restart, since that one has a `run_id` of its own. Not seen behind one
//! plain address is a *failback*: a primary that became a replica and then the primary again without being restarted has
//! the `run_id` of its first time, and with it what it took then and another has forgotten. (Its
//! `master_replid` would tell, but that changes as well when a first replica comes and when the last
//! one has been gone for an hour: processes that connected before and after would read past each
//! other.) Restart a server that comes back as the primary.
//!
//! *Several servers.* `redis+sentinel://` asks sentinels for the primary, `redis+cluster://` speaks to
//! the nodes of a cluster, each as to a server of its own. There the incarnation takes in the epoch that
//! every failover raises, so that a failback is seen as well. What a slot brings along from another node
//! is a miss. Bare digits, which do not say where they come from, are nothing in a cluster: integers are
//! frames there. An entry on one node and the numbers on another are read one after the other.
//!
//! *What it does not do.* No reads from replicas, unless told so
//! ([`read_replicas`](RedisBuilder::read_replicas)). No cure for a cut network: a primary that is cut off
//! together with a process serves it what it has, in a cluster until it stops by itself after
//! `cluster-node-timeout`, under sentinels as long as no sentinel tells the process; what is written there
//! meanwhile is lost, and a miss. Never does it flush a database.
//!
//! | file | what |
//! | --- | --- |
//! | `act.rs` | how an act is sent, and once more |
//! | `address.rs` | URLs, and how to show them without the password |
//! | `builder.rs` | settings |
//! | `clear.rs` | removing what begins with a prefix |
//! | `cluster.rs` | the nodes of a cluster |
//! | `connection.rs` | the shared connection: connecting, breaking, failing fast |
//! | `errors.rs` | what callers are told |
//! | `frames.rs` | what is written into a slot |
//! | `get.rs` | reading from several servers |
//! | `hello.rs` | what a server says of itself |
//! | `map.rs` | which node has which slot |
//! | `place.rs` | what a URL names: a server, a cluster, sentinels |
//! | `replicas.rs` | reading from replicas |
//! | `restarts.rs` | bare integers across a restart of the server |
//! | `scripts.rs`, `lua/` | the scripts |
//! | `reply.rs` | replies to values |
//! | `scan.rs` | listing keys |
//! | `sentinels.rs` | where the primary is |
//! | `slots.rs` | which slot a name is in |
//! | `spread.rs` | how commands reach the servers of their slots |
//! | `together.rs` | several servers asked at once |
//! | `glob.rs` | patterns |
//! | `watch.rs` | telling what changes |

mod act;
mod address;
mod builder;
mod clear;
mod cluster;
mod connection;
mod errors;
mod frames;
mod get;
mod glob;
mod hello;
mod map;
mod place;
mod replicas;
mod reply;
mod restarts;
mod scan;
mod scripts;
mod sentinels;
mod slots;
mod spread;
mod together;
mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use redis::{Cmd, Pipeline, Value as Reply, cmd};

use self::act::Again;
pub use self::builder::RedisBuilder;
use self::cluster::Cluster;
use self::connection::{Connector, Link, Role};
use self::frames::{Life, bare, condition, entry_of, fits, frame, is_bare, too_large};
use self::spread::Answer;
use super::{Found, Numbers, Scan, Store, Sum, Tags, Watch, When};
use crate::entry::{Entry, Head, Mark, Stamp, State};
use crate::{Clock, ErrorKind, Key, Moment, Result};

/// How often a read is sent that meets old integers.
const MOST_READS: usize = 4;

/// Keeps entries on a Redis or Valkey server, on the nodes of a cluster, or at the primary that sentinels
/// name; a clone shares the connections.
///
/// A node that is down costs errors for what it has, until another takes over, which is found without
/// help. What was kept before a restart or a failover is a miss afterwards, since the server may have
/// forgotten what it had acknowledged; so is what a slot of a cluster brings along from another node. On a
/// network that is cut in two, who is left with the smaller part may read what its primary still has: in
/// a cluster until that stops by itself (`cluster-node-timeout`), under sentinels until one can be heard.
/// A primary that is replaced by hand while it lives is read for up to a second more under sentinels.
///
/// In a cluster integers are kept in frames, not as digits that other languages read, unless
/// [restarts are trusted](RedisBuilder::trust_restarts); names with `{…}` go where the part in braces
/// belongs, so that a prefix like `{shop}` keeps all on one node.
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
pub struct Redis(
    /// The server; where there is a cluster, who settings and texts come from.
    Arc<Connector>,
    Option<Arc<Cluster>>,
);

impl Redis {
    /// The store at `url`, connected.
    ///
    /// `redis://user:password@host:6379/0`; `rediss://` for TLS; `redis+unix:///path?db=1` or
    /// `unix://` for a socket; `valkey://` and `valkeys://` mean the same as `redis://` and
    /// `rediss://`.
    ///
    /// `redis+sentinel://:password@host:26379,host:26379/mymaster/0` for the primary that sentinels
    /// name, with `sentinel_user` and `sentinel_password` in the query where these want a login of their
    /// own. `redis+cluster://user:password@host:7000,host:7001` for a cluster, of which a few nodes are
    /// enough. Both with `rediss` for TLS.
    ///
    /// In the query: `protocol=resp2` for what stands between and knows no other, `db`, `user` and
    /// `password`.
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
        let mut call = match self.1 {
            None => script.call(&[key.name(), clear::UNDER_WAY]),
            Some(_) => script.call(key.name()),
        };
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
        let command = |link: &Link, _| {
            let mut call = self.slot(script, key, link);
            arguments(link, &mut call);
            call
        };
        let unknown = |link: &Link| link.unknown([key]);
        let answers = self
            .each(&[key.name()], unknown, Again::Never, command)
            .await?;
        self.first(answers).map(|(_, answer)| answer)
    }

    fn first(&self, answers: Vec<Answer>) -> Result<Answer> {
        answers.into_iter().next().ok_or_else(|| self.odd())
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
        answers: impl IntoIterator<Item = Reply>,
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
            .arg(&frame(&self.0.clock, entry, key, link)[..]);
        if let Life::Ms(ms) = life {
            set.arg("PX").arg(ms);
        }
        Ok(set)
    }

    /// The numbers of a space that has none yet, or whose record is not ours.
    async fn draw_numbers(&self, tags: Tags<'_>) -> Result<Numbers> {
        let draw = |_: &Link, _| {
            let mut call = self.numbers(&scripts::READ_NUMBERS, tags.space);
            call.arg(fields(tags)).to_owned()
        };
        let name = [numbers_name(tags.space)];
        let answers = self.each(&name, none, Again::Once, draw).await?;
        let (link, answer) = self.first(answers)?;
        reply::list(answer)
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
        if tags.is_none()
            && let Some(entries) = self.get_from_replicas(keys).await?
        {
            return Ok(Found {
                entries,
                numbers: None,
            });
        }
        if self.1.is_some() {
            return self.get_spread(keys, tags).await;
        }
        let build = |_: &Link| {
            let names = keys.iter().map(Key::name).collect::<Vec<_>>();
            let entries = (!keys.is_empty()).then(|| cmd("MGET").arg(names).to_owned());
            // After the entries: numbers older than the entry could hide an invalidation.
            let numbers = tags.map(read_numbers);
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
            let entry = |(key, slot)| entry_of(slot, key, link);
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
        let now = self.now();
        if self.1.is_some() {
            let command = |link: &Link, at: usize| self.slot(&scripts::HEAD, &keys[at], link);
            let answers = self.each(&names(keys), none, Again::Once, command).await?;
            return self.heads_in(keys, answers.into_iter().map(|(_, answer)| answer), now);
        }
        let build =
            |link: &Link| pipeline(keys.iter().map(|key| self.slot(&scripts::HEAD, key, link)));
        let read = |_: &Link, answers: Vec<Reply>| {
            let are_bare = answers.iter().map(|answer| matches!(answer, Reply::Int(_)));
            let are_bare = are_bare.collect();
            Ok((self.heads_in(keys, answers, now)?, are_bare))
        };
        self.read(keys, build, read).await
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        let Some(condition) = condition(when) else {
            let command = |link: &Link, _| self.write(key, &entry, link).unwrap_or_else(|it| it);
            let unknown = |link: &Link| link.unknown(bare(key, &entry));
            self.each(&[key.name()], unknown, Again::Never, command)
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
                    Life::Ms(ms) => call
                        .arg(&frame(&self.0.clock, entry, key, link)[..])
                        .arg(ms),
                    Life::Endless => call
                        .arg(&frame(&self.0.clock, entry, key, link)[..])
                        .arg(-1),
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
        let command = |link: &Link, at: usize| {
            let (key, entry) = &entries[at];
            self.write(key, entry, link).unwrap_or_else(|it| it)
        };
        let names: Vec<&str> = entries.iter().map(|(key, _)| key.name()).collect();
        let bare = || entries.iter().filter_map(|(key, entry)| bare(key, entry));
        let unknown = |link: &Link| link.unknown(bare());
        self.each(&names, unknown, Again::Never, command).await?;
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
        let stamp = Stamp::draw(&self.0.clock);
        let answer = self
            .act(key, &scripts::ADD_TO, |_, call| {
                call.arg(delta).arg(&stamp.number().to_be_bytes()[..]);
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
        let raise = |_: &Link, _| {
            let mut call = self.numbers(&scripts::RAISE, tags.space);
            call.arg(scripts::MOST_NUMBERS).arg(fields(tags)).to_owned()
        };
        let name = [numbers_name(tags.space)];
        let answers = self.each(&name, none, Again::Never, raise).await?;
        let (_, answer) = self.first(answers)?;
        reply::number(&answer).ok_or_else(|| self.odd())
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let command = |link: &Link, at: usize| self.slot(&scripts::DELETE, &keys[at], link);
        let unknown = |link: &Link| link.unknown(keys);
        let now = self.now();
        let answers = self
            .each(&names(keys), unknown, Again::Never, command)
            .await?;
        self.heads_in(keys, answers.into_iter().map(|(_, answer)| answer), now)
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        let raise = |_: &Link, _| self.numbers(&scripts::RAISE_FLOOR, space);
        let name = [numbers_name(space)];
        self.each(&name, none, Again::Never, raise).await?;
        match &self.1 {
            Some(cluster) => self.clear_nodes(cluster, scope).await,
            None => self.clear_slots(scope).await,
        }
    }

    async fn close(&self) -> Result<()> {
        self.0.close();
        if let Some(cluster) = &self.1 {
            cluster.close();
        }
        Ok(())
    }

    fn scan(&self) -> Option<&dyn Scan> {
        Some(self)
    }

    // One server, which is read itself: a replica may give what is older than what was told.
    fn watch(&self) -> Option<&dyn Watch> {
        let is_one = self.1.is_none() && matches!(self.0.role, Role::Alone);
        (is_one && self.0.replicas.is_none()).then_some(self as _)
    }
}

fn pipeline(commands: impl IntoIterator<Item = Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::new();
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline
}

/// For acts that neither meet nor write bare integers.
fn none(_: &Link) -> BTreeSet<Box<str>> {
    BTreeSet::new()
}

fn names(keys: &[Key]) -> Vec<&str> {
    keys.iter().map(Key::name).collect()
}

fn read_numbers(tags: Tags<'_>) -> Cmd {
    let mut read = cmd("HMGET");
    read.arg(numbers_name(tags.space))
        .arg(&["seq", "era", "floor"]);
    read.arg(fields(tags)).to_owned()
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
