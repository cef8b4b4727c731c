//! Tags over every store: invalidated, expired, repeated, inherited, and of pages.

#![cfg(all(feature = "page", feature = "redis"))]
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod grounds;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::routing::get;
use axum::{Extension, Router, body::Body};
use grounds::Ground;
use http_body_util::BodyExt as _;
use larder::page::{CacheLayer, PageTags};
use larder::store::Memory;
use larder::{Cache, Clock, Loading};
use tokio::sync::{Notify, Semaphore};
use tower::ServiceExt as _;

const MINUTE: Duration = Duration::from_mins(1);

/// What is loaded: a counter of its own loads.
#[derive(Clone, Default)]
struct Source(Arc<AtomicU64>);

impl Source {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// A fetch of `key`, tagged `t`, served for `grace` past its time.
    async fn fetch(&self, cache: &Cache, key: &str, grace: Duration) -> u64 {
        let source = self.clone();
        let load = move || async move { source.next() };
        cache
            .get_or_set(key, load)
            .tags(["t"])
            .grace(grace)
            .await
            .unwrap()
    }
}

/// Waits until `key` is `value`, which somebody is loading in the background.
async fn until(cache: &Cache, key: &str, value: u64) {
    for _ in 0..1000 {
        if cache.get(key).await.unwrap() == Some(value) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("`{key}` never became {value}");
}

/// The caches of each store: its own, and that of another process if there can be one.
fn caches(ground: &Ground) -> [Cache; 2] {
    let here = ground.cache();
    let there = ground
        .another()
        .map_or_else(|| here.clone(), |it| it.cache());
    [here, there]
}

#[tokio::test]
async fn what_is_expired_is_served_once_more_and_refreshed_by_one_load() {
    for ground in grounds::all() {
        let ([here, there], name) = (caches(&ground), ground.name);
        let source = Source::default();
        assert_eq!(source.fetch(&here, "k", MINUTE).await, 1, "{name}");
        assert_eq!(source.fetch(&here, "k", MINUTE).await, 1, "{name}");

        there.expire(["t"]).await.unwrap();
        assert_eq!(there.get::<u64>("k").await.unwrap(), None, "{name}");
        assert_eq!(source.fetch(&here, "k", MINUTE).await, 1, "{name}");
        until(&here, "k", 2).await;
        assert_eq!(source.fetch(&here, "k", MINUTE).await, 2, "{name}");
        assert_eq!(source.count(), 2, "{name}");

        there.expire(["t"]).await.unwrap();
        there.invalidate(["t"]).await.unwrap();
        assert_eq!(source.fetch(&here, "k", MINUTE).await, 3, "{name}");
        there.invalidate(["t"]).await.unwrap();
        there.expire(["t"]).await.unwrap();
        assert_eq!(source.fetch(&here, "k", MINUTE).await, 4, "{name}");
    }
}

#[tokio::test]
async fn who_takes_nothing_old_gets_nothing_that_is_expired() {
    for ground in grounds::all() {
        let ([here, there], name) = (caches(&ground), ground.name);
        let source = Source::default();
        source.fetch(&here, "k", Duration::ZERO).await;
        here.set("by hand", &1).tags(["t", "u"]).await.unwrap();

        there.expire(["t"]).await.unwrap();
        assert_eq!(source.fetch(&here, "k", Duration::ZERO).await, 2, "{name}");
        assert_eq!(here.get::<i32>("by hand").await.unwrap(), None, "{name}");
        assert!(!here.has("by hand").await.unwrap(), "{name}");
        assert!(here.incr("by hand", 1).await.is_err(), "{name}");
        assert!(here.add("by hand", &5).tags(["u"]).await.unwrap(), "{name}");
        assert_eq!(here.get("by hand").await.unwrap(), Some(5), "{name}");
    }
}

#[tokio::test]
async fn a_load_that_began_before_is_not_kept_after_an_expiry_either() {
    for ground in grounds::all() {
        let ([here, there], name) = (caches(&ground), ground.name);
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let load = {
            let (begun, go) = (begun.clone(), go.clone());
            move || async move {
                begun.notify_one();
                go.notified().await;
                1_u64
            }
        };
        let loading = {
            let here = here.clone();
            tokio::spawn(async move { here.get_or_set("k", load).tags(["t"]).grace(MINUTE).await })
        };
        begun.notified().await;
        there.expire(["t"]).await.unwrap();
        go.notify_one();
        assert_eq!(loading.await.unwrap().unwrap(), 1, "{name}: its own caller");

        let next = here.get_or_set("k", || async { 2_u64 }).tags(["t"]);
        assert_eq!(next.grace(MINUTE).await.unwrap(), 2, "{name}");
    }
}

#[tokio::test]
async fn what_is_made_of_an_expired_value_goes_with_the_next_invalidation() {
    for ground in grounds::all() {
        let ([here, there], name) = (caches(&ground), ground.name);
        let source = Source::default();
        source.fetch(&here, "inner", MINUTE).await;
        let stuck = Arc::new(Semaphore::new(0));
        there.expire(["t"]).await.unwrap();

        // The inner value is refreshed by a load that does not end.
        let outer = |number: u64| {
            let (inner, stuck) = (here.clone(), stuck.clone());
            let load = move || async move {
                let load = move || async move {
                    drop(stuck.acquire().await);
                    100_u64
                };
                let value = inner.get_or_set("inner", load).tags(["t"]).grace(MINUTE);
                number + value.await.unwrap()
            };
            here.get_or_set("outer", load)
        };
        assert_eq!(outer(10).await.unwrap(), 11, "{name}");
        assert_eq!(outer(20).await.unwrap(), 11, "{name}: kept for a moment");

        there.invalidate(["t"]).await.unwrap();
        stuck.close();
        assert_eq!(outer(30).await.unwrap(), 130, "{name}");
    }
}

#[tokio::test]
async fn many_at_once_know_the_soft_form_as_well() {
    for ground in grounds::all() {
        let ([here, there], name) = (caches(&ground), ground.name);
        let fetch = |number: u64| {
            let load = move |keys: Vec<String>| async move {
                let all = keys.into_iter().map(|key| (key, number)).collect();
                Ok::<_, std::convert::Infallible>(all)
            };
            here.fetch_many(["a", "b"], load).tags(["t"]).grace(MINUTE)
        };
        assert_eq!(fetch(1).await.unwrap()["a"], 1, "{name}");
        there.expire(["t"]).await.unwrap();
        assert_eq!(fetch(2).await.unwrap()["a"], 1, "{name}");
        until(&here, "a", 2).await;
        until(&here, "b", 2).await;
        there.invalidate(["t"]).await.unwrap();
        assert_eq!(fetch(3).await.unwrap()["a"], 3, "{name}");
    }
}

#[tokio::test]
async fn tags_from_a_load_and_on_a_ticket_are_found() {
    for ground in grounds::all() {
        let ([here, there], name) = (caches(&ground), ground.name);
        // On Memcached a tag that nobody has used counts as invalidated just now.
        there.invalidate(["found:7"]).await.unwrap();
        let load = |loading: Loading| async move {
            loading.tag("found:7");
            Ok::<_, std::convert::Infallible>(1)
        };
        assert_eq!(here.fetch_with("k", load).await.unwrap(), 1);
        let ticket = here.ticket("by ticket").await.unwrap();
        assert!(ticket.set(&1).tags(["found:7"]).await.unwrap(), "{name}");
        assert_eq!(here.get("k").await.unwrap(), Some(1), "{name}");
        assert_eq!(here.get("by ticket").await.unwrap(), Some(1), "{name}");

        there.invalidate(["found:7"]).await.unwrap();
        assert_eq!(here.get::<i32>("k").await.unwrap(), None, "{name}");
        assert_eq!(here.get::<i32>("by ticket").await.unwrap(), None, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_that_settles_also_takes_what_a_lagging_replica_gave() {
    let cache = Cache::new(Memory::builder().clock(Clock::seeded(1)).build());
    let source = Source::default();
    let lag = Duration::from_secs(2);
    cache.invalidate(["t"]).settle(lag).await.unwrap();
    // Loaded after the invalidation, from a replica that does not have the write yet.
    assert_eq!(source.fetch(&cache, "k", MINUTE).await, 1);
    tokio::time::sleep(lag.saturating_sub(Duration::from_millis(10))).await;
    assert_eq!(cache.get("k").await.unwrap(), Some(1_u64));

    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(cache.get::<u64>("k").await.unwrap(), None);
    assert_eq!(source.fetch(&cache, "k", MINUTE).await, 2);
}

#[tokio::test]
async fn a_tag_in_memory_is_seen_to_move_without_a_lock() {
    // A hit with tags is answered at once; a load is not, since its numbers are noted.
    let cache = Cache::new(Memory::new());
    let other = Cache::builder(Memory::new())
        .space("other")
        .build()
        .unwrap();
    let tags: Vec<String> = (0..10).map(|number| format!("tag:{number}")).collect();
    for round in 0..50 {
        cache.set("k", &round).tags(&tags).await.unwrap();
        assert_eq!(cache.get("k").await.unwrap(), Some(round));
        other.invalidate(&tags).await.unwrap();
        cache.invalidate(["tag:10"]).await.unwrap();
        assert_eq!(cache.get("k").await.unwrap(), Some(round));
        cache.invalidate([&tags[round % 10]]).await.unwrap();
        assert_eq!(cache.get::<usize>("k").await.unwrap(), None);
    }
    cache.set("k", &1).tags(["t"]).await.unwrap();
    cache.clear().await.unwrap();
    assert_eq!(cache.get::<i32>("k").await.unwrap(), None);
}

// Pages.

/// A site whose pages are tagged by a handle, by an extension, and by what they read.
fn site(cache: &Cache, source: &Source) -> Router {
    let by_handle = |State((_, source)): State<(Cache, Source)>, tags: PageTags| async move {
        tags.add("t");
        source.next().to_string()
    };
    let by_extension = |State((_, source)): State<(Cache, Source)>| async move {
        let tags = Extension(PageTags::from_iter(["t"]));
        (tags, source.next().to_string())
    };
    let by_reading = |State((cache, source)): State<(Cache, Source)>| async move {
        let value = larder::spawn(async move {
            let load = move || async move { source.next() };
            cache.get_or_set("value", load).tags(["t"]).await.unwrap()
        });
        value.await.unwrap().to_string()
    };
    // As it goes: after the head is sent.
    let late = |State((_, source)): State<(Cache, Source)>, tags: PageTags| async move {
        let (sender, pieces) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            tags.add("t");
            let _ = sender.send(Ok(source.next().to_string())).await;
        });
        Body::new(Pieces(pieces))
    };
    Router::new()
        .route("/handle", get(by_handle))
        .route("/extension", get(by_extension))
        .route("/reading", get(by_reading))
        .route("/late", get(late))
        .with_state((cache.clone(), source.clone()))
        .layer(CacheLayer::new(cache.clone()).ttl(MINUTE).grace(MINUTE))
}

/// A body of what is sent.
struct Pieces(tokio::sync::mpsc::Receiver<Result<String, std::io::Error>>);

impl http_body::Body for Pieces {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|it| it.map(|text| http_body::Frame::data(text.into()))))
    }
}

