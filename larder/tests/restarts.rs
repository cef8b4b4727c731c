//! Every server killed and started again under load: nobody hangs, nothing old is served, and there are
//! hits again by themselves.

#![cfg(all(
    feature = "memcached",
    feature = "mysql",
    feature = "postgres",
    feature = "redis"
))]
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use larder::store::{Memcached, Mysql, Postgres, Redis, Store};
use larder::wrap::Forgiving;
use larder::{Cache, FetchError};
use support::{Kind, MemcachedServer, RedisServer, SqlServer};
use tokio::time::{sleep, timeout};

const ROWS: usize = 16;
const READERS: usize = 8;
/// Longer than any call takes whose server is dead.
const HANGS: Duration = Duration::from_secs(30);
const MS: Duration = Duration::from_millis(1);

enum Server {
    Redis(RedisServer),
    Memcached(MemcachedServer),
    Sql(SqlServer),
}

impl Server {
    fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Redis(server) => Arc::new(Redis::lazy(server.url()).unwrap()),
            Self::Memcached(server) => Arc::new(Memcached::lazy(server.url()).unwrap()),
            Self::Sql(server) if server.url().starts_with("postgres") => {
                Arc::new(Postgres::lazy(server.url()).unwrap())
            }
            Self::Sql(server) => Arc::new(Mysql::lazy(server.url()).unwrap()),
        }
    }

    fn kill(&mut self) {
        match self {
            Self::Redis(server) => server.kill(),
            Self::Memcached(server) => server.kill(),
            Self::Sql(server) => server.kill(),
        }
    }

    fn start_again(&mut self) {
        match self {
            Self::Redis(server) => server.start_again(),
            Self::Memcached(server) => server.start_again(),
            Self::Sql(server) => server.start_again(),
        }
    }

    /// Has a server that keeps snapshots take one, which is old when it comes back.
    async fn snapshot(&self) {
        let Self::Redis(server) = self else { return };
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let saved = redis::cmd("SAVE").query_async::<()>(&mut connection).await;
        saved.unwrap();
    }
}

/// What the values are made from.
#[derive(Default)]
struct Row {
    version: AtomicU64,
    /// The version that every reader has to see: it was written, and then the cache was told so.
    told: AtomicU64,
}

/// The rows, and what their readers and writers met.
#[derive(Default)]
struct World {
    rows: [Row; ROWS],
    is_over: AtomicBool,
    reads: AtomicUsize,
    loads: AtomicUsize,
    errors: AtomicUsize,
    told: AtomicUsize,
    /// Whether a write that failed is within the promise, as it is behind [`Forgiving`].
    failures_count: bool,
}

impl World {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::SeqCst)
    }

    /// Fetches or gets rows, and looks whether they are old.
    async fn read(self: Arc<Self>, cache: Cache) {
        while self.goes_on() {
            let number = fastrand::usize(..ROWS);
            let (row, key) = (&self.rows[number], format!("row:{number}"));
            let told = row.told.load(Ordering::SeqCst);
            let found = if fastrand::u8(..4) == 0 {
                let got = timeout(HANGS, cache.get::<u64>(&key)).await;
                got.expect("a get ends").map_err(FetchError::Store)
            } else {
                let world = Arc::clone(&self);
                let load = move || async move {
                    let version = world.rows[number].version.load(Ordering::SeqCst);
                    world.loads.fetch_add(1, Ordering::SeqCst);
                    sleep(fastrand::u32(1..5) * MS).await;
                    Ok::<_, Infallible>(version)
                };
                let fetch = cache.fetch(&key, load).tags([format!("tag:{number}")]);
                timeout(HANGS, fetch).await.expect("a fetch ends").map(Some)
            };
            match found {
                Ok(Some(version)) => {
                    assert!(version >= told, "{key}: {version}, and {told} was told");
                    self.reads.fetch_add(1, Ordering::SeqCst);
                }
                Ok(None) => {}
                Err(error) => self.failed(&error).await,
            }
            // A store that answers at once lets the others have their turn.
            tokio::task::yield_now().await;
        }
    }

    /// Writes its own row, and tells the cache in one of four ways.
    async fn write(self: Arc<Self>, cache: Cache, number: usize) {
        let (row, key) = (&self.rows[number], format!("row:{number}"));
        while self.goes_on() {
            let version = row.version.fetch_add(1, Ordering::SeqCst) + 1;
            let act = async {
                match fastrand::u8(..10) {
                    0..3 => cache.delete(&key).await.map(drop),
                    3..6 => cache.invalidate([format!("tag:{number}")]).await,
                    6..9 => {
                        let set = cache.set(&key, &version);
                        set.tags([format!("tag:{number}")]).await
                    }
                    _ => cache.clear().await,
                }
            };
            let told = timeout(HANGS, act).await.expect("a write ends");
            if told.is_ok() || self.failures_count {
                row.told.store(version, Ordering::SeqCst);
            }
            match told {
                Ok(()) => drop(self.told.fetch_add(1, Ordering::SeqCst)),
                Err(error) => self.failed(&error).await,
            }
            sleep(fastrand::u32(1..20) * MS).await;
        }
    }

    async fn failed(&self, _: &(dyn std::error::Error + Sync)) {
        self.errors.fetch_add(1, Ordering::SeqCst);
        sleep(MS).await;
    }

    /// Waits until `count` has grown by `by`.
    async fn grown(&self, count: &AtomicUsize, by: usize, what: &str) {
        let before = count.load(Ordering::SeqCst);
        let grows = async {
            while count.load(Ordering::SeqCst) < before + by {
                sleep(MS).await;
            }
        };
        timeout(HANGS, grows).await.expect(what);
    }
}

