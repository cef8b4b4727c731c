//! Layers around layers, and what others put inside and outside of them.

use axum::Router;
use axum::extract::Request;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{any, get};
use http::{HeaderValue, Method, header};
use larder::page::{CacheLayer, cache_page};
use tokio::time::sleep;

use crate::{Calls, SECOND, ask, cache, memory, plain, request, send, site, text};

async fn sets_a_cookie(mut response: Response) -> Response {
    response
        .headers_mut()
        .append(header::SET_COOKIE, HeaderValue::from_static("id=1"));
    response
}

#[tokio::test(start_paused = true)]
async fn a_cookie_set_outside_is_each_clients_own_and_one_set_inside_keeps_the_page_out() {
    let page = || Router::new().route("/", get(|| async { "page" }));
    let outside = page().layer(plain()).layer(map_response(sets_a_cookie));
    let inside = page().layer(map_response(sets_a_cookie)).layer(plain());

    for (app, is_kept) in [(outside, true), (inside, false)] {
        ask(&app, "/", &[]).await;
        let second = ask(&app, "/", &[]).await;
        assert_eq!(
            (second.is_hit(), second.header("set-cookie")),
            (is_kept, "id=1")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_view_in_a_site_is_stored_once_whatever_cache_it_names() {
    let (inner, outer) = (memory(), memory());
    let view =
        get(|| async { "page" }).layer(cache_page(&larder::Cache::new(inner.clone()), 5 * SECOND));
    let app = Router::new()
        .route("/", view)
        .layer(CacheLayer::new(larder::Cache::new(outer.clone())));

    let first = ask(&app, "/", &[]).await;
    assert_eq!(first.header("cache-control"), "max-age=5");
    assert_eq!(first.headers.get_all("cache-status").iter().count(), 1);
    assert_eq!((inner.len(), outer.len()), (0, 2));

    assert!(ask(&app, "/", &[]).await.is_hit());
    sleep(6 * SECOND).await;
    assert!(!ask(&app, "/", &[]).await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn sites_in_sites_store_once_too() {
    let (inner, outer) = (memory(), memory());
    let (app, calls) = site(
        CacheLayer::new(larder::Cache::new(inner.clone())),
        |_, _| "page",
    );
    let app = app
        .layer(CacheLayer::new(larder::Cache::new(outer.clone())))
        .layer(plain());

    for _ in 0..2 {
        assert_eq!(ask(&app, "/", &[]).await.body, "page");
    }
    assert_eq!((inner.len(), outer.len(), calls.count()), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_marks_a_request_as_inside_stays_with_it() {
    let (other, calls) = site(plain(), |number, _| format!("other {number}"));
    let used = other.clone();
    let handler = any(move |_: Request| {
        let other = used.clone();
        async move { ask(&other, "/", &[]).await.body }
    });
    let app = Router::new().route("/", handler).layer(plain());

    ask(&app, "/", &[]).await;
    let post = send(&app, request(Method::POST, "/", &[])).await;

    assert_eq!(post.body, "other 1");
    assert!(ask(&other, "/", &[]).await.is_hit());
    assert_eq!(calls.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_views_ttl_does_not_leave_with_its_response() {
    let view = || get(|| async { "page" }).layer(cache_page(&cache(), 5 * SECOND));
    let inner = Router::new().route("/", view()).layer(plain());
    // A second site gets the first one's response over the program, not as something inside it.
    let handler = any(move |_: Request| {
        let inner = inner.clone();
        async move { tower::ServiceExt::oneshot(inner, request(Method::GET, "/", &[])).await }
    });
    let app = Router::new()
        .route("/", handler)
        .layer(plain().ttl(50 * SECOND));

    for number in 0..2 {
        let answer = ask(&app, "/", &[]).await;
        assert_eq!(answer.body, "page");
        assert_eq!(answer.is_hit(), number == 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_made_of_another_page_falls_with_the_tags_of_that_one() {
    for is_warm in [false, true] {
        let cache = cache();
        let (values, calls) = (cache.clone(), Calls::default());
        let part = Router::new()
            .route(
                "/part",
                get(move || {
                    let values = values.clone();
                    async move {
                        let value = values.fetch("value", || async {
                            Ok::<_, std::io::Error>("v".to_owned())
                        });
                        value.tags(["t"]).await.unwrap()
                    }
                }),
            )
            .layer(CacheLayer::new(cache.clone()));
        if is_warm {
            ask(&part, "/part", &[]).await;
        }
        let counted = calls.clone();
        let whole = any(move || {
            let (part, number) = (part.clone(), counted.next());
            async move { format!("{number} {}", ask(&part, "/part", &[]).await.body) }
        });
        let app = Router::new()
            .route("/", whole)
            .layer(CacheLayer::new(cache.clone()));
        ask(&app, "/", &[]).await;
        assert_eq!(ask(&app, "/", &[]).await.body, "1 v");

        cache.invalidate(["t"]).await.unwrap();

        assert_eq!(ask(&app, "/", &[]).await.body, "2 v", "warm: {is_warm}");
    }
}

#[tokio::test(start_paused = true)]
async fn head_and_post_never_fill_whatever_layer_they_meet() {
    let (app, _) = site(plain(), |number, headers| {
        format!("{number} {}", text(headers, "x-a"))
    });

    for method in [
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
    ] {
        send(&app, request(method, "/", &[("x-a", "1")])).await;
    }

    assert!(!ask(&app, "/", &[]).await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_page_made_of_another_page_lives_no_longer_than_that_one() {
    for is_warm in [false, true] {
        let part = Router::new()
            .route("/part", get(|| async { "part" }))
            .layer(plain().ttl(5 * SECOND));
        if is_warm {
            ask(&part, "/part", &[]).await;
        }
        let whole = any(move || {
            let part = part.clone();
            async move { ask(&part, "/part", &[]).await.body }
        });
        let app = Router::new().route("/", whole).layer(plain());
        ask(&app, "/", &[]).await;
        assert!(ask(&app, "/", &[]).await.is_hit());

        sleep(6 * SECOND).await;

        assert!(!ask(&app, "/", &[]).await.is_hit(), "warm: {is_warm}");
    }
}
