//! Targets and hosts that are written so as to be taken for others.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use http::HeaderMap;
use larder::page::CacheLayer;

use crate::{Answer, ask, cache, plain, send, settle};

/// A site that says what it was asked for.
fn echo(layer: CacheLayer) -> Router {
    let handler = |headers: HeaderMap, request: Request| async move {
        format!("{:?} {}", headers.get("host"), request.uri())
    };
    Router::new().fallback(handler).layer(layer)
}

async fn ask_host(app: &Router, host: Option<&str>, target: &str) -> Answer {
    let mut request = Request::builder().uri(target);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let answer = send(app, request.body(Body::empty()).unwrap()).await;
    settle().await;
    answer
}

#[tokio::test(start_paused = true)]
async fn a_host_with_a_path_in_it_does_not_fill_the_page_of_that_path() {
    let app = echo(plain());

    for host in [
        "example.com/a",
        "example.com/a?x=",
        "example.com/a#",
        "user@example.com",
        "example.com\\a",
        "example.com,b",
        "a b",
        "exam\u{e9}ple",
    ] {
        let evil = ask_host(&app, Some(host), "/b").await;
        assert!(
            evil.header("cache-status").contains("host"),
            "{host}: {evil:?}"
        );
    }
    for target in ["/a/b", "/a?x=/b", "/b"] {
        let good = ask_host(&app, Some("example.com"), target).await;
        assert_eq!(good.body, format!("Some(\"example.com\") {target}"));
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_that_differ_in_any_way_have_pages_of_their_own() {
    let app = echo(plain());
    let hosts = [
        "example.com",
        "EXAMPLE.com",
        "example.com:80",
        "example.com:443",
        "example.com.",
        "[::1]:80",
        "my_host",
        "",
    ];

    for _ in 0..2 {
        for host in hosts {
            assert_eq!(
                ask_host(&app, Some(host), "/").await.body,
                format!("Some({host:?}) /")
            );
        }
    }
    assert!(ask_host(&app, Some("[::1]:80"), "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_host_shares_nothing_with_one_that_has_one() {
    let app = echo(plain());

    for _ in 0..2 {
        assert_eq!(
            ask_host(&app, None, "/example.com/a").await.body,
            "None /example.com/a"
        );
        assert_eq!(
            ask_host(&app, None, "//example.com/a").await.body,
            "None //example.com/a"
        );
        assert_eq!(
            ask_host(&app, Some("example.com"), "/a").await.body,
            "Some(\"example.com\") /a"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_with_another_host_than_the_header_passes() {
    let app = echo(plain());

    let evil = ask_host(&app, Some("example.com"), "http://evil.example/a").await;
    assert!(evil.header("cache-status").contains("hosts"));
    let absolute = ask_host(&app, Some("example.com"), "http://example.com/a").await;
    assert!(absolute.header("cache-status").contains("stored"));
    let good = ask_host(&app, Some("example.com"), "/a").await;
    assert!(good.body.contains("example.com") && !good.body.contains("evil"));
}

#[tokio::test(start_paused = true)]
async fn forwarded_hosts_are_heeded_only_behind_a_proxy_and_only_one() {
    let proxied = plain().behind_proxy("x-forwarded-proto".parse().unwrap());
    for (layer, is_behind) in [(plain(), false), (proxied, true)] {
        let app = echo(layer);
        let first = ask(
            &app,
            "/",
            &[
                ("x-forwarded-host", "a.example"),
                ("x-forwarded-proto", "https"),
            ],
        )
        .await;
        let second = ask(
            &app,
            "/",
            &[
                ("x-forwarded-host", "b.example"),
                ("x-forwarded-proto", "https"),
            ],
        )
        .await;
        let list = ask(&app, "/", &[("x-forwarded-host", "a.example, b.example")]).await;

        assert!(!first.is_hit() && !second.is_hit());
        for answer in [&first, &second] {
            let disguised = answer.header("cache-status").contains("disguised");
            assert_eq!(disguised, !is_behind);
        }
        assert!(list.header("cache-status").contains("bypass"));
    }
}

#[tokio::test(start_paused = true)]
async fn queries_are_kept_apart_to_the_byte() {
    let app = echo(plain());
    let targets = [
        "/?",
        "/",
        "/?a",
        "/?a=",
        "/?a=1&b=2",
        "/?b=2&a=1",
        "/?a=%31",
        "/?a=1;b=2",
        "/??",
        "/?a=1%26b=2",
    ];

    for _ in 0..2 {
        for target in targets {
            assert_eq!(
                ask(&app, target, &[]).await.body,
                format!("Some(\"example.com\") {target}")
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn very_long_targets_are_kept_apart() {
    let app = echo(plain());
    let long = |end: &str| format!("/{}?{}{end}", "a".repeat(20_000), "b".repeat(20_000));

    for _ in 0..2 {
        for end in ["1", "2"] {
            let answer = ask(&app, &long(end), &[]).await;
            assert!(answer.body.ends_with(end) && answer.body.len() > 40_000);
        }
    }
    assert!(ask(&app, &long("1"), &[]).await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn two_sites_with_prefixes_of_their_own_share_a_cache_but_no_page() {
    let cache = cache();
    let site = |name: &'static str| {
        let layer = CacheLayer::new(cache.clone()).key_prefix(name);
        Router::new()
            .fallback(move || async move { name })
            .layer(layer)
    };
    let (one, two) = (site("one"), site("two"));

    for _ in 0..2 {
        assert_eq!(ask(&one, "/", &[]).await.body, "one");
        assert_eq!(ask(&two, "/", &[]).await.body, "two");
    }
    assert!(ask(&two, "/", &[]).await.is_hit());
}
