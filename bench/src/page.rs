//! A page of 3 KB over loopback: a hit against a bare handler that returns the same bytes.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use bytes::Bytes;
use larder::Cache;
use larder::page::CacheLayer;
use larder::store::Memory;
use rustix::thread::{CpuSet, sched_setaffinity};
use tower::make::Shared;
use tower::{Layer as _, Service, ServiceExt};

use crate::pairs::compare;

/// Compares requests a second, as `wrk` counts them.
pub(crate) fn hit_against_bare_handler() -> io::Result<()> {
    let page = Bytes::from(vec![b'x'; 3000]);
    let handler = {
        let page = page.clone();
        move || async move { ([CONTENT_TYPE], page).into_response() }
    };
    let bare = Router::new().route("/", get(handler.clone()));
    let same_bytes = Router::new().route("/", get(move || async move { (SAME, page) }));
    let site = CacheLayer::new(Cache::new(Memory::new())).ttl(Duration::from_hours(1));
    let cached = site.layer(Router::new().route("/", get(handler.clone())));
    let cached = ServiceExt::<Request>::map_response(cached, |page: axum::http::Response<_>| {
        page.map(axum::body::Body::new)
    });
    let inside = CacheLayer::new(Cache::new(Memory::new())).ttl(Duration::from_hours(1));
    let inside = Router::new().route("/", get(handler)).layer(inside);

    let bare = serve(bare.into_make_service())?;
    let same_bytes = serve(same_bytes.into_make_service())?;
    let cached = serve(Shared::new(cached))?;
    let inside = serve(inside.into_make_service())?;
    let compare = |name: &str, ours: SocketAddr, theirs: SocketAddr| {
        compare(name, "k requests/s", || requests(ours), || requests(theirs));
    };
    compare(
        "page hit, around the site / bare handler, same bytes",
        cached,
        same_bytes,
    );
    compare(
        "page hit, around the site / bare handler, same body only",
        cached,
        bare,
    );
    compare(
        "page hit, Router::layer / bare handler, same bytes",
        inside,
        same_bytes,
    );
    Ok(())
}

const CONTENT_TYPE: (&str, &str) = ("content-type", "text/html; charset=utf-8");

/// The headers of a hit, so that the bare handler sends the same bytes.
const SAME: [(&str, &str); 6] = [
    CONTENT_TYPE,
    ("expires", "Mon, 23 Nov 2026 18:19:02 GMT"),
    ("cache-control", "max-age=3600"),
    ("etag", "W/\"dbc25c2d49101514becfd4763b072789\""),
    ("age", "10"),
    ("cache-status", "Larder; hit; ttl=3590"),
];

/// Serves `app` on a thread with a runtime of its own; the client has the other core.
fn serve<M, S>(app: M) -> io::Result<SocketAddr>
where
    M: for<'a> Service<
            IncomingStream<'a, tokio::net::TcpListener>,
            Error = Infallible,
            Response = S,
        > + Send
        + 'static,
    for<'a> <M as Service<IncomingStream<'a, tokio::net::TcpListener>>>::Future: Send,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        on_core(0);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a plain runtime").block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a bound socket");
            axum::serve(listener, app)
                .await
                .expect("axum::serve does not end");
        });
    });
    Ok(address)
}

/// Holds the calling thread to one core, so that client and server do not push each other about.
fn on_core(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).expect("a machine with two cores");
}

fn requests(address: SocketAddr) -> f64 {
    let output = Command::new("taskset")
        .args(["-c", "1", "wrk", "-t1", "-c16", "-d3s"])
        .arg(format!("http://{address}/"))
        .output()
        .unwrap_or_else(|error| panic!("cannot run `taskset`: {error}; hint: install it"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("Non-2xx"), "{text}");
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let rate: f64 = line
        .and_then(|rate| rate.trim().parse().ok())
        .expect("wrk prints its rate");
    rate / 1000.0
}
