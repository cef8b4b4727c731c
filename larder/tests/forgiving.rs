//! A store that fails: what is forgiven, what is owed, and when it is called again.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

#[path = "support/faulty.rs"]
mod faulty;
#[cfg(feature = "redis")]
mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use faulty::{Faulty, How};
use larder::store::{Memory, Store, Tags};
use larder::wrap::{Forgiving, Tiered};
use larder::{Cache, Clock, ErrorKind, Key};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any pause.
const LONG: Duration = Duration::from_secs(10);

/// A store that fails on command, and a cache that forgives it; time is tokio's, and paused.
struct Ground {
    inner: Faulty,
    store: Forgiving,
    cache: Cache,
}

impl Ground {
    fn new() -> Self {
        Self::with(|store| store)
    }

    fn with(set: impl FnOnce(Forgiving) -> Forgiving) -> Self {
        let inner = Faulty::new(&Clock::seeded(7));
        let store = set(Forgiving::new(inner.clone()));
        let cache = Cache::new(store.clone());
        Self {
            inner,
            store,
            cache,
        }
    }

    async fn get(&self) -> Option<String> {
        self.cache.get("k").await.unwrap()
    }

    /// Until all that is owed has been repeated.
    async fn settle(&self) {
        for _ in 0..100 {
            if self.store.forgiven().owed == 0 {
                return;
            }
            sleep(SECOND / 10).await;
        }
        panic!("what is owed is not repeated: {:?}", self.store.forgiven());
    }
}