/// Kills the server twice while two processes, which are two caches, read and write through it.
async fn killed_under_load(
    mut server: Server,
    failures_count: bool,
    wrap: fn(Arc<dyn Store>) -> Cache,
) {
    // Where a failed write counts, only the process is meant that it failed in.
    let processes = if failures_count { 1 } else { 2 };
    let caches: Vec<Cache> = (0..processes).map(|_| wrap(server.store())).collect();
    let world = Arc::new(World {
        failures_count,
        ..World::default()
    });
    let mut tasks = Vec::new();
    for number in 0..READERS {
        let cache = caches[number % caches.len()].clone();
        tasks.push(tokio::spawn(Arc::clone(&world).read(cache)));
    }
    for number in 0..ROWS {
        let cache = caches[number % caches.len()].clone();
        tasks.push(tokio::spawn(Arc::clone(&world).write(cache, number)));
    }

    for _ in 0..2 {
        world.grown(&world.reads, 200, "values are read").await;
        server.snapshot().await;
        world.grown(&world.told, 100, "writes are heard of").await;
        server.kill();
        world
            .grown(&world.errors, 100, "who writes hears of it")
            .await;
        server.start_again();
        world
            .grown(&world.told, 100, "writes are heard of again")
            .await;
    }
    world.is_over.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }

    for cache in &caches {
        // A key of its own each: what one has just kept is not what the other could.
        let key = format!("calm:{:p}", std::ptr::from_ref(cache));
        let keeps = async {
            while cache.get::<u64>(&key).await.ok().flatten().is_none() {
                let load = || async { Ok::<_, Infallible>(1) };
                let _ = cache.fetch(&key, load).await;
                sleep(MS).await;
            }
        };
        timeout(HANGS, keeps).await.expect("there are hits again");
    }
}

fn redis() -> Server {
    Server::Redis(RedisServer::start())
}

fn memcached() -> Server {
    Server::Memcached(MemcachedServer::start())
}

fn plain(store: Arc<dyn Store>) -> Cache {
    Cache::new(store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_killed_under_load() {
    killed_under_load(redis(), false, plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memcached_killed_under_load() {
    killed_under_load(memcached(), false, plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_killed_under_load() {
    let server = Server::Sql(SqlServer::start(Kind::Postgres));
    killed_under_load(server, false, plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mariadb_killed_under_load() {
    let server = Server::Sql(SqlServer::start(Kind::Mariadb));
    killed_under_load(server, false, plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_killed_under_load_behind_forgiving() {
    let forgiving = |store| Cache::new(Forgiving::new(store));
    killed_under_load(redis(), true, forgiving).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memcached_killed_under_load_behind_forgiving() {
    let forgiving = |store| Cache::new(Forgiving::new(store));
    killed_under_load(memcached(), true, forgiving).await;
}
