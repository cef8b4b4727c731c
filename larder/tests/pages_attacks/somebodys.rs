//! What is somebody's is nobody else's, however it is said, and a crowd of somebodies keeps no page out.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::sleep;

use crate::{Calls, SECOND, ask, plain, send, settle, site, text};

#[tokio::test(start_paused = true)]
async fn a_page_that_varies_on_all_cookies_is_chosen_by_all_whatever_the_program_named() {
    let (app, calls) = site(plain().cookies(["lang"]), |_, headers| {
        (
            [(header::VARY, "Cookie")],
            text(headers, "cookie").to_owned(),
        )
    });

    for cookies in ["session=alice; lang=de", "session=bob; lang=de"] {
        for _ in 0..2 {
            assert_eq!(ask(&app, "/", &[("cookie", cookies)]).await.body, cookies);
        }
    }
    assert_eq!(calls.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn words_that_let_nobody_share_do_not_open_a_page_with_a_ttl_of_its_view() {
    for said in [
        "max-age=0, must-revalidate",
        "s-maxage=0",
        "s-maxage=-1",
        "private; max-age=60",
        "max-age=60 private",
        "no-store; max-age=60",
    ] {
        for name in ["authorization", "x-api-key"] {
            // Of an unknown header nothing can be known: there the response's own words have to do.
            if name == "x-api-key" && !said.contains("private") && !said.contains("no-store") {
                continue;
            }
            let cache = crate::cache();
            let layer = larder::page::cache_page(&cache, Duration::from_mins(1));
            let (app, _) = site(layer, move |_, headers| {
                (
                    [(header::CACHE_CONTROL, said)],
                    text(headers, name).to_owned(),
                )
            });

            for user in ["alice", "bob"] {
                assert_eq!(ask(&app, "/", &[(name, user)]).await.body, user, "{said}");
                // Past the time in which nobody queues for what was not kept.
                sleep(3 * SECOND).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn somebodys_304_is_given_no_life() {
    for (said, kept) in [("", false), ("private", false), ("public", true)] {
        let (app, _) = site(plain(), move |_, headers| {
            let said = [(header::CACHE_CONTROL, said), (header::ETAG, "\"v1\"")];
            if headers.contains_key("if-none-match") {
                (StatusCode::NOT_MODIFIED, said).into_response()
            } else {
                (said, "page").into_response()
            }
        });
        let asks = [("cookie", "session=alice"), ("if-none-match", "\"v1\"")];
        // The first asks for the page itself; then such requests go straight to the handler.
        ask(&app, "/", &[asks[0]]).await;

        let answer = ask(&app, "/", &asks).await;

        assert_eq!(answer.status, StatusCode::NOT_MODIFIED);
        let lives = answer.header("cache-control").contains("max-age");
        assert_eq!(lives, kept, "{said}: {:?}", answer.headers);
    }
}

#[tokio::test(start_paused = true)]
async fn cookies_that_readers_read_in_two_ways_fill_no_common_page() {
    // As a reader that decodes names sees it, and one that drops lines that are not ASCII.
    let (app, _) = site(plain().cookies(["lang"]), |_, headers| {
        let line = headers
            .get("cookie")
            .map_or(&b""[..], HeaderValue::as_bytes);
        let french = line == b"%6Cang=fr" || line == b"lang=fr";
        if french { "fr" } else { "default" }
    });
    let with = |line: &'static [u8]| {
        let mut asked = crate::request(http::Method::GET, "/", &[]);
        let value = HeaderValue::from_bytes(line).unwrap();
        asked.headers_mut().insert("cookie", value);
        asked
    };

    for (line, body) in [
        (&b"%6Cang=fr"[..], "fr"),
        (b"other=1", "default"),
        (b"lang=fr; x=\xff", "default"),
        (b"lang=fr", "fr"),
    ] {
        assert_eq!(send(&app, with(line)).await.body, body, "{line:?}");
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_chooses_among_variants_is_said_to_caches_further_on() {
    let (app, _) = site(plain().cookies(["lang"]), |_, _| "page");
    let (encoded, _) = site(plain(), |_, headers| {
        let brotli = text(headers, "accept-encoding").contains("br");
        let encoding = if brotli { "br" } else { "identity" };
        ([(header::CONTENT_ENCODING, encoding)], encoding)
    });

    for _ in 0..2 {
        let answer = ask(&app, "/", &[("cookie", "lang=de")]).await;
        assert_eq!(answer.header("vary"), "Cookie");
        let answer = ask(&encoded, "/", &[("accept-encoding", "br")]).await;
        assert_eq!(
            (answer.header("vary"), &*answer.body),
            ("Accept-Encoding", "br")
        );
    }
    assert_eq!(ask(&encoded, "/", &[]).await.body, "identity");
}

#[tokio::test(start_paused = true)]
async fn one_with_a_cookie_first_costs_the_others_one_call_and_not_one_each() {
    let calls = Calls::default();
    let counted = calls.clone();
    let handler = get(move |headers: HeaderMap| {
        counted.next();
        async move {
            sleep(2 * SECOND).await;
            text(&headers, "cookie").to_owned()
        }
    });
    let app = Router::new().route("/", handler).layer(plain());
    let asks = |cookie: Option<&'static str>, after: Duration| {
        let app = app.clone();
        tokio::spawn(async move {
            sleep(after).await;
            let cookie = cookie.map(|cookie| ("cookie", cookie));
            ask(&app, "/", cookie.as_slice()).await
        })
    };

    let alice = asks(Some("alice"), Duration::ZERO);
    let others: Vec<_> = (0..20).map(|_| asks(None, SECOND)).collect();
    let bob = asks(Some("bob"), SECOND);

    assert_eq!(alice.await.unwrap().body, "alice");
    assert_eq!(bob.await.unwrap().body, "bob");
    for other in others {
        assert_eq!(other.await.unwrap().body, "");
    }
    assert_eq!(calls.count(), 3);
    assert!(ask(&app, "/", &[]).await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_request_in_disguise_fills_no_page() {
    let app = Router::new()
        .fallback(|request: Request| async move {
            let host = request.headers().get("x-forwarded-host");
            host.map_or("example.com", |host| host.to_str().unwrap())
                .to_owned()
        })
        .layer(plain());

    for (name, value) in [
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "for=1.2.3.4; host=\"evil.example\""),
        ("x-http-method-override", "DELETE"),
        ("x-original-url", "/admin"),
    ] {
        let answer = ask(&app, "/", &[(name, value)]).await;
        assert!(
            answer.header("cache-status").contains("disguised"),
            "{name}"
        );
        assert_eq!(ask(&app, "/", &[]).await.body, "example.com", "{name}");
    }
    // A proxy that repeats the host takes nothing away.
    for (name, value) in [
        ("x-forwarded-host", "example.com"),
        ("forwarded", "for=1.2.3.4;host=example.com;proto=http"),
    ] {
        assert!(ask(&app, "/", &[(name, value)]).await.is_hit(), "{name}");
    }
}
