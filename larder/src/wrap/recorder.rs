//! Counts what came of every key, by the words of [`Outcome`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::instrumented::shown;
use crate::event::{Listener, Outcome};

/// A [`Listener`] that counts outcomes by reason.
///
/// The names are those that [`Outcome`] prints. With the feature `metrics`, each also counts in
/// `larder_outcomes_total` of the `metrics` facade, under the label `outcome`; and each is a
/// `tracing` event `key_asked` at level `trace`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use std::sync::Arc;
/// use larder::{Cache, store::Memory, wrap::Recorder};
///
/// let recorder = Arc::new(Recorder::new());
/// let cache = Cache::builder(Memory::new()).listener(recorder.clone()).build()?;
/// cache.get::<String>("k").await?;
/// cache.set("k", "v").await?;
/// cache.get::<String>("k").await?;
/// let counts: Vec<_> = recorder.counts().into_iter().collect();
/// assert_eq!(counts, [("hit", 1), ("miss-absent", 1)]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Recorder(RwLock<HashMap<&'static str, AtomicU64>>);

impl Recorder {
    /// A recorder that has heard nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often it heard what, by the words that [`Outcome`] prints.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let read =
            |(word, count): (&&'static str, &AtomicU64)| (*word, count.load(Ordering::Relaxed));
        counts.iter().map(read).collect()
    }

    fn count(&self, word: &'static str) {
        let counts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get(word) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        drop(counts);
        let mut counts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(word).or_default().get_mut() += 1;
    }
}

impl Listener for Recorder {
    fn heard(&self, key: &str, outcome: &Outcome) {
        let word = outcome.token();
        tracing::trace!(key = %Shown(key), outcome = word, "key_asked");
        self.count(word);
        #[cfg(feature = "metrics")]
        metrics::counter!("larder_outcomes_total", "outcome" => word).increment(1);
    }
}

/// A whole key as logs show it.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(self.0, f)
    }
}
