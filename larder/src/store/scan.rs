//! Listing keys: a rarer power, which not every store has.

use async_trait::async_trait;

use crate::{Key, Result};

/// Lists keys, page by page, without holding up the store.
///
/// Asked of a store by [`Store::scan`](super::Store::scan); [`Cache::keys`](crate::Cache::keys) uses it.
#[async_trait]
pub trait Scan: Send + Sync {
    /// About `limit` keys whose names start with `scope`, and where to go on.
    ///
    /// `from` is what the last page said; `None` begins. A page may be empty and not the last. A key
    /// with a live value all the while is given at least once; leases, markers and Larder's own
    /// records are left out.
    async fn page(&self, scope: &str, from: Option<&str>, limit: usize) -> Result<Scanned>;
}

/// A page of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scanned {
    /// The keys.
    pub keys: Vec<Key>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<String>,
}

impl Scanned {
    /// A page from all keys that a store has: the `limit` smallest names after `from`.
    ///
    /// For stores that have their keys at hand, in no order.
    pub fn of(keys: impl IntoIterator<Item = Key>, from: Option<&str>, limit: usize) -> Self {
        let after = |key: &Key| from.is_none_or(|from| key.name() > from);
        let mut keys: Vec<Key> = keys.into_iter().filter(after).collect();
        keys.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        let more = keys.len() > limit.max(1);
        keys.truncate(limit.max(1));
        let next = keys
            .last()
            .filter(|_| more)
            .map(|key| key.name().to_owned());
        Self { keys, next }
    }
}
