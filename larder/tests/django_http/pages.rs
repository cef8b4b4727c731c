//! Two requests through the layer: what the first answer says, what is stored then, and whether the second is a hit.
//!
//! What a reader of Django's middleware or of a decorator writes there is here a layer of tower around one handler.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use larder::django_keys::KeyFormat;
use larder::page::rules::{cache_control, validators, vary};
use larder::page::{CacheLayer, cache_page};
use larder::store::Memory;
use larder::{Cache, Clock, Ttl};
use serde_json::{Map, Value, json};
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt as _, service_fn};

use crate::django::{Vector, Version, check, text};
use crate::{NOW, at, headers, shown};

type App = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// A cache at the vectors' second, and how often the one handler over it ran.
struct Stage {
    clock: Clock,
    memory: Memory,
    cache: Cache,
    calls: Arc<AtomicU64>,
}

impl Stage {
    fn new() -> Self {
        let clock = Clock::manual();
        let memory = Memory::builder().clock(clock.clone()).build();
        let cache = Cache::new(memory.clone());
        let calls = Arc::default();
        Self {
            clock,
            memory,
            cache,
            calls,
        }
    }

    /// A handler that gives what `answer` makes, counted.
    fn handler(&self, answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static) -> App {
        let calls = Arc::clone(&self.calls);
        BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
            calls.fetch_add(1, Ordering::SeqCst);
            let answer = answer();
            async move { Ok(answer) }
        }))
    }

    /// Puts the clock forward, or back: the count of milliseconds goes round.
    fn pass(&self, seconds: i64) {
        let millis = seconds.wrapping_mul(1000).cast_unsigned();
        self.clock.advance(Duration::from_millis(millis));
    }

    /// What is stored: the TTLs of those `keys` that there are, and how many entries besides.
    async fn stored(&self, keys: &[String]) -> Map<String, Value> {
        let mut stored = Map::new();
        for key in keys {
            match self.cache.ttl(key).await.expect("memory answers") {
                None => {}
                Some(Ttl::For(ttl)) => drop(stored.insert(key.clone(), ttl.as_secs().into())),
                Some(other) => drop(stored.insert(key.clone(), format!("{other:?}").into())),
            }
        }
        let others = self.memory.len() - stored.len();
        if others > 0 {
            stored.insert("others".into(), others.into());
        }
        stored
    }
}

fn layered(layer: &CacheLayer, app: App) -> App {
    BoxCloneSyncService::new(
        layer
            .layer(app)
            .map_response(|response| response.map(Body::new)),
    )
}

/// A decorator that only changes the answer's headers.
fn changed(app: App, change: impl Fn(&mut HeaderMap) + Clone + Send + Sync + 'static) -> App {
    BoxCloneSyncService::new(app.map_response(move |mut response: Response<Body>| {
        change(response.headers_mut());
        response
    }))
}

fn format_of(vector: &Vector) -> KeyFormat {
    match vector.version {
        Version::V52 => KeyFormat::Django52,
        Version::V61 => KeyFormat::default(),
    }
}

/// Runs one vector; pauses take no time.
fn run<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(work)
}

/// What a client sees of an answer, once all that runs behind it has come to its end.
struct Seen {
    status: u16,
    headers: HeaderMap,
    body: String,
}

async fn send(app: &App, method: &str, url: &str, headers: HeaderMap) -> Seen {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method.parse().expect("a method");
    let uri: http::Uri = url.parse().expect("a URL");
    let host = uri.authority().expect("it has a host").as_str();
    *request.uri_mut() = uri
        .path_and_query()
        .expect("a path")
        .as_str()
        .parse()
        .expect("a target");
    *request.headers_mut() = headers;
    let host = HeaderValue::from_str(host).expect("it can be sent");
    request.headers_mut().insert(header::HOST, host);

    let response = app.clone().oneshot(request).await.expect("it cannot fail");
    let (mut parts, body) = response.into_parts();
    // As a server does.
    if let Some(length) = body.size_hint().exact() {
        parts
            .headers
            .entry(header::CONTENT_LENGTH)
            .or_insert(length.into());
    }
    let body = body.collect().await.expect("the body is whole").to_bytes();
    tokio::time::sleep(Duration::from_millis(10)).await;
    Seen {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).expect("it is a text"),
    }
}

/// Of the answer's headers those that the vectors speak of, spelled as they do.
fn spoken(headers: &HeaderMap, names: &[&str]) -> Value {
    let there = names.iter().filter(|name| headers.contains_key(**name));
    there
        .map(|name| ((*name).to_owned(), shown(headers, name)))
        .collect()
}

