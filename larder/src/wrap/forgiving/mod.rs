//! A store that may fail.
//!
//! | file | what |
//! | --- | --- |
//! | `breaker.rs` | whether to call a store that has failed |
//! | `doubt.rs` | leases of which the store may hear later |
//! | `owed.rs` | the writes that the store has not heard of yet |
//! | `repeat.rs` | repeating them |
//! | `turn.rs` | one call of the store |

mod breaker;
mod doubt;
mod owed;
mod repeat;
mod turn;

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use self::breaker::Breaker;
use self::doubt::Doubtful;
use self::owed::{Act, Owed};
use self::turn::{Failed, is_uncertain};
use crate::entry::{Entry, Head, Mark, Stamp, State};
use crate::store::{Found, Numbers, Scan, Store, Sum, Tags, Watch, When};
use crate::{Clock, Error, ErrorKind, Key, Moment, Result, Tag};

/// Goes on without a store that fails, and makes up for what it missed; a clone shares all.
///
/// *Reads and fills are forgiven.* A read that fails is a miss; a lease that cannot be placed counts
/// as placed, so that the load runs, and what it gives is not kept. While the store is away each
/// caller loads for itself: what another's load gives could be older than an invalidation of which
/// only other processes have heard.
///
/// *Writes are not.* A `set`, `delete`, `invalidate` or `clear` that did not reach the store
/// returns the error, and is owed: a failed `set` as a delete of its key, the others as they are; so
/// is one whose caller goes away midway. Until all that is owed has been repeated, nothing that the store says is trusted: reads are misses,
/// nothing is kept, and what depends on what is there (`add`, `touch`, `incr`) is an error. It is
/// repeated in the background, with growing pauses. `add`, `touch` and `incr` are never owed: done
/// or not, what they leave is a value that somebody wanted there. Nor is a compare-and-set, whose
/// error a load does not mind.
///
/// *What is owed is bounded* by [`max_owed`](Self::max_owed). What does not fit is replaced by
/// clears of the prefixes, and of the tag spaces, that it concerns. Keys without a prefix, which only
/// a key function makes, cannot be cleared by one: where they do not fit, nothing that the store says
/// is trusted until the process ends, and the log says so. What a process owes when it ends is lost;
/// it was never acknowledged.
///
/// *A store that is down costs microseconds.* After a few failures in a row no call is sent until a
/// pause is over; then one is, alone. Every outage is logged once when it begins and once when it
/// is over.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::{Cache, store::Memory, wrap::Forgiving};
///
/// let store = Forgiving::new(Memory::new()); // a `store::Redis` in earnest
/// assert_eq!(store.to_string(), "forgiving memory");
///
/// let cache = Cache::new(store.clone());
/// cache.set("k", "v").await?; // an error if the store cannot be reached
/// assert_eq!(cache.get("k").await?, Some("v".to_owned())); // then a miss
/// assert_eq!(store.forgiven().outages, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Forgiving {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
}

/// What a [`Forgiving`] has put up with, since it was made; a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Forgiven {
    /// Times that the store began to fail.
    pub outages: u64,
    /// Reads answered as misses.
    pub reads: u64,
    /// Leases and values that were not written.
    pub fills: u64,
    /// Writes that the store has not heard of yet.
    pub owed: usize,
    /// Writes that were owed and have been repeated.
    pub repeated: u64,
}

struct Shared {
    /// Whether nothing has failed and nothing is owed, so that nobody has to look in the book.
    sound: AtomicBool,
    book: Mutex<Book>,
    /// Whether a lease has ever ended in doubt.
    has_doubtful: AtomicBool,
}

struct Book {
    doubtful: Doubtful,
    breaker: Breaker,
    owed: Owed,
    forgiven: Forgiven,
    /// Whether a failure was logged and no recovery since.
    in_outage: bool,
    /// Whether a task repeats what is owed.
    repeating: bool,
    last_error: Option<Error>,
}

impl Forgiving {
    /// `store`, without which the program can go on.
    pub fn new(store: impl Store) -> Self {
        Self::with(Arc::new(store), 3, 10_000)
    }

    fn with(store: Arc<dyn Store>, failures: u32, owed: usize) -> Self {
        let book = Book {
            doubtful: Doubtful::default(),
            breaker: Breaker::new(failures),
            owed: Owed::new(owed),
            forgiven: Forgiven::default(),
            in_outage: false,
            repeating: false,
            last_error: None,
        };
        Self {
            store,
            shared: Arc::new(Shared {
                sound: AtomicBool::new(true),
                book: Mutex::new(book),
                has_doubtful: AtomicBool::new(false),
            }),
        }
    }

    /// How many failures in a row stop the calls for a while. Default: 3.
    #[must_use]
    pub fn max_failures(self, failures: u32) -> Self {
        self.book().breaker = Breaker::new(failures);
        self
    }

    /// How many writes may be owed, keys and tags each counted, before they are replaced by clears.
    /// Default: 10,000.
    #[must_use]
    pub fn max_owed(self, owed: usize) -> Self {
        self.book().owed = Owed::new(owed);
        self
    }

