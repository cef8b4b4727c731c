//! Many at once: clients that go away, handlers that never answer, threads that ask while others invalidate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::{HeaderMap, Method, header};
use larder::page::CacheLayer;
use larder::store::Memory;
use larder::{Cache, Clock};
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt as _;

use crate::{Calls, SECOND, ask, cache, request, send, settle, text};

#[tokio::test(start_paused = true)]
async fn requests_given_up_by_the_thousand_leave_nothing_in_the_air() {
    let (cache, calls) = (cache(), Calls::default());
    let counted = calls.clone();
    let handler = get(move || {
        let number = counted.next();
        async move {
            sleep(20 * SECOND).await;
            format!("page {number}")
        }
    });
    let app = Router::new()
        .fallback_service(handler.with_state(()))
        .layer(CacheLayer::new(cache.clone()));

    for number in 0..2000_u64 {
        let target = format!("/{}", number % 50);
        let gone = app.clone().oneshot(request(Method::GET, &target, &[]));
        assert!(
            timeout(Duration::from_millis(number % 7), gone)
                .await
                .is_err()
        );
    }
    sleep(21 * SECOND).await;

    let began = Instant::now();
    cache.close().await.unwrap();
    assert!(
        began.elapsed() < Duration::from_millis(5),
        "{:?}",
        began.elapsed()
    );
    assert!(ask(&app, "/7", &[]).await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_answers_is_given_up_when_its_client_has_gone() {
    let (cache, calls) = (cache(), Calls::default());
    let counted = calls.clone();
    let guard = Arc::new(());
    let held = Arc::clone(&guard);
    let handler = get(move || {
        let (number, held) = (counted.next(), held.clone());
        async move {
            if number == 1 {
                std::future::pending::<()>().await;
            }
            drop(held);
            "page"
        }
    });
    let app = Router::new()
        .route("/", handler)
        .layer(CacheLayer::new(cache.clone()));
    let gone = app.clone().oneshot(request(Method::GET, "/", &[]));
    assert!(timeout(SECOND, gone).await.is_err());

    // Who comes meanwhile waits for ten seconds, then makes its own.
    let began = Instant::now();
    assert_eq!(ask(&app, "/", &[]).await.body, "page");
    assert!(began.elapsed() < 11 * SECOND);

    sleep(40 * SECOND).await;
    cache.close().await.unwrap();
    assert!(
        Arc::strong_count(&guard) <= 3,
        "the future of the handler is dropped"
    );
    ask(&app, "/", &[]).await;
    assert!(ask(&app, "/", &[]).await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_herd_of_cookies_does_not_keep_a_page_out_forever() {
    let cache = cache();
    let handler = get(|| async { "page" });
    let app = Router::new()
        .route("/", handler)
        .layer(CacheLayer::new(cache));
    let herd = {
        let app = app.clone();
        tokio::spawn(async move {
            loop {
                sleep(SECOND / 10).await;
                ask(&app, "/", &[("cookie", "a=1")]).await;
            }
        })
    };

    sleep(SECOND).await;
    let mut is_kept = false;
    for _ in 0..200 {
        is_kept |= ask(&app, "/", &[]).await.is_hit();
        sleep(Duration::from_millis(90)).await;
    }
    herd.abort();

    assert!(is_kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_ask_and_invalidate_see_no_old_page_and_no_wrong_variant() {
    let cache = Cache::new(Memory::builder().clock(Clock::system()).build());
    let truth = Arc::new(AtomicU64::new(0));
    let (values, source) = (cache.clone(), Arc::clone(&truth));
    let handler = move |headers: HeaderMap| {
        let (values, source) = (values.clone(), source.clone());
        async move {
            let load =
                move || async move { Ok::<_, std::io::Error>(source.load(Ordering::SeqCst)) };
            let number: u64 = values.fetch("number", load).tags(["number"]).await.unwrap();
            tokio::task::yield_now().await;
            (
                [(header::VARY, "x-a")],
                format!("{} {number}", text(&headers, "x-a")),
            )
        }
    };
    let app = Router::new()
        .route("/", get(handler))
        .layer(CacheLayer::new(cache.clone()));
    let give_up = Instant::now() + Duration::from_millis(1500);

    let writer = {
        let (cache, truth) = (cache.clone(), Arc::clone(&truth));
        tokio::spawn(async move {
            while Instant::now() < give_up {
                truth.fetch_add(1, Ordering::SeqCst);
                cache.invalidate(["number"]).await.unwrap();
                sleep(Duration::from_micros(300)).await;
            }
        })
    };
    let readers = (0..8).map(|reader| {
        let (app, acknowledged) = (app.clone(), Arc::clone(&truth));
        tokio::spawn(async move {
            let (mut asked, mut hits) = (0, 0);
            while Instant::now() < give_up {
                let variant = format!("v{}", (reader + asked) % 5);
                // All but the last change were acknowledged before this request began.
                let least = acknowledged.load(Ordering::SeqCst).saturating_sub(1);
                let answer = send(&app, request(Method::GET, "/", &[("x-a", &variant)])).await;
                let (name, number) = answer.body.split_once(' ').unwrap();
                assert_eq!(name, variant);
                assert!(
                    number.parse::<u64>().unwrap() >= least,
                    "{} < {least}",
                    answer.body
                );
                hits += usize::from(answer.is_hit());
                asked += 1;
            }
            (asked, hits)
        })
    });
    let mut all = (0, 0);
    for reader in readers.collect::<Vec<_>>() {
        let (asked, hits) = reader.await.unwrap();
        all = (all.0 + asked, all.1 + hits);
    }
    writer.await.unwrap();
    assert!(all.0 > 100, "{all:?}");
    settle().await;
    timeout(5 * SECOND, cache.close()).await.unwrap().unwrap();
}
