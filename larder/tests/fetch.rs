//! The engine: one load, no old value afterwards, nobody hangs.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

#[path = "support/faulty.rs"]
mod faulty;

use std::collections::HashMap;
use std::future::IntoFuture as _;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use faulty::Faulty;
use larder::simulation::{Faults, Server};
use larder::store::{Memory, Store as _};
use larder::{Cache, Clock, ErrorKind, FetchError, Mark, Policy, Stamp, State};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// A cache on tokio's paused clock.
fn cache() -> Cache {
    Cache::new(Memory::builder().clock(Clock::seeded(1)).build())
}

/// Counts loads; each takes a second and gives its number.
#[derive(Clone, Default)]
struct Source(Arc<AtomicUsize>);

impl Source {
    fn load(&self) -> impl Future<Output = Result<usize, io::Error>> + Send + 'static + use<> {
        let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            sleep(SECOND).await;
            Ok(number)
        }
    }

    fn loads(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

async fn fetch(cache: &Cache, source: &Source) -> usize {
    let source = source.clone();
    cache.fetch("k", move || source.load()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_at_once_make_one_load() {
    let (cache, source) = (cache(), Source::default());

    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let (cache, source) = (cache.clone(), source.clone());
            tokio::spawn(async move { fetch(&cache, &source).await })
        })
        .collect();

    for caller in callers {
        assert_eq!(caller.await.unwrap(), 1);
    }
    assert_eq!(source.loads(), 1);
    assert_eq!(fetch(&cache, &source).await, 1);
    let counts = cache.counts();
    assert_eq!((counts.loads, counts.joined, counts.hits), (1, 999, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_loaded_before_a_delete_is_not_kept() {
    for act in ["delete", "set", "clear", "tag"] {
        let (cache, source) = (cache(), Source::default());
        let load = {
            let source = source.clone();
            cache.fetch("k", move || source.load()).tags(["t"])
        };

        let during = async {
            sleep(SECOND / 2).await;
            match act {
                "delete" => drop(cache.delete("k").await.unwrap()),
                "set" => cache.set("k", &100).await.unwrap(),
                "clear" => cache.clear().await.unwrap(),
                _ => cache.invalidate(["t"]).await.unwrap(),
            }
        };
        let (loaded, ()) = tokio::join!(load.into_future(), during);

        assert_eq!(
            loaded.unwrap(),
            1,
            "{act}: who asked before gets what it waited for"
        );
        let after = cache.get::<usize>("k").await.unwrap();
        assert_eq!(after, (act == "set").then_some(100), "{act}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_after_a_delete_is_not_given_the_load_that_began_before_it() {
    for tag in [false, true] {
        let (cache, source) = (cache(), Source::default());
        let early = {
            let (cache, source) = (cache.clone(), source.clone());
            let load = move || source.load();
            tokio::spawn(async move { cache.fetch("k", load).tags(["t"]).await.unwrap() })
        };
        sleep(SECOND / 2).await;

        if tag {
            cache.invalidate(["t"]).await.unwrap();
        } else {
            cache.delete("k").await.unwrap();
        }
        let late = fetch(&cache, &source).await;

        assert_eq!((early.await.unwrap(), late), (1, 2), "tag: {tag}");
        assert_eq!(cache.get("k").await.unwrap(), Some(2), "tag: {tag}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_served_while_one_load_refreshes_it() {
    let (cache, source) = (cache(), Source::default());
    let fetch = || {
        let source = source.clone();
        cache
            .fetch("k", move || source.load())
            .ttl(SECOND)
            .grace(10 * SECOND)
    };
    assert_eq!(fetch().await.unwrap(), 1);
    sleep(2 * SECOND).await;

    for _ in 0..10 {
        assert_eq!(fetch().await.unwrap(), 1);
    }
    sleep(SECOND + SECOND / 2).await;

    assert_eq!(fetch().await.unwrap(), 2);
    assert_eq!(source.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_value_past_its_grace_or_invalidated_is_not_served_stale() {
    let (cache, source) = (cache(), Source::default());
    let fetch = || {
        let source = source.clone();
        let fetch = cache.fetch("k", move || source.load()).tags(["t"]);
        fetch
            .ttl(SECOND)
            .grace(10 * SECOND)
            .stale_if_error(10 * SECOND)
    };
    assert_eq!(fetch().await.unwrap(), 1);
    sleep(2 * SECOND).await;

    cache.invalidate(["t"]).await.unwrap();
    assert_eq!(fetch().await.unwrap(), 2);
    sleep(12 * SECOND).await;
    assert_eq!(fetch().await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_failed_load_is_told_to_all_and_not_tried_again_at_once() {
    let cache = cache();
    let tries = Arc::new(AtomicUsize::new(0));
    let fetch = || {
        let tries = tries.clone();
        cache.fetch("k", move || async move {
            tries.fetch_add(1, Ordering::SeqCst);
            sleep(SECOND).await;
            Err::<i32, _>(io::Error::other("down"))
        })
    };

    let (first, second) = tokio::join!(fetch().into_future(), fetch().into_future());
    let third = fetch().await;

    for failed in [first, second, third] {
        let Err(FetchError::Load(error)) = failed else {
            panic!("{failed:?}")
        };
        assert_eq!(error.to_string(), "down");
    }
    assert_eq!(tries.load(Ordering::SeqCst), 1);
    sleep(2 * SECOND).await;
    assert!(fetch().await.is_err());
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_stands_in_for_a_failed_and_for_a_slow_load() {
    let cache = cache();
    let fetch = |result: Result<i32, &'static str>, takes: Duration| {
        let load = move || async move {
            sleep(takes).await;
            result
        };
        let policy = Policy::new()
            .ttl(SECOND)
            .stale_if_error(60 * SECOND)
            .soft_limit(SECOND);
        cache.fetch("k", load).policy(policy)
    };
    assert_eq!(fetch(Ok(1), Duration::ZERO).await.unwrap(), 1);
    sleep(2 * SECOND).await;

    assert_eq!(fetch(Err("down"), Duration::ZERO).await.unwrap(), 1);
    assert_eq!(
        fetch(Err("not even tried"), Duration::ZERO).await.unwrap(),
        1
    );
    sleep(3 * SECOND).await;
    assert_eq!(fetch(Ok(2), 5 * SECOND).await.unwrap(), 1, "slow");
    sleep(5 * SECOND).await;
    assert_eq!(
        cache.get::<i32>("k").await.unwrap(),
        None,
        "its own second has passed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deleted_value_does_not_stand_in_for_a_failed_load() {
    let cache = cache();
    let policy = Policy::new().ttl(SECOND).stale_if_error(60 * SECOND);
    let good = cache
        .fetch("k", || async { Ok::<_, String>(1) })
        .policy(policy.clone());
    good.await.unwrap();
    sleep(2 * SECOND).await;

    let failing = cache.fetch("k", || async {
        sleep(SECOND).await;
        Err::<i32, _>("down".to_owned())
    });
    let delete = async {
        sleep(SECOND / 2).await;
        cache.delete("k").await.unwrap();
    };
    let (failed, ()) = tokio::join!(failing.policy(policy).into_future(), delete);

    assert!(matches!(failed, Err(FetchError::Load(_))), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_does_not_take_the_load_with_it() {
    let (cache, source) = (cache(), Source::default());
    let leader = {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move { fetch(&cache, &source).await })
    };
    sleep(SECOND / 2).await;

    leader.abort();
    assert_eq!(fetch(&cache, &source).await, 1);
    assert_eq!(source.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_holder_of_a_borrowing_load_goes_away_a_waiter_runs_its_own() {
    let (cache, source) = (cache(), Source::default());
    let here = |cache: Cache, source: Source| async move {
        cache.fetch_here("k", |_| source.load()).await.unwrap()
    };
    let leader = tokio::spawn(here(cache.clone(), source.clone()));
    sleep(SECOND / 2).await;
    let waiter = tokio::spawn(here(cache.clone(), source.clone()));
    sleep(SECOND / 4).await;

    leader.abort();
    let began = tokio::time::Instant::now();

    assert_eq!(waiter.await.unwrap(), 2);
    assert!(
        began.elapsed() < 2 * SECOND,
        "the lease of who went away is taken back, not waited for"
    );
    assert_eq!(
        cache.get("k").await.unwrap(),
        Some(2),
        "its load was under a lease of its own"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error_for_the_waiters_and_the_next_load_works() {
    let cache = cache();
    let panicking = || cache.fetch("k", || async { panic!("planted") as Result<i32, String> });

    let (first, second) = tokio::join!(panicking().into_future(), panicking().into_future());

    assert!(matches!(first, Err(FetchError::Panicked)), "{first:?}");
    assert!(matches!(second, Err(FetchError::Panicked)), "{second:?}");
    sleep(3 * SECOND).await;
    assert_eq!(cache.get_or_set("k", || async { 5 }).await.unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_load_without_end_runs_into_its_time_limit() {
    let cache = cache();
    let endless = || async { std::future::pending::<Result<i32, String>>().await };

    let timed_out = cache.fetch("k", endless).time_limit(5 * SECOND).await;

    assert!(
        matches!(timed_out, Err(FetchError::Timeout)),
        "{timed_out:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_load_longer_than_a_lease_is_still_the_only_one_and_kept() {
    let (memory, source) = (
        Memory::builder().clock(Clock::seeded(1)).build(),
        Source::default(),
    );
    let (here, there) = (Cache::new(memory.clone()), Cache::new(memory));
    let slow = |cache: Cache| {
        let source = source.clone();
        let load = move || async move {
            sleep(20 * SECOND).await;
            source.load().await
        };
        async move {
            cache
                .fetch("k", load)
                .policy(Policy::new().wait(60 * SECOND))
                .await
        }
    };

    let (first, second) = tokio::join!(slow(here), slow(there));

    assert_eq!((first.unwrap(), second.unwrap(), source.loads()), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_holder_died_lapses() {
    let memory = Memory::builder().clock(Clock::seeded(1)).build();
    let cache = Cache::new(memory.clone());
    let until = memory.clock().now().plus(6 * SECOND);
    let mark = Mark {
        stamp: Stamp::from_number(9),
        state: State::Loading,
        until,
    };
    assert!(memory.mark(&cache.key("k"), None, mark).await.unwrap());

    let source = Source::default();

    assert_eq!(fetch(&cache, &source).await, 1);
    assert_eq!(cache.get("k").await.unwrap(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn what_is_passed_is_not_shared_and_nobody_queues_for_it() {
    let (cache, loads) = (cache(), Arc::new(AtomicUsize::new(0)));
    let fetch = || {
        let loads = loads.clone();
        cache.fetch_with("k", move |loading| async move {
            loading.pass();
            sleep(SECOND).await;
            Ok::<_, String>(loads.fetch_add(1, Ordering::SeqCst))
        })
    };

    let began = tokio::time::Instant::now();
    let (a, b, c) = tokio::join!(
        fetch().into_future(),
        fetch().into_future(),
        fetch().into_future()
    );
    let mut given = [a.unwrap(), b.unwrap(), c.unwrap()];
    given.sort_unstable();

    assert_eq!(given, [0, 1, 2]);
    assert!(
        began.elapsed() < 3 * SECOND,
        "the waiters load side by side"
    );
    assert_eq!(cache.get::<usize>("k").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_load_hands_its_tags_and_life_to_the_load_around_it() {
    let cache = cache();
    let outer = || {
        let cache = cache.clone();
        let inner = cache.clone();
        let load = move || async move {
            let load = || async { Ok::<_, String>(1) };
            inner
                .fetch("inner", load)
                .tags(["object:5"])
                .ttl(2 * SECOND)
                .await
                .map(|n| n + 10)
        };
        async move { cache.fetch("outer", load).ttl(60 * SECOND).await.unwrap() }
    };

    assert_eq!(outer().await, 11);
    assert_eq!(
        cache.ttl("outer").await.unwrap(),
        Some(larder::Ttl::For(2 * SECOND))
    );
    cache.invalidate(["object:5"]).await.unwrap();
    assert_eq!(cache.get::<i32>("outer").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_made_of_a_value_that_is_not_kept_has_its_tags_and_its_life() {
    for why in ["passed", "late tag", "passed before", "waited too long"] {
        let cache = cache();
        match why {
            "passed before" => {
                let pass = |loading: larder::Loading| async move {
                    loading.pass();
                    Ok::<_, String>(1)
                };
                assert_eq!(cache.fetch_with("inner", pass).await.unwrap(), 1);
            }
            "waited too long" => {
                let slow = cache.clone();
                let source = Source::default();
                tokio::spawn(async move { slow.fetch("inner", move || source.load()).await });
                sleep(SECOND / 10).await;
            }
            _ => {}
        }
        let inner = cache.clone();
        let load = move || async move {
            let load = move |loading: larder::Loading| async move {
                if why == "late tag" {
                    loading.tag("object:5");
                }
                if why != "waited too long" {
                    loading.pass();
                }
                Ok::<_, String>(2)
            };
            let tag = (why != "late tag").then_some("object:5");
            let policy = Policy::new().ttl(2 * SECOND).tags(tag).wait(SECOND / 10);
            inner.fetch_with("inner", load).policy(policy).await
        };
        let outer = cache.fetch("outer", load).ttl(60 * SECOND).await;
        assert_eq!(outer.unwrap(), 2, "{why}");
        let life = cache.ttl("outer").await.unwrap();
        assert_eq!(life, Some(larder::Ttl::For(2 * SECOND)), "{why}");

        cache.invalidate(["object:5"]).await.unwrap();

        assert_eq!(cache.get::<i32>("outer").await.unwrap(), None, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_made_of_many_loaded_beside_the_cache_has_their_tags() {
    let cache = cache();
    let none = |_| async { Ok::<_, String>(HashMap::new()) };
    let found: HashMap<String, i32> = cache.fetch_many(["inner"], none).await.unwrap();
    assert!(found.is_empty());
    let inner = cache.clone();
    let load = move || async move {
        let load = |keys: Vec<String>| async {
            Ok::<_, String>(keys.into_iter().map(|key| (key, 2)).collect())
        };
        inner.fetch_many(["inner"], load).tags(["object:5"]).await
    };
    let outer = cache.fetch("outer", load).await.unwrap();
    assert_eq!(outer, HashMap::from([("inner".to_owned(), 2)]));

    cache.invalidate(["object:5"]).await.unwrap();

    let outer = cache.get::<HashMap<String, i32>>("outer").await;
    assert_eq!(outer.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn what_a_load_sets_by_hand_is_as_old_as_the_load() {
    for why in ["kept", "beside the cache", "server restarted"] {
        let server = Server::new(1);
        let cache = Cache::new(server.connect());
        let load = |act: bool| {
            let (server, cache) = (server.clone(), cache.clone());
            move |loading: larder::Loading| async move {
                if why == "beside the cache" {
                    loading.pass();
                }
                if act {
                    cache.invalidate(["t"]).await?;
                    if why == "server restarted" {
                        server.restart();
                    }
                    cache.set("row", "read before").tags(["t"]).await?;
                }
                Ok::<_, larder::Error>(1)
            }
        };
        if why == "beside the cache" {
            cache.fetch_with("k", load(false)).await.unwrap();
        }

        cache.fetch_with("k", load(true)).await.unwrap();

        assert_eq!(cache.get::<String>("row").await.unwrap(), None, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_made_of_two_tag_spaces_is_not_kept_however_far_around() {
    let memory = Memory::builder().clock(Clock::seeded(1)).build();
    let cache = |prefix| {
        let builder = Cache::builder(memory.clone()).prefix(prefix).space(prefix);
        builder.build().unwrap()
    };
    let (here, there) = (cache("here"), cache("there"));
    let middle = here.clone();
    let load = || async move {
        let load = || async move {
            let load = || async { Ok::<_, String>(1) };
            there.fetch("inner", load).tags(["t"]).await
        };
        middle.fetch("middle", load).await
    };

    assert!(here.fetch("outer", load).await.is_ok());

    assert_eq!(here.get::<i32>("middle").await.unwrap(), None);
    assert_eq!(here.get::<i32>("outer").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn clear_also_drops_what_was_made_of_a_cleared_value_under_another_prefix() {
    for was_invalidated_before in [false, true] {
        let memory = Memory::builder().clock(Clock::seeded(1)).build();
        let cache = |prefix| {
            let builder = Cache::builder(memory.clone()).prefix(prefix);
            builder.build().unwrap()
        };
        let (values, pages) = (cache("values"), cache("pages"));
        if was_invalidated_before {
            values.invalidate(["t"]).await.unwrap();
        }
        let value = values.clone();
        let load = || async move {
            let load = || async { Ok::<_, String>(1) };
            value.fetch("k", load).tags(["t"]).await
        };
        assert_eq!(pages.fetch("page", load).await.unwrap(), 1);

        values.clear().await.unwrap();

        let page = pages.get::<i32>("page").await.unwrap();
        assert_eq!(page, None, "invalidated before: {was_invalidated_before}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_needs_its_own_key_does_not_hang() {
    let cache = cache();
    let inner = cache.clone();

    let began = tokio::time::Instant::now();
    let value = cache
        .fetch("k", move || async move {
            inner.fetch("k", || async { Ok::<_, String>(1) }).await
        })
        .await;

    assert_eq!(value.unwrap(), 1);
    assert_eq!(began.elapsed(), Duration::ZERO, "it waits for nobody");
}

#[tokio::test(start_paused = true)]
async fn a_load_of_many_that_needs_one_of_them_does_not_hang() {
    let cache = cache();
    let inner = cache.clone();
    let began = tokio::time::Instant::now();

    let load = move |names: Vec<String>| {
        let inner = inner.clone();
        async move {
            let load = || async { Ok::<_, String>(1) };
            let b: i32 = inner
                .fetch("b", load)
                .await
                .map_err(|error| error.to_string())?;
            Ok::<_, String>(names.into_iter().map(|name| (name, b)).collect())
        }
    };
    let found: HashMap<String, i32> = cache.fetch_many(["a", "b"], load).await.unwrap();

    assert_eq!(found.len(), 2);
    assert_eq!(began.elapsed(), Duration::ZERO, "it waits for nobody");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_another_type_is_not_misread() {
    let cache = cache();
    let strings = cache.fetch("k", || async { Err::<i32, _>("text") });
    assert!(strings.await.is_err());

    let numbers = cache.fetch("k", || async { Err::<i32, u8>(5) }).await;

    let Err(FetchError::Store(error)) = numbers else {
        panic!("{numbers:?}")
    };
    assert_eq!(error.kind(), ErrorKind::LoadFailed);
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_loads_in_the_background() {
    let (cache, source) = (cache(), Source::default());
    let loading = {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move { fetch(&cache, &source).await })
    };
    sleep(SECOND / 2).await;
    loading.abort();

    cache.close().await.unwrap();

    assert_eq!(cache.get("k").await.unwrap(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_on_many_threads_make_one_load() {
    let cache = Cache::new(Memory::new());
    for round in 0..50 {
        let loads = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..32)
            .map(|_| {
                let (cache, loads) = (cache.clone(), loads.clone());
                let load = move || async move {
                    tokio::task::yield_now().await;
                    loads.fetch_add(1, Ordering::SeqCst)
                };
                tokio::spawn(
                    async move { cache.get_or_set(format!("k{round}"), load).await.unwrap() },
                )
            })
            .collect();

        for caller in callers {
            assert_eq!(caller.await.unwrap(), 0);
        }
        assert_eq!(loads.load(Ordering::SeqCst), 1);
    }
}

/// Loads all that is missing; each call takes a second and is remembered.
#[derive(Clone, Default)]
struct Table(Arc<Mutex<Vec<Vec<String>>>>);

impl Table {
    fn load(&self) -> impl Fn(Vec<String>) -> BoxedRows + Send + Sync + 'static + use<> {
        let calls = self.0.clone();
        move |missing| {
            calls.lock().unwrap().push(missing.clone());
            Box::pin(async move {
                sleep(SECOND).await;
                let rows = missing.into_iter().filter(|key| key != "nobody");
                Ok(rows
                    .map(|key| (key.clone(), format!("row {key}")))
                    .collect())
            })
        }
    }

    fn calls(&self) -> Vec<Vec<String>> {
        self.0.lock().unwrap().clone()
    }
}

type BoxedRows =
    std::pin::Pin<Box<dyn Future<Output = io::Result<HashMap<String, String>>> + Send>>;

#[tokio::test(start_paused = true)]
async fn all_that_is_missing_is_loaded_at_once() {
    let (cache, table) = (cache(), Table::default());
    cache.set("a", "row a, kept").await.unwrap();

    let rows = cache
        .fetch_many(["b", "a", "c", "b", "nobody"], table.load())
        .await
        .unwrap();
    let again = cache
        .fetch_many(["a", "b", "c"], table.load())
        .await
        .unwrap();

    assert_eq!(rows.len(), 3);
    assert_eq!(
        (&*rows["a"], &*rows["b"], &*rows["c"]),
        ("row a, kept", "row b", "row c")
    );
    assert_eq!(rows, again);
    assert_eq!(table.calls(), [["b", "c", "nobody"]]);
}

#[tokio::test(start_paused = true)]
async fn two_who_want_many_share_what_both_want() {
    let (cache, table) = (cache(), Table::default());
    let ask = |keys: &'static [&'static str]| {
        let (cache, load) = (cache.clone(), table.load());
        tokio::spawn(async move { cache.fetch_many(keys.iter().copied(), load).await.unwrap() })
    };

    let first = ask(&["a", "b"]);
    sleep(SECOND / 2).await;
    let second = ask(&["b", "c"]);

    assert_eq!(
        (first.await.unwrap().len(), second.await.unwrap().len()),
        (2, 2)
    );
    assert_eq!(table.calls(), [["a", "b"].to_vec(), ["c"].to_vec()]);
}

#[tokio::test(start_paused = true)]
async fn of_many_loaded_those_deleted_or_invalidated_meanwhile_are_not_kept() {
    let (cache, table) = (cache(), Table::default());
    let loading = {
        let (cache, load) = (cache.clone(), table.load());
        tokio::spawn(async move {
            cache
                .fetch_many(["a", "b"], load)
                .tags(["t"])
                .await
                .unwrap()
        })
    };
    sleep(SECOND / 2).await;
    cache.delete("a").await.unwrap();

    assert_eq!(loading.await.unwrap().len(), 2);
    let kept: HashMap<String, String> = cache.get_many(["a", "b"]).await.unwrap();
    assert_eq!(kept.keys().collect::<Vec<_>>(), ["b"]);
    cache.invalidate(["t"]).await.unwrap();
    assert!(
        cache
            .get_many::<String, _>(["a", "b"])
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn when_many_cannot_be_loaded_all_who_wait_are_told() {
    let cache = cache();
    let load = |_: Vec<String>| async {
        sleep(SECOND).await;
        Err::<HashMap<String, String>, _>("down")
    };

    let single = cache.fetch("a", || async { Ok::<String, &str>("never run".into()) });
    let (many, single) = tokio::join!(cache.fetch_many(["a", "b"], load).into_future(), async {
        sleep(SECOND / 2).await;
        single.await
    });

    assert!(matches!(many, Err(FetchError::Load(_))), "{many:?}");
    assert!(matches!(single, Err(FetchError::Load(_))), "{single:?}");
}

/// A cache over a server that can fail, and the way to it.
fn remote(seed: u64) -> (Server, Cache) {
    let server = Server::new(seed);
    let cache = Cache::new(server.connect());
    (server, cache)
}

#[tokio::test(start_paused = true)]
async fn what_was_loaded_in_one_era_is_not_given_to_who_came_in_the_next() {
    let (server, cache) = remote(1);
    let source = Source::default();
    let first = {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move { cache.fetch("k", move || source.load()).tags(["t"]).await })
    };
    sleep(SECOND / 2).await;

    server.lose_numbers();
    cache.invalidate(["t"]).await.unwrap();
    let late = source.clone();
    let second = cache.fetch("k", move || late.load()).tags(["t"]).await;

    assert_eq!((first.await.unwrap().unwrap(), second.unwrap()), (1, 2));
}

#[test]
fn a_load_that_blocks_its_thread_for_longer_than_a_lease_is_kept() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let cache = Cache::new(Memory::new());
        let load = || async {
            std::thread::sleep(7 * SECOND);
            Ok::<_, String>(5)
        };

        assert_eq!(cache.fetch("k", load).await.unwrap(), 5);

        assert_eq!(cache.get("k").await.unwrap(), Some(5));
    });
}

#[tokio::test(start_paused = true)]
async fn without_patience_for_others_ones_own_load_is_kept_all_the_same() {
    let (server, cache) = remote(2);
    server.set_faults(Faults {
        longest: 20 * Duration::from_millis(1),
        ..Faults::default()
    });
    let impatient = || Policy::new().wait(Duration::ZERO);

    let load = || async { Ok::<_, String>(5) };
    assert_eq!(cache.fetch("k", load).policy(impatient()).await.unwrap(), 5);
    let many = |names: Vec<String>| async {
        Ok::<_, String>(names.into_iter().map(|name| (name, 6)).collect())
    };
    let found = cache.fetch_many(["a", "b"], many).policy(impatient());
    assert_eq!(found.await.unwrap().len(), 2);

    assert_eq!(cache.get("k").await.unwrap(), Some(5));
    assert_eq!(cache.get("a").await.unwrap(), Some(6));
}

#[tokio::test(start_paused = true)]
async fn who_has_no_patience_does_not_wait_for_the_load_of_another() {
    let (cache, source) = (cache(), Source::default());
    let slow = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move { fetch(&cache, &source).await }
    });
    sleep(SECOND / 2).await;

    let began = tokio::time::Instant::now();
    let load = || async { Ok::<_, String>(50) };
    let own = cache
        .fetch("k", load)
        .policy(Policy::new().wait(Duration::ZERO));

    assert_eq!(own.await.unwrap(), 50);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(slow.await.unwrap(), 1);
    assert_eq!(cache.get("k").await.unwrap(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_answer_was_lost_is_taken_back() {
    let lost = Faults {
        lost: 100,
        ..Faults::default()
    };
    for how in ["ticket", "fetch", "fetch_many"] {
        let (server, cache) = remote(3);
        let other = Cache::new(server.connect());
        // The slot is read, then the lease is placed; of that no answer comes.
        let broken = async {
            tokio::task::yield_now().await;
            server.set_faults(lost);
            sleep(3 * SECOND).await;
            server.set_faults(Faults::default());
        };
        let act = async {
            match how {
                "ticket" => drop(cache.ticket("k").await),
                "fetch" => drop(cache.fetch("k", || async { Ok::<_, String>(1) }).await),
                _ => {
                    let load = |_| async { Ok::<_, String>(HashMap::from([("k".to_owned(), 1)])) };
                    drop(cache.fetch_many(["k"], load).await);
                }
            }
        };
        tokio::join!(act, broken);
        sleep(2 * SECOND).await;

        let began = tokio::time::Instant::now();
        let load = || async { Ok::<_, String>(2) };
        other.fetch("k", load).await.unwrap();
        assert!(began.elapsed() < SECOND, "{how}: {:?}", began.elapsed());
        assert!(other.get::<i32>("k").await.unwrap().is_some(), "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_a_stale_value_stands_in_for_a_load_that_fails_or_is_slow() {
    let cache = cache();
    let load = |value: Option<i32>, span: Duration| {
        move |names: Vec<String>| async move {
            sleep(span).await;
            let value = value.ok_or("down")?;
            Ok::<_, &str>(names.into_iter().map(|name| (name, value)).collect())
        }
    };
    let policy = || {
        Policy::new()
            .ttl(SECOND)
            .stale_if_error(60 * SECOND)
            .soft_limit(SECOND / 2)
    };
    let fetch = |value, span| {
        cache
            .fetch_many(["a", "b"], load(value, span))
            .policy(policy())
    };
    assert_eq!(fetch(Some(1), Duration::ZERO).await.unwrap()["a"], 1);
    sleep(2 * SECOND).await;

    // It fails, and has just failed.
    for _ in 0..2 {
        assert_eq!(fetch(None, Duration::ZERO).await.unwrap()["b"], 1);
    }
    sleep(3 * SECOND).await;
    let began = tokio::time::Instant::now();
    assert_eq!(fetch(Some(2), 5 * SECOND).await.unwrap()["a"], 1);
    assert_eq!(began.elapsed(), SECOND / 2);
    sleep(5 * SECOND).await;
    assert_eq!(cache.get("a").await.unwrap(), Some(2), "it went on");
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_stands_in_for_a_load_beside_the_cache() {
    let cache = cache();
    let stale = || Policy::new().ttl(SECOND).stale_if_error(60 * SECOND);
    cache
        .fetch("k", || async { Ok::<_, String>(1) })
        .policy(stale())
        .await
        .unwrap();
    sleep(2 * SECOND).await;
    let slow = tokio::spawn({
        let cache = cache.clone();
        async move {
            let load = || async {
                sleep(20 * SECOND).await;
                Ok::<_, String>(2)
            };
            cache.fetch("k", load).policy(stale()).await
        }
    });
    sleep(SECOND).await;

    let failing = || async { Err::<i32, _>("down".to_owned()) };
    let failing = cache.fetch("k", failing).policy(stale().wait(SECOND)).await;
    let panicking = || async { panic!("planted") as Result<i32, String> };
    let panicking = cache
        .fetch("k", panicking)
        .policy(stale().wait(SECOND))
        .await;

    assert_eq!((failing.unwrap(), panicking.unwrap()), (1, 1));
    assert_eq!(slow.await.unwrap().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_made_of_what_is_over_is_shared_and_not_kept() {
    let (cache, source) = (cache(), Source::default());
    let outer = || {
        let (cache, source) = (cache.clone(), source.clone());
        async move {
            let inner = cache.clone();
            let load = || async move {
                let zero = inner.fetch("inner", || async { Ok::<_, io::Error>(1) });
                zero.ttl(Duration::ZERO).await.unwrap();
                source.load().await
            };
            let outer = cache
                .fetch("outer", load)
                .ttl(60 * SECOND)
                .grace(30 * SECOND);
            outer.await.unwrap()
        }
    };

    let both = tokio::join!(outer(), outer());
    assert_eq!(both, (1, 1));
    assert_eq!(
        outer().await,
        2,
        "neither fresh nor stale is it in the cache"
    );
}

#[tokio::test(start_paused = true)]
async fn bytes_that_a_fetch_cannot_decode_are_an_unreadable_miss() {
    #[derive(Debug, Default)]
    struct Log(Mutex<Vec<String>>);
    impl larder::Listener for Log {
        fn heard(&self, _: &str, outcome: &larder::Outcome) {
            self.0.lock().unwrap().push(outcome.to_string());
        }
    }
    let log = Arc::new(Log::default());
    let memory = Memory::builder().clock(Clock::seeded(1)).build();
    let cache = Cache::builder(memory)
        .listener(log.clone())
        .build()
        .unwrap();
    cache.set("k", "text").await.unwrap();

    cache
        .fetch("k", || async { Ok::<i32, String>(1) })
        .await
        .unwrap();

    assert_eq!(*log.0.lock().unwrap(), ["miss-unreadable"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_only_asked_for_in_a_load_is_a_dependency_too() {
    let cache = cache();
    cache.set("row", &1).tags(["t"]).await.unwrap();
    let inner = cache.clone();
    let load = || async move { Ok::<_, String>(inner.has("row").await.unwrap()) };
    assert!(cache.fetch("page", load).await.unwrap());

    cache.invalidate(["t"]).await.unwrap();

    assert_eq!(cache.get::<bool>("page").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_a_load_that_was_overtaken() {
    let (cache, source) = (cache(), Source::default());
    let slow = source.clone();
    let overtaken = tokio::spawn({
        let cache = cache.clone();
        async move {
            let load = || async move {
                sleep(5 * SECOND).await;
                slow.load().await
            };
            cache.fetch("k", load).await.unwrap()
        }
    });
    sleep(SECOND).await;
    cache.delete("k").await.unwrap();
    assert_eq!(fetch(&cache, &source).await, 1);

    let began = tokio::time::Instant::now();
    cache.close().await.unwrap();

    assert!(began.elapsed() > 3 * SECOND, "{:?}", began.elapsed());
    assert_eq!(overtaken.await.unwrap(), 2);
}

/// A store that is told what to do, and a cache over it, on tokio's paused clock.
fn faulty() -> (Faulty, Cache) {
    let store = Faulty::new(&Clock::seeded(1));
    (store.clone(), Cache::new(store))
}

fn marks(store: &Faulty) -> usize {
    let calls = store.calls();
    calls.iter().filter(|(verb, _)| *verb == "mark").count()
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_a_lease_that_nobody_has_asks_again_in_pauses_then_loads_beside_the_cache() {
    let (store, cache) = faulty();
    let source = Source::default();
    store.be_busy(true);
    let began = tokio::time::Instant::now();

    let callers: Vec<_> = (0..100)
        .map(|_| {
            let (cache, source) = (cache.clone(), source.clone());
            tokio::spawn(async move { fetch(&cache, &source).await })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }

    assert_eq!(source.loads(), 100);
    let waited = began.elapsed();
    assert!(waited <= SECOND * 8 / 5, "{waited:?}");
    let marks = marks(&store);
    assert!((4..=10).contains(&marks), "{marks}");
    assert_eq!(cache.get::<usize>("k").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_taken_after_a_while_makes_one_load_for_all_and_is_kept() {
    let (store, cache) = faulty();
    let source = Source::default();
    store.be_busy(true);
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let (cache, source) = (cache.clone(), source.clone());
            tokio::spawn(async move { fetch(&cache, &source).await })
        })
        .collect();

    sleep(SECOND / 10).await;
    store.be_busy(false);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 1);
    }

    assert_eq!(cache.get("k").await.unwrap(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn leases_of_many_keys_that_are_refused_are_one_load_beside_the_cache() {
    let (store, cache) = faulty();
    let loads = Arc::new(Mutex::new(Vec::new()));
    store.be_busy(true);
    let began = tokio::time::Instant::now();

    let load = |loads: &Arc<Mutex<Vec<usize>>>| {
        let loads = loads.clone();
        move |names: Vec<String>| {
            loads.lock().unwrap().push(names.len());
            async move {
                sleep(SECOND).await;
                Ok::<_, io::Error>(names.into_iter().map(|name| (name, 1)).collect())
            }
        }
    };
    let (one, other) = tokio::join!(
        cache.fetch_many(["a", "b"], load(&loads)).into_future(),
        cache.fetch_many(["a", "b"], load(&loads)).into_future(),
    );

    let (one, other): (HashMap<_, i32>, HashMap<_, _>) = (one.unwrap(), other.unwrap());
    assert_eq!((one.len(), other.len()), (2, 2));
    assert_eq!(*loads.lock().unwrap(), [2, 2]);
    let waited = began.elapsed();
    assert!(waited <= SECOND * 8 / 5, "{waited:?}");
    assert!(marks(&store) <= 20);

    store.be_busy(false);
    let found = cache.fetch_many(["a", "b"], load(&loads)).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(cache.get("a").await.unwrap(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn who_has_no_patience_hardly_waits_for_a_store_that_takes_no_lease() {
    let (store, cache) = faulty();
    store.be_busy(true);
    let began = tokio::time::Instant::now();

    let load = || async { Ok::<_, String>(5) };
    let impatient = Policy::new().wait(Duration::ZERO);
    assert_eq!(cache.fetch("k", load).policy(impatient).await.unwrap(), 5);

    assert!(began.elapsed() < SECOND / 20, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_is_refused_is_void_and_asks_once() {
    let (store, cache) = faulty();
    store.be_busy(true);

    let ticket = cache.ticket("k").await.unwrap();

    assert!(!ticket.set("read").await.unwrap());
    assert_eq!(marks(&store), 1);
}
