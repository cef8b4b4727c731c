//! A page of 3 KB over loopback: a hit against a bare handler that returns the same bytes.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use larder::Cache;
use larder::page::CacheLayer;
use larder::store::Memory;
use tower::Layer as _;

use crate::pairs::compare;

/// Compares requests a second, as `wrk` counts them.
pub(crate) fn hit_against_bare_handler() -> io::Result<()> {
    let page = Bytes::from(vec![b'x'; 3000]);
    let handler = move || {
        let page = page.clone();
        async move { ([("content-type", "text/html; charset=utf-8")], page).into_response() }
    };
    let bare = Router::new().route("/", get(handler.clone()));
    let site = CacheLayer::new(Cache::new(Memory::new())).ttl(Duration::from_hours(1));
    let cached = site.layer(Router::new().route("/", get(handler.clone())));
    let cached = Router::new().fallback_service(cached);
    let inside = CacheLayer::new(Cache::new(Memory::new())).ttl(Duration::from_hours(1));
    let inside = Router::new().route("/", get(handler)).layer(inside);

    let bare = serve(bare)?;
    let cached = serve(cached)?;
    let inside = serve(inside)?;
    let compare = |name: &str, ours: SocketAddr| {
        compare(name, "k requests/s", || requests(ours), || requests(bare));
    };
    compare("page hit, around the router / bare axum handler", cached);
    compare("page hit, Router::layer / bare axum handler", inside);
    Ok(())
}

/// Serves `app` on a thread with a runtime of its own; the client has the other core.
fn serve(app: Router) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
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

fn requests(address: SocketAddr) -> f64 {
    let output = Command::new("wrk")
        .args(["-t1", "-c16", "-d2s", &format!("http://{address}/")])
        .output()
        .unwrap_or_else(|error| panic!("cannot run `wrk`: {error}; hint: install it"));
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
