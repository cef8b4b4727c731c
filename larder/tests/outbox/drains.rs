//! Stores elsewhere: the invalidation is acknowledged by whoever drains.

use larder::outbox::Outbox;
use larder::store::{Memory, Redis};
use larder::{Cache, Caches, Clock, ErrorKind};

use crate::faulty::{Faulty, How};
use crate::ground::{Database, until};
use crate::support::RedisServer;

async fn is_there(cache: &Cache, key: &str) -> bool {
    cache.get::<String>(key).await.unwrap().is_some()
}

async fn kept(cache: &Cache) {
    cache.set("k", "old").tags(["t"]).await.unwrap();
}

#[tokio::test]
async fn a_drain_acts_on_what_is_committed_and_on_nothing_else() {
    for database in Database::all() {
        let outbox = database.outbox().await;
        let cache = Cache::new(Memory::new());
        let mut writer = database.writer().await;
        kept(&cache).await;

        writer.run("BEGIN").await;
        writer.insert(&outbox.insert(["t"])).await;
        writer.run("ROLLBACK").await;
        assert_eq!(outbox.drain([&cache]).await.unwrap(), 0);
        assert!(is_there(&cache, "k").await, "{outbox}");

        writer.run("BEGIN").await;
        writer.insert(&outbox.insert(["t", "u"])).await;
        writer.run("COMMIT").await;
        assert!(is_there(&cache, "k").await, "{outbox}");
        assert_eq!(outbox.drain([&cache]).await.unwrap(), 2);
        assert!(!is_there(&cache, "k").await, "{outbox}");
        assert!(database.waiting().await.is_empty(), "{outbox}");
    }
}

#[tokio::test]
async fn what_nobody_acted_on_before_a_crash_is_found_by_the_next_process() {
    let redis = RedisServer::start();
    for database in Database::all() {
        {
            let outbox = database.outbox().await;
            let cache = Cache::new(Redis::connect(redis.url()).await.unwrap());
            kept(&cache).await;
            let mut writer = database.writer().await;
            writer.run("BEGIN").await;
            writer.insert(&outbox.insert(["t"])).await;
            writer.run("COMMIT").await;
        }

        let cache = Cache::new(Redis::connect(redis.url()).await.unwrap());
        assert!(is_there(&cache, "k").await);
        let outbox = Outbox::lazy(database.url()).unwrap();
        assert_eq!(outbox.drain([&cache]).await.unwrap(), 1);
        assert!(!is_there(&cache, "k").await);
    }
}

#[tokio::test]
async fn who_dies_between_invalidating_and_removing_leaves_the_rows() {
    for database in Database::all() {
        let outbox = database.outbox().await;
        let faulty = Faulty::new(&Clock::system());
        let cache = Cache::new(faulty.clone());
        database.writer().await.insert(&outbox.insert(["t"])).await;

        faulty.go(How::Held);
        let dying = tokio::spawn({
            let (outbox, cache) = (outbox.clone(), cache.clone());
            async move { outbox.drain([&cache]).await }
        });
        faulty.until_held().await;
        assert_eq!(
            database.waiting().await,
            ["t"],
            "removed before it was acted on"
        );
        dying.abort();
        let _ = dying.await;

        kept(&cache).await;
        assert_eq!(database.waiting().await, ["t"]);
        assert_eq!(outbox.drain([&cache]).await.unwrap(), 1);
        assert!(!is_there(&cache, "k").await);
    }
}

#[tokio::test]
async fn a_store_that_is_down_is_told_later_and_holds_up_no_other() {
    let database = Database::file();
    let outbox = database.outbox().await;
    let faulty = Faulty::new(&Clock::system());
    let (down, well) = (Cache::new(faulty.clone()), Cache::new(Memory::new()));
    kept(&down).await;
    kept(&well).await;
    database.writer().await.insert(&outbox.insert(["t"])).await;

    faulty.go(How::Refused);
    let error = outbox.drain([&down, &well]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!is_there(&well, "k").await);
    assert_eq!(database.waiting().await, ["t"]);

    faulty.go(How::Sound);
    assert!(is_there(&down, "k").await);
    assert_eq!(outbox.drain([&down, &well]).await.unwrap(), 1);
    assert!(!is_there(&down, "k").await);
    assert!(database.waiting().await.is_empty());
}