async fn page(site: &Router, path: &str) -> String {
    let request = Request::builder().uri(path).header("host", "example.com");
    let request = request.body(Body::empty()).unwrap();
    let response = site.clone().oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_page_has_the_tags_that_it_is_told_and_those_of_what_it_reads() {
    for ground in grounds::all() {
        let [here, there] = caches(&ground);
        // On Memcached a tag that nobody has used counts as invalidated just now.
        there.invalidate(["t"]).await.unwrap();
        for path in ["/handle", "/extension", "/reading", "/late"] {
            let (source, name) = (Source::default(), format!("{}{path}", ground.name));
            let site = site(&here, &source);
            assert_eq!(page(&site, path).await, "1", "{name}");
            until_kept(&site, path, "1").await;

            there.expire(["t"]).await.unwrap();
            let old = page(&site, path).await;
            assert_eq!(old, "1", "{name}: served while it is made anew");
            until_kept(&site, path, "2").await;

            there.invalidate(["t"]).await.unwrap();
            assert_eq!(page(&site, path).await, "3", "{name}");
            here.delete("value").await.unwrap();
        }
    }
}

/// Asks until `text` is what is kept: what a client gets may be on its way into the store.
async fn until_kept(site: &Router, path: &str, text: &str) {
    for _ in 0..1000 {
        let request = Request::builder().uri(path).header("host", "example.com");
        let request = request.body(Body::empty()).unwrap();
        let response = site.clone().oneshot(request).await.unwrap();
        let status = response.headers()["cache-status"]
            .to_str()
            .unwrap()
            .to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        if status.contains("hit") && !status.contains("stale") && body == text {
            return;
        }
        assert!(body == text || status.contains("hit"), "{path}: {status}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{path} is not kept");
}

#[tokio::test]
async fn outside_of_a_layer_the_handle_goes_nowhere() {
    let view = |tags: PageTags| async move {
        tags.add("t");
        "page"
    };
    let site: Router = Router::new().route("/", get(view));
    assert_eq!(page(&site, "/").await, "page");
}
