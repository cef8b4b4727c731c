//! Bodies that are empty, broken, mislabelled or never end, and statuses that ask for none.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::time::{Sleep, sleep};
use tower::ServiceExt as _;

use crate::{Calls, SECOND, ask, plain, request, send, settle, site, text};

/// A body of frames, errors and pauses.
struct Script {
    steps: VecDeque<Step>,
    pause: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone)]
enum Step {
    Data(&'static str),
    Trailers,
    Broken,
    Pause,
    Forever,
}

fn script(steps: &[Step]) -> Body {
    let steps = steps.iter().cloned().collect();
    Body::new(Script { steps, pause: None })
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            return Poll::Ready(match self.steps.pop_front() {
                None => None,
                Some(Step::Data(text)) => Some(Ok(Frame::data(text.into()))),
                Some(Step::Trailers) => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("x-sum", HeaderValue::from_static("1"));
                    Some(Ok(Frame::trailers(trailers)))
                }
                Some(Step::Broken) => Some(Err(std::io::Error::other("the disk is gone"))),
                Some(Step::Pause) => {
                    self.pause = Some(Box::pin(sleep(SECOND)));
                    continue;
                }
                Some(Step::Forever) => {
                    self.steps.push_front(Step::Forever);
                    return Poll::Pending;
                }
            });
        }
    }
}

