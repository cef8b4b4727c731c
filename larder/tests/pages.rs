//! Pages: every trap of the published cache layers, and what the house promises besides.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use larder::page::{CacheLayer, cache_page};
use larder::store::Memory;
use larder::{Cache, Clock};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _};

const SECOND: Duration = Duration::from_secs(1);

/// How often the handler ran.
#[derive(Clone, Default)]
struct Calls(Arc<AtomicUsize>);

impl Calls {
    fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn cache() -> Cache {
    Cache::new(Memory::builder().clock(Clock::seeded(1)).build())
}

/// A site whose one handler answers with `answer` of the call's number and the request's headers.
fn site<R: IntoResponse>(
    layer: CacheLayer,
    answer: impl Fn(usize, &HeaderMap) -> R + Clone + Send + Sync + 'static,
) -> (Router, Calls) {
    let calls = Calls::default();
    let counted = calls.clone();
    let handler = any(move |headers: HeaderMap| {
        let (number, answer) = (counted.next(), answer.clone());
        async move { answer(number, &headers).into_response() }
    });
    (
        Router::new()
            .route("/", handler.clone())
            .route("/{*path}", handler)
            .layer(layer),
        calls,
    )
}

fn plain() -> CacheLayer {
    CacheLayer::new(cache())
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(app: &Router, request: Request) -> Answer {
    read(app.clone().oneshot(request).await.unwrap()).await
}

async fn read(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

fn request(method: Method, target: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", "example.com");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

async fn ask(app: &Router, target: &str, headers: &[(&str, &str)]) -> Answer {
    send(app, request(Method::GET, target, headers)).await
}

/// Lets what runs behind a request come to its end.
async fn settle() {
    sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn the_second_request_is_answered_from_the_cache() {
    let (app, calls) = site(plain(), |number, _| format!("page {number}"));

    let first = ask(&app, "/", &[]).await;
    settle().await;
    sleep(5 * SECOND).await;
    let second = ask(&app, "/", &[]).await;

    assert_eq!(
        (first.body.as_str(), second.body.as_str(), calls.count()),
        ("page 1", "page 1", 1)
    );
    assert_eq!(first.header("cache-control"), "max-age=600");
    assert_eq!(
        first.header("cache-status"),
        "Larder; fwd=uri-miss; stored; detail=absent"
    );
    assert_eq!((first.header("age"), second.header("age")), ("", "5"));
    assert!(
        second
            .header("cache-status")
            .starts_with("Larder; hit; ttl=59")
    );
    assert_eq!(first.header("expires"), second.header("expires"));
}

#[tokio::test(start_paused = true)]
async fn head_is_answered_from_what_get_left_and_leaves_nothing() {
    let (app, calls) = site(plain(), |number, _| format!("page {number}"));

    let head = send(&app, request(Method::HEAD, "/", &[])).await;
    settle().await;
    let page = ask(&app, "/", &[]).await;
    settle().await;
    let again = send(&app, request(Method::HEAD, "/", &[])).await;

    assert_eq!((head.body.as_str(), page.body.as_str()), ("", "page 2"));
    assert_eq!(
        (again.body.as_str(), again.header("content-length")),
        ("", "6")
    );
    assert_eq!(calls.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_language_gets_its_own_page() {
    for also in ["max-age=60", "public"] {
        let (app, calls) = site(plain(), move |_, headers| {
            let language = headers["accept-language"].to_str().unwrap().to_owned();
            (
                [
                    (header::VARY, "Accept-Language"),
                    (header::CACHE_CONTROL, also),
                ],
                language,
            )
        });

        for language in ["en", "fr", "en", "fr", "en"] {
            let answer = ask(&app, "/", &[("accept-language", language)]).await;
            assert_eq!(answer.body, language, "{also}");
            settle().await;
        }
        assert_eq!(calls.count(), 2, "{also}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_language_in_the_keys_takes_no_variant_away() {
    let (app, calls) = site(plain().language("en-us"), |_, headers| {
        let language = headers["accept-language"].to_str().unwrap().to_owned();
        ([(header::VARY, "Accept-Language")], language)
    });

    for language in ["en", "fr", "en", "fr"] {
        let answer = ask(&app, "/", &[("accept-language", language)]).await;
        assert_eq!(answer.body, language);
        settle().await;
    }
    assert_eq!(calls.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cookie_that_is_set_is_not_replayed() {
    for said in ["", "public", "max-age=60", "public, s-maxage=60"] {
        let (app, calls) = site(plain(), move |number, _| {
            (
                [
                    (header::SET_COOKIE, format!("id={number}")),
                    (header::CACHE_CONTROL, said.into()),
                ],
                "page",
            )
        });

        for visitor in 1..=3 {
            let answer = ask(&app, "/", &[]).await;
            assert_eq!(
                answer.header("set-cookie"),
                format!("id={visitor}"),
                "{said}"
            );
            assert!(
                answer.header("cache-status").contains("set-cookie") || visitor > 1,
                "{said}"
            );
            settle().await;
        }
        assert_eq!(calls.count(), 3, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_for_one_user_is_not_given_to_another() {
    for header in ["authorization", "cookie"] {
        let (app, _) = site(plain(), move |_, headers| {
            headers
                .get(header)
                .map_or("nobody", |value| value.to_str().unwrap())
                .to_owned()
        });

        // Row 16: the handler reads its session and says nothing about it.
        for user in ["alice", "bob", "alice"] {
            assert_eq!(
                ask(&app, "/", &[(header, user)]).await.body,
                user,
                "{header}"
            );
            settle().await;
            assert_eq!(ask(&app, "/", &[]).await.body, "nobody", "{header}");
            settle().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_says_that_it_is_for_everybody_is() {
    for header in ["authorization", "cookie"] {
        let (app, calls) = site(plain(), |number, _| {
            (
                [(header::CACHE_CONTROL, "public, max-age=60")],
                format!("page {number}"),
            )
        });

        for user in ["alice", "bob"] {
            assert_eq!(
                ask(&app, "/", &[(header, user)]).await.body,
                "page 1",
                "{header}"
            );
            settle().await;
        }
        assert_eq!(calls.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_cookies_that_matter_make_variants() {
    let (app, calls) = site(plain().cookies(["lang"]), |number, _| {
        format!("page {number}")
    });

    for (cookies, page) in [
        ("lang=de; _ga=1", "page 1"),
        ("_ga=2; lang=de", "page 1"),
        ("lang=fr", "page 2"),
        ("_ga=3", "page 3"),
    ] {
        assert_eq!(
            ask(&app, "/", &[("cookie", cookies)]).await.body,
            page,
            "{cookies}"
        );
        settle().await;
    }
    assert_eq!(calls.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn each_query_is_a_page_of_its_own() {
    let app = Router::new()
        .route(
            "/",
            get(|RawQuery(query): RawQuery| async { query.unwrap_or_default() }),
        )
        .layer(plain());

    for query in ["q=rust", "q=go", "q=rust"] {
        assert_eq!(ask(&app, &format!("/?{query}"), &[]).await.body, query);
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn targets_that_django_spells_alike_are_kept_apart() {
    let app = Router::new().fallback(|request: Request| async move { request.uri().to_string() });
    let app = app.layer(plain());

    for target in ["/a", "/%61", "/a%2Fb", "/a/b", "/x/../a", "/a", "/%61"] {
        assert_eq!(ask(&app, target, &[]).await.body, target);
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_changed_after_it_was_cloned_has_pages_of_its_own() {
    let layer = plain();
    let (shop, _) = site(layer.clone(), |number, _| format!("shop {number}"));
    ask(&shop, "/", &[]).await;
    let (blog, _) = site(layer.key_prefix("blog"), |number, _| {
        format!("blog {number}")
    });

    assert_eq!(ask(&blog, "/", &[]).await.body, "blog 1");
    assert_eq!(ask(&shop, "/", &[]).await.body, "shop 1");
}

#[tokio::test(start_paused = true)]
async fn routers_nested_under_two_prefixes_do_not_share_pages() {
    let inner = |name: &'static str| {
        Router::new()
            .route("/page", get(move || async move { name }))
            .layer(plain_shared())
    };
    let app = Router::new()
        .nest("/one", inner("one"))
        .nest("/two", inner("two"));

    for name in ["one", "two", "one"] {
        assert_eq!(ask(&app, &format!("/{name}/page"), &[]).await.body, name);
        settle().await;
    }
}

fn plain_shared() -> CacheLayer {
    use std::sync::LazyLock;
    static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::new(Memory::new()));
    CacheLayer::new(CACHE.clone())
}

#[tokio::test(start_paused = true)]
async fn two_hosts_do_not_share_pages_and_several_hosts_pass() {
    let app = Router::new()
        .route(
            "/",
            get(|headers: HeaderMap| async move { format!("{:?}", headers["host"]) }),
        )
        .layer(plain());
    let from = |host: &str| {
        Request::builder()
            .uri("/")
            .header("host", host)
            .body(Body::empty())
            .unwrap()
    };

    for host in ["a.example", "b.example", "a.example"] {
        assert_eq!(send(&app, from(host)).await.body, format!("{host:?}"));
        settle().await;
    }
    let mut two = from("a.example");
    two.headers_mut()
        .append("host", "evil.example".parse().unwrap());
    assert!(
        send(&app, two)
            .await
            .header("cache-status")
            .contains("hosts")
    );
}

#[tokio::test(start_paused = true)]
async fn a_post_always_reaches_the_handler() {
    let (app, calls) = site(plain(), |number, _| format!("page {number}"));

    for number in 1..=2 {
        let answer = send(&app, request(Method::POST, "/", &[])).await;
        assert_eq!(answer.body, format!("page {number}"));
        assert_eq!(answer.header("cache-status"), "Larder; fwd=method");
    }
    assert_eq!(ask(&app, "/", &[]).await.body, "page 3");
    assert_eq!(calls.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_the_response_says_of_its_life_is_heeded() {
    for (said, kept_for) in [
        ("max-age=1", 1),
        ("s-maxage=2, max-age=9", 2),
        ("no-store", 0),
        ("private", 0),
        ("no-cache", 0),
    ] {
        let (app, _) = site(plain(), move |number, _| {
            ([(header::CACHE_CONTROL, said)], format!("page {number}"))
        });
        ask(&app, "/", &[]).await;
        settle().await;

        let at_once = ask(&app, "/", &[]).await.body;
        settle().await;
        sleep(kept_for * SECOND).await;
        let later = ask(&app, "/", &[]).await.body;

        let expected = if kept_for == 0 {
            ("page 2", "page 3")
        } else {
            ("page 1", "page 2")
        };
        assert_eq!((at_once.as_str(), later.as_str()), expected, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_views_ttl_wins_over_the_response_and_the_site() {
    let cache = cache();
    let view = |ttl| {
        get(|| async { ([(header::CACHE_CONTROL, "max-age=5")], "page") })
            .layer(cache_page(&cache, ttl))
    };
    let app = Router::new()
        .route("/kept", view(60 * SECOND))
        .route("/not", view(Duration::ZERO))
        .layer(CacheLayer::new(cache.clone()));

    for target in ["/kept", "/not"] {
        ask(&app, target, &[]).await;
        settle().await;
    }
    sleep(30 * SECOND).await;

    assert!(
        ask(&app, "/kept", &[])
            .await
            .header("cache-status")
            .starts_with("Larder; hit")
    );
    assert!(
        !ask(&app, "/not", &[])
            .await
            .header("cache-status")
            .starts_with("Larder; hit")
    );
    let counts = cache.counts();
    assert_eq!(
        counts.hits, 1,
        "the view inside the site stores nothing: {counts:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_known_page_is_304() {
    for own in [Some("\"v1\""), None] {
        let (app, calls) = site(plain(), move |_, _| {
            let mut response = "page".into_response();
            if let Some(own) = own {
                response
                    .headers_mut()
                    .insert(header::ETAG, own.parse().unwrap());
            }
            response
        });
        ask(&app, "/", &[]).await;
        settle().await;
        let hit = ask(&app, "/", &[]).await;
        let etag = hit.header("etag").to_owned();

        let known = ask(&app, "/", &[("if-none-match", &etag)]).await;
        let unknown = ask(&app, "/", &[("if-none-match", "\"other\"")]).await;

        assert_eq!(
            (known.status, known.body.as_str()),
            (StatusCode::NOT_MODIFIED, "")
        );
        assert_eq!(known.header("etag"), etag);
        assert_eq!(
            (unknown.status, unknown.body.as_str()),
            (StatusCode::OK, "page")
        );
        assert_eq!(calls.count(), 1, "{own:?}");
    }
}

/// A site whose handler takes a second.
fn slow_site(layer: CacheLayer) -> (Router, Calls) {
    let calls = Calls::default();
    let counted = calls.clone();
    let handler = get(move |headers: HeaderMap| {
        let number = counted.next();
        async move {
            sleep(SECOND).await;
            let language = headers.get("accept-language").cloned();
            let language = language.map_or(String::new(), |value| value.to_str().unwrap().into());
            (
                [(header::VARY, "Accept-Language")],
                format!("page {number} {language}"),
            )
        }
    });
    (Router::new().route("/", handler).layer(layer), calls)
}

#[tokio::test(start_paused = true)]
async fn twenty_misses_at_once_make_one_call() {
    let (app, calls) = slow_site(plain());

    let began = tokio::time::Instant::now();
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move { ask(&app, "/", &[]).await })
        })
        .collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap().body, "page 1 ");
    }

    assert_eq!(calls.count(), 1);
    assert!(began.elapsed() < 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn misses_for_several_variants_make_one_call_each() {
    let (app, calls) = slow_site(plain());

    let asked: Vec<_> = (0..30)
        .map(|number| {
            let (app, language) = (app.clone(), ["en", "fr", "de"][number % 3]);
            tokio::spawn(async move {
                (
                    ask(&app, "/", &[("accept-language", language)]).await,
                    language,
                )
            })
        })
        .collect();
    for answer in asked {
        let (answer, language) = answer.await.unwrap();
        assert!(
            answer.body.ends_with(language),
            "{} for {language}",
            answer.body
        );
    }

    assert_eq!(calls.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_takes_nobody_along() {
    let (app, calls) = slow_site(plain());
    let leader = {
        let app = app.clone();
        tokio::spawn(async move { ask(&app, "/", &[]).await })
    };
    sleep(SECOND / 2).await;
    let follower = {
        let app = app.clone();
        tokio::spawn(async move { ask(&app, "/", &[]).await })
    };
    sleep(SECOND / 4).await;

    leader.abort();

    assert_eq!(follower.await.unwrap().body, "page 1 ");
    assert_eq!(calls.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_passed_on_whole() {
    for with_length in [true, false] {
        let long = "x".repeat(5000);
        let (app, calls) = site(plain().body_limit(1000), move |_, _| {
            let chunks = long.as_bytes().chunks(300).map(Bytes::copy_from_slice);
            let chunks: Vec<_> = chunks.map(Ok::<_, Infallible>).collect();
            if with_length {
                Body::from(long.clone())
            } else {
                Body::from_stream(Pieces(chunks.into_iter()))
            }
        });

        for _ in 0..2 {
            let answer = ask(&app, "/", &[]).await;
            assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 5000));
            settle().await;
        }
        assert_eq!(calls.count(), 2, "with a length: {with_length}");
    }
}

/// A stream of what an iterator gives.
struct Pieces<I>(I);

impl<I: Iterator + Unpin> futures_core::Stream for Pieces<I> {
    type Item = I::Item;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_in_many_pieces_is_kept_whole() {
    let (app, calls) = site(plain(), |_, _| {
        let pieces = ["one ", "", "two ", "three"].map(Ok::<_, Infallible>);
        Body::from_stream(Pieces(pieces.into_iter()))
    });

    for _ in 0..2 {
        assert_eq!(ask(&app, "/", &[]).await.body, "one two three");
        settle().await;
    }
    assert_eq!(calls.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_client_gets_its_bytes_while_they_are_made() {
    let (send_piece, pieces) = mpsc::unbounded_channel::<&'static str>();
    let pieces = Arc::new(std::sync::Mutex::new(Some(pieces)));
    let app = Router::new()
        .route(
            "/",
            get(move || async move {
                let mut pieces = pieces.lock().unwrap().take().unwrap();
                Body::from_stream(Received(poll_fn_stream(move |context| {
                    pieces.poll_recv(context)
                })))
            }),
        )
        .layer(plain());

    let response = app
        .clone()
        .oneshot(request(Method::GET, "/", &[]))
        .await
        .unwrap();
    let mut body = response.into_body();
    send_piece.send("first ").unwrap();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    send_piece.send("last").unwrap();
    drop(send_piece);
    let rest = body.collect().await.unwrap().to_bytes();
    settle().await;

    assert_eq!((&first[..], &rest[..]), (&b"first "[..], &b"last"[..]));
    assert_eq!(ask(&app, "/", &[]).await.body, "first last");
}

/// A stream from a polling function.
struct Received<F>(F);

fn poll_fn_stream<F>(poll: F) -> F
where
    F: FnMut(&mut Context<'_>) -> Poll<Option<&'static str>>,
{
    poll
}

impl<F> futures_core::Stream for Received<F>
where
    F: FnMut(&mut Context<'_>) -> Poll<Option<&'static str>> + Unpin,
{
    type Item = Result<&'static str, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        (self.0)(context).map(|piece| piece.map(Ok))
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_events_is_passed_on_and_nobody_waits_for_it() {
    let (app, calls) = site(plain(), |_, _| {
        let never = Received(|_: &mut Context<'_>| Poll::Pending);
        (
            [(header::CONTENT_TYPE, "text/event-stream")],
            Body::from_stream(never),
        )
    });

    for _ in 0..3 {
        let response = app
            .clone()
            .oneshot(request(Method::GET, "/", &[]))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(calls.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_service_inside_is_called_only_when_it_is_ready() {
    let (app, calls) = {
        let calls = Calls::default();
        let counted = calls.clone();
        let inner = tower::service_fn(move |_: Request| {
            let number = counted.next();
            async move { Ok::<_, Infallible>(Response::new(Body::from(format!("page {number}")))) }
        });
        let inner = ServiceBuilder::new().concurrency_limit(1).service(inner);
        (plain().layer(inner), calls)
    };

    for target in ["/a", "/b", "/a"] {
        let mut app = app.clone();
        poll_fn(|context| Service::<Request>::poll_ready(&mut app, context))
            .await
            .unwrap();
        let response = app.call(request(Method::GET, target, &[])).await.unwrap();
        response.into_body().collect().await.unwrap();
        settle().await;
    }
    assert_eq!(calls.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_handler_panics_for_its_own_client_only() {
    let (app, calls) = site(plain(), |number, _| {
        assert!(number > 1, "planted");
        "page"
    });

    let first = {
        let app = app.clone();
        tokio::spawn(async move { ask(&app, "/", &[]).await })
    };

    assert!(first.await.unwrap_err().is_panic());
    assert_eq!(ask(&app, "/", &[]).await.body, "page");
    assert_eq!(calls.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stale_page_stands_in_while_it_is_made_anew_and_when_that_fails() {
    let layer = plain()
        .ttl(SECOND)
        .grace(5 * SECOND)
        .stale_if_error(60 * SECOND);
    let (app, calls) = site(layer, |number, _| match number {
        1 | 3 => format!("page {number}").into_response(),
        _ => (StatusCode::BAD_GATEWAY, "down").into_response(),
    });
    ask(&app, "/", &[]).await;
    settle().await;
    sleep(2 * SECOND).await;

    let stale = ask(&app, "/", &[]).await;
    settle().await;
    let after_error = ask(&app, "/", &[]).await;
    sleep(3 * SECOND).await;
    let refreshing = ask(&app, "/", &[]).await;
    settle().await;
    let new = ask(&app, "/", &[]).await;
    sleep(30 * SECOND).await;
    let in_place_of_error = ask(&app, "/", &[]).await;

    for answer in [&stale, &after_error, &refreshing] {
        assert_eq!(answer.body, "page 1");
        assert!(answer.header("cache-status").contains("stale"));
    }
    assert_eq!(new.body, "page 3");
    assert_eq!(
        (in_place_of_error.status, in_place_of_error.body.as_str()),
        (StatusCode::OK, "page 3")
    );
    assert_eq!(calls.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_error_reaches_the_client_where_nothing_may_stand_in() {
    let (app, _) = site(plain(), |_, _| (StatusCode::BAD_GATEWAY, "down"));

    for _ in 0..2 {
        assert_eq!(ask(&app, "/", &[]).await.status, StatusCode::BAD_GATEWAY);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_header_list_drops_every_variant_and_what_is_being_made() {
    let cache = cache();
    let (app, calls) = slow_site(CacheLayer::new(cache.clone()));
    let list = "views.decorators.cache.cache_header..a6bf1757fff057f266b697df9cf176fd";
    for language in ["en", "fr"] {
        ask(&app, "/", &[("accept-language", language)]).await;
        settle().await;
    }
    let making = {
        let app = app.clone();
        tokio::spawn(async move { ask(&app, "/", &[("accept-language", "de")]).await })
    };
    sleep(SECOND / 2).await;

    assert!(cache.delete(list).await.unwrap());
    making.await.unwrap();
    settle().await;

    for language in ["en", "fr", "de"] {
        ask(&app, "/", &[("accept-language", language)]).await;
        settle().await;
    }
    assert_eq!(calls.count(), 6);
}

#[tokio::test(start_paused = true)]
async fn at_most_sixty_four_variants_of_a_url_are_kept() {
    let (app, calls) = site(plain(), |number, _| {
        (
            [(header::VARY, "Accept-Language")],
            format!("page {number}"),
        )
    });

    for round in 0..2 {
        for language in 0..70 {
            ask(&app, "/", &[("accept-language", &language.to_string())]).await;
            settle().await;
        }
        if round == 0 {
            assert_eq!(calls.count(), 70);
        }
    }
    assert_eq!(calls.count(), 76);
}

#[tokio::test(start_paused = true)]
async fn a_get_with_a_body_and_an_upgrade_pass() {
    let (app, calls) = site(plain(), |number, _| format!("page {number}"));
    ask(&app, "/", &[]).await;
    settle().await;

    let mut with_body = request(Method::GET, "/", &[]);
    *with_body.body_mut() = Body::from("a body");
    assert_eq!(send(&app, with_body).await.body, "page 2");
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    assert_eq!(ask(&app, "/", &upgrade).await.body, "page 3");
    assert_eq!(calls.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn only_the_hosts_named_are_kept() {
    let (app, calls) = site(plain().hosts(["other.example"]), |_, _| "page");

    for _ in 0..2 {
        assert!(
            ask(&app, "/", &[])
                .await
                .header("cache-status")
                .contains("host")
        );
    }
    assert_eq!(calls.count(), 2);
}