    /// What was forgiven, and what is owed.
    pub fn forgiven(&self) -> Forgiven {
        let book = self.book();
        Forgiven {
            owed: book.owed.count(),
            ..book.forgiven
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.shared.book()
    }

    fn is_sound(&self) -> bool {
        self.shared.sound.load(Ordering::Acquire)
    }

    /// Whether what the store says can be trusted; if not, sees to it that what is owed is repeated.
    fn is_trusted(&self) -> bool {
        if self.is_sound() || self.book().owed.is_empty() {
            return true;
        }
        self.repeat();
        false
    }

    /// Reads by `act`; `None` where there is no answer to be trusted.
    async fn read<T>(&self, act: impl Future<Output = Result<T>> + Send) -> Option<T> {
        if self.is_trusted()
            && let Ok(answer) = self.send(act).await
        {
            return Some(answer);
        }
        self.book().forgiven.reads += 1;
        None
    }

    /// Writes by `act`, which depends on what is there: only while that can be trusted.
    async fn write_if<T>(&self, act: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if !self.is_trusted() {
            return Err(self.not_trusted());
        }
        self.send(act).await.map_err(|failed| self.error(failed))
    }

    fn not_trusted(&self) -> Error {
        let book = self.book();
        let what = if book.owed.is_lost() {
            "what is there cannot be trusted: more writes failed than could be kept".to_owned()
        } else {
            let owed = book.owed.count();
            format!("what is there cannot be trusted: {owed} writes that failed are being repeated")
        };
        let hint = "is the server running? failed writes are repeated when it is back";
        Error::new(ErrorKind::Unavailable, &self.store, what).with_hint(hint)
    }

    /// Writes by `act`; if that fails, `acts` are owed.
    async fn write<T>(
        &self,
        act: impl Future<Output = Result<T>> + Send,
        acts: impl FnOnce() -> Vec<Act> + Send,
    ) -> Result<T> {
        // Owed from the start, so that it is owed as well if the caller goes away midway.
        let debt = Debt {
            of: self,
            acts: Some(acts),
        };
        let done = self.send(act).await;
        match done {
            Err(Failed::Sent(error)) if !is_uncertain(&error) => {
                debt.pay();
                Err(error)
            }
            Err(failed) => Err(self.error(failed)),
            Ok(done) => {
                debt.pay();
                Ok(done)
            }
        }
    }

    /// Fills by `act`, a compare-and-set; what cannot be sent now is not written.
    async fn fill(&self, act: impl Future<Output = Result<bool>> + Send) -> Result<bool> {
        let done = if self.is_trusted() {
            self.send(act).await
        } else {
            Err(Failed::NotSent)
        };
        if done.is_err() {
            self.book().forgiven.fills += 1;
        }
        match done {
            Ok(written) => Ok(written),
            Err(Failed::NotSent) => Ok(false),
            // It may have happened: were it said to be refused, who counts would count twice.
            Err(Failed::Sent(error)) => Err(error),
        }
    }

    /// The lease `mark` counts as placed, and may be placed yet.
    fn doubt(&self, mark: Stamp) {
        self.book().doubtful.add(mark);
        self.shared.has_doubtful.store(true, Ordering::Release);
    }

    fn is_doubtful(&self, mark: Stamp) -> bool {
        self.shared.has_doubtful.load(Ordering::Acquire) && self.book().doubtful.has(mark)
    }

    fn owe(&self, acts: Vec<Act>) {
        if acts.is_empty() {
            return;
        }
        {
            let mut book = self.book();
            let was_lost = book.owed.is_lost();
            for act in acts {
                book.owed.add(act);
            }
            self.shared.sound.store(false, Ordering::Release);
            if book.owed.is_lost() && !was_lost {
                tracing::error!(store = %self.store, "store_trusted_no_more");
            }
        }
        self.repeat();
    }

    /// The last act that is owed now.
    fn last_owed(&self) -> u64 {
        if self.is_sound() {
            return 0;
        }
        self.book().owed.last()
    }

    /// What is at `keys` has been written over by an act sent when `last` was the last one owed.
    fn written<'k>(&self, keys: impl IntoIterator<Item = &'k Key>, last: u64) {
        if last == 0 || self.is_sound() {
            return;
        }
        let mut book = self.book();
        for key in keys {
            book.owed.forget(key, last);
        }
        self.shared.look_sound(&mut book);
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that all is well, if it is.
    fn look_sound(&self, book: &mut Book) {
        if book.breaker.failures() > 0 || !book.owed.is_empty() {
            return;
        }
        self.sound.store(true, Ordering::Release);
        if std::mem::take(&mut book.in_outage) {
            let Forgiven {
                reads,
                fills,
                repeated,
                ..
            } = book.forgiven;
            tracing::info!(reads, fills, repeated, "store_recovered");
        }
    }
}

/// What is owed unless it is paid.
struct Debt<'a, F: FnOnce() -> Vec<Act>> {
    of: &'a Forgiving,
    acts: Option<F>,
}

impl<F: FnOnce() -> Vec<Act>> Debt<'_, F> {
    fn pay(mut self) {
        self.acts = None;
    }
}