#[tokio::test]
async fn each_store_is_told_once_in_each_space() {
    let database = Database::file();
    let outbox = database.outbox().await;
    let faulty = Faulty::new(&Clock::system());
    let shop = Cache::builder(faulty.clone())
        .space("shop")
        .build()
        .unwrap();
    let one = Cache::builder(faulty.clone())
        .prefix("one")
        .build()
        .unwrap();
    let caches = Caches::new().with("one", one.clone()).with("shop", shop);
    let mut writer = database.writer().await;
    writer.insert(&outbox.insert(["t"])).await;
    writer
        .insert(&outbox.clone().space("shop").insert(["t"]))
        .await;
    writer
        .insert(&outbox.clone().space("nobody's").insert(["t"]))
        .await;

    // Two clones of one cache, and one of another space.
    let mut all: Vec<&Cache> = caches.all().collect();
    let two = one.clone();
    all.push(&two);
    assert_eq!(outbox.drain(all).await.unwrap(), 2);

    let raised = faulty
        .calls()
        .iter()
        .filter(|(verb, _)| *verb == "raise")
        .count();
    assert_eq!(raised, 2);
    assert_eq!(database.waiting().await, ["t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_may_drain_at_once() {
    for database in Database::all() {
        let outbox = database.outbox().await;
        let cache = Cache::new(Memory::new());
        let mut writer = database.writer().await;
        for ten in 0..250 {
            let tags = (0..10).map(|one| format!("tag:{}", ten * 10 + one));
            writer
                .insert(&outbox.insert(tags.collect::<Vec<_>>()))
                .await;
        }
        for at in 0..2500 {
            let tag = format!("tag:{at}");
            cache.set(&tag, "old").tags([&tag]).await.unwrap();
        }

        let drain = || {
            let (outbox, cache) = (Outbox::lazy(database.url()).unwrap(), cache.clone());
            tokio::spawn(async move { outbox.drain([&cache]).await })
        };
        let (first, second, third) = (drain(), drain(), drain());

        for drained in [first, second, third] {
            drained.await.unwrap().unwrap();
        }
        assert!(database.waiting().await.is_empty(), "{outbox}");
        for at in 0..2500 {
            assert!(
                !is_there(&cache, &format!("tag:{at}")).await,
                "{outbox} {at}"
            );
        }
    }
}

#[tokio::test]
async fn an_identity_is_never_given_again() {
    for database in Database::all() {
        let outbox = database.outbox().await;
        let cache = Cache::new(Memory::new());
        let mut writer = database.writer().await;
        let mut last = 0;
        for _ in 0..3 {
            writer.insert(&outbox.insert(["t"])).await;
            let text = match &writer {
                crate::ground::Writer::Mysql(_) => "CHAR",
                _ => "TEXT",
            };
            let ids = format!("SELECT CAST(id AS {text}) FROM {}_outbox", database.name);
            let id: i64 = writer.texts(&ids).await.remove(0).parse().unwrap();
            assert!(id > last, "{outbox}: {id} after {last}");
            last = id;
            // Whoever had read the row before would remove the next one, were it called the same.
            outbox.drain([&cache]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_background_task_catches_up_at_its_start_and_is_woken_by_whoever_committed() {
    for database in Database::all() {
        let outbox = database.outbox().await;
        let cache = Cache::new(Memory::new());
        let mut writer = database.writer().await;
        kept(&cache).await;
        writer.insert(&outbox.insert(["t"])).await;

        let draining = outbox.run([cache.clone()]);
        until("catching up", async || !is_there(&cache, "k").await).await;
        kept(&cache).await;
        writer.insert(&outbox.insert(["t"])).await;
        outbox.wake();
        until("waking", async || !is_there(&cache, "k").await).await;
        until("removing", async || database.waiting().await.is_empty()).await;

        draining.close().await;
        kept(&cache).await;
        writer.insert(&outbox.insert(["t"])).await;
        outbox.wake();
        assert_eq!(database.waiting().await, ["t"]);
        assert!(is_there(&cache, "k").await);
    }
}

#[tokio::test]
async fn a_background_task_looks_by_itself_and_goes_on_after_failures() {
    let database = Database::file();
    let outbox = Outbox::lazy(database.url()).unwrap();
    let outbox = outbox.poll_every(std::time::Duration::from_millis(5));
    let cache = Cache::new(Memory::new());
    kept(&cache).await;

    // Its table is not there yet.
    let draining = outbox.run([cache.clone()]);
    database.outbox().await;
    database.writer().await.insert(&outbox.insert(["t"])).await;

    until("draining", async || !is_there(&cache, "k").await).await;
    drop(draining);
}

#[tokio::test]
async fn a_missing_table_and_a_bad_url_are_told() {
    for database in Database::all() {
        let outbox = Outbox::lazy(database.url()).unwrap();
        let cache = Cache::new(Memory::new());

        let error = outbox.drain([&cache]).await.unwrap_err();

        let table = format!("has no table `{}_outbox` that Larder made", database.name);
        assert!(error.to_string().ends_with(&table), "{error}");
        let hint = error.hint().unwrap();
        assert!(
            hint.starts_with("run `larder table outbox --url "),
            "{hint}"
        );
    }
    for url in ["redis://cache", "nothing", "memory://"] {
        let error = Outbox::lazy(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
    }
}
