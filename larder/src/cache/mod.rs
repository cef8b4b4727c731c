//! Typed values over a store: Django's low-level API, and the engine under everything else.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Cache`] and the verbs that read or change one key |
//! | `builder.rs` | its settings |
//! | `caches.rs` | caches by name |
//! | `write.rs` | the verbs that write values: set, add, `set_many` |
//! | `load.rs` | the verbs that load: fetch, `get_or_set` |
//! | `many.rs`, `lead_many.rs` | `fetch_many` |
//! | `keys.rs` | listing keys |
//! | `look.rs` | reading a slot and judging its tags |
//! | `fetch.rs` | the engine: serve, wait, or load |
//! | `lead.rs` | the engine: loading under a lease |
//! | `beside.rs` | loads that go on without the cache |
//! | `in_place.rs` | loads that are no futures |
//! | `policy.rs` | how a fetch behaves |
//! | `ticket.rs` | a lease in the caller's hands |
//! | `invalidate.rs` | invalidate and expire |
//! | `later.rs` | tickets for what may be made later |
//! | `scope.rs` | what a load depends on |
//! | `spawn.rs` | tasks and threads inside a load |
//! | `counts.rs` | how often what came of a key |
//! | `rules.rs` | the engine's rules, which a simulation can break |

#[cfg(feature = "fragment")]
mod beside;
mod builder;
mod caches;
mod counts;
mod fetch;
#[cfg(feature = "minijinja")]
mod in_place;
mod invalidate;
mod keys;
#[cfg(feature = "minijinja")]
mod later;
mod lead;
mod lead_many;
mod load;
mod look;
mod many;
mod policy;
mod rules;
mod scope;
mod spawn;
mod ticket;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

pub use self::builder::CacheBuilder;
pub use self::caches::Caches;
use self::counts::Counters;
pub use self::counts::Counts;
use self::counts::count;
pub use self::invalidate::Invalidate;
pub use self::keys::Keys;
#[cfg(feature = "fragment")]
pub(crate) use self::load::policy;
pub use self::load::{Fetch, FetchError, FetchHere, Loading};
pub use self::many::FetchMany;
pub use self::policy::Policy;
#[cfg(feature = "simulation")]
pub use self::rules::Rule;
#[cfg(not(feature = "simulation"))]
pub(crate) use self::rules::Rule;
pub(crate) use self::rules::Rules;
#[cfg(feature = "minijinja")]
pub(crate) use self::scope::Scope;
#[cfg(not(feature = "minijinja"))]
use self::scope::Scope;
pub use self::spawn::{spawn, spawn_blocking};
pub use self::ticket::{SetTicket, Ticket};
pub use self::write::{Add, Set, SetMany};
#[cfg(feature = "page")]
pub(crate) use self::{
    fetch::{Fetched, Served},
    lead::{Keep, Kept, Load, caught},
    look::Look,
    policy::is_due,
    scope::Gathered,
};
#[cfg(feature = "minijinja")]
pub(crate) use self::{
    in_place::{AtOnce, caught_here},
    later::Noting,
};
use crate::codec::Coding;
use crate::entry::{Entry, Mark, Stamp, Tagged, Value};
use crate::event::{Listener, Outcome};
use crate::flight::Flights;
use crate::store::{Store, Sum, When};
use crate::{Clock, Error, ErrorKind, Key, Moment, Result, Ttl, Version};

/// Typed values over a [`Store`] of bytes.
///
/// Cheap to clone, without type parameters; clones share everything. Keys are
/// `prefix:version:key`, as in Django.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use larder::{Cache, store::Memory};
///
/// let cache = Cache::new(Memory::new());
/// cache.set("greeting", "hello").ttl(Duration::from_secs(60)).await?;
/// assert_eq!(cache.get("greeting").await?, Some("hello".to_owned()));
///
/// // One load however many ask at once, and no old value after `delete` or `invalidate`.
/// let page = cache.fetch("page", || async { Ok::<_, std::io::Error>("slow".to_owned()) });
/// assert_eq!(page.ttl(Duration::from_secs(5)).await?, "slow");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cache {
    pub(crate) shared: Arc<Shared>,
    version: Version,
    /// `prefix:version:`, which begins every key.
    scope: Arc<str>,
    coding: Coding,
    untracked: bool,
}

