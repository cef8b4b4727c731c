//! Stores that fail, hang or lose what they were given: the site answers all the same.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use larder::page::CacheLayer;
use larder::store::{Found, Memory, Scan, Store, Sum, Tags, Watch, When};
use larder::{Cache, Clock, Entry, Error, ErrorKind, Head, Key, Mark, Moment, Result};
use tokio::time::{Instant, sleep};

use crate::{SECOND, ask, memory, site};

/// A memory store at the end of a bad line.
#[derive(Debug, Clone)]
struct Faulty {
    memory: Memory,
    line: Arc<Line>,
}

#[derive(Debug, Default)]
struct Line {
    reads_fail: AtomicBool,
    writes_fail: AtomicBool,
    /// Answers, but keeps nothing of what is put.
    forgets: AtomicBool,
    delay_ms: AtomicU64,
}

impl Faulty {
    fn new() -> Self {
        Self {
            memory: memory(),
            line: Arc::default(),
        }
    }

    async fn wire(&self, fails: &AtomicBool) -> Result<()> {
        let delay = self.line.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            sleep(Duration::from_millis(delay)).await;
        }
        if fails.load(Ordering::Relaxed) {
            let what = "the line is down";
            return Err(Error::new(ErrorKind::Unavailable, "faulty", what));
        }
        Ok(())
    }

    async fn read(&self) -> Result<()> {
        self.wire(&self.line.reads_fail).await
    }

    async fn write(&self) -> Result<()> {
        self.wire(&self.line.writes_fail).await
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl Store for Faulty {
    fn clock(&self) -> &Clock {
        self.memory.clock()
    }
    fn get_now(&self, _: &Key) -> Option<Option<Arc<Entry>>> {
        None
    }
    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        self.read().await?;
        self.memory.get(keys, tags).await
    }
    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        self.read().await?;
        self.memory.heads(keys).await
    }
    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        self.write().await?;
        if self.line.forgets.load(Ordering::Relaxed) {
            return Ok(true);
        }
        self.memory.put(key, entry, when).await
    }
    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        self.write().await?;
        self.memory.put_many(entries).await
    }
    async fn mark(&self, key: &Key, seen: Option<larder::Stamp>, mark: Mark) -> Result<bool> {
        self.write().await?;
        self.memory.mark(key, seen, mark).await
    }
    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        self.write().await?;
        self.memory.touch(key, fresh_until).await
    }
    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        self.write().await?;
        self.memory.add_to(key, delta).await
    }
    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        self.write().await?;
        self.memory.raise(tags).await
    }
    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        self.write().await?;
        self.memory.delete(keys).await
    }
    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        self.write().await?;
        self.memory.clear(scope, space).await
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }

    fn scan(&self) -> Option<&dyn Scan> {
        self.memory.scan()
    }

    fn watch(&self) -> Option<&dyn Watch> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_site_over_a_store_that_fails_answers_as_if_there_were_none() {
    for (reads, writes) in [(true, true), (true, false), (false, true)] {
        let store = Faulty::new();
        store.line.reads_fail.store(reads, Ordering::Relaxed);
        store.line.writes_fail.store(writes, Ordering::Relaxed);
        let cache = Cache::new(store.clone());
        let (app, calls) = site(CacheLayer::new(cache.clone()), |number, _| {
            format!("page {number}")
        });

        for number in 1..=5 {
            let answer = ask(&app, "/", &[]).await;
            assert_eq!(answer.body, format!("page {number}"));
            assert!(
                answer.header("cache-status").contains("store-failed"),
                "{answer:?}"
            );
            assert_eq!(answer.header("cache-control"), "max-age=600");
        }
        let herd = (0..50).map(|_| {
            let app = app.clone();
            tokio::spawn(async move { ask(&app, "/", &[]).await.status })
        });
        for answered in herd.collect::<Vec<_>>() {
            assert_eq!(answered.await.unwrap(), 200);
        }
        assert_eq!(calls.count(), 55);

        store.line.reads_fail.store(false, Ordering::Relaxed);
        store.line.writes_fail.store(false, Ordering::Relaxed);
        sleep(10 * SECOND).await;
        ask(&app, "/", &[]).await;
        assert!(
            ask(&app, "/", &[]).await.is_hit(),
            "reads {reads}, writes {writes}"
        );
        cache.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_halfway_neither_hangs_nor_keeps_half() {
    let store = Faulty::new();
    let line = Arc::clone(&store.line);
    let (app, _) = site(CacheLayer::new(Cache::new(store)), move |number, _| {
        // The handler runs between the lease and the write.
        line.writes_fail.store(number == 1, Ordering::Relaxed);
        format!("page {number}")
    });

    assert_eq!(ask(&app, "/", &[]).await.body, "page 1");
    sleep(10 * SECOND).await;
    // Its lease meets a line that is still down; it is the handler that mends it.
    assert_eq!(ask(&app, "/", &[]).await.body, "page 2");
    assert_eq!(ask(&app, "/", &[]).await.body, "page 3");
    assert!(ask(&app, "/", &[]).await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_forgets_is_a_store_of_misses() {
    let store = Faulty::new();
    store.line.forgets.store(true, Ordering::Relaxed);
    let (app, _) = site(CacheLayer::new(Cache::new(store)), |number, _| {
        format!("page {number}")
    });

    for number in 1..=3 {
        assert_eq!(ask(&app, "/", &[]).await.body, format!("page {number}"));
        sleep(10 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_a_second_costs_a_few_and_no_more() {
    let store = Faulty::new();
    store.line.delay_ms.store(1000, Ordering::Relaxed);
    let (app, _) = site(CacheLayer::new(Cache::new(store)), |number, _| {
        format!("page {number}")
    });

    let began = Instant::now();
    let first = crate::send(&app, crate::request(http::Method::GET, "/", &[])).await;
    assert_eq!(first.body, "page 1");
    assert!(began.elapsed() <= 4 * SECOND, "{:?}", began.elapsed());

    sleep(10 * SECOND).await;
    let began = Instant::now();
    assert!(ask(&app, "/", &[]).await.is_hit());
    assert!(began.elapsed() < 2 * SECOND);
}