async fn ask_raw(app: &Router) -> Response {
    app.clone()
        .oneshot(request(Method::GET, "/", &[]))
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_an_error_for_its_client_and_is_not_kept() {
    let (app, calls) = site(plain(), |number, _| match number {
        1 => script(&[Step::Data("half "), Step::Pause, Step::Broken]),
        _ => Body::from("whole"),
    });

    let first = ask_raw(&app).await;
    let waiter = {
        let app = app.clone();
        tokio::spawn(async move { ask(&app, "/", &[]).await })
    };
    let broken = first.into_body().collect().await;

    assert!(broken.is_err());
    assert_eq!(waiter.await.unwrap().body, "whole");
    sleep(3 * SECOND).await;
    assert_eq!(ask(&app, "/", &[]).await.body, "whole");
    assert!(ask(&app, "/", &[]).await.is_hit());
    assert!(calls.count() <= 3);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_than_its_label_is_not_kept() {
    for label in ["3", "100", "x"] {
        let (app, _) = site(plain(), move |number, _| {
            (
                [(header::CONTENT_LENGTH, label)],
                script(&[if number == 1 {
                    Step::Data("whole")
                } else {
                    Step::Data("again")
                }]),
            )
        });
        ask(&app, "/", &[]).await;

        let second = ask(&app, "/", &[]).await;

        assert!(!second.is_hit(), "{label}: {second:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_reach_their_client_and_such_a_page_is_not_kept() {
    let (app, calls) = site(plain(), |_, _| {
        script(&[Step::Data("page"), Step::Trailers])
    });

    for _ in 0..2 {
        let collected = ask_raw(&app).await.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "1");
        assert_eq!(collected.to_bytes(), "page");
        settle().await;
    }
    assert_eq!(calls.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_empty_body_is_kept_and_is_empty_again() {
    let (app, calls) = site(plain(), |_, _| Body::empty());

    ask(&app, "/", &[]).await;
    let second = ask_raw(&app).await;

    assert_eq!(http_body::Body::size_hint(second.body()).exact(), Some(0));
    assert!(second.headers().get("etag").is_none());
    assert_eq!(calls.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_named_statuses_are_kept_and_come_back_as_they_were() {
    let named = [200, 204, 301, 404, 410].map(|code| StatusCode::from_u16(code).unwrap());
    for code in [200_u16, 201, 204, 206, 301, 302, 304, 404, 410, 500, 503] {
        for layer in [plain(), plain().statuses(named)] {
            let is_default = format!("{layer:?}") == format!("{:?}", plain());
            let (app, _) = site(layer, move |_, _| {
                let body = if code == 204 || code == 304 {
                    Body::empty()
                } else {
                    Body::from("body")
                };
                (
                    StatusCode::from_u16(code).unwrap(),
                    [(header::LOCATION, "/new")],
                    body,
                )
            });

            let first = ask(&app, "/", &[]).await;
            let second = ask(&app, "/", &[]).await;

            let is_kept =
                code == 200 || (!is_default && named.iter().any(|status| status.as_u16() == code));
            assert_eq!(second.is_hit(), is_kept, "{code}");
            assert_eq!((second.status.as_u16(), &second.body), (code, &first.body));
            assert_eq!(second.header("location"), "/new");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_page_is_never_kept_and_a_range_of_a_kept_page_is_the_whole() {
    let (app, _) = site(
        plain().statuses([StatusCode::OK, StatusCode::PARTIAL_CONTENT]),
        |_, headers| {
            if text(headers, "range").is_empty() {
                return "whole".into_response();
            }
            (
                StatusCode::PARTIAL_CONTENT,
                [(header::CONTENT_RANGE, "bytes 0-1/5")],
                "wh",
            )
                .into_response()
        },
    );

    let part = ask(&app, "/", &[("range", "bytes=0-1")]).await;
    assert_eq!(
        (part.status, part.body.as_str()),
        (StatusCode::PARTIAL_CONTENT, "wh")
    );
    sleep(3 * SECOND).await;
    assert_eq!(ask(&app, "/", &[]).await.body, "whole");
    let hit = ask(&app, "/", &[("range", "bytes=0-1")]).await;
    assert_eq!(
        (hit.status, hit.body.as_str(), hit.is_hit()),
        (StatusCode::OK, "whole", true)
    );
}

#[tokio::test(start_paused = true)]
async fn age_counts_on_from_what_the_page_came_with() {
    let (app, _) = site(plain(), |_, _| {
        ([(header::AGE, "100"), (header::EXPIRES, "0")], "page")
    });

    assert_eq!(ask(&app, "/", &[]).await.header("age"), "100");
    sleep(5 * SECOND).await;

    let hit = ask(&app, "/", &[]).await;
    assert_eq!(hit.header("age"), "105");
    assert_eq!(hit.headers.get_all("age").iter().count(), 1);
    assert_eq!(hit.header("expires"), "0");
}

#[tokio::test(start_paused = true)]
async fn headers_about_the_connection_are_not_replayed() {
    let (app, _) = site(plain(), |number, _| {
        let close = if number == 1 { "close, X-Hop" } else { "" };
        (
            [
                (header::CONNECTION, close),
                ("x-hop".parse().unwrap(), "1"),
                ("x-end".parse().unwrap(), "1"),
                ("keep-alive".parse().unwrap(), "timeout=5"),
                (header::TRANSFER_ENCODING, "chunked"),
            ],
            script(&[Step::Data("page")]),
        )
    });
    ask(&app, "/", &[]).await;

    let hit = ask(&app, "/", &[]).await;

    assert!(hit.is_hit());
    for name in ["connection", "x-hop", "keep-alive", "transfer-encoding"] {
        assert!(hit.headers.get(name).is_none(), "{name}");
    }
    assert_eq!(hit.header("x-end"), "1");
}

#[tokio::test(start_paused = true)]
async fn conditions_are_answered_from_the_page_without_its_body_headers() {
    let (app, calls) = site(plain(), |_, _| {
        (
            [
                (header::CONTENT_TYPE, "text/plain"),
                (header::CONTENT_LENGTH, "4"),
                (header::LAST_MODIFIED, "Tue, 14 Nov 2023 22:00:00 GMT"),
            ],
            "page",
        )
    });
    ask(&app, "/", &[]).await;
    let page = ask(&app, "/", &[]).await;
    let etag = page.header("etag");

    for method in [Method::GET, Method::HEAD] {
        for (name, value) in [
            ("if-none-match", "*"),
            ("if-none-match", etag),
            ("if-none-match", &format!("\"x\", {}", &etag[2..])),
            ("if-modified-since", "Tue, 14 Nov 2023 22:00:00 GMT"),
        ] {
            let known = send(&app, request(method.clone(), "/", &[(name, value)])).await;
            assert_eq!(
                (known.status, known.body.as_str()),
                (StatusCode::NOT_MODIFIED, ""),
                "{name}: {value}"
            );
            assert!(
                known.headers.get("content-length").is_none()
                    && known.headers.get("content-type").is_none()
            );
            assert!(known.headers.get("age").is_some() && known.is_hit());
            assert_eq!(
                (known.header("etag"), known.header("cache-control")),
                (etag, "max-age=600")
            );
        }
        for (name, value) in [
            ("if-none-match", "\"x\""),
            ("if-none-match", "x"),
            ("if-modified-since", "Tue, 14 Nov 2023 21:59:59 GMT"),
            ("if-modified-since", "soon"),
        ] {
            let new = send(&app, request(method.clone(), "/", &[(name, value)])).await;
            assert_eq!(
                (new.status, new.header("content-length")),
                (StatusCode::OK, "4"),
                "{name}: {value}"
            );
        }
        for (name, value) in [
            ("if-match", "\"x\""),
            ("if-unmodified-since", "Tue, 14 Nov 2023 21:59:59 GMT"),
        ] {
            let failed = send(&app, request(method.clone(), "/", &[(name, value)])).await;
            assert_eq!(
                (failed.status, failed.body.as_str()),
                (StatusCode::PRECONDITION_FAILED, ""),
                "{name}: {value}"
            );
        }
    }
    assert_eq!(calls.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_holds_nobody_up_and_is_let_go_with_its_client() {
    let (app, calls) = site(plain(), |_, _| {
        script(&[Step::Data("start "), Step::Forever])
    });

    let first = ask_raw(&app).await;
    let waiter = {
        let app = app.clone();
        tokio::spawn(async move { ask_raw(&app).await.status() })
    };

    assert_eq!(waiter.await.unwrap(), StatusCode::OK);
    assert_eq!(calls.count(), 2);
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_stops_nobody() {
    let (app, calls) = site(plain(), |_, _| {
        script(&[Step::Data("a"), Step::Pause, Step::Data("b")])
    });

    let unread = ask_raw(&app).await;
    let waited = ask(&app, "/", &[]).await;

    assert_eq!((waited.body.as_str(), calls.count()), ("ab", 1));
    assert_eq!(unread.into_body().collect().await.unwrap().to_bytes(), "ab");
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_service_inside_reach_each_caller() {
    let calls = Calls::default();
    let counted = calls.clone();
    let service = tower::service_fn(move |_: axum::extract::Request| {
        let number = counted.next();
        async move {
            sleep(SECOND).await;
            if number == 4 {
                Ok(Response::new(Body::from("page")))
            } else {
                Err(format!("error {number}"))
            }
        }
    });
    let app = tower::Layer::layer(&plain(), service);
    let asked = || {
        let app = app.clone();
        tokio::spawn(app.oneshot(request(Method::GET, "/", &[])))
    };

    let (first, second, third) = tokio::join!(asked(), asked(), asked());

    for failed in [first, second, third] {
        assert!(
            failed
                .unwrap()
                .is_err_and(|error| error.starts_with("error "))
        );
    }
    sleep(3 * SECOND).await;
    for _ in 0..2 {
        let page = asked().await.unwrap().unwrap();
        assert_eq!(page.into_body().collect().await.unwrap().to_bytes(), "page");
        settle().await;
    }
    assert_eq!(calls.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn times_without_end_are_no_reason_to_panic() {
    use std::time::Duration;
    for ttl in [
        Duration::MAX,
        Duration::from_secs(1 << 40),
        Duration::from_nanos(1),
    ] {
        let layer = larder::page::cache_page(&crate::cache(), ttl)
            .grace(Duration::MAX)
            .stale_if_error(Duration::MAX);
        let said = "max-age=99999999999999999999, stale-while-revalidate=99999999999999999999";
        let app = Router::new()
            .route(
                "/",
                get(move || async move { ([(header::CACHE_CONTROL, said)], "page") }),
            )
            .layer(layer);

        for _ in 0..3 {
            assert_eq!(ask(&app, "/", &[]).await.body, "page", "{ttl:?}");
        }
    }
}

/// A handler that answers conditions and ranges itself.
fn careful(headers: &HeaderMap, number: usize) -> Response {
    let etag = [
        (header::ETAG, "\"v1\""),
        (
            header::CACHE_CONTROL,
            "max-age=2, stale-while-revalidate=60",
        ),
    ];
    if text(headers, "if-none-match") == "\"v1\"" {
        return (StatusCode::NOT_MODIFIED, etag).into_response();
    }
    if text(headers, "if-match") == "\"v0\"" {
        return StatusCode::PRECONDITION_FAILED.into_response();
    }
    if !text(headers, "range").is_empty() {
        let part = [(header::CONTENT_RANGE, "bytes 0-0/4")];
        return (StatusCode::PARTIAL_CONTENT, etag, part, "p").into_response();
    }
    (etag, format!("page {number}")).into_response()
}

#[tokio::test(start_paused = true)]
async fn clients_that_know_the_page_do_not_keep_it_out() {
    let (app, _) = site(plain(), |number, headers| careful(headers, number));

    let known = ask(&app, "/", &[("if-none-match", "\"v1\"")]).await;
    assert_eq!(
        (known.status, known.body.as_str()),
        (StatusCode::NOT_MODIFIED, "")
    );
    assert_eq!(
        (known.header("etag"), known.headers.get("content-length")),
        ("\"v1\"", None)
    );
    assert!(ask(&app, "/", &[]).await.is_hit());

    // Past its TTL, within the window: who knows it refreshes it for all.
    sleep(3 * SECOND).await;
    assert_eq!(
        ask(&app, "/", &[("if-none-match", "\"v1\"")]).await.status,
        StatusCode::NOT_MODIFIED
    );
    let fresh = ask(&app, "/", &[]).await;
    assert_eq!((fresh.body.as_str(), fresh.is_hit()), ("page 2", true));
}

#[tokio::test(start_paused = true)]
async fn clients_whose_precondition_fails_do_not_keep_the_page_out() {
    let (app, _) = site(plain(), |number, headers| careful(headers, number));

    let failed = ask(&app, "/", &[("if-match", "\"v0\"")]).await;

    assert_eq!(
        (failed.status, failed.body.as_str()),
        (StatusCode::PRECONDITION_FAILED, "")
    );
    assert!(
        ask(&app, "/", &[])
            .await
            .header("cache-status")
            .contains("stored")
    );
}

#[tokio::test(start_paused = true)]
async fn clients_that_know_another_page_get_the_new_one() {
    let (app, _) = site(plain(), |number, headers| careful(headers, number));

    let new = ask(&app, "/", &[("if-none-match", "\"v0\"")]).await;

    assert_eq!((new.status, new.body.as_str()), (StatusCode::OK, "page 1"));
    assert!(ask(&app, "/", &[]).await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn clients_that_ask_for_a_part_do_not_keep_the_page_out() {
    let (app, _) = site(plain(), |number, headers| careful(headers, number));

    let part = ask(&app, "/", &[("range", "bytes=0-0")]).await;
    assert_eq!(
        (part.status, part.body.as_str()),
        (StatusCode::PARTIAL_CONTENT, "p")
    );
    assert_eq!(ask(&app, "/", &[]).await.body, "page 2");
    assert!(ask(&app, "/", &[]).await.is_hit());
}
