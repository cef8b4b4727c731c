//! How often what came of a key.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::Outcome;

/// How often the caller of a key was answered how, since the cache was made; a snapshot.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// let cache = larder::Cache::new(larder::store::Memory::new());
/// cache.get::<String>("k").await?;
/// assert_eq!(cache.counts().misses, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Fresh values served.
    pub hits: u64,
    /// Stale values served.
    pub stale: u64,
    /// Callers told that nothing was there, or whose load ran.
    pub misses: u64,
    /// Callers answered by another's load.
    pub joined: u64,
    /// Callers whose load ran beside the cache.
    pub bypasses: u64,
    /// Entries found that could not be read; each was a miss too.
    pub unreadable: u64,
    /// Loads begun.
    pub loads: u64,
    /// Loads that failed, ran into their time limit or panicked.
    pub failed_loads: u64,
    /// Values loaded that could not be kept: the lease was lost, or a tag had moved.
    pub refused: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: AtomicU64,
    stale: AtomicU64,
    misses: AtomicU64,
    joined: AtomicU64,
    bypasses: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    pub(crate) loads: AtomicU64,
    pub(crate) failed_loads: AtomicU64,
    pub(crate) refused: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn hear(&self, outcome: &Outcome) {
        count(match outcome {
            Outcome::Hit(_) => &self.hits,
            Outcome::Stale(_) => &self.stale,
            Outcome::Miss(_) => &self.misses,
            Outcome::Joined(_) => &self.joined,
            Outcome::Bypass(_) | Outcome::Refused(_) => &self.bypasses,
        });
    }

    pub(crate) fn snapshot(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            hits: read(&self.hits),
            stale: read(&self.stale),
            misses: read(&self.misses),
            joined: read(&self.joined),
            bypasses: read(&self.bypasses),
            unreadable: read(&self.unreadable),
            loads: read(&self.loads),
            failed_loads: read(&self.failed_loads),
            refused: read(&self.refused),
        }
    }
}
