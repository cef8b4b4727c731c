//! The verbs of a cache, one behaviour each, over every store.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod grounds;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use larder::store::{Memory, Null, Store as _, When};
use larder::{Cache, Clock, Codec, Entry, ErrorKind, Key, Ttl, Value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);
const ZERO: Duration = Duration::ZERO;

/// A cache over each store, with Django's defaults.
fn caches() -> Vec<Cache> {
    grounds::all().iter().map(grounds::Ground::cache).collect()
}

async fn text(cache: &Cache, key: &str) -> Option<String> {
    cache.get(key).await.unwrap()
}

async fn number(cache: &Cache, key: &str) -> Option<i64> {
    cache.get(key).await.unwrap()
}

/// What is left of a TTL; up to the next half second where the clock goes on meanwhile.
async fn left(cache: &Cache, key: impl AsRef<str>) -> Option<Ttl> {
    let left = cache.ttl(key).await.unwrap();
    match left {
        Some(Ttl::For(span)) if is_on_a_server(cache) => {
            let tenths = (span.as_secs_f64() * 10.0).round();
            Some(Ttl::For(Duration::from_secs_f64(
                (tenths / 5.0).ceil() / 2.0,
            )))
        }
        left => left,
    }
}

/// Whether the clock goes on by itself.
fn is_on_a_server(cache: &Cache) -> bool {
    let store = cache.store_name();
    store.contains("redis") || store.contains("memcached")
}

fn kind<T: Debug>(answer: larder::Result<T>) -> ErrorKind {
    answer.unwrap_err().kind()
}

#[tokio::test]
async fn what_is_set_is_read_back_until_it_is_deleted() {
    for cache in caches() {
        assert_eq!(text(&cache, "k").await, None);
        cache.set("k", "value").await.unwrap();
        assert_eq!(text(&cache, "k").await.as_deref(), Some("value"));
        assert_eq!(cache.get_or("k", String::new()).await.unwrap(), "value");
        cache.set("k", "newer").await.unwrap();
        assert_eq!(text(&cache, "k").await.as_deref(), Some("newer"));

        assert!(cache.delete("k").await.unwrap());

        assert!(!cache.delete("k").await.unwrap());
        assert_eq!(
            cache.get_or("k", "other".to_owned()).await.unwrap(),
            "other"
        );
    }
}