impl<F: FnOnce() -> Vec<Act>> Drop for Debt<'_, F> {
    fn drop(&mut self) {
        if let Some(acts) = self.acts.take() {
            self.of.owe(acts());
        }
    }
}

/// Numbers under which no entry is valid and nothing made now is kept.
fn no_numbers(tags: Tags<'_>) -> Numbers {
    Numbers {
        era: NO_ERA,
        seq: 0,
        floor: u64::MAX,
        of: vec![None; tags.names.len()],
    }
}

/// An era that no store draws, or only once in 2^64 times.
const NO_ERA: u64 = 0x6e6f_5f65_7261_2e2e;

impl fmt::Display for Forgiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "forgiving {}", self.store)
    }
}

impl fmt::Debug for Forgiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forgiving")
            .field("store", &self.store)
            .field("forgiven", &self.forgiven())
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Forgiving {
    fn clock(&self) -> &Clock {
        self.store.clock()
    }

    fn get_now(&self, key: &Key) -> Option<Option<Arc<Entry>>> {
        let found = self.is_trusted().then(|| self.store.get_now(key))?;
        // Of a lease in doubt, `get` tells.
        let is_doubtful = |found: &Option<Arc<Entry>>| {
            let found = found.as_ref();
            found.is_some_and(|entry| self.is_doubtful(entry.stamp))
        };
        found.filter(|found| !is_doubtful(found))
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let found = self.read(self.store.get(keys, tags)).await;
        let mut found = found.unwrap_or_else(|| Found {
            entries: vec![None; keys.len()],
            numbers: tags.map(no_numbers),
        });
        for entry in found.entries.iter_mut().flatten() {
            if self.is_doubtful(entry.stamp) {
                // Nobody is to wait for that load: what it gives may be too old for him.
                entry.state = State::Idle;
            }
        }
        Ok(found)
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let heads = self.read(self.store.heads(keys)).await;
        Ok(heads.unwrap_or_else(|| vec![None; keys.len()]))
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        let (act, last) = (self.store.put(key, entry, when), self.last_owed());
        let put = match when {
            When::Always => self.write(act, || vec![Act::Delete(key.clone())]).await?,
            When::IfPresent if self.is_trusted() => {
                self.write(act, || vec![Act::Delete(key.clone())]).await?
            }
            When::IfPresent => {
                self.owe(vec![Act::Delete(key.clone())]);
                return Err(self.not_trusted());
            }
            When::IfAbsent => self.write_if(act).await?,
            When::IfStamp(seen) if self.is_doubtful(seen) => {
                self.book().forgiven.fills += 1;
                // Should the lease be there by now, others wait for what will not come.
                let end = Mark {
                    stamp: Stamp::draw(self.clock()),
                    state: State::Idle,
                    until: self.clock().now(),
                };
                let _ = self.fill(self.store.mark(key, Some(seen), end)).await;
                return Ok(false);
            }
            When::IfStamp(_) => return self.fill(act).await,
        };
        if put {
            self.written([key], last);
        }
        Ok(put)
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        let keys: Vec<Key> = entries.iter().map(|(key, _)| key.clone()).collect();
        let acts = || keys.iter().cloned().map(Act::Delete).collect();
        let last = self.last_owed();
        let refused = self.write(self.store.put_many(entries), acts).await?;
        // What was refused is gone from its slot as well.
        self.written(&keys, last);
        Ok(refused)
    }

    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        if self.is_trusted() {
            match self.send(self.store.mark(key, seen, mark)).await {
                Ok(marked) => return Ok(marked),
                Err(Failed::Sent(error)) if !is_uncertain(&error) => return Err(error),
                // A renewal that arrives late finds its own lease, or nothing.
                Err(Failed::Sent(_)) if seen != Some(mark.stamp) => self.doubt(mark.stamp),
                Err(_) => {}
            }
        }
        self.book().forgiven.fills += 1;
        Ok(true)
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        self.write_if(self.store.touch(key, fresh_until)).await
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        self.write_if(self.store.add_to(key, delta)).await
    }

    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        let acts = || {
            let raise = |tag: &Tag| Act::Raise {
                space: tags.space.into(),
                tag: tag.clone(),
            };
            tags.names.iter().map(raise).collect()
        };
        self.write(self.store.raise(tags), acts).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let acts = || keys.iter().cloned().map(Act::Delete).collect();
        let last = self.last_owed();
        let heads = self.write(self.store.delete(keys), acts).await?;
        self.written(keys, last);
        Ok(heads)
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        let act = || {
            let (scope, space) = (scope.into(), space.into());
            vec![Act::Clear { scope, space }]
        };
        self.write(self.store.clear(scope, space), act).await
    }

    async fn close(&self) -> Result<()> {
        let is_paid = self.pay().await;
        self.store.close().await?;
        if is_paid && self.book().owed.is_empty() {
            return Ok(());
        }
        Err(self.not_trusted())
    }

    fn scan(&self) -> Option<&dyn Scan> {
        self.store.scan()
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.store.watch()
    }
}
