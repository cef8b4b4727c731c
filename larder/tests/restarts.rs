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

#[path = "support/world.rs"]
mod world;

use std::sync::Arc;

use larder::Cache;
use larder::store::{Memcached, Mysql, Postgres, Redis, Store};
use larder::wrap::Forgiving;
use support::{Kind, MemcachedServer, RedisServer, SqlServer};
use world::World;

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
    let tasks = world.go(&caches);

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
    world.end(tasks).await;
    World::hits_again(&caches).await;
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
