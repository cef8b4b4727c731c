//! A store in the same database: the commit is the invalidation, and nobody has to drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use larder::Cache;
use larder::store::{Memory, Redis};
use tokio::sync::{Mutex, Notify};

use crate::ground::{Database, Writer, until};
use crate::support::RedisServer;

async fn get(cache: &Cache, key: &str) -> Option<String> {
    cache.get(key).await.unwrap()
}

#[tokio::test]
async fn a_commit_invalidates_at_once_and_a_rollback_never() {
    for database in Database::all() {
        let cache = database.cache().await;
        let other = database.cache().await;
        let insert = database.outbox().await.insert(["a", "c"]);
        let mut writer = database.writer().await;
        for (key, tag) in [("a", "a"), ("b", "b"), ("c", "c")] {
            cache.set(key, "old").tags([tag]).await.unwrap();
        }

        for (end, is_there) in [("ROLLBACK", true), ("COMMIT", false)] {
            writer.run("BEGIN").await;
            writer.insert(&insert).await;
            assert_eq!(get(&cache, "a").await.as_deref(), Some("old"), "{cache:?}");
            writer.run(end).await;

            assert_eq!(
                get(&other, "a").await.is_some(),
                is_there,
                "{cache:?} {end}"
            );
            assert_eq!(
                get(&cache, "a").await.is_some(),
                is_there,
                "{cache:?} {end}"
            );
            assert_eq!(cache.has("c").await.unwrap(), is_there, "{cache:?} {end}");
            assert_eq!(get(&cache, "b").await.as_deref(), Some("old"), "{cache:?}");
        }
        cache.set("a", "new").tags(["a"]).await.unwrap();
        assert_eq!(get(&other, "a").await.as_deref(), Some("new"), "{cache:?}");
        assert!(database.waiting().await.is_empty(), "{cache:?}");
    }
}

#[tokio::test]
async fn tags_of_other_spaces_and_none_at_all_invalidate_nothing() {
    for database in Database::all() {
        let cache = database.cache().await;
        let outbox = database.outbox().await;
        let mut writer = database.writer().await;
        cache.set("k", "old").tags(["t"]).await.unwrap();

        writer.insert(&outbox.insert(Vec::<String>::new())).await;
        writer
            .insert(&outbox.space("elsewhere").insert(["t"]))
            .await;

        assert_eq!(get(&cache, "k").await.as_deref(), Some("old"), "{cache:?}");
        assert_eq!(database.waiting().await, ["t"], "{cache:?}");
    }
}

#[tokio::test]
async fn tags_of_any_length_and_letters_arrive() {
    for database in Database::all() {
        let cache = database.cache().await;
        let outbox = database.outbox().await;
        let mut writer = database.writer().await;
        let tags = [
            "x".repeat(20_000),
            "'; DROP TABLE \"x".into(),
            "é☃\\".into(),
            "t:a".into(),
        ];
        for (at, tag) in tags.iter().enumerate() {
            cache
                .set(format!("k{at}"), "old")
                .tags([tag])
                .await
                .unwrap();
        }
        cache.set("k", "old").tags(["a"]).await.unwrap();

        writer.insert(&outbox.insert(&tags)).await;

        for at in 0..tags.len() {
            assert_eq!(get(&cache, &format!("k{at}")).await, None, "{cache:?} {at}");
        }
        assert_eq!(get(&cache, "k").await.as_deref(), Some("old"), "{cache:?}");
    }
}

#[tokio::test]
async fn more_rows_than_a_batch_are_all_worked_off_before_the_answer() {
    for database in Database::all() {
        let cache = database.cache().await;
        let outbox = database.outbox().await;
        let mut writer = database.writer().await;
        cache.set("k", "old").tags(["tag:2499"]).await.unwrap();

        writer.run("BEGIN").await;
        for hundred in 0..25 {
            let tags = (0..100).map(|one| format!("tag:{}", hundred * 100 + one));
            writer
                .insert(&outbox.insert(tags.collect::<Vec<_>>()))
                .await;
        }
        writer.run("COMMIT").await;

        assert_eq!(get(&cache, "k").await, None, "{cache:?}");
        assert!(database.waiting().await.is_empty(), "{cache:?}");
    }
}

/// Loads the row of the shop; the first load stands still between reading it and its end.
struct Shop {
    cache: Cache,
    name: String,
    reader: Arc<Mutex<Writer>>,
    loads: Arc<AtomicU32>,
    is_read: Arc<Notify>,
    goes_on: Arc<Notify>,
}

