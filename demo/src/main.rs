//! The demo: one page that waits for a slow API, with the time it took in the log; a list, its objects and
//! an account, which show at once what was written.

mod app;
mod flags;
#[expect(unreachable_pub, reason = "the derived code is")]
mod object;
mod objects;
mod shop;
mod slow;

use std::io::{self, IsTerminal};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use larder::Cache;
use larder::store::{Memory, Redis};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::app::App;
use crate::flags::Flags;
use crate::shop::{Shop, Temporary};
use crate::slow::SlowApi;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = match Flags::read() {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    log_to_stderr();

    match serve(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("demo: {line}");
            ExitCode::from(2)
        }
    }
}

/// Serves until ctrl-c or SIGTERM; an error is the line to show.
async fn serve(flags: Flags) -> Result<(), String> {
    let Flags {
        listen,
        cache,
        delay,
        ttl,
        shop,
    } = flags;
    let listener = TcpListener::bind(&listen)
        .await
        .map_err(|error| cannot_listen(&listen, &error))?;
    let address = listener
        .local_addr()
        .map_err(|error| cannot_listen(&listen, &error))?;
    let url = format!("http://{}", reachable(address));

    let cache = open(&cache).await?;
    let temporary = match shop {
        Some(_) => None,
        None => Some(Temporary::new().map_err(|error| format!("cannot make a folder: {error}"))?),
    };
    let file = shop.or_else(|| temporary.as_ref().map(Temporary::file));
    let shop = Shop::open(&file.unwrap_or_default(), &cache).await?;
    let draining = shop.follow();
    let app = App::new(SlowApi::new(&url, delay));
    let router = app::router(app, shop.clone(), &cache, ttl);
    println!("demo: open {url}/");

    let signals = stop_signal().map_err(|error| format!("cannot listen for signals: {error}"))?;
    axum::serve(listener, router)
        .with_graceful_shutdown(signals)
        .await
        .map_err(|error| format!("stopped serving {url}: {error}"))?;
    draining.close().await;
    if let Err(error) = shop.close().await {
        tracing::warn!(%error, "shop_not_closed");
    }
    // Loads in the background may still store what they made.
    cache
        .close()
        .await
        .map_err(|error| format!("stopped, but without its cache: {error}"))
}

/// The cache at `url`, whose scheme is known to be one of ours.
async fn open(url: &str) -> Result<Cache, String> {
    if url.starts_with("memory:") {
        return Ok(Cache::new(Memory::new()));
    }
    let redis = Redis::connect(url)
        .await
        .map_err(|error| match error.hint() {
            Some(hint) => format!("{error}; hint: {hint}"),
            None => error.to_string(),
        })?;
    Ok(Cache::new(redis))
}

fn cannot_listen(listen: &str, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "is another demo running? `--listen 127.0.0.1:0` takes any free port"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 are root's, try `--listen 127.0.0.1:8000`"
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address",
        _ => "an address and a port, like `--listen 127.0.0.1:8000`",
    };
    format!("cannot listen on `{listen}`: {error}; hint: {hint}")
}

/// The address that a client of this machine can call: "every interface" is none to connect to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        };
        address.set_ip(loopback);
    }
    address
}

/// Resolves at the first ctrl-c or SIGTERM; both are caught from the moment of the call.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn log_to_stderr() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
