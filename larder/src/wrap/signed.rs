//! A store that others can write to.
//!
//! A value is kept as bytes: which kind it is, its signature, then itself. Whatever changes a value
//! or its deadlines, which stores else do in place, is a compare-and-set here, since only we can sign.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::entry::{Entry, Head, Mark, Stamp, State, Value};
use crate::store::{Found, Scan, Store, Sum, Tags, Watch, When};
use crate::{Clock, Error, ErrorKind, Key, Moment, Result};

const INTEGER: u8 = 1;
const BYTES: u8 = 2;
/// The length of kind and signature.
const HEAD: usize = 33;
/// How often a compare-and-set is tried before it is given up.
const MOST_TRIES: u64 = 200;

/// Signs what is written to a store, and takes what is not signed for unreadable; a clone shares the
/// store and the key.
///
/// The signature is an HMAC-SHA256 over the whole key, the value, its codec, its deadlines and its
/// tags with their numbers: what was written without the secret, changed, or copied from another key is a miss,
/// and counted as unreadable. Leases and markers are not signed, nor are the numbers of tags: who can
/// write to the store can still delete, hold up a load, take an invalidation back, or put back an
/// older value of the same key within its own TTL. Values are not encrypted.
///
/// It costs a hash of the value at each read and write, 33 bytes an entry, and a second round trip,
/// with the value, where the deadline or an integer is changed; `has` and `ttl` read the value. Plain
/// integers are kept signed as well, so that other languages cannot count them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::{Cache, store::Memory, wrap::Signed};
///
/// let store = Signed::new(Memory::new(), "a secret of 32 bytes or more ...");
/// assert_eq!(store.to_string(), "signed memory");
///
/// let cache = Cache::new(store);
/// cache.set("n", &1).await?;
/// assert_eq!(cache.incr("n", 1).await?, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Signed {
    store: Arc<dyn Store>,
    seal: Hmac<Sha256>,
}

/// Asked for along with what is compared or answered for: without tags a store may read a copy that lags.
const ASKED: Option<Tags<'static>> = Some(Tags {
    space: "",
    names: &[],
});

impl Signed {
    /// `store`, whose values are signed with `key`: 32 random bytes or more, which no other program
    /// of the store's users knows.
    pub fn new(store: impl Store, key: impl AsRef<[u8]>) -> Self {
        let seal = Hmac::new_from_slice(key.as_ref()).expect("HMAC takes keys of every length");
        Self {
            store: Arc::new(store),
            seal,
        }
    }

    /// The hash of all that is signed of `entry`, whose value is of `kind` and written as `body`.
    fn seal(&self, key: &Key, entry: &Entry, kind: u8, body: &[u8]) -> Hmac<Sha256> {
        let mut seal = self.seal.clone();
        let text = |seal: &mut Hmac<Sha256>, text: &str| {
            seal.update(&(text.len() as u64).to_be_bytes());
            seal.update(text.as_bytes());
        };
        text(&mut seal, key.whole());
        seal.update(&[entry.codec, kind]);
        seal.update(&entry.fresh_until.as_millis().to_be_bytes());
        seal.update(&entry.stale_until.as_millis().to_be_bytes());
        // Every part has its length before it, so that no other entry reads the same.
        let (era, tags) =
            (entry.tags.as_deref()).map_or((0, &[][..]), |it| (it.era, &it.good_from));
        seal.update(&era.to_be_bytes());
        seal.update(&(tags.len() as u64).to_be_bytes());
        for (tag, number) in tags {
            text(&mut seal, tag);
            seal.update(&number.to_be_bytes());
        }
        seal.update(body);
        seal
    }

    fn signed(&self, key: &Key, mut entry: Entry) -> Entry {
        let (kind, body) = match entry.value.take() {
            None => return entry,
            Some(Value::Bytes(bytes)) => (BYTES, bytes),
            Some(Value::Integer(number)) => (INTEGER, Bytes::from(number.to_string())),
        };
        let seal = self.seal(key, &entry, kind, &body).finalize().into_bytes();
        let mut signed = BytesMut::with_capacity(HEAD + body.len());
        signed.put_u8(kind);
        signed.put_slice(&seal);
        signed.put_slice(&body);
        entry.value = Some(Value::Bytes(signed.freeze()));
        entry
    }

    /// The entry without its signature; one that is not signed by us has no value.
    fn verified(&self, key: &Key, mut entry: Entry) -> Entry {
        let Some(value) = entry.value.take() else {
            return entry;
        };
        entry.value = self.value(key, &entry, &value);
        if entry.value.is_none() {
            entry.unreadable = true;
            entry.tags = None;
            entry.decoded = None;
        }
        entry
    }