#[test]
fn middleware() {
    check("middleware", |vector| run(two_requests(vector)));
}

async fn two_requests(vector: &Vector) -> Value {
    let input = &vector.input;
    let stage = Stage::new();
    let handler = stage.handler(answer_of(input));
    let layer = match input["page_timeout"].as_i64() {
        // A Duration cannot be negative; the nearest to it is zero.
        Some(ttl) => cache_page(
            &stage.cache,
            Duration::from_secs(ttl.max(0).cast_unsigned()),
        ),
        None => CacheLayer::new(stage.cache.clone()),
    };
    let app = layered(&layer.key_format(format_of(vector)), handler);
    let url = format!(
        "http://example.com{}",
        input["path"].as_str().unwrap_or("/p")
    );
    let method = input["method"].as_str().unwrap_or("GET");
    let first = send(&app, method, &url, headers(&input["request_headers"])).await;
    let keys = vector.expected["stored_keys_and_ttl"].as_object();
    let keys: Vec<String> = keys
        .map(|keys| keys.keys().cloned().collect())
        .unwrap_or_default();
    let stored = stage.stored(&keys).await;

    stage.pass(input["delay"].as_i64().unwrap_or(1));
    let again = input
        .get("second_headers")
        .unwrap_or(&input["request_headers"]);
    let method = input["second_method"].as_str().unwrap_or(method);
    let second = send(&app, method, &url, headers(again)).await;

    let names = ["Expires", "Cache-Control", "Vary"];
    json!({
        "first_status": first.status,
        "first_headers": spoken(&first.headers, &names),
        "stored_keys_and_ttl": stored,
        "view_calls_after_two_requests": stage.calls.load(Ordering::SeqCst),
        "second_age": shown(&second.headers, "age"),
    })
}

fn answer_of(input: &Value) -> impl Fn() -> Response<Body> + Clone + Send + Sync + 'static {
    let input = input.clone();
    move || {
        let body = if input["streaming"] == true {
            Body::new(http_body_util::StreamBody::new(Once(Some("body"))))
        } else {
            Body::from("body")
        };
        let mut response = Response::new(body);
        let status = input["status"].as_u64().unwrap_or(200);
        *response.status_mut() = u16::try_from(status)
            .ok()
            .and_then(|code| code.try_into().ok())
            .expect("a status");
        *response.headers_mut() = headers(&input["headers"]);
        if input["set_cookie"] == true {
            response
                .headers_mut()
                .insert(header::SET_COOKIE, HeaderValue::from_static("c=1"));
        }
        response
    }
}

/// A stream of one piece, whose length nobody knows beforehand.
struct Once(Option<&'static str>);

impl futures_core::Stream for Once {
    type Item = Result<http_body::Frame<bytes::Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let piece = self
            .0
            .take()
            .map(|piece| Ok(http_body::Frame::data(piece.into())));
        std::task::Poll::Ready(piece)
    }
}

#[test]
fn decorator() {
    check("decorator", |vector| run(decorated(vector)));
}

async fn decorated(vector: &Vector) -> Value {
    let stage = Stage::new();
    let view = stage.handler(|| Response::new(Body::from("v")));
    let app = stack(&stage, vector, view);
    let seen = send(&app, "GET", "http://testserver/", HeaderMap::new()).await;

    let stored = stage.stored(&names(&vector.expected["stored"])).await;
    let names = ["Expires", "Cache-Control", "Vary"];
    json!({
        "headers": spoken(&seen.headers, &names),
        "stored": stored.keys().collect::<Vec<_>>(),
    })
}

