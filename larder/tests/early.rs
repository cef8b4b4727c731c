//! Values that are refreshed before their TTL ends.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod grounds;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::store::Memory;
use larder::{Cache, Clock, Policy};
use tokio::sync::Semaphore;

const TTL: Duration = Duration::from_secs(100);
/// All of it but a millisecond.
const NEARLY: Duration = Duration::from_millis(99_999);
const MS: Duration = Duration::from_millis(1);
/// How long a load takes; a lease that nobody renews lasts longer.
const TOOK: Duration = Duration::from_secs(5);

/// A load that moves the clock, and gives how many there were.
#[derive(Clone)]
struct Source {
    clock: Clock,
    loads: Arc<AtomicUsize>,
    /// What a load after the first waits for.
    gate: Arc<Semaphore>,
}

impl Source {
    fn new(cache: &Clock) -> Self {
        Self {
            clock: cache.clone(),
            loads: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    async fn load(self) -> Result<usize, &'static str> {
        let number = self.loads.fetch_add(1, Ordering::SeqCst) + 1;
        if number == 1 {
            self.clock.advance(TOOK);
        } else {
            self.gate.acquire().await.unwrap().forget();
        }
        Ok(number)
    }

    fn count(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }
}

async fn hit(cache: &Cache, policy: &Policy, source: &Source) -> usize {
    let source = source.clone();
    let fetch = cache.fetch("k", move || source.load());
    fetch.policy(policy.clone()).await.unwrap()
}

/// Every store whose clock a test can set, and its cache.
fn caches() -> Vec<(&'static str, Cache, Clock)> {
    let mut grounds = grounds::all();
    grounds.retain(|ground| ground.manual);
    let cache =
        |ground: &grounds::Ground| (ground.name, ground.cache(), ground.store.clock().clone());
    grounds.iter().map(cache).collect()
}

fn policy() -> Policy {
    Policy::new().ttl(TTL).early(1.0)
}

/// Lets what runs in the background come to its end.
async fn settle(cache: &Cache, until: impl AsyncFn(&Cache) -> bool) {
    // A busy machine may take its time.
    for _ in 0..30_000 {
        if until(cache).await {
            return;
        }
        tokio::time::sleep(MS).await;
    }
    panic!("it does not come to its end");
}

#[tokio::test]
async fn near_the_end_hits_go_on_while_one_load_runs_behind_them() {
    for (name, cache, clock) in caches() {
        let source = Source::new(&clock);
        assert_eq!(hit(&cache, &policy(), &source).await, 1, "{name}");
        clock.advance(NEARLY);

        for _ in 0..100 {
            assert_eq!(hit(&cache, &policy(), &source).await, 1, "{name}");
        }
        settle(&cache, async |_| source.count() == 2).await;
        assert_eq!(hit(&cache, &policy(), &source).await, 1, "{name}");
        assert_eq!(source.count(), 2, "{name}: one load however many hits");

        source.gate.add_permits(1);
        settle(&cache, async |cache| {
            cache.get::<usize>("k").await.unwrap() == Some(2)
        })
        .await;
        clock.advance(NEARLY.saturating_sub(MS));
        assert!(
            cache.has("k").await.unwrap(),
            "{name}: fresh for a whole TTL"
        );
        assert_eq!(cache.counts().misses, 1, "{name}");
    }
}

#[tokio::test]
async fn far_from_the_end_nothing_is_refreshed() {
    for (name, cache, clock) in caches() {
        let source = Source::new(&clock);
        for _ in 0..1000 {
            assert_eq!(
                hit(&cache, &policy().ttl(100 * TOOK), &source).await,
                1,
                "{name}"
            );
        }
        assert_eq!(source.count(), 1, "{name}");
    }
}

#[tokio::test]
async fn without_the_setting_nothing_is_refreshed() {
    for (name, cache, clock) in caches() {
        for policy in [
            Policy::new(),
            policy().early(f64::NAN),
            policy().early(-1.0),
        ] {
            let source = Source::new(&clock);
            cache.delete("k").await.unwrap();
            hit(&cache, &policy.clone().ttl(TTL), &source).await;
            clock.advance(NEARLY);

            for _ in 0..100 {
                assert_eq!(hit(&cache, &policy, &source).await, 1, "{name}");
            }
            assert_eq!(source.count(), 1, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_chance_is_that_of_the_formula() {
    // At a time before the end that is so many times what the load took, and so eager.
    for (times, eagerness, expected) in [(1.0, 1.0, 0.37), (3.0, 1.0, 0.05), (2.0, 2.0, 0.37)] {
        let clock = Clock::seeded(42);
        let cache = Cache::new(Memory::builder().clock(clock).build());
        let loads = Arc::new(AtomicUsize::new(0));
        let policy = policy().early(eagerness);
        let fetch = async |number: usize| {
            let loads = loads.clone();
            let load = move || async move {
                loads.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(TOOK).await;
                Ok::<_, &str>(number)
            };
            let fetch = cache.fetch(format!("k{number}"), load);
            assert_eq!(fetch.policy(policy.clone()).await.unwrap(), number);
        };
        // One after the other: each is as far from its own end when it is hit.
        for number in 0..400 {
            fetch(number).await;
            tokio::time::sleep(TTL.saturating_sub(TOOK.mul_f64(times))).await;
            fetch(number).await;
            tokio::task::yield_now().await;
        }
        let refreshed = loads.load(Ordering::SeqCst) - 400;
        let share = f64::from(u32::try_from(refreshed).unwrap()) / 400.0;
        assert!(
            (share - expected).abs() < 0.06,
            "{times} {eagerness}: {share}"
        );
    }
}

#[tokio::test]
async fn a_refresh_that_fails_leaves_the_value_to_its_end_and_waits_a_while() {
    for (name, cache, clock) in caches() {
        let source = Source::new(&clock);
        hit(&cache, &policy(), &source).await;
        clock.advance(TTL.saturating_sub(Duration::from_secs(3)));
        let failures = Arc::new(AtomicUsize::new(0));
        let fail = async || {
            let failures = failures.clone();
            let load = move || async move {
                failures.fetch_add(1, Ordering::SeqCst);
                Err::<usize, _>("down")
            };
            let policy = policy().early(1000.0);
            cache.fetch("k", load).policy(policy).await.unwrap()
        };

        assert_eq!(fail().await, 1, "{name}");
        settle(&cache, async |cache| cache.counts().failed_loads == 1).await;
        for _ in 0..20 {
            assert_eq!(fail().await, 1, "{name}");
        }
        assert_eq!(failures.load(Ordering::SeqCst), 1, "{name}");

        clock.advance(Duration::from_secs(2));
        assert_eq!(fail().await, 1, "{name}");
        settle(&cache, async |cache| cache.counts().failed_loads == 2).await;
    }
}

#[tokio::test]
async fn what_was_invalidated_while_it_was_refreshed_is_not_written_back() {
    for (name, cache, clock) in caches() {
        for act in ["delete", "invalidate", "set"] {
            let source = Source::new(&clock);
            let policy = policy().tags(["t"]);
            cache.delete("k").await.unwrap();
            hit(&cache, &policy, &source).await;
            clock.advance(NEARLY);
            let refused = cache.counts().refused;
            for _ in 0..20 {
                hit(&cache, &policy, &source).await;
            }
            settle(&cache, async |_| source.count() == 2).await;

            match act {
                "delete" => drop(cache.delete("k").await.unwrap()),
                "invalidate" => cache.invalidate(["t"]).await.unwrap(),
                _ => cache.set("k", &77).await.unwrap(),
            }
            source.gate.add_permits(1);
            settle(&cache, async |cache| cache.counts().refused > refused).await;

            let expected = (act == "set").then_some(77);
            assert_eq!(
                cache.get::<usize>("k").await.unwrap(),
                expected,
                "{name} {act}"
            );
        }
    }
}

#[tokio::test]
async fn many_are_refreshed_behind_the_caller_as_well() {
    for (name, cache, clock) in caches() {
        let loads = Arc::new(AtomicUsize::new(0));
        let fetch = async || {
            let (loads, clock) = (loads.clone(), clock.clone());
            let load = move |keys: Vec<String>| {
                let number = loads.fetch_add(1, Ordering::SeqCst) + 1;
                if number == 1 {
                    clock.advance(TOOK);
                }
                async move { Ok::<_, &str>(keys.into_iter().map(|key| (key, number)).collect()) }
            };
            let fetch = cache.fetch_many(["a", "b"], load).policy(policy());
            let found: HashMap<String, usize> = fetch.await.unwrap();
            (found["a"], found["b"])
        };
        assert_eq!(fetch().await, (1, 1), "{name}");
        clock.advance(NEARLY);

        let mut found = fetch().await;
        assert_eq!(found, (1, 1), "{name}");
        for _ in 0..2000 {
            tokio::time::sleep(MS).await;
            found = fetch().await;
            if found.0 > 1 && found.1 > 1 {
                break;
            }
        }
        assert!(found.0 > 1 && found.1 > 1, "{name}: {found:?}");
        assert!(loads.load(Ordering::SeqCst) <= 3, "{name}");
        assert_eq!(cache.counts().misses, 2, "{name}");
    }
}