/// What all clones and views of a cache share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    prefix: Box<str>,
    space: Box<str>,
    key_function: Option<KeyFunction>,
    default_ttl: Ttl,
    jitter: f64,
    hints: look::Hints,
    pub(crate) flights: Arc<Flights>,
    failures: lead::Failures,
    pub(crate) counters: Counters,
    /// How the store does when fragments need it.
    #[cfg(feature = "fragment")]
    fragments: beside::Health,
    listener: Option<Arc<dyn Listener>>,
    rules: Rules,
}

/// Makes a whole key of key, prefix and version.
type KeyFunction = Arc<dyn Fn(&str, &str, &str) -> String + Send + Sync>;

/// How often a change by compare-and-set is tried before it is given up.
const MOST_TRIES: u32 = 200;

impl Cache {
    /// A cache over `store`, with Django's defaults: no prefix, version 1, five minutes.
    pub fn new(store: impl Store) -> Self {
        Self::builder(store)
            .build()
            .expect("the defaults are good settings")
    }

    /// Settings for a cache over `store`.
    pub fn builder(store: impl Store) -> CacheBuilder {
        CacheBuilder::new(Arc::new(store))
    }

    /// This cache, with all keys in another version. Costs an allocation; nothing is sent.
    ///
    /// Fails if the version holds `:` or is `@`, which Larder keeps for its own records.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> larder::Result<()> {
    /// let cache = larder::Cache::new(larder::store::Memory::new());
    /// cache.version(2)?.set("k", "new").await?;
    /// assert_eq!(cache.get::<String>("k").await?, None);
    /// assert_eq!(cache.version(2)?.get("k").await?, Some("new".to_owned()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn version(&self, version: impl Into<Version>) -> Result<Self> {
        let version = version.into();
        version.check()?;
        let scope = format!("{}:{version}:", self.shared.prefix).into();
        Ok(Self {
            version,
            scope,
            ..self.clone()
        })
    }

    /// This cache, with another codec. What was written by one is a miss to the others.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> larder::Result<()> {
    /// use larder::{Cache, Codec, store::Memory};
    ///
    /// let cache = Cache::new(Memory::new());
    /// cache.with_codec(Codec::Raw).set("page", "<p>").await?;
    /// assert_eq!(cache.get::<String>("page").await?, None);
    /// assert_eq!(cache.get_bytes("page").await?.unwrap(), "<p>");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_codec(&self, codec: crate::Codec) -> Self {
        let mut cache = self.clone();
        cache.coding.codec = codec;
        cache
    }

    /// This cache, whose reads inside a load do not become dependencies of what is loaded.
    #[must_use]
    pub fn untracked(&self) -> Self {
        Self {
            untracked: true,
            ..self.clone()
        }
    }

    /// The key under which `key` is kept.
    ///
    /// ```
    /// let cache = larder::Cache::new(larder::store::Null::new());
    /// assert_eq!(cache.key("user:7").name(), ":1:user:7");
    /// ```
    pub fn key(&self, key: impl AsRef<str>) -> Key {
        let key = key.as_ref();
        if let Some(function) = &self.shared.key_function {
            return Key::new(function(
                key,
                &self.shared.prefix,
                &self.version.to_string(),
            ));
        }
        let mut whole = String::with_capacity(self.scope.len() + key.len());
        whole.push_str(&self.scope);
        whole.push_str(key);
        Key::new(whole)
    }

    /// Returns the value at `key`, or `None` if there is none, it has expired, one of its tags was
    /// invalidated, or it cannot be read as a `T` (which is counted).
    ///
    /// A stored nothing, such as `None::<String>`, is `Some(None)`. From memory this answers without
    /// waiting; from a server it is one round trip.
    pub async fn get<T: DeserializeOwned>(&self, key: impl AsRef<str>) -> Result<Option<T>> {
        let key = self.key(key);
        let look = self.look_for_value(&key).await?;
        Ok(self.read(&key, &look, |entry| self.decode(entry)))
    }

    /// Returns the value at `key`, or `default`.
    pub async fn get_or<T: DeserializeOwned>(&self, key: impl AsRef<str>, default: T) -> Result<T> {
        Ok(self.get(key).await?.unwrap_or(default))
    }

    /// Returns the bytes at `key` as the codec wrote them, without a copy unless they are compressed:
    /// with [`Codec::Raw`](crate::Codec::Raw) those of the value itself, an integer as its digits.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> larder::Result<()> {
    /// use larder::{Cache, Codec, store::Memory};
    ///
    /// let cache = Cache::builder(Memory::new()).codec(Codec::Raw).build()?;
    /// cache.set("page", "<p>").await?;
    /// assert_eq!(cache.get_bytes("page").await?.as_deref(), Some(&b"<p>"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_bytes(&self, key: impl AsRef<str>) -> Result<Option<Bytes>> {
        let key = self.key(key);
        let look = self.look_for_value(&key).await?;
        Ok(self.read(&key, &look, crate::codec::bytes))
    }

    /// Returns the value at `key`, decoded at most once where the store keeps it decoded
    /// ([`MemoryBuilder::keep_decoded`](crate::store::MemoryBuilder::keep_decoded)).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> larder::Result<()> {
    /// use larder::{Cache, store::Memory};
    ///
    /// let cache = Cache::new(Memory::builder().keep_decoded().build());
    /// cache.set("names", &["ann", "bob"]).await?;
    /// let first = cache.get_shared::<Vec<String>>("names").await?.unwrap();
    /// let second = cache.get_shared::<Vec<String>>("names").await?.unwrap();
    /// assert!(std::sync::Arc::ptr_eq(&first, &second));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_shared<T>(&self, key: impl AsRef<str>) -> Result<Option<Arc<T>>>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let key = self.key(key);
        let look = self.look_for_value(&key).await?;
        Ok(self.read(&key, &look, |entry| {
            let kept = entry.decoded.as_ref();
            if let Some(value) = kept.and_then(crate::entry::Decoded::get) {
                return Some(value);
            }
            let value = Arc::new(self.decode(entry)?);
            if let Some(decoded) = kept {
                decoded.fill(&value);
            }
            Some(value)
        }))
    }

    /// Returns the values of those `keys` that are there, in one round trip.
    pub async fn get_many<T, I>(&self, keys: I) -> Result<HashMap<String, T>>
    where
        T: DeserializeOwned,
        I: IntoIterator<Item: Into<String>>,
    {
        let names: Vec<String> = keys.into_iter().map(Into::into).collect();
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let keys: Vec<Key> = names.iter().map(|name| self.key(name)).collect();
        let looks = self.look_at_many(&keys, &[], look::For::Value).await?;
        let read = |((name, key), look): ((String, &Key), &look::Look)| {
            Some((name, self.read(key, look, |entry| self.decode(entry))?))
        };
        Ok(names
            .into_iter()
            .zip(&keys)
            .zip(&looks)
            .filter_map(read)
            .collect())
    }

    /// Whether there is a value at `key`. The value is not sent.
    pub async fn has(&self, key: impl AsRef<str>) -> Result<bool> {
        Ok(self.head(key).await?.is_some())
    }

    /// Returns what is left of the TTL of `key`: `None` if there is no value,
    /// [`Ttl::Never`] if it does not expire.
    pub async fn ttl(&self, key: impl AsRef<str>) -> Result<Option<Ttl>> {
        let head = self.head(key).await?;
        // Asked after: what is left is never told as more than it was.
        let now = self.shared.clock.now();
        let left = |head: crate::Head| head.fresh_until.left(now).map_or(Ttl::Never, Ttl::For);
        Ok(head.map(left))
    }

    async fn head(&self, key: impl AsRef<str>) -> Result<Option<crate::Head>> {
        let heads = self.shared.store.heads(&[self.key(key)]).await?;
        let head = self.unmoved(heads).await?.pop().flatten();
        if let Some(head) = &head {
            self.absorb(head.tags.as_deref(), None);
        }
        Ok(head)
    }

    /// Gives the value at `key` a new TTL from now on; says whether there was one. A TTL of zero
    /// deletes. Two round trips, three if the value has tags.
    pub async fn touch(&self, key: impl AsRef<str>, ttl: impl Into<Ttl>) -> Result<bool> {
        let ttl = ttl.into().or(self.shared.default_ttl);
        if ttl.is_zero() {
            return self.delete(key).await;
        }
        let (store, key) = (&self.shared.store, self.key(key));
        // Looked at first: what was invalidated is nothing, and its slot may hold a lease by now. That
        // nothing is seen says the store itself, which may not have been there to be asked.
        let heads = store.heads(std::slice::from_ref(&key)).await?;
        if heads[0].is_some() && self.unmoved(heads).await?[0].is_none() {
            return Ok(false);
        }
        let deadline = ttl.deadline(self.shared.clock.now());
        Ok(store.touch(&key, deadline).await?.is_some())
    }

    /// Lets the value at `key` never expire; says whether there was one.
    pub async fn persist(&self, key: impl AsRef<str>) -> Result<bool> {
        self.touch(key, Ttl::Never).await
    }

    /// Removes `key`; says whether a value was there. A load of it that is under way will not be
    /// kept.
    pub async fn delete(&self, key: impl AsRef<str>) -> Result<bool> {
        let heads = self.shared.store.delete(&[self.key(key)]).await?;
        Ok(self.unmoved(heads).await?[0].is_some())
    }

    /// Removes all `keys` in one round trip; returns how many values were there.
    pub async fn delete_many<I>(&self, keys: I) -> Result<usize>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let keys: Vec<Key> = keys.into_iter().map(|key| self.key(key)).collect();
        if keys.is_empty() {
            return Ok(0);
        }
        let heads = self.shared.store.delete(&keys).await?;
        Ok(self.unmoved(heads).await?.into_iter().flatten().count())
    }

    /// Adds `delta` to the integer at `key` and returns the sum; atomic, and the TTL stays.
    ///
    /// A missing key, a value that is no integer, and a sum past 64 bits are errors, and nothing is
    /// changed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> larder::Result<()> {
    /// let cache = larder::Cache::new(larder::store::Memory::new());
    /// cache.set("visits", &1).await?;
    /// assert_eq!(cache.incr("visits", 1).await?, 2);
    /// assert_eq!(cache.decr("visits", 5).await?, -3);
    /// assert_eq!(cache.incr("n", 1).await.unwrap_err().kind(), larder::ErrorKind::NoSuchKey);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn incr(&self, key: impl AsRef<str>, delta: i64) -> Result<i64> {
        let key = self.key(key);
        match self.add_to(&key, delta).await? {
            Some(sum) => Ok(sum),
            None => self.incr_framed(&key, delta).await,
        }
    }

    /// Adds to a plain integer; `None` if it is not one, or not just now.
    async fn add_to(&self, key: &Key, delta: i64) -> Result<Option<i64>> {
        match self.shared.store.add_to(key, delta).await? {
            Sum::Is(sum) => Ok(Some(sum)),
            Sum::NoSuchKey => Err(no_such_key(key)),
            Sum::Overflow => Err(overflow(key, delta)),
            Sum::NotPlain => Ok(None),
        }
    }

    /// Subtracts `delta` from the integer at `key`, below zero too; otherwise as
    /// [`incr`](Self::incr).
    pub async fn decr(&self, key: impl AsRef<str>, delta: i64) -> Result<i64> {
        let Some(minus) = delta.checked_neg() else {
            return Err(overflow(&self.key(key), delta));
        };
        self.incr(key, minus).await
    }

    /// Adds to an integer that carries tags, grace or a lease, by compare-and-set.
    async fn incr_framed(&self, key: &Key, delta: i64) -> Result<i64> {
        for attempt in 0..MOST_TRIES {
            if attempt > 1 {
                // Many count at once: who lost twice steps aside for a moment.
                let pause = Duration::from_millis(u64::from(attempt.min(20)));
                self.shared
                    .clock
                    .sleep(self.shared.clock.jittered(pause))
                    .await;
            }
            let look = self.look(key).await?;
            let Some(entry) = look.live(self.shared.clock.now()) else {
                return Err(no_such_key(key));
            };
            let Some(Value::Integer(number)) = entry.value else {
                return Err(not_an_integer(key));
            };
            // Its lease is over and it is bare digits again, without a stamp to compare.
            if entry.stamp == Stamp::PLAIN {
                match self.add_to(key, delta).await? {
                    Some(sum) => return Ok(sum),
                    None => continue,
                }
            }
            let sum = number
                .checked_add(delta)
                .ok_or_else(|| overflow(key, delta))?;
            let mut next = Entry::new(&self.shared.clock, Value::Integer(sum));
            next.fresh_until = entry.fresh_until;
            next.stale_until = entry.stale_until;
            next.tags.clone_from(&entry.tags);
            next.is_framed = entry.is_framed;
            if self
                .shared
                .store
                .put(key, next, When::IfStamp(entry.stamp))
                .await?
            {
                return Ok(sum);
            }
        }
        Err(self.restless(key))
    }

    /// Moves the value at `key` to the version `delta` higher, TTL and tags along with it; returns
    /// that version. What was there is written over.
    ///
    /// Not one act: for a moment both versions are there, and what somebody writes at the old one
    /// meanwhile stays there. A missing key, and a version that is a word, are errors.
    pub async fn incr_version(&self, key: impl AsRef<str>, delta: i64) -> Result<i64> {
        let Version::Number(version) = self.version else {
            let what = format!("the version `{}` is no number to add to", self.version);
            return Err(Error::new(ErrorKind::Invalid, "cache", what));
        };
        let from = self.key(key.as_ref());
        let next = version
            .checked_add(delta)
            .ok_or_else(|| overflow(&from, delta))?;
        let to = self.version(next)?.key(key);
        let (store, clock) = (&self.shared.store, &self.shared.clock);
        let entry = self.with_stamp(&from).await?;
        if to == from {
            return Ok(next);
        }
        let mut moved = Entry {
            stamp: Stamp::draw(clock),
            ..Entry::clone(&entry)
        };
        moved.state = crate::State::Idle;
        store.put(&to, moved, When::Always).await?;
        let nothing = Entry::bare(self.ended());
        let unchanged = When::IfStamp(entry.stamp);
        store.put(&from, nothing, unchanged).await?;
        Ok(next)
    }

    /// The live entry at `key`, with a stamp to compare and its deadline. Bare digits have neither, so
    /// that they get a mark first, which has ended already.
    async fn with_stamp(&self, key: &Key) -> Result<Arc<Entry>> {
        for _ in 0..MOST_TRIES {
            let look = self.look(key).await?;
            let Some(entry) = look.live(self.shared.clock.now()) else {
                return Err(no_such_key(key));
            };
            if entry.stamp != Stamp::PLAIN {
                return Ok(Arc::clone(entry));
            }
            let seen = Some(Stamp::PLAIN);
            self.shared.store.mark(key, seen, self.ended()).await?;
        }
        Err(self.restless(key))
    }

    /// A mark that is over.
    fn ended(&self) -> Mark {
        let clock = &self.shared.clock;
        Mark {
            stamp: Stamp::draw(clock),
            state: crate::State::Idle,
            until: clock.now(),
        }
    }

    fn restless(&self, key: &Key) -> Error {
        let what = format!("`{key}` changed {MOST_TRIES} times while it was to be changed");
        Error::new(ErrorKind::Unavailable, &self.shared.store, what)
    }

    /// Moves the value at `key` to the version `delta` lower; otherwise as
    /// [`incr_version`](Self::incr_version).
    pub async fn decr_version(&self, key: impl AsRef<str>, delta: i64) -> Result<i64> {
        let Some(minus) = delta.checked_neg() else {
            return Err(overflow(&self.key(key), delta));
        };
        self.incr_version(key, minus).await
    }

    /// Removes every key of this cache's prefix, of every version, and no other key; loads under way
    /// will not be kept. Other caches lose what has tags, see below.
    ///
    /// Whatever was made elsewhere of what was removed must not be served either, so that values
    /// with tags count as invalidated in the whole tag space, which all caches on a store share by
    /// default. Caches that are to be cleared apart have a [`space`](CacheBuilder::space) each.
    ///
    /// Large prefixes go piece by piece. A load that begins after `clear` was called and before it
    /// returns is not kept by memory, files and Redis; SQL, Memcached and clusters of Redis may keep it,
    /// as any store may keep one that begins while a [`delete`](Self::delete) is on its way.
    pub async fn clear(&self) -> Result<()> {
        let scope = format!("{}:", self.shared.prefix);
        if !self.key("").whole().starts_with(&scope) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "cache",
                format!("the key function makes keys that do not begin with `{scope}`"),
            )
            .with_hint("let it put the prefix and `:` first, or delete keys by name"));
        }
        self.shared.store.clear(&scope, &self.shared.space).await
    }

    /// Waits for the loads under way in this process, then lets the store go.
    ///
    /// Waits no longer than a load may take by default, thirty seconds.
    pub async fn close(&self) -> Result<()> {
        let clock = &self.shared.clock;
        let give_up = clock.now().plus(Duration::from_secs(30));
        while self.shared.flights.len() > 0 && clock.now() < give_up {
            clock.sleep(Duration::from_millis(5)).await;
        }
        self.shared.store.close().await
    }

    /// What the store is called, without a password: `redis://cache:6379/1`.
    pub fn store_name(&self) -> String {
        self.shared.store.to_string()
    }

    /// How often what came of a key, since the cache was made.
    pub fn counts(&self) -> Counts {
        self.shared.counters.snapshot()
    }

    /// Judges what was read for a verb: counts it, hands it to the caller's scope, and reads it.
    fn read<R>(
        &self,
        key: &Key,
        look: &look::Look,
        decode: impl FnOnce(&Entry) -> Option<R>,
    ) -> Option<R> {
        let now = self.shared.clock.now();
        let Some(entry) = look.live(now) else {
            self.hear(key, || Outcome::Miss(look.miss()));
            return None;
        };
        let value = decode(entry);
        if value.is_none() {
            count(&self.shared.counters.unreadable);
            self.hear(key, || Outcome::Miss(crate::event::Miss::Unreadable));
            return None;
        }
        self.absorb(entry.tags.as_deref(), None);
        if self.shared.listener.is_none() {
            count(&self.shared.counters.hits);
        } else {
            self.hear(key, || Outcome::Hit(entry.fresh_until.left(now)));
        }
        value
    }

    fn decode<T: DeserializeOwned>(&self, entry: &Entry) -> Option<T> {
        self.coding.decode(entry)
    }

    /// Counts an outcome and tells the listener.
    pub(crate) fn hear(&self, key: &Key, outcome: impl FnOnce() -> Outcome) {
        let outcome = outcome();
        self.shared.counters.hear(&outcome);
        if let Some(listener) = &self.shared.listener {
            listener.heard(key.whole(), &outcome);
        }
    }

    /// Hands what was read to the load that the caller runs in, if it does.
    pub(crate) fn absorb(&self, tagged: Option<&Tagged>, life: Option<Moment>) {
        if !self.untracked && (tagged.is_some() || life.is_some()) {
            Scope::absorb(tagged, life);
        }
    }

    /// Adds tags to the load that the caller runs in, good from when it began.
    #[cfg(feature = "page")]
    pub(crate) fn absorb_own(tags: Vec<crate::entry::Tag>) {
        Scope::absorb_own(tags);
    }

    /// What the load that the caller runs in has read so far, and its era.
    #[cfg(feature = "page")]
    pub(crate) fn gathered() -> (Gathered, u64) {
        Scope::current().map_or_else(Default::default, |scope| (scope.so_far(), scope.era))
    }

    /// Hands what the load has read so far, and its own life, to the load around it.
    #[cfg(feature = "page")]
    pub(crate) fn hand_on(&self, life: Option<Moment>) {
        if let (false, Some(scope)) = (self.untracked, Scope::current()) {
            scope.hand_on(life);
        }
    }

    /// The tag space.
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) fn space(&self) -> &str {
        &self.shared.space
    }

    /// Whether an invalidation of one of the two is one of the other.
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) fn shares_tags_with(&self, other: &Self) -> bool {
        let is_one_store = std::ptr::addr_eq(
            Arc::as_ptr(&self.shared.store),
            Arc::as_ptr(&other.shared.store),
        );
        is_one_store && self.space() == other.space()
    }

    /// Tells this cache from others in this process.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("store", &format_args!("{}", self.shared.store))
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

fn no_such_key(key: &Key) -> Error {
    Error::new(
        ErrorKind::NoSuchKey,
        "cache",
        format!("there is no value at `{key}` to count up"),
    )
    .with_hint("`add` it first")
}

fn not_an_integer(key: &Key) -> Error {
    Error::new(
        ErrorKind::NotAnInteger,
        "cache",
        format!("the value at `{key}` is no integer"),
    )
}

fn overflow(key: &Key, delta: i64) -> Error {
    let what = format!("`{key}` and {delta} together do not fit 64 bits");
    Error::new(ErrorKind::NotAnInteger, "cache", what)
}