/// The decorators that the description of a vector names, the outermost first.
fn stack(stage: &Stage, vector: &Vector, view: App) -> App {
    let page = |app| {
        let layer = cache_page(&stage.cache, Duration::from_mins(15));
        layered(
            &layer
                .language("en-us")
                .time_zone("UTC")
                .key_format(format_of(vector)),
            app,
        )
    };
    let control = |directives: &'static [(&str, Option<&str>)], app| {
        changed(app, move |headers| {
            cache_control::patch_cache_control(headers, directives);
        })
    };
    let never = |app| {
        changed(app, |headers| {
            cache_control::add_never_cache_headers(headers, at(NOW));
        })
    };
    let vary = |names: &'static [&str], app| {
        changed(app, move |headers| vary::patch_vary_headers(headers, names))
    };
    match vector.id.as_str() {
        "decorator-001" => control(&[], view),
        "decorator-002" => control(&[("max-age", Some("3600"))], view),
        "decorator-003" => control(&[("private", None), ("max-age", Some("5"))], view),
        "decorator-004" => {
            let both = [
                ("max-age", Some("123")),
                ("private", None),
                ("public", None),
                ("custom", Some("456")),
            ];
            changed(view, move |headers| {
                cache_control::patch_cache_control(headers, &both);
            })
        }
        "decorator-005" => never(view),
        "decorator-006" => never(control(&[("public", None)], view)),
        "decorator-007" => vary(&["Cookie"], view),
        "decorator-008" => vary(&["User-Agent", "Cookie"], view),
        "decorator-009" => page(view),
        "decorator-010" => page(control(&[("max-age", Some("60"))], view)),
        "decorator-011" => control(&[("max-age", Some("60"))], page(view)),
        "decorator-012" => page(never(view)),
        "decorator-013" => vary(&["Cookie"], page(view)),
        other => panic!("there is no stack for {other}"),
    }
}

#[test]
fn full_stack() {
    check("full_stack", |vector| {
        let middleware = names(&vector.input["middleware"]);
        // Sessions and translation are not a cache's: what they put into the answer cannot be had here.
        if middleware.iter().any(|name| name == "SessionMiddleware") {
            return "not driven: sessions and locales are Django's own".into();
        }
        run(full_answer(vector))
    });
}

async fn full_answer(vector: &Vector) -> Value {
    let stage = Stage::new();
    let path = text(&vector.input["path"]);
    let sets_cookie = path == "/c/";
    let view = stage.handler(move || {
        let mut response = Response::new(Body::from(if sets_cookie { "c" } else { "lang=en-us" }));
        if sets_cookie {
            response
                .headers_mut()
                .insert(header::SET_COOKIE, HeaderValue::from_static("pref=1"));
        }
        response
    });
    let layer = CacheLayer::new(stage.cache.clone())
        .language("en-us")
        .time_zone("UTC");
    let layer = layer.key_format(format_of(vector));
    let stack = names(&vector.input["middleware"]);
    let conditional = stack
        .iter()
        .position(|name| name == "ConditionalGetMiddleware");
    let app = match conditional {
        None => layered(&layer, view),
        Some(0) => conditional_get(layered(&layer, view)),
        Some(_) => layered(&layer, conditional_get(view)),
    };
    let sent: HeaderMap = vector.input["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .map(from_environ)
        .collect();
    let url = format!("http://example.com{path}");
    let first = send(&app, "GET", &url, sent.clone()).await;
    let stored = stage.stored(&names(&vector.expected["stored"])).await;
    stage.pass(1);
    let second = send(&app, "GET", &url, sent).await;

    let spoken_of = [
        "Content-Length",
        "Vary",
        "Content-Language",
        "Expires",
        "Cache-Control",
        "ETag",
    ];
    let cookies = first.headers.get_all(header::SET_COOKIE).iter();
    let cookies = cookies.filter_map(|value| value.to_str().ok()?.split('=').next());
    json!({
        "headers": spoken(&first.headers, &spoken_of),
        "sets_cookie": cookies.collect::<Vec<_>>(),
        "stored": stored.keys().collect::<Vec<_>>(),
        "second_has_age": second.headers.contains_key(header::AGE),
        "body": first.body,
    })
}

/// What Django's `ConditionalGetMiddleware` does to an answer.
fn conditional_get(app: App) -> App {
    BoxCloneSyncService::new(
        app.then(|answer: Result<Response<Body>, Infallible>| async {
            let (mut parts, body) = answer?.into_parts();
            let body = body.collect().await.expect("the body is whole").to_bytes();
            if let (true, Some(etag)) = (
                validators::wants_etag(&parts.headers),
                validators::etag(&body),
            ) {
                let etag = HeaderValue::from_str(&etag).expect("it can be sent");
                parts.headers.insert(header::ETAG, etag);
            }
            Ok(Response::from_parts(parts, Body::from(body)))
        }),
    )
}

fn from_environ((name, value): (&String, &Value)) -> (HeaderName, HeaderValue) {
    let name = name.trim_start_matches("HTTP_").replace('_', "-");
    let value = HeaderValue::from_str(&text(value)).expect("it can be sent");
    (name.parse().expect("a name"), value)
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(text).collect()
}

#[test]
fn response_object() {
    check("response_object", |_| {
        "not driven: a page is no pickled object".into()
    });
}
