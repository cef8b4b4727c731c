//! Sentinels: a real primary that is killed, frozen or replaced, and a replica that takes over.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod support;

#[path = "support/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder::store::{Redis, Store, When};
use larder::{Cache, Entry, ErrorKind, Key, Moment, Value};
use support::{RedisServer, Watched, cli, until};
use world::{HANGS, MS, World};

async fn value(store: &Redis, key: &Key) -> larder::Result<Option<Value>> {
    let found = store.get(std::slice::from_ref(key), None).await?;
    Ok(found
        .entries
        .into_iter()
        .next()
        .unwrap()
        .and_then(|it| it.value))
}

/// The value, once the store answers without an error.
async fn until_answered(store: &Redis, key: &Key) -> Option<Value> {
    let asked = async {
        loop {
            if let Ok(value) = value(store, key).await {
                return value;
            }
            tokio::time::sleep(5 * MS).await;
        }
    };
    tokio::time::timeout(HANGS, asked).await.unwrap()
}

/// Waits until what another primary took is gone: while it lives, it is read for about a second more.
async fn until_gone(store: &Redis, key: &Key) {
    let gone = async {
        while until_answered(store, key).await.is_some() {
            tokio::time::sleep(5 * MS).await;
        }
    };
    tokio::time::timeout(HANGS, gone).await.unwrap();
}

