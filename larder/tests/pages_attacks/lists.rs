//! The list of what a URL varies on: what makes it longer, and what must not make it new.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use http::header;
use tokio::time::{sleep, timeout};
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer as _, Service, ServiceExt as _};

use crate::{Calls, SECOND, ask, plain, request, site, text};

#[tokio::test(start_paused = true)]
async fn grace_lasts_from_one_refresh_to_the_next() {
    let calls = Calls::default();
    let counted = calls.clone();
    let handler = get(move || {
        let number = counted.next();
        async move {
            sleep(SECOND).await;
            format!("page {number}")
        }
    });
    let layer = plain().ttl(60 * SECOND).grace(30 * SECOND);
    let app = Router::new().route("/", handler).layer(layer);
    ask(&app, "/", &[]).await;

    for round in 1..5 {
        sleep(65 * SECOND).await;
        let stale = timeout(SECOND / 2, ask(&app, "/", &[])).await;
        let stale = stale.expect("a stale page is given at once");
        assert_eq!(stale.body, format!("page {round}"));
        sleep(2 * SECOND).await;
        assert_eq!(
            ask(&app, "/", &[]).await.body,
            format!("page {}", round + 1)
        );
        sleep(20 * SECOND).await;
        let fresh = ask(&app, "/", &[]).await;
        assert!(
            fresh.is_hit(),
            "round {round}: {}",
            fresh.header("cache-status")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_variants_at_once_no_more_are_kept_than_of_one_after_the_other() {
    let (app, calls) = site(plain(), |_, headers| {
        let language = text(headers, "accept-language").to_owned();
        ([(header::VARY, "Accept-Language")], language)
    });
    ask(&app, "/", &[("accept-language", "first")]).await;

    let all = (0..300).map(|number| {
        let app = app.clone();
        tokio::spawn(async move {
            let language = format!("l{number}");
            let answer = ask(&app, "/", &[("accept-language", &language)]).await;
            assert_eq!(answer.body, language);
        })
    });
    for asked in all.collect::<Vec<_>>() {
        asked.await.unwrap();
    }
    sleep(3 * SECOND).await;
    let before = calls.count();
    let mut hits = 0;
    for number in 0..300 {
        let language = format!("l{number}");
        hits += usize::from(
            ask(&app, "/", &[("accept-language", &language)])
                .await
                .is_hit(),
        );
    }

    assert!(hits <= 63 && calls.count() > before, "{hits}");
    assert!(
        ask(&app, "/", &[("accept-language", "first")])
            .await
            .is_hit()
    );
}

#[tokio::test(start_paused = true)]
async fn a_response_that_names_more_headers_drops_the_variants_once_and_not_each_time() {
    let (app, calls) = site(plain(), |_, headers| {
        let json = text(headers, "accept") == "application/json";
        let vary = if json {
            "Accept, Accept-Language"
        } else {
            "Accept-Language"
        };
        let said = format!(
            "{} {}",
            text(headers, "accept"),
            text(headers, "accept-language")
        );
        ([(header::VARY, vary)], said)
    });
    let html = [("accept", "text/html"), ("accept-language", "en")];

    for number in 0..6 {
        assert_eq!(ask(&app, "/", &html).await.body, "text/html en");
        let language = format!("junk{number}");
        let json = [
            ("accept", "application/json"),
            ("accept-language", &*language),
        ];
        let answer = ask(&app, "/", &json).await;
        assert_eq!(answer.body, format!("application/json {language}"));
        // Past the time in which nobody queues for what was not kept.
        sleep(3 * SECOND).await;
    }

    // HTML is made again once, when the list has grown.
    assert_eq!(calls.count(), 6 + 2);
}

#[tokio::test(start_paused = true)]
async fn a_page_in_the_cache_does_not_wait_for_a_service_that_is_busy() {
    let handler = get(|request: Request| async move {
        if request.uri().path() == "/slow" {
            sleep(60 * SECOND).await;
        }
        "page"
    });
    let inside = Router::new().fallback_service(handler.with_state(()));
    let app = plain().layer(ConcurrencyLimitLayer::new(1).layer(inside));
    let ask = |target: &'static str| {
        let app = app.clone();
        async move {
            app.oneshot(request(http::Method::GET, target, &[]))
                .await
                .unwrap()
        }
    };
    let first = ask("/").await;
    drop(
        axum::body::to_bytes(Body::new(first.into_body()), 100)
            .await
            .unwrap(),
    );
    sleep(SECOND).await;

    let slow = tokio::spawn(ask("/slow"));
    sleep(SECOND).await;
    let hit = timeout(SECOND, ask("/"))
        .await
        .expect("a hit waits for nobody");

    assert!(
        hit.headers()["cache-status"]
            .to_str()
            .unwrap()
            .starts_with("Larder; hit")
    );
    slow.abort();
}

/// Fails when it is asked whether it is ready.
#[derive(Clone)]
struct NeverReady(Arc<AtomicBool>);

impl Service<Request> for NeverReady {
    type Response = Response;
    type Error = &'static str;
    type Future = Ready<Result<Response, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Err("not ready"))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        self.0.store(true, Ordering::SeqCst);
        ready(Ok(Response::new(Body::empty())))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_will_not_be_ready_is_not_called_and_says_why() {
    let called = Arc::new(AtomicBool::new(false));
    let app = plain().layer(NeverReady(Arc::clone(&called)));

    for method in [http::Method::GET, http::Method::POST] {
        let answer = app.clone().oneshot(request(method, "/", &[])).await;
        assert_eq!(answer.err(), Some("not ready"));
    }
    assert!(!called.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn the_age_a_page_came_with_is_taken_off_its_life() {
    let (app, calls) = site(plain(), |_, _| {
        (
            [(header::CACHE_CONTROL, "max-age=60"), (header::AGE, "40")],
            "page",
        )
    });

    ask(&app, "/", &[]).await;
    sleep(Duration::from_secs(19)).await;
    let hit = ask(&app, "/", &[]).await;
    assert_eq!((hit.is_hit(), hit.header("age")), (true, "59"));
    sleep(2 * SECOND).await;
    ask(&app, "/", &[]).await;

    assert_eq!(calls.count(), 2);
}
