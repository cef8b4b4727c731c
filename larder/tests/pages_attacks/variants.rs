//! Wrong variants: `Vary` that changes, cookies in many forms, tags and life that one variant has and another has not.

use axum::Router;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{Method, header};
use larder::page::CacheLayer;
use tokio::time::sleep;

use crate::{Calls, SECOND, ask, cache, plain, request, send, settle, site, text};

#[tokio::test(start_paused = true)]
async fn a_vary_that_comes_and_goes_serves_no_wrong_variant() {
    let (app, _) = site(plain(), |_, headers| match text(headers, "cookie") {
        "" => "nobody".into_response(),
        user => ([(header::VARY, "Cookie")], user.to_owned()).into_response(),
    });

    for user in ["", "alice", "bob", "", "alice", "alice", "", "bob"] {
        let headers: &[_] = if user.is_empty() {
            &[]
        } else {
            &[("cookie", user)]
        };
        let expected = if user.is_empty() { "nobody" } else { user };
        assert_eq!(ask(&app, "/", headers).await.body, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_vary_that_moves_to_another_header_serves_no_wrong_variant() {
    let (app, _) = site(plain(), |number, headers| {
        let by = if number % 2 == 0 { "x-a" } else { "x-b" };
        let life = [(header::VARY, by), (header::CACHE_CONTROL, "max-age=2")];
        (life, format!("{by}={}", text(headers, by)))
    });

    for round in 0..60 {
        let (a, b) = (format!("{}", round % 3), format!("{}", round % 2));
        let answer = ask(&app, "/", &[("x-a", &a), ("x-b", &b)]).await;
        let right = [format!("x-a={a}"), format!("x-b={b}")];
        assert!(right.contains(&answer.body), "{round}: {answer:?}");
        sleep(SECOND / 3).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_cookie_does_not_throw_out_the_page_of_others() {
    for header in ["cookie", "authorization"] {
        let (app, _) = site(plain(), |number, _| format!("page {number}"));
        ask(&app, "/", &[]).await;

        for _ in 0..3 {
            assert!(
                !ask(&app, "/", &[(header, "a=1")]).await.is_hit(),
                "{header}"
            );
            let other = ask(&app, "/", &[]).await;
            assert_eq!(
                (other.body.as_str(), other.is_hit()),
                ("page 1", true),
                "{header}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_spelling_of_a_url_does_not_throw_out_its_page() {
    let (app, _) = site(plain(), |number, headers| {
        let cookie = text(headers, "x-sets").is_empty();
        let number = format!("page {number}");
        if cookie {
            number.into_response()
        } else {
            ([(header::SET_COOKIE, "a=1")], number).into_response()
        }
    });
    ask(&app, "/a", &[]).await;

    for spelling in ["/%61", "/x/../a", "/a?"] {
        let odd = ask(&app, spelling, &[("x-sets", "1")]).await;
        assert!(odd.body != "page 1" && !odd.is_hit(), "{spelling}");
        assert!(ask(&app, "/a", &[]).await.is_hit(), "{spelling}");
    }
}

#[tokio::test(start_paused = true)]
async fn cookies_split_over_lines_are_one_cookie_header() {
    let (app, calls) = site(plain(), |_, headers| {
        let lines = headers.get_all("cookie").iter();
        let lines: Vec<_> = lines.map(|line| line.to_str().unwrap()).collect();
        ([(header::VARY, "Cookie")], lines.join("; "))
    });

    for lines in [
        &[("cookie", "a=1; b=2")][..],
        &[("cookie", "a=1"), ("cookie", "b=2")],
    ] {
        assert_eq!(ask(&app, "/", lines).await.body, "a=1; b=2");
    }
    assert_eq!(calls.count(), 1);
    assert_eq!(ask(&app, "/", &[("cookie", "a=1")]).await.body, "a=1");
    assert_eq!(
        ask(&app, "/", &[("cookie", "b=2"), ("cookie", "a=1")])
            .await
            .body,
        "b=2; a=1"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cookie_that_matters_is_found_in_any_line_and_given_twice_is_another_variant() {
    let (app, _) = site(plain().cookies(["lang"]), |_, headers| {
        let lines = headers.get_all("cookie").iter();
        lines
            .map(|line| line.to_str().unwrap())
            .collect::<Vec<_>>()
            .join("; ")
    });

    for (lines, body) in [
        (&[("cookie", "lang=de")][..], "lang=de"),
        (
            &[("cookie", "lang=fr"), ("cookie", "lang=de")],
            "lang=fr; lang=de",
        ),
        (
            &[("cookie", "lang=de"), ("cookie", "lang=fr")],
            "lang=de; lang=fr",
        ),
        (&[("cookie", "x"), ("cookie", "lang=de; y")], "lang=de"),
        (&[("cookie", "lang=de; lang=fr; x")], "lang=de; lang=fr"),
    ] {
        assert_eq!(ask(&app, "/", lines).await.body, body, "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn compressed_and_plain_bodies_are_not_mixed_up() {
    let (app, calls) = site(plain(), |_, headers| {
        let vary = (header::VARY, "Accept-Encoding");
        if text(headers, "accept-encoding").contains("gzip") {
            ([vary, (header::CONTENT_ENCODING, "gzip")], "\u{1f}squeezed")
        } else {
            ([vary, (header::CONTENT_ENCODING, "identity")], "page")
        }
    });

    for _ in 0..3 {
        let gzip = ask(&app, "/", &[("accept-encoding", "gzip, br")]).await;
        assert_eq!(
            (gzip.body.as_str(), gzip.header("content-encoding")),
            ("\u{1f}squeezed", "gzip")
        );
        let plain = ask(&app, "/", &[]).await;
        assert_eq!(
            (plain.body.as_str(), plain.header("content-encoding")),
            ("page", "identity")
        );
        let head = request(Method::HEAD, "/", &[("accept-encoding", "gzip, br")]);
        assert_eq!(send(&app, head).await.header("content-length"), "9");
    }
    assert_eq!(calls.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_absent_header_an_empty_one_and_djangos_mark_for_it_are_three_variants() {
    let (app, _) = site(plain(), |_, headers| {
        ([(header::VARY, "x-a")], format!("{:?}", headers.get("x-a")))
    });

    for _ in 0..2 {
        assert_eq!(ask(&app, "/", &[]).await.body, "None");
        for value in ["", "-,", "1:-,"] {
            assert_eq!(
                ask(&app, "/", &[("x-a", value)]).await.body,
                format!("Some({value:?})")
            );
        }
    }
}

/// A site that varies on `x-a`, whose pages are made of a tagged value when `x-a` is `tagged`.
fn tagged_site(change_vary_at: usize) -> (Router, larder::Cache, Calls) {
    let (cache, calls) = (cache(), Calls::default());
    let (values, counted) = (cache.clone(), calls.clone());
    let handler = move |headers: HeaderMap| {
        let (values, number) = (values.clone(), counted.next());
        async move {
            let mut body = format!("page {number}");
            if text(&headers, "x-a") == "tagged" {
                let value = values.fetch("value", || async {
                    Ok::<_, std::io::Error>("v".to_owned())
                });
                body += &value.tags(["t"]).ttl(5 * SECOND).await.unwrap();
            }
            let vary = if number >= change_vary_at {
                "x-a, x-b"
            } else {
                "x-a"
            };
            let said = if text(&headers, "x-a") == "brief" {
                "max-age=1"
            } else {
                "max-age=100"
            };
            ([(header::VARY, vary), (header::CACHE_CONTROL, said)], body)
        }
    };
    let app = Router::new()
        .route("/", get(handler))
        .layer(CacheLayer::new(cache.clone()));
    (app, cache, calls)
}

#[tokio::test(start_paused = true)]
async fn a_tag_drops_the_first_variant_and_every_later_one() {
    for order in [["tagged", "other"], ["other", "tagged"]] {
        let (app, cache, _) = tagged_site(usize::MAX);
        for which in order {
            ask(&app, "/", &[("x-a", which)]).await;
        }
        assert!(ask(&app, "/", &[("x-a", "tagged")]).await.is_hit());

        cache.invalidate(["t"]).await.unwrap();

        assert_eq!(
            ask(&app, "/", &[("x-a", "tagged")]).await.body,
            "page 3v",
            "{order:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_tag_drops_a_page_that_came_with_another_vary_than_before() {
    let (app, cache, _) = tagged_site(3);
    ask(&app, "/", &[("x-a", "other")]).await;
    ask(&app, "/", &[("x-a", "brief")]).await;
    // The list lives on, and the URL varies on more headers from here on.
    ask(&app, "/", &[("x-a", "tagged")]).await;
    let tagged = ask(&app, "/", &[("x-a", "tagged")]).await;
    assert_eq!((tagged.body.as_str(), tagged.is_hit()), ("page 3v", true));

    cache.invalidate(["t"]).await.unwrap();

    assert_eq!(ask(&app, "/", &[("x-a", "tagged")]).await.body, "page 4v");
}

#[tokio::test(start_paused = true)]
async fn a_page_lives_no_longer_than_what_it_is_made_of() {
    for (order, change_at) in [
        (&["tagged"][..], 9),
        (&["tagged", "other"], 9),
        (&["other", "tagged"], 9),
        (&["other", "tagged"], 2),
        (&["other", "tagged", "other", "more"], 2),
    ] {
        let (app, _, _) = tagged_site(change_at);
        for which in order {
            ask(&app, "/", &[("x-a", which)]).await;
        }
        assert!(
            ask(&app, "/", &[("x-a", "tagged")]).await.is_hit(),
            "{order:?}"
        );

        sleep(6 * SECOND).await;

        assert!(
            !ask(&app, "/", &[("x-a", "tagged")]).await.is_hit(),
            "{order:?} {change_at}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_tag_invalidated_while_the_page_is_made_keeps_it_out() {
    for change_at in [1, 2] {
        let (cache, calls) = (cache(), Calls::default());
        let (values, counted) = (cache.clone(), calls.clone());
        let handler = move |headers: HeaderMap| {
            let (values, number) = (values.clone(), counted.next());
            async move {
                let value = values.fetch("value", || async {
                    Ok::<_, std::io::Error>("v".to_owned())
                });
                let value = value.tags(["t"]).await.unwrap();
                sleep(SECOND).await;
                let vary = if number >= change_at {
                    "x-a, x-b"
                } else {
                    "x-a"
                };
                let said = if text(&headers, "x-a") == "first" {
                    "public, max-age=100"
                } else {
                    "max-age=100"
                };
                (
                    [(header::VARY, vary), (header::CACHE_CONTROL, said)],
                    format!("page {number}{value}"),
                )
            }
        };
        let app = Router::new()
            .route("/", get(handler))
            .layer(CacheLayer::new(cache.clone()));
        ask(&app, "/", &[("x-a", "first")]).await;

        let asked = {
            let app = app.clone();
            tokio::spawn(async move { ask(&app, "/", &[("x-a", "second")]).await })
        };
        sleep(SECOND / 2).await;
        cache.invalidate(["t"]).await.unwrap();
        assert_eq!(asked.await.unwrap().body, "page 2v");
        settle().await;

        assert_eq!(
            ask(&app, "/", &[("x-a", "second")]).await.body,
            "page 3v",
            "{change_at}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn variants_that_have_expired_make_room_for_new_ones() {
    let (app, _) = site(plain(), |number, headers| {
        let said = if text(headers, "x-a") == "long" {
            "max-age=1000"
        } else {
            "max-age=2"
        };
        (
            [(header::VARY, "x-a"), (header::CACHE_CONTROL, said)],
            format!("page {number}"),
        )
    });
    ask(&app, "/", &[("x-a", "long")]).await;
    for junk in 0..70 {
        ask(&app, "/", &[("x-a", &junk.to_string())]).await;
    }
    sleep(5 * SECOND).await;

    ask(&app, "/", &[("x-a", "new")]).await;

    assert!(ask(&app, "/", &[("x-a", "new")]).await.is_hit());
    assert!(ask(&app, "/", &[("x-a", "long")]).await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_an_answer_that_is_somebodys_gets_their_own() {
    for said in ["", "public", "private"] {
        let handler = move |headers: HeaderMap| async move {
            sleep(SECOND).await;
            let user = text(&headers, "authorization").to_owned() + text(&headers, "cookie");
            (
                [
                    (
                        header::VARY,
                        if said == "public" {
                            "Cookie, Authorization"
                        } else {
                            ""
                        },
                    ),
                    (header::CACHE_CONTROL, said),
                ],
                user,
            )
        };
        let app = Router::new().route("/", get(handler)).layer(plain());
        let users = [
            ("cookie", "alice"),
            ("cookie", "bob"),
            ("x-none", ""),
            ("authorization", "carol"),
            ("authorization", ""),
            ("cookie", "alice"),
        ];

        let asked = users.map(|user| {
            let app = app.clone();
            tokio::spawn(async move { ask(&app, "/", &[user]).await.body })
        });

        for ((_, user), body) in users.iter().zip(asked) {
            assert_eq!(body.await.unwrap(), *user, "{said}");
        }
    }
}