async fn put(store: &Redis, key: &Key) {
    let entry = Entry::new(store.clock(), Value::Bytes("old".into())).fresh_until(Moment::NEVER);
    assert!(store.put(key, entry, When::Always).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_primary_killed_under_load() {
    let mut watched = Watched::start();
    let caches = [(); 2].map(|()| Cache::new(Redis::lazy(watched.url()).unwrap()));
    let world = Arc::new(World::default());
    let tasks = world.go(&caches);

    for _ in 0..2 {
        world.all_is_well().await;
        let dead = watched.primary();
        // What it acknowledges from now on, the replica does not hear of.
        let port = watched.servers[dead].port();
        let rule = ["acl", "setuser", "default", "-psync", "-sync"];
        assert_eq!(cli(port, &rule), "OK");
        cli(port, &["client", "kill", "type", "replica"]);
        world.grown(&world.told, 200, "writes are heard of").await;
        watched.servers[dead].kill();
        world
            .grown(&world.errors, 20, "its clients hear of it")
            .await;
        watched.until_taken_over(dead);
        // By themselves: both processes find the new primary.
        World::answers_again(&caches).await;
        world.all_is_well().await;
        // It comes back as a replica, from a snapshot that knows nothing.
        watched.servers[dead].start_again();
        watched.until_watched();
    }
    world.all_is_well().await;

    world.end(tasks).await;
    World::hits_again(&caches).await;
    assert!(world.loads.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn a_primary_that_was_replaced_is_left() {
    let watched = Watched::start();
    let store = Redis::connect(watched.url()).await.unwrap();
    let key = Key::new("shop:1:k");
    put(&store, &key).await;
    let old = watched.primary();

    // Both go on, and only the sentinels know which one counts.
    let port = watched.servers[1 - old].port();
    until("they agree to change", || {
        cli(watched.sentinel(), &["sentinel", "failover", "main"]) == "OK"
    });
    watched.until_taken_over(old);

    until_gone(&store, &key).await;
    let set = async {
        let entry = || Entry::new(store.clock(), Value::Bytes("new".into()));
        while store
            .put(&key, entry().fresh_until(Moment::NEVER), When::Always)
            .await
            .is_err()
        {
            tokio::time::sleep(5 * MS).await;
        }
    };
    tokio::time::timeout(HANGS, set).await.unwrap();
    assert!(cli(port, &["get", key.name()]).contains("new"));
}

#[tokio::test]
async fn a_primary_cut_off_from_its_sentinels_is_left() {
    let watched = Watched::start();
    let store = Redis::connect(watched.url()).await.unwrap();
    let key = Key::new("shop:1:k");
    put(&store, &key).await;
    let old = watched.primary();
    let port = watched.servers[old].port();
    cli(port, &["wait", "1", "5000"]);

    // It takes no word of theirs: our connection to it lives, and it says that it is the primary.
    let words = "acl setuser default -replicaof -slaveof -psync -sync -ping -exec -publish";
    let words: Vec<&str> = words.split(' ').collect();
    assert_eq!(cli(port, &words), "OK");
    watched.until_taken_over(old);
    assert!(cli(port, &["info", "replication"]).contains("role:master"));

    // The other is told now; the old one has what it had.
    let other = Redis::connect(watched.url()).await.unwrap();
    other.delete(std::slice::from_ref(&key)).await.unwrap();
    assert_ne!(cli(port, &["get", key.name()]), "");
    until_gone(&store, &key).await;
}

#[tokio::test]
async fn a_primary_for_the_second_time_is_another_than_the_first_time() {
    let mut watched = Watched::start();
    let store = Redis::connect(watched.url()).await.unwrap();
    let idle = Redis::connect(watched.url()).await.unwrap();
    let key = Key::new("shop:1:k");
    put(&store, &key).await;
    assert!(value(&idle, &key).await.unwrap().is_some());
    let first = watched.primary();

    until("they agree to change", || {
        cli(watched.sentinel(), &["sentinel", "failover", "main"]) == "OK"
    });
    watched.until_taken_over(first);
    watched.until_watched();
    let second = watched.primary();
    let port = watched.servers[second].port();
    until_answered(&store, &key).await;
    // What the second is told now, the first never hears of.
    let rule = ["acl", "setuser", "default", "-psync", "-sync"];
    assert_eq!(cli(port, &rule), "OK");
    cli(port, &["client", "kill", "type", "replica"]);
    until("it follows no longer", || {
        let said = cli(watched.servers[first].port(), &["info", "replication"]);
        said.contains("master_link_status:down")
    });
    store.delete(std::slice::from_ref(&key)).await.unwrap();
    watched.servers[second].kill();
    watched.until_taken_over(second);

    assert_ne!(cli(watched.servers[first].port(), &["get", key.name()]), "");
    for store in [&store, &idle] {
        assert_eq!(until_answered(store, &key).await, None);
    }
}

#[tokio::test]
async fn plain_gets_that_opt_in_are_for_the_replica() {
    let watched = Watched::start();
    let store = Redis::builder(watched.url()).read_replicas();
    let cache = Cache::new(store.connect().await.unwrap());
    let (primary, replica) = (watched.primary(), 1 - watched.primary());
    let gets = |at: usize| {
        let said = cli(watched.servers[at].port(), &["info", "commandstats"]);
        said.contains("cmdstat_get:") || said.contains("cmdstat_mget:")
    };
    cache.set("k", "v").await.unwrap();
    cli(watched.servers[primary].port(), &["wait", "1", "5000"]);

    assert_eq!(cache.get("k").await.unwrap(), Some("v".to_owned()));
    assert_eq!((gets(primary), gets(replica)), (false, true));
}

#[tokio::test]
async fn without_sentinels_what_is_connected_goes_on() {
    let mut watched = Watched::start();
    let store = Redis::connect(watched.url()).await.unwrap();
    let key = Key::new("shop:1:k");
    put(&store, &key).await;

    watched.kill_sentinels();

    // Longer than their word is taken for: they are asked in vain.
    for _ in 0..8 {
        assert!(value(&store, &key).await.unwrap().is_some());
        tokio::time::sleep(500 * MS).await;
    }
    let error = Redis::connect(watched.url()).await.unwrap_err();
    assert!(error.to_string().contains("cannot connect"), "{error}");
}

#[tokio::test]
async fn sentinels_and_servers_have_passwords_of_their_own() {
    let server = ["--requirepass", "s@rver", "--masterauth", "s@rver"];
    let lines = ["sentinel auth-pass main s@rver", "requirepass s@ntinel"];
    let watched = Watched::start_unwatched(&server, &lines);
    let hosts = watched.hosts();
    let good = format!("redis+sentinel://:s%40rver@{hosts}/main/2?sentinel_password=s%40ntinel");

    let store = Redis::connect(good.as_str()).await.unwrap();
    put(&store, &Key::new("shop:1:k")).await;

    assert_eq!(
        store.to_string(),
        format!("redis+sentinel://{hosts}/main/2")
    );
    for wrong in [
        good.replace("s%40ntinel", "wr0ng"),
        good.replace("s%40rver", "wr0ng"),
        format!("redis+sentinel://:wr0ng@{hosts}/main"),
    ] {
        let error = Redis::connect(wrong.as_str()).await.unwrap_err();
        let told = format!("{error} {error:?}");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{told}");
        assert!(!told.contains("wr0ng") && !told.contains("s@"), "{told}");
    }
}

#[tokio::test]
async fn a_name_that_no_sentinel_knows_is_told_so() {
    let watched = Watched::start();
    let url = watched.url().replace("main", "other");

    let error = Redis::connect(url.as_str()).await.unwrap_err();

    assert_eq!(
        error.to_string(),
        format!("redis: cannot connect to `{url}`")
    );
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("named `other`"), "{cause}");
}

#[tokio::test]
async fn a_server_is_no_sentinel() {
    let server = RedisServer::start();
    let url = format!("redis+sentinel://127.0.0.1:{}/main", server.port());

    let error = Redis::connect(url.as_str()).await.unwrap_err();

    assert!(error.to_string().contains("cannot connect"), "{error}");
}