async fn fetch(cache: &Cache, value: &'static str) -> String {
    let load = move || async move { Ok::<_, Infallible>(value.to_owned()) };
    cache.fetch("k", load).tags(["t"]).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn reads_and_fills_of_a_store_that_is_away_are_forgiven() {
    let ground = Ground::new();
    ground.cache.set("k", "kept").await.unwrap();
    ground.inner.go(How::Refused);

    for number in 0..20 {
        assert_eq!(ground.get().await, None, "{number}");
        assert_eq!(fetch(&ground.cache, "loaded").await, "loaded", "{number}");
        assert!(!ground.cache.has("k").await.unwrap(), "{number}");
        assert!(
            !ground
                .cache
                .ticket("k")
                .await
                .unwrap()
                .set("v")
                .await
                .unwrap()
        );
    }
    let forgiven = ground.store.forgiven();
    assert!(forgiven.reads > 60 && forgiven.fills > 20, "{forgiven:?}");
    assert_eq!((forgiven.outages, forgiven.owed), (1, 0));

    ground.inner.go(How::Sound);
    sleep(LONG).await;
    assert_eq!(ground.get().await.as_deref(), Some("kept"));
}

#[tokio::test(start_paused = true)]
async fn a_value_loaded_while_the_store_is_away_is_not_kept() {
    for how in [How::Refused, How::Lost] {
        let ground = Ground::new();
        ground.inner.go(how);
        let fetching = {
            let cache = ground.cache.clone();
            tokio::spawn(async move {
                let load = || async {
                    sleep(SECOND).await;
                    Ok::<_, Infallible>("old".to_owned())
                };
                cache.fetch("k", load).tags(["t"]).await.unwrap()
            })
        };
        sleep(SECOND / 2).await;
        ground.inner.go(How::Sound);
        // Another process, which reaches the server.
        let elsewhere = Cache::new(ground.inner.memory.clone());
        elsewhere.invalidate(["t"]).await.unwrap();

        assert_eq!(fetching.await.unwrap(), "old");

        sleep(LONG).await;
        assert_eq!(fetch(&ground.cache, "new").await, "new", "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_to_a_load_of_an_outage_loads_for_himself() {
    let ground = Ground::new();
    ground.inner.go(How::Refused);
    let first = {
        let cache = ground.cache.clone();
        tokio::spawn(async move {
            let load = || async {
                sleep(SECOND).await;
                Ok::<_, Infallible>("old".to_owned())
            };
            cache.fetch("k", load).await.unwrap()
        })
    };
    sleep(SECOND / 2).await;

    // An invalidation of another process may have been acknowledged between the two.
    assert_eq!(fetch(&ground.cache, "new").await, "new");

    assert_eq!(first.await.unwrap(), "old");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_arrives_after_an_invalidation_keeps_nothing() {
    for is_ticket in [false, true] {
        let ground = Ground::new();
        ground.inner.go(How::Refused);
        let go = Arc::new(tokio::sync::Notify::new());
        let loading = {
            let (cache, go) = (ground.cache.clone(), go.clone());
            tokio::spawn(async move {
                if is_ticket {
                    let ticket = cache.ticket("k").await.unwrap();
                    go.notified().await;
                    assert!(!ticket.set("old").await.unwrap());
                    return;
                }
                let load = move || async move {
                    go.notified().await;
                    Ok::<_, Infallible>("old".to_owned())
                };
                assert_eq!(cache.fetch("k", load).await.unwrap(), "old");
            })
        };
        let (key, mark) = ground.inner.until_marked().await;
        ground.inner.go(How::Sound);
        // Another process, which reaches the server before the lease does.
        let elsewhere = Cache::new(ground.inner.memory.clone());
        elsewhere.delete("k").await.unwrap();
        let arrived = ground.inner.memory.mark(&key, None, mark).await;
        assert!(arrived.unwrap());

        go.notify_one();
        loading.await.unwrap();

        sleep(LONG).await;
        assert_eq!(fetch(&ground.cache, "new").await, "new", "{is_ticket}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_to_a_store_without_its_table_is_repeated_once_it_has_one() {
    let ground = Ground::new();
    ground.cache.set("k", "old").await.unwrap();
    ground.inner.go(How::Refused);
    ground.cache.delete("k").await.unwrap_err();

    ground.inner.go(How::Invalid);
    sleep(LONG).await;
    assert_eq!(ground.store.forgiven().owed, 1);
    ground.inner.go(How::Sound);
    ground.settle().await;

    assert_eq!(fetch(&ground.cache, "new").await, "new");
    assert_eq!(ground.get().await.as_deref(), Some("new"), "trusted again");
}

/// The acts that must not be forgotten.
async fn invalidate(cache: &Cache, act: &str) -> larder::Result<()> {
    match act {
        "delete" => cache.delete("k").await.map(drop),
        "set" => cache.set("k", "unsent").await,
        "set_many" => cache.set_many([("k", "unsent")]).await.map(drop),
        "invalidate" => cache.invalidate(["t"]).await,
        _ => cache.clear().await,
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_failed_is_repeated_before_the_old_value_can_be_served() {
    for act in ["delete", "set", "set_many", "invalidate", "clear"] {
        for how in [How::Refused, How::Lost] {
            let ground = Ground::new();
            ground.cache.set("k", "old").tags(["t"]).await.unwrap();
            assert_eq!(ground.get().await.as_deref(), Some("old"));

            ground.inner.go(how);
            let error = invalidate(&ground.cache, act).await.unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout),
                "{act}"
            );
            ground.inner.go(How::Refused);
            for _ in 0..30 {
                assert_eq!(ground.get().await, None, "{act}, {how:?}: while it is away");
                sleep(SECOND / 10).await;
            }
            ground.inner.go(How::Sound);
            for _ in 0..100 {
                assert_eq!(ground.get().await, None, "{act}, {how:?}: when it is back");
                sleep(SECOND / 10).await;
            }

            let forgiven = ground.store.forgiven();
            // A tag is counted under two names.
            let writes = if act == "invalidate" { 2 } else { 1 };
            assert_eq!(
                (forgiven.owed, forgiven.repeated),
                (0, writes),
                "{act}, {how:?}"
            );
            assert_eq!(fetch(&ground.cache, "new").await, "new");
            assert_eq!(ground.get().await.as_deref(), Some("new"), "trusted again");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_or_kept_while_something_is_owed() {
    let ground = Ground::new();
    ground.cache.set("other", "v").await.unwrap();
    ground.inner.go(How::Refused);
    ground.cache.invalidate(["t"]).await.unwrap_err();
    ground.inner.calls();

    ground.inner.go(How::Held); // what is owed is on its way
    ground.inner.until_held().await;
    ground.inner.calls();
    assert_eq!(ground.cache.get::<String>("other").await.unwrap(), None);
    assert_eq!(fetch(&ground.cache, "loaded").await, "loaded");
    let error = ground.cache.incr("n", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.hint().unwrap().contains("repeated"), "{error}");
    ground.cache.add("k", "v").await.unwrap_err();
    ground.cache.touch("other", SECOND).await.unwrap_err();
    assert_eq!(ground.inner.calls(), [], "nothing was sent");

    ground.inner.release();
    ground.settle().await;
    let found = ground.cache.get::<String>("other").await.unwrap();
    assert_eq!(found.as_deref(), Some("v"));
}

#[tokio::test(start_paused = true)]
async fn counting_touching_and_adding_are_errors_and_owe_nothing() {
    let ground = Ground::new();
    ground.cache.set("n", &1).await.unwrap();
    ground.inner.go(How::Refused);

    ground.cache.incr("n", 1).await.unwrap_err();
    ground.cache.touch("n", SECOND).await.unwrap_err();
    ground.cache.add("m", &1).await.unwrap_err();

    assert_eq!(ground.store.forgiven().owed, 0);
    ground.inner.go(How::Sound);
    sleep(LONG).await;
    assert_eq!(ground.cache.get("n").await.unwrap(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_replaced_by_a_clear() {
    let ground = Ground::with(|store| store.max_owed(10));
    for number in 0..20 {
        let name = format!("k{number}");
        ground.cache.set(&name, "old").tags(["t"]).await.unwrap();
    }
    let other = Cache::builder(ground.store.clone()).prefix("other");
    let other = other.space("other").build().unwrap();
    other.set("k", "v").tags(["t"]).await.unwrap();
    ground.inner.go(How::Refused);
    for number in 0..20 {
        ground.cache.delete(format!("k{number}")).await.unwrap_err();
        ground
            .cache
            .invalidate([format!("t{number}")])
            .await
            .unwrap_err();
        assert!(ground.store.forgiven().owed <= 10);
    }

    ground.inner.go(How::Sound);
    ground.settle().await;

    for number in 0..20 {
        let found = ground.cache.get::<String>(format!("k{number}")).await;
        assert_eq!(found.unwrap(), None, "{number}");
    }
    let found = other.get::<String>("k").await.unwrap();
    assert_eq!(
        found.as_deref(),
        Some("v"),
        "another prefix and space is left alone"
    );
}

#[tokio::test(start_paused = true)]
async fn what_no_clear_can_cover_is_not_trusted_again() {
    let ground = Ground::with(|store| store.max_owed(2));
    let cache = Cache::builder(ground.store.clone());
    let cache = cache
        .key_function(|key, _, _| key.to_owned())
        .build()
        .unwrap();
    for name in ["a", "b", "c"] {
        cache.set(name, "old").await.unwrap();
    }
    ground.inner.go(How::Refused);
    for name in ["a", "b", "c"] {
        cache.delete(name).await.unwrap_err();
    }

    ground.inner.go(How::Sound);
    sleep(LONG).await;

    assert_eq!(cache.get::<String>("a").await.unwrap(), None);
    assert_eq!(
        fetch(&cache, "loaded").await,
        "loaded",
        "the program goes on"
    );
    let error = cache.incr("a", 1).await.unwrap_err();
    assert!(error.to_string().contains("more writes failed"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_not_called_until_a_pause_is_over_and_then_once() {
    let ground = Ground::with(|store| store.max_failures(3));
    ground.inner.go(How::Refused);
    for _ in 0..100 {
        ground.get().await;
    }
    assert_eq!(ground.inner.calls().len(), 3);

    let error = ground.cache.incr("n", 1).await.unwrap_err();
    assert!(error.to_string().contains("nothing was sent"), "{error}");
    assert!(
        std::error::Error::source(&error).is_some(),
        "the last failure"
    );

    sleep(SECOND / 5).await;
    ground.inner.go(How::Held);
    let probing = {
        let cache = ground.cache.clone();
        tokio::spawn(async move { cache.get::<String>("k").await.unwrap() })
    };
    ground.inner.until_held().await;
    for _ in 0..100 {
        ground.get().await;
    }
    assert_eq!(ground.inner.calls().len(), 1, "one probe at a time");

    ground.inner.release();
    probing.await.unwrap();
    ground.get().await;
    assert_eq!(ground.inner.calls().len(), 1, "it is called again");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_goes_away_lets_another_probe() {
    let ground = Ground::with(|store| store.max_failures(1));
    ground.inner.go(How::Refused);
    ground.get().await;
    sleep(SECOND / 5).await;
    ground.inner.go(How::Held);
    let probing = {
        let cache = ground.cache.clone();
        tokio::spawn(async move { cache.get::<String>("k").await.unwrap() })
    };
    ground.inner.until_held().await;

    probing.abort();
    assert!(probing.await.unwrap_err().is_cancelled());

    ground.inner.calls();
    ground.get().await;
    assert_eq!(ground.inner.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_delete_whose_caller_goes_away_is_repeated() {
    let ground = Ground::new();
    ground.cache.set("k", "old").await.unwrap();
    ground.inner.go(How::Held);
    let deleting = {
        let cache = ground.cache.clone();
        tokio::spawn(async move { cache.delete("k").await.unwrap() })
    };
    ground.inner.until_held().await;
    // As if it had been overtaken.
    let elsewhere = Cache::new(ground.inner.memory.clone());
    elsewhere.set("k", "old").await.unwrap();
    deleting.abort();
    assert!(deleting.await.unwrap_err().is_cancelled());

    ground.settle().await;

    assert_eq!(ground.get().await, None);
    assert_eq!(ground.store.forgiven().repeated, 1);
}

#[tokio::test(start_paused = true)]
async fn a_set_that_succeeds_takes_back_the_delete_that_is_owed() {
    let ground = Ground::with(|store| store.max_failures(100));
    ground.inner.go(How::Refused);
    ground.cache.delete("k").await.unwrap_err();

    ground.inner.go(How::Sound);
    ground.cache.set("k", "new").await.unwrap();

    assert_eq!(ground.store.forgiven().owed, 0);
    sleep(LONG).await;
    assert_eq!(ground.get().await.as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn a_value_too_large_is_an_answer_and_no_outage() {
    let small = Memory::builder().max_bytes(1 << 16).build();
    let store = Forgiving::new(small);
    let cache = Cache::new(store.clone());

    let error = cache.set("k", &"x".repeat(1 << 17)).await.unwrap_err();

    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!((store.forgiven().owed, store.forgiven().outages), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn closing_says_what_is_still_owed() {
    let ground = Ground::new();
    ground.inner.go(How::Refused);
    ground.cache.delete("k").await.unwrap_err();
    let error = ground.store.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    ground.inner.go(How::Sound);
    ground.settle().await;
    ground.store.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn tiers_on_either_side_serve_nothing_old_after_a_failure() {
    let clock = Clock::seeded(7);
    let near = || Memory::builder().clock(clock.clone()).build();
    let inner = Faulty::new(&clock);
    let stacks = [
        Cache::new(Forgiving::new(Tiered::new(near(), inner.clone()))),
        Cache::new(Tiered::new(near(), Forgiving::new(inner.clone()))),
    ];
    for cache in stacks {
        inner.go(How::Sound);
        cache.set("k", "old").tags(["t"]).await.unwrap();
        cache.get::<String>("k").await.unwrap();
        inner.go(How::Refused);
        cache.delete("k").await.unwrap_err();
        cache.invalidate(["t"]).await.unwrap_err();

        for step in 0..100 {
            if step == 20 {
                inner.go(How::Sound);
            }
            assert_eq!(cache.get::<String>("k").await.unwrap(), None, "{cache:?}");
            sleep(SECOND / 10).await;
        }
    }
}

#[tokio::test]
async fn who_reads_numbers_of_a_store_that_is_away_can_keep_nothing_by_them() {
    let inner = Faulty::new(&Clock::manual());
    let store = Forgiving::new(inner.clone());
    let (key, names) = (Key::new(":1:k"), ["t".into()]);
    inner.go(How::Refused);

    let tags = Tags {
        space: "",
        names: &names,
    };
    let found = store.get(&[key], Some(tags)).await.unwrap();

    let numbers = found.numbers.unwrap();
    for era in [0, 1, numbers.era, inner.memory.clock().random()] {
        let good_from = vec![("t".into(), numbers.seq)];
        let tagged = larder::Tagged { era, good_from };
        assert!(numbers.moved(&names, &tagged).is_some(), "{era}");
    }
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread")]
async fn what_failed_while_redis_was_killed_is_repeated_when_it_is_back() {
    use larder::store::Redis;

    let mut server = support::RedisServer::start();
    let connect = || {
        let redis = Redis::builder(server.url()).timeout(SECOND / 4);
        redis.connect_timeout(SECOND / 4).trust_restarts().lazy()
    };
    let (store, plain) = (Forgiving::new(connect().unwrap()), connect().unwrap());
    let (cache, elsewhere) = (Cache::new(store.clone()), Cache::new(plain));
    for name in ["deleted", "invalidated", "untouched"] {
        cache.set(name, "old").tags([name]).await.unwrap();
    }
    save(&server).await;

    server.kill();
    cache.delete("deleted").await.unwrap_err();
    cache.invalidate(["invalidated"]).await.unwrap_err();
    assert_eq!(cache.get::<String>("untouched").await.unwrap(), None);
    server.start_again();

    let found = elsewhere.get::<String>("untouched").await;
    assert_eq!(
        found.unwrap().as_deref(),
        Some("old"),
        "the snapshot is back"
    );
    let end = tokio::time::Instant::now() + 2 * LONG;
    loop {
        for name in ["deleted", "invalidated"] {
            let found = cache.get::<String>(name).await.unwrap();
            assert_eq!(found, None, "{name}");
        }
        let found = cache.get::<String>("untouched").await.unwrap();
        if found.as_deref() == Some("old") {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "{:?}", store.forgiven());
        sleep(SECOND / 100).await;
    }
    for name in ["deleted", "invalidated"] {
        let found = elsewhere.get::<String>(name).await.unwrap();
        assert_eq!(found, None, "{name}: the server has heard of it");
    }
}

#[cfg(feature = "redis")]
async fn save(server: &support::RedisServer) {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("SAVE")
        .query_async(&mut connection)
        .await
        .unwrap();
}
