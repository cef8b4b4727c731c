//! Near tiers that hear what another process does at a real Redis.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod support;

use std::convert::Infallible;
use std::time::Duration;

use larder::store::{Memory, Redis, Store};
use larder::wrap::Tiered;
use larder::{Cache, Ttl};
use support::RedisServer;
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_hours(1);
/// Long enough for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process: its tiers, and a cache over them.
struct Process {
    tiers: Tiered,
    cache: Cache,
}

impl Process {
    /// Copies live for an hour and are trusted for `near_for` after the last word of the server.
    fn over(server: &RedisServer, near_for: Duration) -> Self {
        let far = Redis::lazy(server.url()).unwrap();
        let tiers = Tiered::new(Memory::new(), far).near_for(near_for).watched();
        let cache = Cache::new(tiers.clone());
        Self { tiers, cache }
    }

    /// Sets a key at the server, and waits until reads of it are answered near.
    async fn hold(&self, server: &RedisServer, key: &str, value: &str, tags: &[&str]) {
        let set = self.cache.set(key, value).ttl(HOUR);
        set.tags(tags.iter().copied()).await.unwrap();
        self.until_near(server, key).await;
    }

    /// Waits until fetches of `key` are answered without the server.
    async fn until_near(&self, server: &RedisServer, key: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.fetch(key).await;
            let before = reads(server).await;
            self.fetch(key).await;
            if reads(server).await == before {
                return;
            }
            assert!(Instant::now() < end, "`{key}` is never answered near");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn get(&self, key: &str) -> Option<String> {
        self.cache.get(key).await.unwrap()
    }

    async fn fetch(&self, key: &str) -> String {
        let load = || async { Ok::<_, Infallible>("loaded".to_owned()) };
        self.cache.fetch(key, load).ttl(HOUR).await.unwrap()
    }

    /// Waits until a get gives `expected`.
    async fn until(&self, key: &str, expected: Option<&str>) {
        let end = Instant::now() + PATIENCE;
        loop {
            let got = self.cache.get::<String>(key).await;
            if got.as_ref().is_ok_and(|got| got.as_deref() == expected) {
                return;
            }
            assert!(Instant::now() < end, "`{key}` is still {got:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn ask(server: &RedisServer, command: &mut redis::Cmd) -> String {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let answer = command.query_async::<redis::Value>(&mut connection).await;
    match answer.unwrap() {
        redis::Value::BulkString(bytes) => String::from_utf8(bytes).unwrap(),
        redis::Value::VerbatimString { text, .. } => text,
        other => format!("{other:?}"),
    }
}

/// How many commands have read slots or numbers at the server.
async fn reads(server: &RedisServer) -> u64 {
    let stats = ask(server, redis::cmd("INFO").arg("commandstats")).await;
    let calls = |name: &str| {
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
        line.map_or(0, |line| {
            line.split(',').next().unwrap().parse::<u64>().unwrap()
        })
    };
    calls("mget") + calls("hmget") + calls("evalsha")
}

/// The connections that are watched by.
async fn watchers(server: &RedisServer) -> usize {
    let list = ask(server, redis::cmd("CLIENT").arg("LIST")).await;
    // `B`: tracks, and is told of all.
    let tracks = |line: &&str| {
        let flags = line
            .split(' ')
            .find_map(|field| field.strip_prefix("flags="));
        flags.is_some_and(|flags| flags.contains('B'))
    };
    list.lines().filter(tracks).count()
}

async fn until_watchers(server: &RedisServer, count: usize) {
    let end = Instant::now() + PATIENCE;
    while watchers(server).await != count {
        assert!(Instant::now() < end, "{} watch", watchers(server).await);
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_another_process_does_is_heard() {
    let server = RedisServer::start();
    let (here, there) = (Process::over(&server, HOUR), Process::over(&server, HOUR));
    for act in [
        "set",
        "delete",
        "invalidate",
        "clear",
        "touch",
        "get_or_set",
    ] {
        there.hold(&server, "k", "old", &["t"]).await;
        here.until_near(&server, "k").await;
        assert_eq!(here.get("k").await.as_deref(), Some("old"), "{act}");

        match act {
            "set" => there.cache.set("k", "new").await.unwrap(),
            "delete" => drop(there.cache.delete("k").await.unwrap()),
            "invalidate" => there.cache.invalidate(["t"]).await.unwrap(),
            "touch" => drop(
                there
                    .cache
                    .touch("k", Ttl::For(Duration::ZERO))
                    .await
                    .unwrap(),
            ),
            "clear" => there.cache.clear().await.unwrap(),
            _ => {
                there.cache.delete("k").await.unwrap();
                there.fetch("k").await;
            }
        }

        let expected = match act {
            "set" => Some("new"),
            "get_or_set" => Some("loaded"),
            _ => None,
        };
        here.until("k", expected).await;
        there.cache.delete("k").await.unwrap();
    }
}

#[tokio::test]
async fn a_hit_of_any_verb_asks_the_server_nothing() {
    let server = RedisServer::start();
    let here = Process::over(&server, HOUR);
    here.hold(&server, "tagged", "v", &["t"]).await;
    here.hold(&server, "plain", "v", &[]).await;
    here.hold(&server, "a key with blanks", "v", &["t"]).await;
    here.until_near(&server, "tagged").await;
    let before = reads(&server).await;

    for key in ["tagged", "plain", "a key with blanks"] {
        for _ in 0..100 {
            assert_eq!(here.fetch(key).await, "v");
            assert_eq!(here.get(key).await.as_deref(), Some("v"));
        }
    }
    let many: std::collections::HashMap<String, String> =
        here.cache.get_many(["tagged", "plain"]).await.unwrap();
    assert_eq!(many.len(), 2);

    assert_eq!(reads(&server).await, before);
}

#[tokio::test]
async fn a_key_whose_name_is_hashed_is_heard_of_as_well() {
    let server = RedisServer::start();
    let (here, there) = (Process::over(&server, HOUR), Process::over(&server, HOUR));
    there.hold(&server, "a key with blanks", "old", &[]).await;
    here.until_near(&server, "a key with blanks").await;

    there.cache.set("a key with blanks", "new").await.unwrap();

    here.until("a key with blanks", Some("new")).await;
}

#[tokio::test]
async fn a_thousand_changes_in_a_row_are_all_heard() {
    let server = RedisServer::start();
    let (here, there) = (Process::over(&server, HOUR), Process::over(&server, HOUR));
    let keys: Vec<String> = (0..1000).map(|number| format!("k{number}")).collect();
    for key in &keys {
        there
            .cache
            .set(key.as_str(), "old")
            .ttl(HOUR)
            .await
            .unwrap();
    }
    here.until_near(&server, "k0").await;
    for key in &keys {
        assert_eq!(here.get(key).await.as_deref(), Some("old"));
    }

    for key in &keys {
        there.cache.set(key.as_str(), "new").await.unwrap();
    }

    for key in &keys {
        here.until(key, Some("new")).await;
    }
}

#[tokio::test]
async fn what_the_server_loses_by_itself_is_heard() {
    let server = RedisServer::start();
    let here = Process::over(&server, HOUR);
    let slot = here.cache.key("k");
    for how in ["flushed", "expired", "evicted"] {
        here.hold(&server, "k", "old", &[]).await;
        match how {
            "flushed" => drop(ask(&server, &mut redis::cmd("FLUSHALL")).await),
            "expired" => {
                let mut expire = redis::cmd("PEXPIRE");
                ask(&server, expire.arg(slot.name()).arg(1)).await;
                // It is told when the server removes it, at the latest for somebody who looks.
                let mut exists = redis::cmd("EXISTS");
                exists.arg(slot.name());
                while ask(&server, &mut exists).await != "int(0)" {
                    sleep(Duration::from_millis(2)).await;
                }
            }
            _ => {
                let config = |name: &'static str, value: &'static str| {
                    redis::cmd("CONFIG")
                        .arg("SET")
                        .arg(name)
                        .arg(value)
                        .to_owned()
                };
                ask(&server, &mut config("maxmemory-policy", "allkeys-random")).await;
                ask(&server, &mut config("maxmemory", "1")).await;
                sleep(Duration::from_millis(200)).await;
                ask(&server, &mut config("maxmemory", "0")).await;
            }
        }
        here.until("k", None).await;
    }
}

#[tokio::test]
async fn a_connection_that_was_killed_is_made_again_and_nothing_old_is_trusted() {
    let server = RedisServer::start();
    let (here, elsewhere) = (
        Process::over(&server, HOUR),
        Cache::new(Redis::lazy(server.url()).unwrap()),
    );
    here.hold(&server, "k", "old", &[]).await;

    // All at once: the change is told to nobody.
    let mut script = redis::cmd("EVAL");
    script
        .arg("redis.call('UNLINK', KEYS[1]) return 1")
        .arg(1)
        .arg(here.cache.key("k").name());
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut both = redis::pipe();
    both.atomic()
        .cmd("CLIENT")
        .arg("KILL")
        .arg("SKIPME")
        .arg("yes")
        .arg("TYPE")
        .arg("normal");
    both.add_command(script);
    both.query_async::<redis::Value>(&mut connection)
        .await
        .unwrap();

    let end = Instant::now() + PATIENCE;
    while here.cache.get::<String>("k").await.ok() != Some(None) {
        assert!(Instant::now() < end, "the copy outlived its watch");
        sleep(Duration::from_millis(5)).await;
    }
    here.hold(&server, "k", "new", &[]).await;
    elsewhere.delete("k").await.unwrap();
    here.until("k", None).await;
}

#[tokio::test]
async fn a_server_that_falls_silent_is_not_trusted_and_one_that_is_back_is() {
    let near_for = Duration::from_millis(400);
    let server = RedisServer::start();
    let here = Process::over(&server, near_for);
    here.hold(&server, "k", "v", &[]).await;
    // Past its `near_for` a copy is there for a watch that is current, and for nobody else.
    sleep(near_for * 3).await;
    assert_eq!(here.get("k").await.as_deref(), Some("v"));

    server.freeze();
    let end = Instant::now() + PATIENCE;
    while here.cache.get::<String>("k").await.is_ok() {
        assert!(
            Instant::now() < end,
            "the copy is served though nobody answers"
        );
        sleep(Duration::from_millis(10)).await;
    }

    server.thaw();
    here.until("k", Some("v")).await;
    here.until_near(&server, "k").await;
}

#[tokio::test]
async fn a_server_that_was_killed_and_started_again_is_watched_again() {
    let mut server = RedisServer::start();
    let here = Process::over(&server, HOUR);
    here.hold(&server, "k", "v", &["t"]).await;

    server.kill();
    server.start_again();

    let end = Instant::now() + PATIENCE;
    while here.cache.get::<String>("k").await.ok() != Some(None) {
        assert!(
            Instant::now() < end,
            "what the server has lost is still served"
        );
        sleep(Duration::from_millis(5)).await;
    }
    until_watchers(&server, 1).await;
    here.hold(&server, "k", "new", &["t"]).await;
}

#[tokio::test]
async fn the_connection_ends_with_the_tiers_or_their_closing() {
    let server = RedisServer::start();
    let here = Process::over(&server, HOUR);
    let there = Process::over(&server, HOUR);
    here.hold(&server, "k", "v", &[]).await;
    there.until_near(&server, "k").await;
    until_watchers(&server, 2).await;

    drop(there);
    until_watchers(&server, 1).await;

    here.tiers.close().await.unwrap();
    until_watchers(&server, 0).await;
    assert!(here.tiers.watch().is_none(), "its own copies may be behind");
}

#[tokio::test]
async fn a_store_that_cannot_be_watched_is_a_near_tier_as_ever() {
    let server = RedisServer::start();
    let far = Redis::lazy(format!("{}?protocol=resp2", server.url())).unwrap();
    let tiers = Tiered::new(Memory::new(), far).near_for(HOUR).watched();
    let cache = Cache::new(tiers);
    cache.set("k", "v").await.unwrap();

    assert_eq!(cache.get("k").await.unwrap(), Some("v".to_owned()));
    let before = reads(&server).await;
    assert_eq!(cache.get("k").await.unwrap(), Some("v".to_owned()), "near");
    assert_eq!(reads(&server).await, before);
    assert_eq!(watchers(&server).await, 0);
    let load = || async { Ok::<_, Infallible>("loaded".to_owned()) };
    cache.fetch("k", load).await.unwrap();
    assert!(reads(&server).await > before, "a fetch asks");
}
