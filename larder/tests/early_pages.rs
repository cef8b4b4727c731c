//! Pages that are made anew before their TTL ends.

#![cfg(feature = "page")]
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

#[path = "support/faulty.rs"]
mod faulty;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::get;
use faulty::Faulty;
use http::StatusCode;
use http_body_util::BodyExt as _;
use larder::page::CacheLayer;
use larder::store::{Memory, Store};
use larder::{Cache, Clock};
use tokio::time::sleep;
use tower::ServiceExt as _;

const TTL: Duration = Duration::from_secs(100);
/// How long the handler takes.
const TOOK: Duration = Duration::from_secs(5);
const MS: Duration = Duration::from_millis(1);
/// From when the page is there until ten milliseconds before its end.
const NEARLY: Duration = Duration::from_millis(100_000 - 5000 - 10);

/// A site whose handler takes its time, and answers with its number; from `broken` on with an error.
struct Site {
    app: Router,
    cache: Cache,
    calls: Arc<AtomicUsize>,
}

impl Site {
    fn new(store: impl Store, eagerness: f64, broken: usize) -> Self {
        let (cache, calls) = (Cache::new(store), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&calls);
        let handler = get(move || {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                sleep(TOOK).await;
                if number >= broken {
                    return (StatusCode::INTERNAL_SERVER_ERROR, "broken".to_owned());
                }
                (StatusCode::OK, format!("page {number}"))
            }
        });
        let pages = CacheLayer::new(cache.clone()).ttl(TTL).early(eagerness);
        let app = Router::new().route("/", handler).layer(pages);
        Self { app, cache, calls }
    }

    /// The body of `/`, and how long it had to be waited for.
    async fn ask(&self) -> (String, Duration) {
        self.ask_by("GET").await
    }

    async fn ask_by(&self, method: &str) -> (String, Duration) {
        let began = tokio::time::Instant::now();
        let request = Request::builder()
            .method(method)
            .uri("/")
            .header("host", "example.com");
        let request = request.body(Body::empty()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (body, began.elapsed())
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn memory() -> Memory {
    Memory::builder().clock(Clock::seeded(1)).build()
}

fn at_once(body: &str) -> (String, Duration) {
    (body.to_owned(), Duration::ZERO)
}

#[tokio::test(start_paused = true)]
async fn near_the_end_hits_go_on_while_the_page_is_made_once_behind_them() {
    // Answered in place, and by a store that has to be waited for.
    let stores: [Arc<dyn Store>; 2] =
        [Arc::new(memory()), Arc::new(Faulty::new(&Clock::seeded(1)))];
    for store in stores {
        let site = Site::new(store, 1.0, usize::MAX);
        assert_eq!(site.ask().await, ("page 1".to_owned(), TOOK));
        sleep(NEARLY).await;

        for _ in 0..20 {
            assert_eq!(site.ask().await, at_once("page 1"));
        }
        sleep(MS).await;
        assert_eq!(site.calls(), 2, "once, however many ask");
        sleep(TOOK).await;
        assert_eq!(site.ask().await, at_once("page 2"));
        sleep(TTL.saturating_sub(TOOK)).await;
        assert_eq!(site.ask().await.0, "page 2", "fresh for a whole TTL");
    }
}

#[tokio::test(start_paused = true)]
async fn far_from_the_end_and_without_the_setting_nothing_is_made() {
    for (eagerness, before_the_end) in [(1.0, TTL / 2), (0.0, 10 * MS), (f64::NAN, 10 * MS)] {
        let site = Site::new(memory(), eagerness, usize::MAX);
        site.ask().await;
        sleep(TTL.saturating_sub(TOOK + before_the_end)).await;

        for _ in 0..50 {
            assert_eq!(site.ask().await, at_once("page 1"));
        }
        assert_eq!(site.calls(), 1, "{eagerness}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_makes_no_page_for_others_leaves_it_to_the_next() {
    let site = Site::new(memory(), 1.0, usize::MAX);
    site.ask().await;
    sleep(NEARLY).await;

    for _ in 0..20 {
        assert_eq!(site.ask_by("HEAD").await, at_once(""));
    }
    assert_eq!(site.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_that_fails_the_page_is_served_to_its_end() {
    let site = Site::new(memory(), 1000.0, 2);
    site.ask().await;
    sleep(TTL / 2).await;

    for _ in 0..20 {
        assert_eq!(site.ask().await, at_once("page 1"));
    }
    sleep(TOOK + MS).await;
    assert_eq!(site.calls(), 2);
    for _ in 0..20 {
        assert_eq!(site.ask().await, at_once("page 1"));
    }
    assert_eq!(site.calls(), 2, "not tried again at once");
}

#[tokio::test(start_paused = true)]
async fn what_is_cleared_meanwhile_is_not_written_back() {
    let site = Site::new(memory(), 1.0, usize::MAX);
    site.ask().await;
    sleep(NEARLY).await;
    for _ in 0..20 {
        site.ask().await;
    }
    sleep(MS).await;
    assert_eq!(site.calls(), 2);

    site.cache.clear().await.unwrap();
    sleep(2 * TOOK).await;

    assert_eq!(site.ask().await.0, "page 3");
}