impl Shop {
    async fn new(database: &Database, cache: Cache) -> Arc<Self> {
        let mut writer = database.writer().await;
        let name = database.name.clone();
        writer
            .run(&format!("CREATE TABLE {name}_shop (name VARCHAR(20))"))
            .await;
        writer
            .run(&format!("INSERT INTO {name}_shop VALUES ('old')"))
            .await;
        Arc::new(Self {
            cache,
            name,
            reader: Arc::new(Mutex::new(database.writer().await)),
            loads: Arc::default(),
            is_read: Arc::default(),
            goes_on: Arc::default(),
        })
    }

    async fn fetch(self: Arc<Self>) -> String {
        let shop = Arc::clone(&self);
        let load = move || async move {
            let value = shop.reader.lock().await.shop(&shop.name).await;
            if shop.loads.fetch_add(1, Ordering::Relaxed) == 0 {
                shop.is_read.notify_one();
                shop.goes_on.notified().await;
            }
            Ok::<_, std::convert::Infallible>(value)
        };
        self.cache.fetch("shop", load).tags(["shop"]).await.unwrap()
    }

    /// Writes the row, and the outbox with it.
    async fn write(&self, database: &Database, value: &str) {
        let insert = database.outbox().await.insert(["shop"]);
        let mut writer = database.writer().await;
        writer.run("BEGIN").await;
        writer
            .run(&format!("UPDATE {}_shop SET name = '{value}'", self.name))
            .await;
        writer.insert(&insert).await;
        writer.run("COMMIT").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_under_way_across_a_commit_is_neither_kept_nor_given_to_who_came_after() {
    for database in Database::all() {
        let shop = Shop::new(&database, database.cache().await).await;

        let first = tokio::spawn(Arc::clone(&shop).fetch());
        shop.is_read.notified().await;
        shop.write(&database, "new").await;
        // It joins the load, which began before it.
        let second = tokio::spawn(Arc::clone(&shop).fetch());
        // It has looked: whoever looks works off what waits.
        until("looking", async || database.waiting().await.is_empty()).await;
        shop.goes_on.notify_one();

        assert_eq!(first.await.unwrap(), "old");
        assert_eq!(second.await.unwrap(), "new", "{:?}", shop.cache);
        assert_eq!(Arc::clone(&shop).fetch().await, "new", "{:?}", shop.cache);
        assert_eq!(get(&shop.cache, "shop").await.as_deref(), Some("new"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_under_way_is_not_kept_either_when_others_have_drained() {
    for database in Database::all() {
        let shop = Shop::new(&database, database.cache().await).await;

        let first = tokio::spawn(Arc::clone(&shop).fetch());
        shop.is_read.notified().await;
        shop.write(&database, "new").await;
        let drained = database.outbox().await.drain([&shop.cache]).await.unwrap();
        shop.goes_on.notify_one();

        // A caller may have met it before: the store of the cache reads it too.
        assert!(drained <= 1);
        assert_eq!(first.await.unwrap(), "old");
        assert_eq!(get(&shop.cache, "shop").await, None, "{:?}", shop.cache);
        assert_eq!(Arc::clone(&shop).fetch().await, "new");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_under_way_across_a_drain_is_not_kept_by_a_store_elsewhere() {
    let redis = RedisServer::start();
    for database in Database::all() {
        let far = Redis::connect(redis.url()).await.unwrap();
        let far = Cache::builder(far).prefix(&database.name).build().unwrap();
        for cache in [far, Cache::new(Memory::new())] {
            let database = database.another();
            let shop = Shop::new(&database, cache).await;

            let first = tokio::spawn(Arc::clone(&shop).fetch());
            shop.is_read.notified().await;
            shop.write(&database, "new").await;
            let outbox = database.outbox().await;
            assert_eq!(outbox.drain([&shop.cache]).await.unwrap(), 1);
            let second = tokio::spawn(Arc::clone(&shop).fetch());
            shop.goes_on.notify_one();

            assert_eq!(first.await.unwrap(), "old");
            assert_eq!(second.await.unwrap(), "new", "{:?}", shop.cache);
            assert_eq!(Arc::clone(&shop).fetch().await, "new", "{:?}", shop.cache);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_old_is_served_after_any_of_many_commits() {
    for database in Database::all() {
        let shop = Shop::new(&database, database.cache().await).await;
        shop.loads.store(1, Ordering::Relaxed);
        let committed = Arc::new(AtomicU32::new(0));
        shop.write(&database, "0").await;
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (shop, committed) = (Arc::clone(&shop), Arc::clone(&committed));
                tokio::spawn(async move {
                    let mut seen = 0;
                    while seen < 30 {
                        let least = committed.load(Ordering::SeqCst);
                        seen = Arc::clone(&shop).fetch().await.parse().unwrap();
                        assert!(seen >= least, "{:?}: {seen} after {least}", shop.cache);
                    }
                })
            })
            .collect();

        for number in 1..=30 {
            shop.write(&database, &number.to_string()).await;
            committed.store(number, Ordering::SeqCst);
        }

        for reader in readers {
            reader.await.unwrap();
        }
    }
}
