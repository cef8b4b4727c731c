//! Invalidate while loading, over a real Redis, with the writer in the loader's own process and in
//! another: never the old value. Two processes are two caches, each on a connection of its own.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod grounds;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use larder::Cache;
use tokio::sync::Notify;

/// What a value is loaded from: a row with a version.
#[derive(Clone, Default)]
struct Row(Arc<AtomicU64>);

impl Row {
    fn read(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn write(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Delete,
    Set,
    Tag,
    Clear,
}

async fn invalidate(cache: &Cache, act: Act, row: &Row) {
    match act {
        Act::Delete => drop(cache.delete("k").await.unwrap()),
        Act::Set => cache.set("k", &row.read()).tags(["t"]).await.unwrap(),
        Act::Tag => cache.invalidate(["t"]).await.unwrap(),
        Act::Clear => cache.clear().await.unwrap(),
    }
}

/// Each ground's cache, and the cache of another process over the same server where there is one.
fn pairs() -> Vec<(&'static str, Cache, Cache)> {
    let mut pairs = Vec::new();
    for ground in grounds::all() {
        let here = ground.cache();
        if ground.name != "memory" {
            pairs.push((ground.name, here.clone(), ground.another().cache()));
        }
        // Not the same keys as the pair's.
        let here = ground.builder("alone").build().unwrap();
        pairs.push((ground.name, here.clone(), here));
    }
    pairs
}

#[tokio::test]
async fn what_was_loaded_before_an_invalidation_is_never_served_after_it() {
    for act in [Act::Delete, Act::Set, Act::Tag, Act::Clear] {
        for (name, loader, writer) in pairs() {
            let (row, read, go) = (
                Row::default(),
                Arc::new(Notify::new()),
                Arc::new(Notify::new()),
            );
            let load = {
                let (row, read, go) = (row.clone(), read.clone(), go.clone());
                move || async move {
                    let value = row.read();
                    read.notify_one();
                    go.notified().await;
                    value
                }
            };
            let loading = {
                let loader = loader.clone();
                tokio::spawn(async move { loader.get_or_set("k", load).tags(["t"]).await.unwrap() })
            };
            read.notified().await;

            row.write();
            invalidate(&writer, act, &row).await;
            go.notify_one();
            loading.await.unwrap();

            for cache in [&loader, &writer] {
                let row = row.clone();
                let found = cache.get_or_set("k", move || async move { row.read() });
                assert_eq!(found.tags(["t"]).await.unwrap(), 1, "{name}, {act:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_same_over_a_plain_get_load_set_is_old_every_time() {
    // The harness above can fail: without a lease the old value is written back.
    for (name, loader, writer) in pairs() {
        let row = Row::default();
        let value = row.read();
        row.write();
        invalidate(&writer, Act::Delete, &row).await;
        loader.set("k", &value).await.unwrap();

        assert_eq!(writer.get("k").await.unwrap(), Some(0), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_make_one_load_of_a_cold_key() {
    for (name, here, there) in pairs() {
        let loads = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..100)
            .map(|number| {
                let (cache, loads) = (if number % 2 == 0 { &here } else { &there }, loads.clone());
                let cache = cache.clone();
                let load = move || async move {
                    loads.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    "loaded".to_owned()
                };
                tokio::spawn(async move { cache.get_or_set("cold", load).await.unwrap() })
            })
            .collect();

        for caller in callers {
            assert_eq!(caller.await.unwrap(), "loaded", "{name}");
        }
        assert_eq!(loads.load(Ordering::SeqCst), 1, "{name}");
    }
}

#[tokio::test]
async fn a_ticket_of_one_process_is_void_once_another_has_deleted() {
    for (name, here, there) in pairs() {
        let ticket = here.ticket("k").await.unwrap();
        there.delete("k").await.unwrap();

        assert!(!ticket.set("old").await.unwrap(), "{name}");
        assert_eq!(there.get::<String>("k").await.unwrap(), None, "{name}");
    }
}