    fn value(&self, key: &Key, entry: &Entry, signed: &Value) -> Option<Value> {
        let Value::Bytes(signed) = signed else {
            return None;
        };
        let (kind, seal) = signed.get(..HEAD)?.split_first()?;
        let body = signed.slice(HEAD..);
        // In constant time: how much of a forgery was right is not to be measured.
        (self.seal(key, entry, *kind, &body).verify_slice(seal)).ok()?;
        match *kind {
            BYTES => Some(Value::Bytes(body)),
            INTEGER => std::str::from_utf8(&body)
                .ok()?
                .parse()
                .ok()
                .map(Value::Integer),
            _ => None,
        }
    }

    async fn live(&self, key: &Key) -> Result<Option<Entry>> {
        let found = self.get(std::slice::from_ref(key), ASKED).await?;
        let now = self.clock().now();
        let entry = found.entries.into_iter().next().flatten();
        Ok(entry.filter(|entry| entry.is_live(now)))
    }

    /// Changes the live entry at `key` by compare-and-set: `change` says to what, or what to answer
    /// without.
    async fn change<T: Send>(
        &self,
        key: &Key,
        change: impl Fn(Option<&Entry>) -> std::result::Result<(Entry, T), T> + Send + Sync,
    ) -> Result<T> {
        let clock = self.clock();
        for attempt in 0..MOST_TRIES {
            if attempt > 1 {
                let pause = Duration::from_millis(attempt.min(20));
                clock.sleep(clock.jittered(pause)).await;
            }
            let entry = self.live(key).await?;
            let (mut next, answer) = match change(entry.as_ref()) {
                Ok(next) => next,
                Err(answer) => return Ok(answer),
            };
            let seen = next.stamp;
            next.stamp = Stamp::draw(clock);
            next.state = State::Idle;
            if self.put(key, next, When::IfStamp(seen)).await? {
                return Ok(answer);
            }
        }
        let what = format!("`{key}` changed {MOST_TRIES} times while it was to be changed");
        Err(Error::new(ErrorKind::Unavailable, self, what))
    }
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signed {}", self.store)
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Signed {
    fn clock(&self) -> &Clock {
        self.store.clock()
    }

    fn get_now(&self, key: &Key) -> Option<Option<Arc<Entry>>> {
        let slot = self.store.get_now(key)?;
        Some(slot.map(|entry| Arc::new(self.verified(key, Arc::unwrap_or_clone(entry)))))
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let mut found = self.store.get(keys, tags).await?;
        for (key, slot) in keys.iter().zip(&mut found.entries) {
            *slot = slot.take().map(|entry| self.verified(key, entry));
        }
        Ok(found)
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let now = self.clock().now();
        let head = |entry: Option<Entry>| entry.filter(|it| it.is_live(now)).map(|it| it.head());
        let found = self.get(keys, ASKED).await?;
        Ok(found.entries.into_iter().map(head).collect())
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        self.store.put(key, self.signed(key, entry), when).await
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        let sign = |(key, entry)| {
            let entry = self.signed(&key, entry);
            (key, entry)
        };
        let entries = entries.into_iter().map(sign).collect();
        self.store.put_many(entries).await
    }

    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        self.store.mark(key, seen, mark).await
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        self.change(key, |entry| {
            let entry = entry.ok_or(None)?;
            let grace = entry.stale_until.left(entry.fresh_until);
            let next = entry.clone().fresh_until(fresh_until);
            Ok((
                next.with_grace(grace.unwrap_or(Duration::MAX)),
                Some(entry.head()),
            ))
        })
        .await
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        self.change(key, |entry| {
            let entry = entry.ok_or(Sum::NoSuchKey)?;
            let (true, Some(Value::Integer(number))) = (entry.is_plain(), &entry.value) else {
                return Err(Sum::NotPlain);
            };
            let sum = number.checked_add(delta).ok_or(Sum::Overflow)?;
            let value = Some(Value::Integer(sum));
            Ok((
                Entry {
                    value,
                    ..entry.clone()
                },
                Sum::Is(sum),
            ))
        })
        .await
    }

    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        self.store.raise(tags).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        self.store.delete(keys).await
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        self.store.clear(scope, space).await
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await
    }

    fn scan(&self) -> Option<&dyn Scan> {
        self.store.scan()
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.store.watch()
    }
}
