//! Nowhere: everything is accepted, nothing is kept.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Found, Numbers, Scan, Scanned, Store, Sum, Tags, Watch, When};
use crate::entry::{Entry, Head, Mark, Stamp};
use crate::{Clock, Key, Moment, Result};

/// A store that keeps nothing, as Django's dummy backend: for development, or to turn a cache off.
///
/// Every load runs, since there is no slot to hold a lease; `add` says yes, `delete` says no.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::{Cache, store::Null};
///
/// let cache = Cache::new(Null::new());
/// cache.set("k", &1).await?;
/// assert_eq!(cache.get::<i32>("k").await?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Null {
    clock: Clock,
}

impl Null {
    /// A store that keeps nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Display for Null {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null")
    }
}

#[async_trait]
impl Store for Null {
    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn get_now(&self, _: &Key) -> Option<Option<Arc<Entry>>> {
        Some(None)
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let numbers = tags.map(|tags| Numbers {
            of: vec![None; tags.names.len()],
            ..Numbers::default()
        });
        Ok(Found {
            entries: vec![None; keys.len()],
            numbers,
        })
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        Ok(vec![None; keys.len()])
    }

    async fn put(&self, _: &Key, _: Entry, when: When) -> Result<bool> {
        Ok(matches!(when, When::Always | When::IfAbsent))
    }

    async fn put_many(&self, _: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        Ok(Vec::new())
    }

    async fn mark(&self, _: &Key, seen: Option<Stamp>, _: Mark) -> Result<bool> {
        Ok(seen.is_none())
    }

    async fn touch(&self, _: &Key, _: Moment) -> Result<Option<Head>> {
        Ok(None)
    }

    async fn add_to(&self, _: &Key, _: i64) -> Result<Sum> {
        Ok(Sum::NoSuchKey)
    }

    async fn raise(&self, _: Tags<'_>) -> Result<u64> {
        Ok(0)
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        Ok(vec![None; keys.len()])
    }

    async fn clear(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
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

#[async_trait]
impl Scan for Null {
    async fn page(&self, _: &str, _: Option<&str>, _: usize) -> Result<Scanned> {
        Ok(Scanned::default())
    }
}
