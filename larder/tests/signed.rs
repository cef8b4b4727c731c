//! A store that others can write to: what they write, change or move is not read.

#![cfg(feature = "sign")]
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::convert::Infallible;
use std::time::Duration;

use larder::store::{Memory, Store, When};
use larder::{Cache, Clock, Entry, Moment, Tagged, Value};

const MINUTE: Duration = Duration::from_mins(1);

fn memory() -> Memory {
    Memory::builder().clock(Clock::manual()).build()
}

fn signing(store: &Memory, key: &str) -> Cache {
    Cache::builder(store.clone()).sign(key).build().unwrap()
}

/// Changes what is kept at `from` and writes it to `to`, as somebody without the key can.
async fn forge(store: &Memory, from: &str, to: &str, change: impl FnOnce(&mut Entry)) {
    let keys = Cache::new(store.clone());
    let found = store.get(&[keys.key(from)], None).await.unwrap();
    let mut entry = found.entries.into_iter().next().unwrap().unwrap();
    change(&mut entry);
    assert!(store.put(&keys.key(to), entry, When::Always).await.unwrap());
}

fn flip(entry: &mut Entry, at: usize) {
    let Some(Value::Bytes(bytes)) = &entry.value else {
        panic!("signed values are bytes: {entry:?}");
    };
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    entry.value = Some(Value::Bytes(bytes.into()));
}

#[tokio::test]
async fn what_is_forged_changed_or_moved_is_a_counted_miss() {
    type Change = fn(&mut Entry);
    let changes: [(&str, Change); 10] = [
        ("value", |entry| flip(entry, 33)),
        ("signature", |entry| flip(entry, 5)),
        ("kind", |entry| flip(entry, 0)),
        ("codec", |entry| entry.codec ^= 1),
        ("deadline", |entry| entry.fresh_until = Moment::NEVER),
        ("grace", |entry| entry.stale_until = Moment::NEVER),
        ("tags taken away", |entry| entry.tags = None),
        ("another number", |entry| {
            let mut tags = Tagged::clone(entry.tags.as_deref().unwrap());
            tags.good_from[0].1 += 1;
            entry.tags = Some(tags.into());
        }),
        ("cut", |entry| {
            entry.value = Some(Value::Bytes("\u{2}short".into()));
        }),
        ("an integer", |entry| entry.value = Some(Value::Integer(7))),
    ];
    for (name, change) in changes {
        let store = memory();
        let cache = signing(&store, "key");
        cache.set("k", "v").ttl(MINUTE).tags(["t"]).await.unwrap();
        assert_eq!(
            cache.get("k").await.unwrap(),
            Some("v".to_owned()),
            "{name}"
        );

        forge(&store, "k", "k", change).await;

        assert_eq!(cache.get::<String>("k").await.unwrap(), None, "{name}");
        assert!(!cache.has("k").await.unwrap(), "{name}");
        let many = cache.get_many::<String, _>(["k"]).await.unwrap();
        assert!(many.is_empty(), "{name}");
        assert_eq!(cache.counts().unreadable, 2, "{name}");
    }
}

#[tokio::test]
async fn a_value_copied_from_another_key_or_cache_is_a_miss() {
    let store = memory();
    let cache = signing(&store, "key");
    cache.set("admin", &true).await.unwrap();

    forge(&store, "admin", "user", |_| {}).await;

    assert_eq!(cache.get::<bool>("user").await.unwrap(), None);
    assert_eq!(cache.get("admin").await.unwrap(), Some(true));
    let other = signing(&store, "another key");
    assert_eq!(other.get::<bool>("admin").await.unwrap(), None);
    let plain = Cache::new(store);
    assert_eq!(plain.get::<bool>("admin").await.unwrap(), None);
}

#[tokio::test]
async fn a_forged_value_is_written_over_by_every_verb() {
    for verb in ["set", "add", "fetch", "ticket"] {
        let store = memory();
        let cache = signing(&store, "key");
        Cache::new(store.clone()).set("k", "forged").await.unwrap();

        match verb {
            "set" => cache.set("k", "ours").await.unwrap(),
            "add" => assert!(cache.add("k", "ours").await.unwrap()),
            "fetch" => {
                let load = || async { Ok::<_, Infallible>("ours".to_owned()) };
                assert_eq!(cache.fetch("k", load).await.unwrap(), "ours");
            }
            _ => assert!(cache.ticket("k").await.unwrap().set("ours").await.unwrap()),
        }

        assert_eq!(
            cache.get("k").await.unwrap(),
            Some("ours".to_owned()),
            "{verb}"
        );
    }
}

#[tokio::test]
async fn integers_are_signed_and_counted_and_foreign_digits_are_nothing() {
    let store = memory();
    let cache = signing(&store, "key");
    cache.set("n", &1).ttl(MINUTE).await.unwrap();
    assert_eq!(cache.incr("n", 4).await.unwrap(), 5);
    let add = |cache: Cache| async move {
        for _ in 0..25 {
            cache.incr("n", 1).await.unwrap();
        }
    };
    tokio::join!(add(cache.clone()), add(cache.clone()), add(cache.clone()));
    assert_eq!(cache.get("n").await.unwrap(), Some(80));

    Cache::new(store.clone()).set("n", &1000).await.unwrap();

    assert_eq!(cache.get::<i64>("n").await.unwrap(), None);
    cache.incr("n", 1).await.unwrap_err();
}

#[tokio::test]
async fn touch_signs_the_new_deadline() {
    let store = memory();
    let cache = signing(&store, "key");
    cache.set("k", "v").ttl(MINUTE).await.unwrap();

    assert!(cache.touch("k", 10 * MINUTE).await.unwrap());
    store.clock().advance(2 * MINUTE);

    assert_eq!(cache.get("k").await.unwrap(), Some("v".to_owned()));
    assert!(cache.persist("k").await.unwrap());
    store.clock().advance(100 * MINUTE);
    assert_eq!(cache.get("k").await.unwrap(), Some("v".to_owned()));
}
