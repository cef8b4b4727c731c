//! The stores that the tests run over, each empty and with a clock that can be moved.

#![allow(dead_code, reason = "each test file uses a part")]

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use larder::store::{Memcached, Memory, Redis, Store};
use larder::{Cache, CacheBuilder, Clock};

/// A store to test over.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) name: &'static str,
    pub(crate) store: Arc<dyn Store>,
    /// Begins the prefix of every cache, so that runs over one server do not meet.
    own: String,
    /// Whether its clock moves only when told to.
    pub(crate) manual: bool,
}

/// Every store that the tests run over; a line for each.
pub(crate) fn all() -> Vec<Ground> {
    vec![memory(), redis(), memcached()]
}

/// A prefix that no other ground has.
fn own() -> String {
    static GROUNDS: AtomicUsize = AtomicUsize::new(0);
    let number = GROUNDS.fetch_add(1, Ordering::Relaxed);
    format!("ground{}-{number}-", std::process::id())
}

/// A Redis with a prefix of this ground's own: the server that the test command started, or one that
/// ends with this process.
fn redis() -> Ground {
    static URL: LazyLock<String> =
        LazyLock::new(|| std::env::var("LARDER_TEST_REDIS").unwrap_or_else(|_| start_redis()));
    Ground {
        name: "redis",
        store: Arc::new(Redis::lazy(URL.as_str()).expect("a good URL")),
        own: own(),
        manual: false,
    }
}

/// A memcached that ends with this process, and a prefix of this ground's own.
fn memcached() -> Ground {
    static URL: LazyLock<String> = LazyLock::new(start_memcached);
    Ground {
        name: "memcached",
        store: Arc::new(Memcached::lazy(URL.as_str()).expect("a good URL")),
        own: own(),
        manual: false,
    }
}

fn start_redis() -> String {
    let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
    let arguments = "--bind 127.0.0.1 --save '' --appendonly no --dir /tmp --port";
    let port = start(&program, arguments, "redis-server");
    format!("redis://127.0.0.1:{port}/0")
}

fn start_memcached() -> String {
    let program = std::env::var("MEMCACHED").unwrap_or_else(|_| "memcached".into());
    let port = start(&program, "-l 127.0.0.1 -U 0 -u root -I 8m -p", "memcached");
    format!("memcached://127.0.0.1:{port}")
}

/// Starts a server that ends when this process does, however it ends: the shell that holds it reads
/// a pipe of which we have the other end.
fn start(program: &str, arguments: &str, package: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port of the loopback");
    let port = listener.local_addr().expect("a bound socket").port();
    drop(listener);
    let script =
        format!("{program} {arguments} {port} >/dev/null & server=$!; read line; kill $server");
    let shell = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .spawn();
    // Not waited for: its end is ours.
    std::mem::forget(shell.expect("a shell"));
    for _ in 0..500 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return port;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("`{program}` does not start; hint: install {package}, or run `./test`, which does");
}

fn memory() -> Ground {
    Ground {
        name: "memory",
        store: Arc::new(Memory::builder().clock(Clock::manual()).build()),
        own: String::new(),
        manual: true,
    }
}

impl Ground {
    /// The same ground over the first connection again: what another process sees of it.
    pub(crate) fn another(&self) -> Self {
        let url = self.store.to_string();
        let store: Arc<dyn Store> = match self.name {
            "memcached" => Arc::new(Memcached::lazy(url).expect("a good URL")),
            _ => Arc::new(Redis::lazy(url).expect("a good URL")),
        };
        Self {
            store,
            own: self.own.clone(),
            ..*self
        }
    }

    /// Its name and where it is, if processes can share it.
    pub(crate) fn into_shared(self) -> Option<(&'static str, String)> {
        (self.name == "redis").then(|| (self.name, self.store.to_string()))
    }

    /// A cache with Django's defaults.
    pub(crate) fn cache(&self) -> Cache {
        self.builder("").build().expect("good settings")
    }

    /// Settings of a cache whose prefix ends in `prefix`.
    pub(crate) fn builder(&self, prefix: &str) -> CacheBuilder {
        let own = &self.own;
        Cache::builder(Arc::clone(&self.store))
            .prefix(format!("{own}{prefix}"))
            .space(own)
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, span: Duration) {
        if self.manual {
            self.store.clock().advance(span);
        } else {
            tokio::time::sleep(span).await;
        }
    }
}
