//! A store whose calls are traced and counted.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::entry::{Entry, Head, Mark, Stamp};
use crate::store::{Found, Scan, Store, Sum, Tags, Watch, When};
use crate::{Clock, Error, ErrorKind, Key, Moment, Result};

/// Traces and counts the calls of a store; a clone shares the store.
///
/// Every call is a `tracing` span `store_call` at level `trace`, and an event `store_called` inside
/// it when it has its answer: at `trace`, or at `debug` if it failed. Fields: `store`, `verb`,
/// `keys` (how many), `key` (the first, its tail hashed: keys are data of users), `outcome`, `elapsed`.
///
/// With the feature `metrics`, two metrics go to the recorder of the `metrics` facade:
/// `larder_store_calls_total` with the labels `store`, `verb` and `outcome`, and the histogram
/// `larder_store_seconds` with `store` and `verb`.
///
/// A call costs two looks at the clock more where nobody listens, and some hundred nanoseconds with
/// `metrics`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::{Cache, store::Memory, wrap::Instrumented};
///
/// let store = Instrumented::new(Memory::new());
/// assert_eq!(store.to_string(), "instrumented memory");
/// Cache::new(store).set("k", "v").await?; // store_called verb="put" outcome="done"
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Instrumented {
    store: Arc<dyn Store>,
    name: Arc<str>,
}

impl Instrumented {
    /// `store`, whose calls are traced and counted.
    pub fn new(store: impl Store) -> Self {
        let name = store.to_string().into();
        Self {
            store: Arc::new(store),
            name,
        }
    }

    /// Runs `act`, then tells what came of it.
    async fn watch<T: Send>(
        &self,
        verb: &'static str,
        keys: &[Key],
        act: impl Future<Output = Result<T>> + Send,
        outcome: impl FnOnce(&T) -> &'static str + Send,
    ) -> Result<T> {
        let began = Instant::now();
        let span = tracing::trace_span!("store_call", store = %self.name, verb, keys = keys.len());
        let done = act.instrument(span.clone()).await;
        span.in_scope(|| match &done {
            Ok(answer) => self.tell(verb, keys, began, outcome(answer)),
            Err(error) => self.complain(verb, keys, began, error),
        });
        done
    }

    fn tell(&self, verb: &'static str, keys: &[Key], began: Instant, outcome: &'static str) {
        tracing::trace!(
            store = %self.name,
            verb,
            keys = keys.len(),
            key = keys.first().map(|key| tracing::field::display(Shown(key))),
            outcome,
            elapsed = ?began.elapsed(),
            "store_called"
        );
        self.measure(verb, began, outcome);
    }

    fn complain(&self, verb: &'static str, keys: &[Key], began: Instant, error: &Error) {
        let outcome = token(error.kind());
        tracing::debug!(
            store = %self.name,
            verb,
            keys = keys.len(),
            key = keys.first().map(|key| tracing::field::display(Shown(key))),
            outcome,
            elapsed = ?began.elapsed(),
            %error,
            "store_called"
        );
        self.measure(verb, began, outcome);
    }

    #[cfg(feature = "metrics")]
    fn measure(&self, verb: &'static str, began: Instant, outcome: &'static str) {
        let store = || metrics::SharedString::from(Arc::clone(&self.name));
        let (calls, seconds) = ("larder_store_calls_total", "larder_store_seconds");
        metrics::counter!(calls, "store" => store(), "verb" => verb, "outcome" => outcome)
            .increment(1);
        metrics::histogram!(seconds, "store" => store(), "verb" => verb).record(began.elapsed());
    }

    #[cfg(not(feature = "metrics"))]
    #[expect(clippy::unused_self, reason = "called the same way with metrics")]
    const fn measure(&self, _: &'static str, _: Instant, _: &'static str) {}
}

/// A key as it is shown to those who read logs: its scope, and a hash in place of the rest.
pub(super) struct Shown<'a>(pub(super) &'a Key);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(self.0.whole(), f)
    }
}

/// Writes `prefix:version:` of `key`, and the beginning of the hash of the whole.
pub(super) fn shown(key: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let scope = key.match_indices(':').nth(1).map_or(0, |(at, _)| at + 1);
    let digest = Sha256::digest(key.as_bytes());
    write!(f, "{}#", &key[..scope])?;
    digest[..4]
        .iter()
        .try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// An error's kind as a word.
fn token(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::Timeout => "timeout",
        ErrorKind::TooLarge => "too-large",
        ErrorKind::Invalid => "invalid",
        ErrorKind::Unsupported => "unsupported",
        _ => "failed",
    }
}

/// "hit" where all of `found` is there, "miss" where nothing is.
fn hits<T>(found: &[Option<T>]) -> &'static str {
    match found.iter().flatten().count() {
        _ if found.is_empty() => "done",
        0 => "miss",
        count if count == found.len() => "hit",
        _ => "some",
    }
}

fn done(is_done: bool) -> &'static str {
    if is_done { "done" } else { "refused" }
}

impl fmt::Display for Instrumented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instrumented {}", self.name)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Instrumented {
    fn clock(&self) -> &Clock {
        self.store.clock()
    }

    // What cannot be told at once is asked again by `get`, and told there.
    fn get_now(&self, key: &Key) -> Option<Option<Arc<Entry>>> {
        let began = Instant::now();
        let slot = self.store.get_now(key)?;
        let is_hit = slot.as_ref().is_some_and(|entry| entry.value.is_some());
        let outcome = if is_hit { "hit" } else { "miss" };
        self.tell("get_now", std::slice::from_ref(key), began, outcome);
        Some(slot)
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let act = self.store.get(keys, tags);
        let outcome = |found: &Found| {
            let values = found
                .entries
                .iter()
                .map(|entry| entry.as_ref()?.value.as_ref());
            hits(&values.collect::<Vec<_>>())
        };
        self.watch("get", keys, act, outcome).await
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let act = self.store.heads(keys);
        self.watch("heads", keys, act, |heads| hits(heads)).await
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        let act = self.store.put(key, entry, when);
        let keys = std::slice::from_ref(key);
        self.watch("put", keys, act, |put| done(*put)).await
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        let keys: Vec<Key> = entries.iter().map(|(key, _)| key.clone()).collect();
        let act = self.store.put_many(entries);
        let outcome = |refused: &Vec<usize>| done(refused.is_empty());
        self.watch("put_many", &keys, act, outcome).await
    }

    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        let act = self.store.mark(key, seen, mark);
        let keys = std::slice::from_ref(key);
        self.watch("mark", keys, act, |marked| done(*marked)).await
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        let act = self.store.touch(key, fresh_until);
        let keys = std::slice::from_ref(key);
        self.watch("touch", keys, act, |head| hits(std::slice::from_ref(head)))
            .await
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        let act = self.store.add_to(key, delta);
        let outcome = |sum: &Sum| match sum {
            Sum::Is(_) => "done",
            Sum::NoSuchKey => "miss",
            Sum::NotPlain | Sum::Overflow => "refused",
        };
        self.watch("add_to", std::slice::from_ref(key), act, outcome)
            .await
    }

    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        let act = self.store.raise(tags);
        self.watch("raise", &[], act, |_| "done").await
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let act = self.store.delete(keys);
        self.watch("delete", keys, act, |heads| hits(heads)).await
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        let act = self.store.clear(scope, space);
        self.watch("clear", &[], act, |()| "done").await
    }

    async fn close(&self) -> Result<()> {
        let act = self.store.close();
        self.watch("close", &[], act, |()| "done").await
    }

    fn scan(&self) -> Option<&dyn Scan> {
        self.store.scan()
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.store.watch()
    }
}