#[tokio::test]
async fn a_cached_nothing_is_a_value() {
    for cache in caches() {
        cache.set("none", &None::<String>).await.unwrap();
        cache.set("unit", &()).await.unwrap();

        assert_eq!(
            cache.get::<Option<String>>("none").await.unwrap(),
            Some(None)
        );
        assert_eq!(cache.get::<()>("unit").await.unwrap(), Some(()));
        assert!(cache.has("none").await.unwrap());
        assert!(!cache.add("none", "some").await.unwrap());
        let some = Some("some".to_owned());
        assert_eq!(cache.get_or("none", some.clone()).await.unwrap(), None);
        assert_eq!(cache.get_or_set_value("none", some).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_ttl_is_kept_to_the_millisecond() {
    for ground in grounds::all() {
        let cache = ground.cache();
        let (most, last) = (Duration::from_millis(1499), Duration::from_millis(1));
        let span = most + last;
        cache.set("k", "v").ttl(span).await.unwrap();
        cache.set("n", &5).ttl(span).await.unwrap();
        assert_eq!(left(&cache, "k").await, Some(Ttl::For(span)));
        assert_eq!(left(&cache, "n").await, Some(Ttl::For(span)));

        ground.pass(most).await;
        if ground.manual {
            assert_eq!(left(&cache, "k").await, Some(Ttl::For(last)));
            assert!(cache.has("n").await.unwrap());
        }

        // A server ends the life of a plain integer by its own clock, which may be a moment late.
        let late = if ground.manual { ZERO } else { SECOND / 50 };
        ground.pass(last + late).await;
        for key in ["k", "n"] {
            assert_eq!(left(&cache, key).await, None);
            assert!(!cache.has(key).await.unwrap());
            assert!(!cache.touch(key, SECOND).await.unwrap());
            assert!(!cache.persist(key).await.unwrap());
            assert!(!cache.delete(key).await.unwrap());
        }
    }
}

#[tokio::test]
async fn never_and_the_longest_of_spans_do_not_expire() {
    for ground in grounds::all() {
        let cache = ground.builder("").ttl(Ttl::Never).build().unwrap();
        cache.set("default", "v").await.unwrap();
        cache.set("never", &5).ttl(Ttl::Never).await.unwrap();
        cache.set("longest", "v").ttl(Duration::MAX).await.unwrap();
        cache.set("persisted", "v").ttl(SECOND).await.unwrap();
        assert!(cache.persist("persisted").await.unwrap());

        for key in ["default", "never", "longest", "persisted"] {
            assert_eq!(left(&cache, key).await, Some(Ttl::Never), "{key}");
        }
    }
}

#[tokio::test]
async fn a_ttl_of_zero_removes_and_one_of_a_nanosecond_does_not() {
    for ground in grounds::all() {
        let cache = ground.cache();
        for key in ["set", "touch", "many"] {
            cache.set(key, "old").await.unwrap();
        }
        cache.set("set", "new").ttl(ZERO).await.unwrap();
        assert!(cache.touch("touch", ZERO).await.unwrap());
        let failed = cache.set_many([("many", "new")]).ttl(ZERO).await.unwrap();
        assert!(failed.is_empty());
        for key in ["set", "touch", "many"] {
            assert_eq!(text(&cache, key).await, None, "{key}");
        }

        cache
            .set("k", "v")
            .ttl(Duration::from_nanos(1))
            .await
            .unwrap();
        // It is kept for the millisecond that such a TTL is rounded up to.
        if ground.manual {
            assert!(cache.has("k").await.unwrap());
        }
    }
}

#[tokio::test]
async fn the_default_ttl_is_the_caches_own() {
    for ground in grounds::all() {
        let five_minutes = ground.cache();
        five_minutes.set("k", "v").await.unwrap();
        let rest = left(&five_minutes, "k").await;
        assert_eq!(rest, Some(Ttl::For(300 * SECOND)));

        let nothing = ground.builder("zero").ttl(ZERO).build().unwrap();
        nothing.set("k", "v").await.unwrap();
        assert_eq!(text(&nothing, "k").await, None);
        assert_eq!(nothing.get_or_set_value("k", 5).await.unwrap(), 5);
        assert!(!nothing.has("k").await.unwrap());
    }
}

#[tokio::test]
async fn add_writes_only_where_nothing_is() {
    for ground in grounds::all() {
        let cache = ground.cache();
        assert!(cache.add("k", "first").ttl(SECOND).await.unwrap());
        assert!(!cache.add("k", "second").await.unwrap());
        assert!(!cache.add("k", "second").ttl(ZERO).await.unwrap());
        assert_eq!(text(&cache, "k").await.as_deref(), Some("first"));

        ground.pass(SECOND).await;

        assert!(cache.add("k", "third").await.unwrap());
        assert_eq!(text(&cache, "k").await.as_deref(), Some("third"));
        assert!(cache.add("new", "v").ttl(ZERO).await.unwrap());
        assert!(!cache.has("new").await.unwrap());
    }
}

#[tokio::test]
async fn get_or_set_runs_its_load_once() {
    for cache in caches() {
        assert_eq!(cache.get_or_set("k", || async { 5 }).await.unwrap(), 5);
        assert_eq!(cache.get_or_set("k", || async { 6 }).await.unwrap(), 5);
        assert_eq!(cache.get_or_set_value("k", 7).await.unwrap(), 5);
        let fresh = cache
            .get_or_set("t", || async { 1 })
            .ttl(SECOND)
            .tags(["t"]);
        assert_eq!(fresh.await.unwrap(), 1);
        assert_eq!(left(&cache, "t").await, Some(Ttl::For(SECOND)));

        cache.invalidate(["t"]).await.unwrap();

        assert_eq!(cache.get_or_set_value("t", 2).await.unwrap(), 2);
    }
}

#[tokio::test]
async fn many_are_read_written_and_deleted_at_once() {
    for cache in caches() {
        let values = [("a", 1), ("b", 2), ("a b", 3)];
        assert!(cache.set_many(values).ttl(SECOND).await.unwrap().is_empty());
        assert_eq!(left(&cache, "b").await, Some(Ttl::For(SECOND)));

        let keys = ["a", "a", "a b", "missing"];
        let found: HashMap<String, i64> = cache.get_many(keys).await.unwrap();
        assert_eq!(found, HashMap::from([("a".into(), 1), ("a b".into(), 3)]));
        let none: HashMap<String, i64> = cache.get_many(Vec::<String>::new()).await.unwrap();
        assert!(none.is_empty());

        assert_eq!(cache.delete_many(["a", "a b", "missing"]).await.unwrap(), 2);
        assert_eq!(cache.delete_many(Vec::<String>::new()).await.unwrap(), 0);
        assert_eq!(number(&cache, "b").await, Some(2));
    }
}

#[tokio::test]
async fn set_many_returns_what_was_not_stored() {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Any {
        Text(String),
        NotJson(BTreeMap<(u8, u8), u8>),
    }
    let small = Memory::builder().max_bytes(64 * 1024).build();
    let cache = Cache::builder(small).codec(Codec::Json).build().unwrap();
    cache.set("large", "old").await.unwrap();
    cache.set("odd", "old").await.unwrap();

    let values = [
        ("fine", Any::Text("fine".into())),
        ("large", Any::Text("x".repeat(1 << 20))),
        ("odd", Any::NotJson(BTreeMap::from([((1, 2), 3)]))),
    ];
    let mut failed = cache.set_many(values).await.unwrap();

    failed.sort_unstable();
    assert_eq!(failed, ["large", "odd"]);
    assert_eq!(text(&cache, "fine").await.as_deref(), Some("fine"));
    assert_eq!(text(&cache, "large").await, None);
    assert_eq!(text(&cache, "odd").await.as_deref(), Some("old"));
}

#[tokio::test]
async fn a_value_too_large_is_an_error_and_the_old_one_is_gone() {
    let small = Memory::builder().max_bytes(64 * 1024).build();
    let cache = Cache::new(small);
    let large = "x".repeat(1 << 20);
    cache.set("k", "old").await.unwrap();

    let error = cache.set("k", &large).await.unwrap_err();

    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(error.hint(), Some("raise `max_bytes`"));
    assert_eq!(text(&cache, "k").await, None);
    assert_eq!(kind(cache.add("k", &large).await), ErrorKind::TooLarge);
    let ticket = cache.ticket("k").await.unwrap();
    assert_eq!(kind(ticket.set(&large).await), ErrorKind::TooLarge);
    assert!(!cache.has("k").await.unwrap());
    assert_eq!(
        cache.get_or_set_value("k", large).await.unwrap().len(),
        1 << 20
    );
}

#[tokio::test]
async fn touch_gives_a_new_ttl_and_keeps_all_else() {
    for ground in grounds::all() {
        let cache = ground.cache();
        cache.set("k", "v").ttl(SECOND).tags(["t"]).await.unwrap();
        cache.set("n", &5).ttl(SECOND).await.unwrap();

        for key in ["k", "n"] {
            assert!(cache.touch(key, 10 * SECOND).await.unwrap());
            assert_eq!(left(&cache, key).await, Some(Ttl::For(10 * SECOND)));
        }
        ground.pass(5 * SECOND).await;

        assert_eq!(text(&cache, "k").await.as_deref(), Some("v"));
        assert_eq!(cache.incr("n", 1).await.unwrap(), 6);
        cache.invalidate(["t"]).await.unwrap();
        assert_eq!(text(&cache, "k").await, None);
    }
}

#[tokio::test]
async fn what_was_invalidated_is_nothing_to_every_verb() {
    for ground in grounds::all() {
        let cache = ground.cache();
        for key in ["text", "number"] {
            if key == "text" {
                cache.set(key, "v").tags(["t", "u"]).await.unwrap();
            } else {
                cache.set(key, &5).tags(["t", "u"]).await.unwrap();
            }
            assert!(cache.has(key).await.unwrap());

            cache.invalidate(["u"]).await.unwrap();

            assert!(!cache.has(key).await.unwrap());
            assert_eq!(left(&cache, key).await, None);
            assert_eq!(cache.get_bytes(key).await.unwrap(), None);
            assert!(cache.get_shared::<String>(key).await.unwrap().is_none());
            assert!(cache.get_many::<String, _>([key]).await.unwrap().is_empty());
            assert!(!cache.touch(key, 100 * SECOND).await.unwrap());
            assert!(!cache.persist(key).await.unwrap());
            assert_eq!(kind(cache.incr(key, 1).await), ErrorKind::NoSuchKey);
            assert_eq!(kind(cache.incr_version(key, 1).await), ErrorKind::NoSuchKey);
            assert_eq!(text(&cache, key).await, None, "none of them revives it");
            assert!(cache.add(key, "new").ttl(ZERO).await.unwrap());
            assert!(!cache.delete(key).await.unwrap());
        }
    }
}

#[tokio::test]
async fn touch_leaves_alone_what_was_invalidated_and_who_loads_it() {
    for ground in grounds::all() {
        let cache = ground.cache();
        cache.set("k", "old").tags(["t"]).await.unwrap();
        cache.invalidate(["t"]).await.unwrap();
        let ticket = cache.ticket("k").await.unwrap();

        assert!(!cache.touch("k", SECOND).await.unwrap());
        assert!(!cache.persist("k").await.unwrap());

        assert!(ticket.set("new").await.unwrap(), "{}", ground.name);
    }
}

#[tokio::test]
async fn add_and_delete_many_look_past_what_was_invalidated() {
    for cache in caches() {
        cache.set("k", "old").tags(["t"]).await.unwrap();
        cache.set("other", "v").await.unwrap();
        cache.invalidate(["t"]).await.unwrap();
        assert_eq!(cache.delete_many(["k", "other"]).await.unwrap(), 1);

        cache.set("k", "old").tags(["t"]).await.unwrap();
        cache.invalidate(["t"]).await.unwrap();

        assert!(cache.add("k", "new").tags(["t"]).await.unwrap());
        assert!(!cache.add("k", "newer").await.unwrap());
        assert_eq!(text(&cache, "k").await.as_deref(), Some("new"));
    }
}

#[tokio::test]
async fn a_tag_of_another_space_is_another_tag() {
    for ground in grounds::all() {
        let (ours, theirs) = (
            ground.cache(),
            ground.builder("b").space("b").build().unwrap(),
        );
        ours.set("k", "v").tags(["t"]).await.unwrap();
        theirs.set("k", "v").tags(["t"]).await.unwrap();

        theirs.invalidate(["t"]).await.unwrap();

        assert!(ours.has("k").await.unwrap());
        assert!(!theirs.has("k").await.unwrap());
        ours.invalidate(Vec::<String>::new()).await.unwrap();
        assert!(ours.has("k").await.unwrap());
    }
}

#[tokio::test]
async fn incr_is_exact_and_keeps_ttl_and_tags() {
    for ground in grounds::all() {
        let cache = ground.cache();
        cache.set("plain", &1).ttl(10 * SECOND).await.unwrap();
        cache
            .set("tagged", &1)
            .ttl(10 * SECOND)
            .tags(["t"])
            .await
            .unwrap();
        ground.pass(SECOND).await;

        for key in ["plain", "tagged"] {
            assert_eq!(cache.incr(key, 5).await.unwrap(), 6, "{key}");
            assert_eq!(cache.decr(key, 10).await.unwrap(), -4, "{key}");
            assert_eq!(left(&cache, key).await, Some(Ttl::For(9 * SECOND)));
            assert_eq!(number(&cache, key).await, Some(-4));
            cache.set(key, &(i64::MAX - 1)).tags(["t"]).await.unwrap();
            assert_eq!(cache.incr(key, 1).await.unwrap(), i64::MAX);
            assert_eq!(kind(cache.incr(key, 1).await), ErrorKind::NotAnInteger);
            assert_eq!(
                kind(cache.decr(key, i64::MIN).await),
                ErrorKind::NotAnInteger
            );
            assert_eq!(number(&cache, key).await, Some(i64::MAX), "nothing changed");
        }

        cache.invalidate(["t"]).await.unwrap();
        assert_eq!(number(&cache, "tagged").await, None);
    }
}

#[tokio::test]
async fn only_integers_are_counted() {
    for cache in caches() {
        cache.set("text", "41").await.unwrap();
        cache.set("float", &1.5).await.unwrap();
        cache.set("large", &u64::MAX).await.unwrap();
        for key in ["text", "float", "large"] {
            assert_eq!(kind(cache.incr(key, 1).await), ErrorKind::NotAnInteger);
        }
        assert_eq!(cache.get::<u64>("large").await.unwrap(), Some(u64::MAX));
        cache.set("optional", &Some(1_u8)).await.unwrap();
        assert_eq!(cache.incr("optional", 1).await.unwrap(), 2);
        assert_eq!(
            cache.get::<Option<u8>>("optional").await.unwrap(),
            Some(Some(2))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_of_many_tasks_lose_nothing() {
    for cache in caches() {
        cache.set("plain", &0).await.unwrap();
        cache.set("tagged", &0).tags(["t"]).await.unwrap();
        let count = |key: &'static str| {
            let cache = cache.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    cache.incr(key, 1).await.unwrap();
                }
            })
        };

        let tasks: Vec<_> = (0..8)
            .flat_map(|_| ["plain", "tagged"].map(count))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }

        assert_eq!(number(&cache, "plain").await, Some(800));
        assert_eq!(number(&cache, "tagged").await, Some(800));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_adds_one_wins() {
    for ground in grounds::all() {
        let cache = ground.cache();
        cache.set("invalidated", "old").tags(["t"]).await.unwrap();
        cache.invalidate(["t"]).await.unwrap();
        for key in ["empty", "invalidated"] {
            let add = |number: usize| {
                let cache = cache.clone();
                tokio::spawn(async move { cache.add(key, &number).await.unwrap() })
            };

            let tasks: Vec<_> = (0..50).map(add).collect();
            let mut winners = Vec::new();
            for (number, task) in tasks.into_iter().enumerate() {
                if task.await.unwrap() {
                    winners.push(number);
                }
            }

            assert_eq!(winners.len(), 1, "{key}");
            assert_eq!(cache.get(key).await.unwrap(), Some(winners[0]), "{key}");
        }
    }
}

#[tokio::test]
async fn versions_are_kept_apart() {
    for cache in caches() {
        let (second, word) = (cache.version(2).unwrap(), cache.version("v2").unwrap());
        cache.set("k", "one").await.unwrap();
        second.set("k", "two").await.unwrap();

        assert_eq!(text(&cache, "k").await.as_deref(), Some("one"));
        assert_eq!(text(&second, "k").await.as_deref(), Some("two"));
        assert_eq!(text(&word, "k").await, None);
        assert!(second.delete("k").await.unwrap());
        assert!(cache.has("k").await.unwrap());
        assert!(cache.version("1").unwrap().has("k").await.unwrap());
        assert_eq!(kind(cache.version("a:b")), ErrorKind::Invalid);
        assert_eq!(kind(cache.version("@")), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn incr_version_takes_ttl_and_tags_along() {
    for ground in grounds::all() {
        let cache = ground.cache();
        let second = cache.version(2).unwrap();
        cache
            .set("k", "v")
            .ttl(10 * SECOND)
            .tags(["t"])
            .await
            .unwrap();
        cache.set("n", &5).ttl(10 * SECOND).await.unwrap();
        second.set("n", &6).await.unwrap();
        ground.pass(SECOND).await;

        for key in ["k", "n"] {
            assert_eq!(cache.incr_version(key, 1).await.unwrap(), 2);
            assert!(!cache.has(key).await.unwrap());
            assert_eq!(left(&second, key).await, Some(Ttl::For(9 * SECOND)));
        }

        assert_eq!(number(&second, "n").await, Some(5));
        assert_eq!(second.incr("n", 1).await.unwrap(), 6);
        assert_eq!(second.decr_version("n", 3).await.unwrap(), -1);
        assert_eq!(number(&cache.version(-1).unwrap(), "n").await, Some(6));
        cache.invalidate(["t"]).await.unwrap();
        assert_eq!(text(&second, "k").await, None);
        assert_eq!(kind(cache.incr_version("k", 1).await), ErrorKind::NoSuchKey);
        let word = cache.version("v2").unwrap();
        assert_eq!(kind(word.incr_version("k", 1).await), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn what_is_set_while_its_version_moves_is_not_lost() {
    for ground in grounds::all() {
        for (old, new) in [(json(1), json(2)), (json("old"), json("new"))] {
            // The set gets in between each two of the acts, whatever they are.
            for acts_before in 0..6 {
                let cache = ground.cache();
                cache.delete("k").await.unwrap();
                cache.set("k", &old).await.unwrap();
                let set = async {
                    for _ in 0..acts_before {
                        cache.has("other").await.unwrap();
                    }
                    cache.set("k", &new).await.unwrap();
                };

                let (moved, ()) = tokio::join!(cache.incr_version("k", 1), set);

                moved.unwrap();
                let next = cache.version(2).unwrap();
                let (here, there) = (cache.get("k").await, next.get("k").await);
                let left = [here.unwrap(), there.unwrap()];
                assert!(left.contains(&Some(new.clone())), "{left:?} {acts_before}");
            }
        }
    }
}

fn json(value: impl Into<serde_json::Value>) -> serde_json::Value {
    value.into()
}

#[tokio::test]
async fn incr_version_by_zero_changes_nothing() {
    for cache in caches() {
        cache.set("k", "v").await.unwrap();

        assert_eq!(cache.incr_version("k", 0).await.unwrap(), 1);

        assert_eq!(text(&cache, "k").await.as_deref(), Some("v"));
    }
}

#[tokio::test]
async fn clear_stays_within_its_prefix() {
    for ground in grounds::all() {
        let prefixes = ["a", "ab", "*", "a*", "[ab]", "?", "a\\", "é", ""];
        let keys = ["k", "a b", "a:b", ":", &"x".repeat(300)];
        for cleared in prefixes {
            let caches = prefixes.map(|prefix| ground.builder(prefix).build().unwrap());
            for cache in &caches {
                for key in keys {
                    cache.set(key, "v").await.unwrap();
                    cache.version(2).unwrap().set(key, "v").await.unwrap();
                }
            }

            ground
                .builder(cleared)
                .build()
                .unwrap()
                .clear()
                .await
                .unwrap();

            for (prefix, cache) in prefixes.iter().zip(&caches) {
                for key in keys {
                    let kept = *prefix != cleared;
                    assert_eq!(
                        cache.has(key).await.unwrap(),
                        kept,
                        "{cleared} {prefix} {key}"
                    );
                    let other = cache.version(2).unwrap();
                    assert_eq!(
                        other.has(key).await.unwrap(),
                        kept,
                        "{cleared} {prefix} {key}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn clear_reaches_every_key_that_a_prefix_or_version_allows() {
    for ground in grounds::all() {
        let long = "x".repeat(200);
        let versions = ["a b", "~sha256~", long.as_str()];
        for prefix in ["p", "a b", "~sha256~", "a\u{7f}", long.as_str()] {
            let Ok(cache) = ground.builder(prefix).build() else {
                continue;
            };
            for version in versions {
                cache.version(version).unwrap().set("k", "v").await.unwrap();
                cache
                    .version(version)
                    .unwrap()
                    .set("a b", "v")
                    .await
                    .unwrap();
            }

            cache.clear().await.unwrap();

            for version in versions {
                let cache = cache.version(version).unwrap();
                assert!(!cache.has("k").await.unwrap(), "{prefix} {version}");
                assert!(!cache.has("a b").await.unwrap(), "{prefix} {version}");
            }
        }
    }
}

#[test]
fn a_prefix_that_cannot_begin_a_name_is_refused() {
    for prefix in ["a:b", "a b", "a\n", "a\u{7f}", "~sha256~", &"x".repeat(200)] {
        let error = Cache::builder(Null::new())
            .prefix(prefix)
            .build()
            .unwrap_err();

        assert_eq!(error.kind(), ErrorKind::Invalid, "{prefix}");
        assert!(error.to_string().contains("prefix"), "{error}");
    }
    assert!(
        Cache::builder(Null::new())
            .prefix("x".repeat(100))
            .build()
            .is_ok()
    );
}

#[tokio::test]
async fn a_key_function_makes_the_whole_key() {
    for ground in grounds::all() {
        let own = |key: &str, prefix: &str, version: &str| format!("{prefix}:{key}.{version}");
        let cache = ground.builder("p").key_function(own).build().unwrap();
        for key in ["k", "a b", "a b:c"] {
            cache.set(key, "v").await.unwrap();
            assert!(cache.key(key).whole().ends_with(&format!("p:{key}.1")));
            assert_eq!(text(&cache, key).await.as_deref(), Some("v"));
        }
        assert_eq!(cache.incr_version("k", 1).await.unwrap(), 2);
        assert!(cache.version(2).unwrap().has("k").await.unwrap());

        cache.clear().await.unwrap();

        for key in ["k", "a b", "a b:c"] {
            assert!(!cache.has(key).await.unwrap(), "{key}");
            assert!(!cache.version(2).unwrap().has(key).await.unwrap(), "{key}");
        }
        let backwards = |key: &str, prefix: &str, _: &str| format!("{key}:{prefix}");
        let cache = ground.builder("p").key_function(backwards).build().unwrap();
        let error = cache.clear().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.hint().is_some());
    }
}

#[tokio::test]
async fn keys_that_are_hashed_work_with_every_verb() {
    for cache in caches() {
        let long = "k".repeat(1000);
        for key in ["", "a b", "a\nb", "\u{0}", "~sha256~", "clé ☃", &long] {
            assert!(cache.add(key, &1).await.unwrap(), "{key}");
            assert_eq!(cache.incr(key, 1).await.unwrap(), 2, "{key}");
            assert!(cache.touch(key, SECOND).await.unwrap(), "{key}");
            assert_eq!(left(&cache, key).await, Some(Ttl::For(SECOND)), "{key}");
            assert_eq!(cache.incr_version(key, 1).await.unwrap(), 2, "{key}");
            let second = cache.version(2).unwrap();
            assert_eq!(number(&second, key).await, Some(2), "{key}");
            assert_eq!(second.delete_many([key]).await.unwrap(), 1, "{key}");
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Dot,
    Named(String),
    Wide(u8, i16),
    Deep {
        inner: Option<Box<Self>>,
        by_name: BTreeMap<String, Vec<f64>>,
    },
}

async fn is_kept<T>(cache: &Cache, value: T)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    cache.set("k", &value).await.unwrap();
    let read = cache.get::<T>("k").await.unwrap();
    assert_eq!(read, Some(value), "{:?}", cache.get_bytes("k").await);
}

#[tokio::test]
async fn odd_values_are_read_back_as_they_were() {
    for ground in grounds::all() {
        for codec in [Codec::MessagePack, Codec::Json] {
            let cache = ground.builder("").codec(codec).build().unwrap();
            is_kept(&cache, u64::MAX).await;
            is_kept(&cache, i64::MIN).await;
            is_kept(&cache, u128::MAX).await;
            is_kept(&cache, i128::MIN).await;
            is_kept(&cache, 5_u128).await;
            is_kept(&cache, f64::MIN_POSITIVE).await;
            is_kept(&cache, 0.1_f32).await;
            is_kept(&cache, 5.0_f64).await;
            is_kept(&cache, 'ß').await;
            is_kept(&cache, "5".to_owned()).await;
            is_kept(&cache, String::new()).await;
            is_kept(&cache, (1_u8, "a".to_owned(), [true; 3])).await;
            is_kept(&cache, Some(Some(5))).await;
            is_kept(&cache, vec![(), ()]).await;
            is_kept(&cache, HashMap::from([(5, 'a')])).await;
            is_kept(&cache, Shape::Dot).await;
            is_kept(&cache, Shape::Named("5".into())).await;
            is_kept(&cache, Shape::Wide(5, -5)).await;
            let inner = Some(Box::new(Shape::Dot));
            let by_name = BTreeMap::from([("a".into(), vec![0.1, -0.0])]);
            is_kept(&cache, Shape::Deep { inner, by_name }).await;
            is_kept(&cache, Duration::new(5, 7)).await;
            is_kept(&cache, std::net::IpAddr::from([127, 0, 0, 1])).await;
        }
    }
}

#[tokio::test]
async fn a_float_is_read_back_to_the_last_bit() {
    for ground in grounds::all() {
        for codec in [Codec::MessagePack, Codec::Json] {
            let cache = ground.builder("").codec(codec).build().unwrap();
            let mut chance = fastrand::Rng::with_seed(7);
            for _ in 0..2000 {
                let float = f64::from_bits(chance.u64(..));
                if float.is_finite() {
                    is_kept(&cache, float).await;
                }
            }
        }
    }
}

/// Serializes as a number for machines and as a word for people, as flags and weekdays do.
#[derive(Debug, PartialEq)]
struct Weekday(u8);

impl Serialize for Weekday {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.serialize_str(&format!("day {}", self.0))
        } else {
            to.serialize_u8(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Weekday {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if !from.is_human_readable() {
            return u8::deserialize(from).map(Self);
        }
        let word = String::deserialize(from)?;
        let number = word.strip_prefix("day ").and_then(|day| day.parse().ok());
        number
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("no day"))
    }
}

#[tokio::test]
async fn a_type_that_is_a_number_only_to_machines_is_read_back() {
    for ground in grounds::all() {
        for codec in [Codec::MessagePack, Codec::Json, Codec::Raw] {
            let cache = ground.builder("").codec(codec).build().unwrap();
            is_kept(&cache, Weekday(3)).await;
            if codec != Codec::Raw {
                is_kept(&cache, Some(Weekday(3))).await;
            }
        }
    }
}

#[tokio::test]
async fn integers_are_read_whatever_codec_wrote_them() {
    let codecs = [Codec::MessagePack, Codec::Json, Codec::Raw];
    for ground in grounds::all() {
        for (writer, reader) in codecs.into_iter().flat_map(|w| codecs.map(|r| (w, r))) {
            let cache = |codec| ground.builder("").codec(codec).build().unwrap();
            cache(writer).set("k", &300).await.unwrap();
            let reader = cache(reader);

            assert_eq!(number(&reader, "k").await, Some(300));
            assert_eq!(
                reader.get::<Option<u16>>("k").await.unwrap(),
                Some(Some(300))
            );
            assert_eq!(reader.get::<u128>("k").await.unwrap(), Some(300));
            assert_eq!(reader.get::<f64>("k").await.unwrap(), Some(300.0));
            assert_eq!(
                reader.get::<u8>("k").await.unwrap(),
                None,
                "it does not fit"
            );
            let digits = reader.get_bytes("k").await.unwrap();
            assert_eq!(digits.as_deref(), Some(&b"300"[..]));
        }
    }
}

#[tokio::test]
async fn what_another_codec_or_type_wrote_is_a_counted_miss() {
    for ground in grounds::all() {
        let json = ground.builder("").codec(Codec::Json).build().unwrap();
        let cache = ground.cache();
        json.set("k", "text").await.unwrap();
        assert_eq!(text(&cache, "k").await, None);
        cache.set("k", &vec!["a", "b"]).await.unwrap();

        assert_eq!(text(&cache, "k").await, None);
        assert!(cache.get_shared::<u8>("k").await.unwrap().is_none());
        assert!(cache.get_many::<bool, _>(["k"]).await.unwrap().is_empty());

        let counts = cache.counts();
        assert_eq!((counts.unreadable, counts.misses, counts.hits), (4, 4, 0));
        assert!(
            cache.has("k").await.unwrap(),
            "there is a value all the same"
        );
        assert_eq!(cache.get_or_set_value("k", 5).await.unwrap(), 5);
        assert_eq!(
            number(&cache, "k").await,
            Some(5),
            "and a fetch writes over it"
        );
    }
}

#[tokio::test]
async fn a_value_crafted_to_use_up_the_stack_is_a_counted_miss() {
    #[derive(Deserialize, PartialEq, Debug)]
    enum Tree {
        Leaf,
        Node(Box<Self>),
    }
    for ground in grounds::all() {
        let cache = ground.cache();
        let crafted = Value::Bytes(b"\x81\xa4Node".repeat(100_000).into());
        let entry = Entry::new(ground.store.clock(), crafted);
        let key = cache.key("k");
        ground.store.put(&key, entry, When::Always).await.unwrap();

        assert_eq!(cache.get::<Tree>("k").await.unwrap(), None);

        assert_eq!(cache.counts().unreadable, 1);
    }
}

#[tokio::test]
async fn no_bytes_make_a_read_panic() {
    for ground in grounds::all() {
        let caches = [Codec::MessagePack, Codec::Json, Codec::Raw]
            .map(|codec| ground.builder("").codec(codec).build().unwrap());
        let mut chance = fastrand::Rng::with_seed(11);
        let clock = ground.store.clock();
        for round in 0..3000_u16 {
            let bytes: Vec<u8> = (0..chance.usize(..24)).map(|_| chance.u8(..)).collect();
            let mut entry = Entry::new(clock, Value::Bytes(bytes.into()));
            entry.codec = round.to_le_bytes()[0] % 4;
            let key = caches[0].key("k");
            ground.store.put(&key, entry, When::Always).await.unwrap();
            for cache in &caches {
                let _ = cache.get::<String>("k").await.unwrap();
                let _ = cache.get::<Vec<u8>>("k").await.unwrap();
                let _ = cache.get::<Vec<Shape>>("k").await.unwrap();
                let _ = cache.get::<Option<f64>>("k").await.unwrap();
                let _ = cache.get::<HashMap<String, u64>>("k").await.unwrap();
                let _ = cache.get_shared::<Shape>("k").await.unwrap();
                let _ = cache.get::<serde_json::Value>("k").await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn the_raw_codec_keeps_bytes_text_and_integers_only() {
    for ground in grounds::all() {
        let cache = ground.builder("").codec(Codec::Raw).build().unwrap();
        is_kept(&cache, "5".to_owned()).await;
        is_kept(&cache, String::new()).await;
        is_kept(&cache, vec![0_u8, 255]).await;
        is_kept(&cache, [1_u8; 4]).await;
        is_kept(&cache, Some(vec![7_u8])).await;
        is_kept(&cache, i64::MIN).await;
        cache.set("bytes", &[1_u8, 2, 255]).await.unwrap();
        assert_eq!(
            cache.get::<[u8; 2]>("bytes").await.unwrap(),
            None,
            "one too many"
        );
        assert_eq!(
            cache.get::<[u8; 4]>("bytes").await.unwrap(),
            None,
            "one too few"
        );
        assert_eq!(text(&cache, "bytes").await, None, "not UTF-8");
        assert_eq!(number(&cache, "bytes").await, None);

        cache.set("k", "old").await.unwrap();
        let error = cache.set("k", &1.5).await.unwrap_err();

        assert_eq!(error.kind(), ErrorKind::Codec);
        assert_eq!(
            error.to_string(),
            "cache: a value of `f64` cannot be encoded"
        );
        assert!(std::error::Error::source(&error).is_some());
        assert_eq!(text(&cache, "k").await.as_deref(), Some("old"));
        assert_eq!(kind(cache.set("k", &None::<u8>).await), ErrorKind::Codec);
        assert_eq!(kind(cache.add("new", &true).await), ErrorKind::Codec);
        assert_eq!(
            cache.get_bytes("k").await.unwrap().as_deref(),
            Some(&b"old"[..])
        );
    }
}

#[tokio::test]
async fn what_is_shared_is_decoded_once_and_never_outlives_its_value() {
    let memory = Memory::builder()
        .keep_decoded()
        .clock(Clock::manual())
        .build();
    let cache = Cache::new(memory);
    let shared = || async { cache.get_shared::<i64>("k").await.unwrap().unwrap() };
    cache.set("k", &1).await.unwrap();
    assert!(Arc::ptr_eq(&shared().await, &shared().await));

    cache.incr("k", 1).await.unwrap();
    assert_eq!(*shared().await, 2);
    cache.set("k", &3).tags(["t"]).await.unwrap();
    assert_eq!(*shared().await, 3);
    cache.incr("k", 1).await.unwrap();
    assert_eq!(*shared().await, 4);
    let other = cache.get_shared::<Option<u8>>("k").await.unwrap();
    assert_eq!(
        other.as_deref(),
        Some(&Some(4)),
        "another type is decoded anew"
    );
    cache.touch("k", SECOND).await.unwrap();
    assert_eq!(*shared().await, 4);

    cache.invalidate(["t"]).await.unwrap();

    assert!(cache.get_shared::<i64>("k").await.unwrap().is_none());
}

#[tokio::test]
async fn reads_inside_a_load_become_dependencies_unless_untracked() {
    for (tracked, kept) in [(true, false), (false, true)] {
        for cache in caches() {
            cache.set("row", "old").tags(["t"]).await.unwrap();
            let rows = if tracked {
                cache.clone()
            } else {
                cache.untracked()
            };
            let load = move || async move { rows.get::<String>("row").await };

            cache.fetch("page", load).await.unwrap();
            cache.invalidate(["t"]).await.unwrap();

            assert_eq!(cache.has("page").await.unwrap(), kept);
        }
    }
}

#[tokio::test]
async fn a_tagged_set_inside_a_load_is_as_old_as_the_load() {
    for cache in caches() {
        let inside = cache.clone();
        let load = move || async move {
            inside.invalidate(["t"]).await.unwrap();
            inside.set("part", "read before").tags(["t"]).await
        };

        cache.fetch("whole", load).await.unwrap();

        assert_eq!(text(&cache, "part").await, None);
    }
}

#[tokio::test]
async fn a_ticket_writes_if_nothing_happened_meanwhile() {
    for cache in caches() {
        let ticket = cache.ticket("k").await.unwrap();
        assert!(!cache.has("k").await.unwrap(), "a lease is no value");

        assert!(ticket.set("v").ttl(SECOND).tags(["t"]).await.unwrap());

        assert_eq!(text(&cache, "k").await.as_deref(), Some("v"));
        assert_eq!(left(&cache, "k").await, Some(Ttl::For(SECOND)));
        let ticket = cache.ticket("k").await.unwrap();
        assert_eq!(
            text(&cache, "k").await.as_deref(),
            Some("v"),
            "still served"
        );
        assert!(ticket.set("new").await.unwrap());
        assert_eq!(text(&cache, "k").await.as_deref(), Some("new"));
        cache.invalidate(["t"]).await.unwrap();
        assert!(cache.has("k").await.unwrap(), "the new value has no tags");
    }
}

#[tokio::test]
async fn a_ticket_is_refused_after_anything_that_writes() {
    let acts = [
        "set",
        "set zero",
        "set_many",
        "add",
        "delete",
        "delete_many",
        "clear",
        "incr",
        "tagged incr",
        "touch",
        "incr_version",
        "invalidate",
        "ticket",
    ];
    for act in acts {
        for cache in caches() {
            let on_value = ["incr", "tagged incr", "touch", "incr_version"].contains(&act);
            match act {
                "tagged incr" => cache.set("k", &1).tags(["u"]).await.unwrap(),
                _ if on_value => cache.set("k", &1).await.unwrap(),
                _ => {}
            }

            let ticket = cache.ticket("k").await.unwrap();
            match act {
                "set" => cache.set("k", &2).await.unwrap(),
                "set zero" => cache.set("k", &2).ttl(ZERO).await.unwrap(),
                "set_many" => drop(cache.set_many([("k", 2)]).await.unwrap()),
                "add" => assert!(cache.add("k", &2).await.unwrap()),
                "delete" => assert!(!cache.delete("k").await.unwrap()),
                "delete_many" => assert_eq!(cache.delete_many(["k"]).await.unwrap(), 0),
                "clear" => cache.clear().await.unwrap(),
                "incr" | "tagged incr" => assert_eq!(cache.incr("k", 1).await.unwrap(), 2),
                "touch" => assert!(cache.touch("k", SECOND).await.unwrap()),
                "incr_version" => assert_eq!(cache.incr_version("k", 1).await.unwrap(), 2),
                "invalidate" => cache.invalidate(["t"]).await.unwrap(),
                _ => {
                    let second = cache.ticket("k").await.unwrap();
                    assert!(
                        !second.set(&2).await.unwrap(),
                        "the first one holds the key"
                    );
                    assert!(ticket.set(&100).tags(["t"]).await.unwrap());
                    continue;
                }
            }

            let written = ticket.set(&100).tags(["t"]).await.unwrap();
            assert!(!written, "{act}");
            assert_ne!(number(&cache, "k").await, Some(100), "{act}");
        }
    }
}

#[tokio::test]
async fn a_ticket_for_what_is_not_kept_removes_what_was_there() {
    for cache in caches() {
        cache.set("k", "old").await.unwrap();
        let ticket = cache.ticket("k").await.unwrap();

        assert!(!ticket.set("new").ttl(ZERO).await.unwrap());

        assert_eq!(text(&cache, "k").await, None);
        assert_eq!(cache.get_or_set_value("k", 5).await.unwrap(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_fetches_waits_for_a_ticket_or_for_its_end() {
    for end in ["set", "drop", "unset"] {
        let cache = Cache::new(Memory::builder().clock(Clock::seeded(3)).build());
        let ticket = cache.ticket("k").await.unwrap();
        let fetch = {
            let cache = cache.clone();
            let load = || async { Ok::<_, Infallible>("loaded".to_owned()) };
            tokio::spawn(async move { cache.fetch("k", load).await.unwrap() })
        };
        sleep(SECOND).await;
        assert!(!fetch.is_finished(), "{end}");

        match end {
            "set" => assert!(ticket.set("set").await.unwrap()),
            "drop" => drop(ticket),
            _ => drop(ticket.set("never awaited")),
        }

        let wanted = if end == "set" { "set" } else { "loaded" };
        assert_eq!(fetch.await.unwrap(), wanted, "{end}");
        assert_eq!(text(&cache, "k").await.as_deref(), Some(wanted), "{end}");
    }
}

#[tokio::test]
async fn a_dropped_ticket_lets_the_next_one_in() {
    for cache in caches() {
        drop(cache.ticket("k").await.unwrap());

        assert!(is_let_in(&cache).await);
    }
}

/// Whether a new ticket is good, once what is given back has reached the store.
async fn is_let_in(cache: &Cache) -> bool {
    for _ in 0..500 {
        let ticket = cache.ticket("k").await.unwrap();
        if ticket.set("v").await.unwrap() {
            return true;
        }
        sleep(Duration::from_millis(5)).await;
    }
    false
}

#[tokio::test]
async fn a_value_that_cannot_be_encoded_gives_its_ticket_back() {
    for ground in grounds::all() {
        let cache = ground.builder("").codec(Codec::Raw).build().unwrap();
        let ticket = cache.ticket("k").await.unwrap();
        assert_eq!(kind(ticket.set(&1.5).await), ErrorKind::Codec);

        assert!(is_let_in(&cache).await);
    }
}

#[tokio::test]
async fn errors_say_what_was_tried_on_what_and_what_to_do() {
    let cache = Cache::builder(Null::new()).prefix("shop").build().unwrap();
    let missing = cache.incr("n", 1).await.unwrap_err();
    assert_eq!(
        missing.to_string(),
        "cache: there is no value at `shop:1:n` to count up"
    );
    assert_eq!(missing.hint(), Some("`add` it first"));
    let word = cache.version("v2").unwrap().incr_version("k", 1).await;
    let word = word.unwrap_err().to_string();
    assert_eq!(word, "cache: the version `v2` is no number to add to");
    let version = cache.version("a:b").unwrap_err().to_string();
    assert_eq!(
        version,
        "cache: the version `a:b` cannot be used: it holds `:` or is `@`"
    );
    let most = cache.decr("n", i64::MIN).await.unwrap_err();
    let what = format!(
        "cache: `shop:1:n` and {} together do not fit 64 bits",
        i64::MIN
    );
    assert_eq!(most.to_string(), what);
    let space = Cache::builder(Null::new())
        .space("a:b")
        .build()
        .unwrap_err();
    assert_eq!(
        space.to_string(),
        "cache: the space `a:b` cannot be used: it holds `:`"
    );

    for cache in caches() {
        cache.set("text", "41").await.unwrap();
        let text = cache.incr("text", 1).await.unwrap_err().to_string();
        let key: Key = cache.key("text");
        assert_eq!(text, format!("cache: the value at `{key}` is no integer"));
        cache.set("most", &i64::MAX).await.unwrap();
        let most = cache.incr("most", 1).await.unwrap_err().to_string();
        let key = cache.key("most");
        assert_eq!(
            most,
            format!("cache: `{key}` and 1 together do not fit 64 bits")
        );
    }
}

#[tokio::test]
async fn a_store_that_keeps_nothing_answers_every_verb() {
    let cache = Cache::new(Null::new());
    cache.set("k", &1).await.unwrap();
    assert_eq!(number(&cache, "k").await, None);
    assert!(cache.add("k", &1).await.unwrap() && cache.add("k", &1).await.unwrap());
    assert!(cache.set_many([("k", 1)]).await.unwrap().is_empty());
    assert!(!cache.has("k").await.unwrap() && !cache.delete("k").await.unwrap());
    assert!(!cache.touch("k", SECOND).await.unwrap());
    assert_eq!(left(&cache, "k").await, None);
    assert_eq!(kind(cache.incr("k", 1).await), ErrorKind::NoSuchKey);
    assert_eq!(kind(cache.incr_version("k", 1).await), ErrorKind::NoSuchKey);
    assert_eq!(cache.get_or_set_value("k", 5).await.unwrap(), 5);
    cache.set("k", &1).tags(["t"]).await.unwrap();
    cache.invalidate(["t"]).await.unwrap();
    let ticket = cache.ticket("k").await.unwrap();
    assert!(!ticket.set(&1).await.unwrap());
    cache.clear().await.unwrap();
    cache.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_the_loads_under_way() {
    let cache = Cache::new(Memory::builder().clock(Clock::seeded(5)).build());
    let load = || async {
        sleep(SECOND).await;
        Ok::<_, Infallible>(5)
    };
    let caller = cache.clone();
    let caller = tokio::spawn(async move { caller.fetch("k", load).await });
    tokio::task::yield_now().await;
    caller.abort();

    cache.close().await.unwrap();

    assert_eq!(number(&cache, "k").await, Some(5));
}

#[tokio::test]
async fn an_integer_that_was_loaded_hands_its_life_on_also_when_it_is_a_hit() {
    for ground in grounds::all() {
        let cache = ground.cache();
        let count = |cache: Cache| async move {
            let load = || async { Ok::<_, Infallible>(5) };
            cache.fetch("count", load).ttl(30 * SECOND).await.unwrap()
        };
        count(cache.clone()).await;
        let inner = cache.clone();
        let load = move || async move { Ok::<_, Infallible>(count(inner).await + 1) };

        let page = cache.fetch("page", load).ttl(300 * SECOND);

        assert_eq!(page.await.unwrap(), 6);
        let left = cache.ttl("page").await.unwrap();
        let Some(Ttl::For(left)) = left else {
            panic!("{}: {left:?}", ground.name);
        };
        assert!(left <= 30 * SECOND, "{}: {left:?}", ground.name);
        assert_eq!(cache.incr("count", 1).await.unwrap(), 6, "{}", ground.name);
    }
}
