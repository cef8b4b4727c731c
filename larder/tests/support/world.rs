//! Readers and writers who know what must not be read.

#![allow(dead_code, reason = "each test file uses a part")]
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{Cache, FetchError};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How many rows there are.
pub(crate) const ROWS: usize = 16;
const READERS: usize = 8;
/// Longer than any call takes whose server is dead.
pub(crate) const HANGS: Duration = Duration::from_secs(30);
pub(crate) const MS: Duration = Duration::from_millis(1);

/// What the values are made from.
#[derive(Default)]
pub(crate) struct Row {
    version: AtomicU64,
    /// The version that every reader has to see: it was written, and then the cache was told so.
    told: AtomicU64,
}

/// The rows, and what their readers and writers met.
pub(crate) struct World {
    pub(crate) rows: [Row; ROWS],
    pub(crate) is_over: AtomicBool,
    pub(crate) reads: AtomicUsize,
    pub(crate) loads: AtomicUsize,
    pub(crate) errors: AtomicUsize,
    pub(crate) told: AtomicUsize,
    /// Whether a write that failed is within the promise, as it is behind `Forgiving`.
    pub(crate) failures_count: bool,
    /// Of a thousand writes, how many clear the cache.
    pub(crate) clears: u32,
    pub(crate) last_error: Mutex<String>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            rows: std::array::from_fn(|_| Row::default()),
            is_over: AtomicBool::default(),
            reads: AtomicUsize::default(),
            loads: AtomicUsize::default(),
            errors: AtomicUsize::default(),
            told: AtomicUsize::default(),
            failures_count: false,
            clears: 100,
            last_error: Mutex::default(),
        }
    }
}

impl World {
    /// Starts readers and writers over `caches`, each of which is a process.
    pub(crate) fn go(self: &Arc<Self>, caches: &[Cache]) -> Vec<JoinHandle<()>> {
        let cache = |number: usize| caches[number % caches.len()].clone();
        let readers = (0..READERS).map(|number| tokio::spawn(Arc::clone(self).read(cache(number))));
        let mut tasks: Vec<_> = readers.collect();
        let write = |number| tokio::spawn(Arc::clone(self).write(cache(number), number));
        tasks.extend((0..ROWS).map(write));
        tasks
    }

    /// Ends them all; one that has met an old value fails here.
    pub(crate) async fn end(&self, tasks: Vec<JoinHandle<()>>) {
        self.is_over.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await.unwrap();
        }
    }

    /// Waits for a while of reads and writes, in which nobody may meet an error.
    pub(crate) async fn all_is_well(&self) {
        let before = self.errors.load(Ordering::SeqCst);
        self.grown(&self.reads, 300, "values are read").await;
        self.grown(&self.told, 100, "writes are heard of").await;
        let errors = self.errors.load(Ordering::SeqCst) - before;
        assert_eq!(errors, 0, "{}", self.last_error());
    }

    /// What the last who met an error was told.
    pub(crate) fn last_error(&self) -> String {
        self.last_error.lock().unwrap().clone()
    }

    /// Waits until each of `caches` gets answers about every row, and about tags.
    pub(crate) async fn answers_again(caches: &[Cache]) {
        let asked = async {
            for (cache, row) in
                (caches.iter()).flat_map(|cache| (0..ROWS).map(move |row| (cache, row)))
            {
                while cache.ticket(format!("row:{row}")).await.is_err() {
                    sleep(MS).await;
                }
            }
        };
        timeout(HANGS, asked)
            .await
            .expect("there are answers again");
    }

    /// Waits until each of `caches` keeps values again.
    pub(crate) async fn hits_again(caches: &[Cache]) {
        for cache in caches {
            // A key of its own each: what one has just kept is not what the other could.
            let key = format!("calm:{:p}", std::ptr::from_ref(cache));
            let keeps = async {
                while cache.get::<u64>(&key).await.ok().flatten().is_none() {
                    let load = || async { Ok::<_, Infallible>(1) };
                    let _ = cache.fetch(&key, load).await;
                    sleep(MS).await;
                }
            };
            timeout(HANGS, keeps).await.expect("there are hits again");
        }
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::SeqCst)
    }

    /// Fetches or gets rows, and looks whether they are old.
    async fn read(self: Arc<Self>, cache: Cache) {
        while self.goes_on() {
            let number = fastrand::usize(..ROWS);
            let (row, key) = (&self.rows[number], format!("row:{number}"));
            let told = row.told.load(Ordering::SeqCst);
            let found = if fastrand::u8(..4) == 0 {
                let got = timeout(HANGS, cache.get::<u64>(&key)).await;
                got.expect("a get ends").map_err(FetchError::Store)
            } else {
                let world = Arc::clone(&self);
                let load = move || async move {
                    let version = world.rows[number].version.load(Ordering::SeqCst);
                    world.loads.fetch_add(1, Ordering::SeqCst);
                    sleep(fastrand::u32(1..5) * MS).await;
                    Ok::<_, Infallible>(version)
                };
                let fetch = cache.fetch(&key, load).tags([format!("tag:{number}")]);
                timeout(HANGS, fetch).await.expect("a fetch ends").map(Some)
            };
            match found {
                Ok(Some(version)) => {
                    assert!(version >= told, "{key}: {version}, and {told} was told");
                    self.reads.fetch_add(1, Ordering::SeqCst);
                }
                Ok(None) => {}
                Err(error) => self.failed(&error).await,
            }
            // A store that answers at once lets the others have their turn.
            tokio::task::yield_now().await;
        }
    }

    /// Writes its own row, and tells the cache in one of four ways.
    async fn write(self: Arc<Self>, cache: Cache, number: usize) {
        let (row, key) = (&self.rows[number], format!("row:{number}"));
        while self.goes_on() {
            let version = row.version.fetch_add(1, Ordering::SeqCst) + 1;
            let act = async {
                match fastrand::u8(..9) {
                    _ if fastrand::u32(..1000) < self.clears => cache.clear().await,
                    0..3 => cache.delete(&key).await.map(drop),
                    3..6 => cache.invalidate([format!("tag:{number}")]).await,
                    _ => {
                        let set = cache.set(&key, &version);
                        set.tags([format!("tag:{number}")]).await
                    }
                }
            };
            let told = timeout(HANGS, act).await.expect("a write ends");
            if told.is_ok() || self.failures_count {
                row.told.store(version, Ordering::SeqCst);
            }
            match told {
                Ok(()) => drop(self.told.fetch_add(1, Ordering::SeqCst)),
                Err(error) => self.failed(&error).await,
            }
            sleep(fastrand::u32(1..20) * MS).await;
        }
    }

    async fn failed(&self, error: &(dyn std::error::Error + Sync)) {
        *self.last_error.lock().unwrap() = format!("{error}: {:?}", error.source());
        self.errors.fetch_add(1, Ordering::SeqCst);
        sleep(MS).await;
    }

    /// Waits until `count` has grown by `by`.
    pub(crate) async fn grown(&self, count: &AtomicUsize, by: usize, what: &str) {
        let before = count.load(Ordering::SeqCst);
        let grows = async {
            while count.load(Ordering::SeqCst) < before + by {
                sleep(MS).await;
            }
        };
        timeout(HANGS, grows).await.expect(what);
    }
}
