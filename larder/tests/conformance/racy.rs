//! A store that is right as long as one asks at a time: each of its acts looks first and acts then.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use larder::store::{Found, Numbers, Scan, Store, Sum, Tags, Watch, When};
use larder::{Clock, Entry, Head, Key, Mark, Moment, Result, Stamp, Value};

use crate::own_store::Plain;

#[derive(Debug, Default)]
pub(crate) struct Racy {
    inner: Plain,
    seq: AtomicU64,
}

/// Blocks the thread: a store that never waits has its races between threads alone.
fn pause() {
    std::thread::sleep(Duration::from_micros(200));
}

impl Racy {
    fn numbers(&self, tags: Tags<'_>) -> Numbers {
        let seq = self.seq.load(Ordering::SeqCst);
        Numbers {
            era: 1,
            seq,
            floor: 0,
            of: vec![Some(seq); tags.names.len()],
        }
    }
}

impl fmt::Display for Racy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("racy")
    }
}

#[async_trait]
impl Store for Racy {
    fn clock(&self) -> &Clock {
        self.inner.clock()
    }

    fn get_now(&self, key: &Key) -> Option<Option<Arc<Entry>>> {
        self.inner.get_now(key)
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let numbers = tags.map(|tags| self.numbers(tags));
        pause();
        let found = self.inner.get(keys, None).await?;
        Ok(Found { numbers, ..found })
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        self.inner.heads(keys).await
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        if when == When::IfAbsent {
            let heads = self.heads(std::slice::from_ref(key)).await?;
            pause();
            if heads[0].is_some() {
                return Ok(false);
            }
            return self.inner.put(key, entry, When::Always).await;
        }
        self.inner.put(key, entry, when).await
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        self.inner.put_many(entries).await
    }

    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        let found = self.get_now(key).flatten().map(|entry| entry.stamp);
        pause();
        if found != seen {
            return Ok(false);
        }
        self.inner.put(key, Entry::bare(mark), When::Always).await
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        self.inner.touch(key, fresh_until).await
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        let Some(Some(mut entry)) = self
            .get_now(key)
            .map(|entry| entry.map(Arc::unwrap_or_clone))
        else {
            return Ok(Sum::NoSuchKey);
        };
        pause();
        let Some(Value::Integer(number)) = entry.value else {
            return Ok(Sum::NotPlain);
        };
        entry.value = Some(Value::Integer(number + delta));
        self.inner.put(key, entry, When::Always).await?;
        Ok(Sum::Is(number + delta))
    }

    async fn raise(&self, _: Tags<'_>) -> Result<u64> {
        let number = self.seq.load(Ordering::SeqCst) + 1;
        pause();
        self.seq.store(number, Ordering::SeqCst);
        Ok(number)
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        self.inner.delete(keys).await
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        self.inner.clear(scope, space).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn scan(&self) -> Option<&dyn Scan> {
        None
    }

    fn watch(&self) -> Option<&dyn Watch> {
        None
    }
}
