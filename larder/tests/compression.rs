//! Compressed values through the verbs, and bodies that lie about their size.

#![cfg(all(feature = "zstd", feature = "lz4"))]
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod grounds;

use std::sync::Arc;

use larder::store::{Memory, Store, When};
use larder::{Cache, Codec, Compression, Value};

const ALL: [Compression; 2] = [Compression::Zstd, Compression::Lz4];
const THRESHOLD: usize = 100;

fn long() -> String {
    "a long text ".repeat(1000)
}

/// The length of the body that the store keeps at `key`.
async fn length(cache: &Cache, store: &dyn Store, key: &str) -> usize {
    let found = store.get(&[cache.key(key)], None).await.unwrap();
    let entry = found.entries.into_iter().next().unwrap().unwrap();
    entry.value.unwrap().len()
}

#[tokio::test]
async fn every_verb_that_writes_compresses_and_every_one_that_reads_inflates() {
    for compression in ALL {
        for ground in grounds::all() {
            let name = format!("{} {compression:?}", ground.name);
            let cache = ground.builder("c").compression(compression, THRESHOLD);
            let cache = cache.build().unwrap();

            cache.set("set", &long()).tags(["t"]).await.unwrap();
            assert!(cache.add("add", &long()).await.unwrap());
            cache.set_many([("many", long())]).await.unwrap();
            cache.get_or_set("load", || async { long() }).await.unwrap();
            let ticket = cache.ticket("ticket").await.unwrap();
            assert!(ticket.set(&long()).await.unwrap());

            for key in ["set", "add", "many", "load", "ticket"] {
                assert_eq!(cache.get(key).await.unwrap(), Some(long()), "{name} {key}");
                let length = length(&cache, &*ground.store, key).await;
                assert!(length < 500, "{name} {key}: {length}");
                let shared = cache.get_shared::<String>(key).await.unwrap().unwrap();
                assert_eq!(*shared, long(), "{name} {key}");
            }
            let again = cache.get_or_set("load", || async { String::new() });
            assert_eq!(again.await.unwrap(), long(), "{name}");
            assert_eq!(cache.incr_version("add", 1).await.unwrap(), 2, "{name}");
            let second = cache.version(2).unwrap();
            assert_eq!(second.get("add").await.unwrap(), Some(long()), "{name}");
        }
    }
}

#[tokio::test]
async fn up_to_the_threshold_values_are_kept_as_they_are() {
    let memory = Memory::new();
    let cache = Cache::builder(memory.clone()).codec(Codec::Raw);
    let cache = cache
        .compression(Compression::Zstd, THRESHOLD)
        .build()
        .unwrap();

    cache.set("at", &"x".repeat(THRESHOLD)).await.unwrap();
    cache.set("past", &"x".repeat(THRESHOLD + 1)).await.unwrap();
    cache.set("number", &i64::MAX).await.unwrap();

    assert_eq!(length(&cache, &memory, "at").await, THRESHOLD);
    assert!(length(&cache, &memory, "past").await < THRESHOLD);
    assert_eq!(cache.incr("number", -1).await.unwrap(), i64::MAX - 1);
    let bytes = cache.get_bytes("past").await.unwrap().unwrap();
    assert_eq!(bytes, "x".repeat(THRESHOLD + 1));
}

#[tokio::test]
async fn what_one_cache_compressed_another_reads_that_does_not() {
    let memory = Memory::new();
    for compression in ALL {
        let compressing = Cache::builder(memory.clone()).compression(compression, THRESHOLD);
        compressing
            .build()
            .unwrap()
            .set("k", &long())
            .await
            .unwrap();

        let plain = Cache::new(memory.clone());
        assert_eq!(
            plain.get("k").await.unwrap(),
            Some(long()),
            "{compression:?}"
        );
    }
}

#[tokio::test]
async fn a_body_that_lies_about_its_size_is_a_counted_miss_and_is_loaded_anew() {
    for compression in ALL {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let cache = Cache::builder(Arc::clone(&store)).compression(compression, THRESHOLD);
        let cache = cache.build().unwrap();
        cache.set("k", &"0".repeat(30_000_000)).await.unwrap();
        let key = cache.key("k");
        let found = store.get(std::slice::from_ref(&key), None).await.unwrap();
        let mut entry = found.entries.into_iter().next().unwrap().unwrap();
        let Some(Value::Bytes(honest)) = entry.value.clone() else {
            panic!("a text is bytes");
        };

        for (times, size) in (1..).zip([0, 10, 30_000_000, 1 << 26, u32::MAX]) {
            let lie = [&u32::to_be_bytes(size)[..], &honest[4..]].concat();
            entry.value = Some(Value::Bytes(lie.into()));
            store.put(&key, entry.clone(), When::Always).await.unwrap();

            assert_eq!(
                cache.get::<String>("k").await.unwrap(),
                None,
                "{compression:?} {size}"
            );
            assert_eq!(cache.counts().unreadable, times, "{compression:?} {size}");
        }
        let loaded = cache.get_or_set("k", || async { "loaded".to_owned() });
        assert_eq!(loaded.await.unwrap(), "loaded", "{compression:?}");
    }
}
