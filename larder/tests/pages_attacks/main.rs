//! Pages under attack: each test is one way to make the layer leak, hang, mix up, lose or break something.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod bodies;
mod herds;
mod layers;
mod lists;
mod slots;
mod somebodys;
mod stores;
mod urls;
mod variants;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use larder::page::CacheLayer;
use larder::store::Memory;
use larder::{Cache, Clock};
use tokio::time::sleep;
use tower::ServiceExt as _;

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

fn memory() -> Memory {
    Memory::builder().clock(Clock::seeded(1)).build()
}

fn cache() -> Cache {
    Cache::new(memory())
}

fn plain() -> CacheLayer {
    CacheLayer::new(cache())
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
    let app = Router::new()
        .fallback_service(handler.with_state(()))
        .layer(layer);
    (app, calls)
}

/// The value of a header, or nothing.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        text(&self.headers, name)
    }

    fn is_hit(&self) -> bool {
        self.header("cache-status").starts_with("Larder; hit")
    }
}

async fn send(app: &Router, request: Request) -> Answer {
    read(app.clone().oneshot(request).await.unwrap()).await
}

async fn read(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

fn request(method: Method, target: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = Request::builder().method(method).uri(target);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "example.com");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

/// Asks, and lets what runs behind the answer come to its end.
async fn ask(app: &Router, target: &str, headers: &[(&str, &str)]) -> Answer {
    let answer = send(app, request(Method::GET, target, headers)).await;
    settle().await;
    answer
}

async fn settle() {
    sleep(Duration::from_millis(10)).await;
}
