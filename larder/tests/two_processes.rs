//! Invalidate while loading, over every store, with the writer in the loader's own process and in
//! another: never the old value. Two processes are two caches, each on a connection of its own.

#![cfg(all(feature = "page", feature = "redis"))]
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod grounds;
#[path = "support/row.rs"]
mod row;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::{Router, routing::get};
use http_body_util::BodyExt as _;
use larder::Cache;
use larder::page::keys::{KeyOptions, header_list_key, page_key};
use larder::page::{CacheLayer, PageTags};
use row::{Act, Row};
use tokio::sync::Notify;
use tower::ServiceExt as _;

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
        if let Some(there) = ground.another() {
            pairs.push((ground.name, here.clone(), there.cache()));
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

/// A site with one page, which is made of the row; told to hold, it waits after it has read.
#[derive(Clone, Default)]
struct Site {
    row: Row,
    holds: Arc<AtomicUsize>,
    read: Arc<Notify>,
    go: Arc<Notify>,
}

impl Site {
    fn over(&self, cache: &Cache) -> Router {
        let site = self.clone();
        let page = move |tags: PageTags| async move {
            tags.add("t");
            let value = site.row.read();
            if site.holds.swap(0, Ordering::SeqCst) == 1 {
                site.read.notify_one();
                site.go.notified().await;
            }
            value.to_string()
        };
        // Who is told to wait for a flight that does not end does so for a moment.
        let pages = CacheLayer::new(cache.clone()).wait(Duration::from_millis(50));
        Router::new().route("/page", get(page)).layer(pages)
    }
}

async fn page(site: Router) -> String {
    let request = Request::get("/page").header("host", "example.com");
    let response = site.oneshot(request.body(Body::empty()).unwrap());
    let body = response.await.unwrap().into_body().collect().await;
    String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap()
}

/// The slots of the page: its URL's list, and the page itself.
fn slots() -> [String; 2] {
    let (uri, options) = ("http://example.com/page", KeyOptions::default());
    let none: &[Option<&[u8]>] = &[];
    [
        header_list_key(uri, &options),
        page_key("GET", uri, none, &options),
    ]
}

/// Lets the URL be known, and its page be gone.
async fn without_its_page(cache: &Cache, site: Router) {
    page(site).await;
    let [list, kept] = slots();
    // Written behind the answer: the page first, then the list.
    while !cache.has(&list).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(cache.delete(&kept).await.unwrap());
}

async fn invalidate_page(cache: &Cache, act: Act) {
    match act {
        Act::Delete => drop(cache.delete_many(slots()).await.unwrap()),
        // By hand, with what is no page.
        Act::Set => drop(cache.set_many(slots().map(|slot| (slot, 5))).await.unwrap()),
        Act::Tag | Act::Clear => invalidate(cache, act, &Row::default()).await,
    }
}

/// Lets a page be made of the row while the row changes and `act` is done, on a URL of which nothing is
/// known or, `warm`, one whose page is gone; what is served there and here afterwards.
async fn pages_meanwhile(loader: &Cache, writer: &Cache, act: Act, warm: bool) -> [String; 2] {
    let site = Site::default();
    let (here, there) = (site.over(loader), site.over(writer));
    loader.clear().await.unwrap();
    // On Memcached a tag that nobody has used counts as invalidated just now.
    loader.invalidate(["t"]).await.unwrap();
    if warm {
        without_its_page(loader, here.clone()).await;
    }
    site.holds.store(1, Ordering::SeqCst);
    let loading = tokio::spawn(page(here.clone()));
    site.read.notified().await;
    site.row.write();
    invalidate_page(writer, act).await;
    site.go.notify_one();
    assert_eq!(loading.await.unwrap(), "0", "its own client's");
    [page(here).await, page(there).await]
}

#[tokio::test]
async fn a_page_made_before_an_invalidation_is_never_served_after_it() {
    for act in [Act::Delete, Act::Set, Act::Tag, Act::Clear] {
        for warm in [false, true] {
            for (name, loader, writer) in pairs() {
                let pages = pages_meanwhile(&loader, &writer, act, warm).await;
                assert_eq!(pages, ["1", "1"], "{name}, {act:?}, warm: {warm}");
            }
        }
    }
}

#[tokio::test]
async fn a_page_that_is_got_made_and_set_is_old_every_time() {
    // The same without the engine: what was made before is written after.
    for (name, loader, writer) in pairs() {
        let (row, [_, slot]) = (Row::default(), slots());
        assert_eq!(loader.get::<String>(&slot).await.unwrap(), None, "{name}");
        let made = row.read().to_string();
        row.write();
        invalidate_page(&writer, Act::Delete).await;
        invalidate_page(&writer, Act::Tag).await;
        loader.set(&slot, &made).tags(["t"]).await.unwrap();
        assert_eq!(
            writer.get(&slot).await.unwrap(),
            Some("0".to_owned()),
            "{name}"
        );
    }
}

#[tokio::test]
async fn after_an_edit_the_page_is_new_while_a_flight_from_before_it_still_runs() {
    for (name, loader, writer) in pairs() {
        for warm in [false, true] {
            let site = Site::default();
            let (here, there) = (site.over(&loader), site.over(&writer));
            loader.clear().await.unwrap();
            loader.invalidate(["t"]).await.unwrap();
            if warm {
                without_its_page(&loader, here.clone()).await;
            }
            site.holds.store(1, Ordering::SeqCst);
            let flight = tokio::spawn(page(here.clone()));
            site.read.notified().await;

            // The edit and the redirect, in whichever process.
            site.row.write();
            writer.invalidate(["t"]).await.unwrap();
            let pages = [page(there.clone()).await, page(here.clone()).await];
            assert_eq!(pages, ["1", "1"], "{name}, warm: {warm}");

            site.go.notify_one();
            assert_eq!(flight.await.unwrap(), "0", "{name}: asked before the edit");
            let pages = [page(there).await, page(here).await];
            assert_eq!(pages, ["1", "1"], "{name}, warm: {warm}");
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
