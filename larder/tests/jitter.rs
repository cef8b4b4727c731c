//! TTLs that are shortened by chance.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::collections::BTreeSet;
use std::time::Duration;

use larder::store::Memory;
use larder::{Cache, CacheBuilder, Clock, ErrorKind, Ttl};

const TTL: Duration = Duration::from_secs(100);

fn cache(seed: u64, jitter: f64) -> Cache {
    let memory = Memory::builder().clock(Clock::seeded(seed)).build();
    Cache::builder(memory).jitter(jitter).build().unwrap()
}

async fn left(cache: &Cache, key: &str) -> Duration {
    match cache.ttl(key).await.unwrap() {
        Some(Ttl::For(left)) => left,
        other => panic!("{key}: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_writes_shortens_the_ttl_by_at_most_the_fraction() {
    let cache = cache(1, 0.1);
    let mut spans = BTreeSet::new();
    for number in 0..20 {
        let key = format!("k{number}");
        cache.set(&key, "v").ttl(TTL).await.unwrap();
        spans.insert(left(&cache, &key).await);
        cache.delete(&key).await.unwrap();
        assert!(cache.add(&key, "v").ttl(TTL).await.unwrap());
        spans.insert(left(&cache, &key).await);
        cache.set_many([(&key, "v")]).ttl(TTL).await.unwrap();
        spans.insert(left(&cache, &key).await);
        let load = || async { "loaded".to_owned() };
        cache
            .get_or_set(format!("l{number}"), load)
            .ttl(TTL)
            .await
            .unwrap();
        spans.insert(left(&cache, &format!("l{number}")).await);
    }

    let (least, most) = (spans.first().unwrap(), spans.last().unwrap());
    assert!(*least >= TTL.mul_f32(0.9) && *most <= TTL, "{spans:?}");
    assert!(spans.len() > 70, "each has its own: {spans:?}");
    assert!(
        most.saturating_sub(*least) > TTL / 12,
        "over all of the fraction: {spans:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn two_runs_of_one_seed_have_the_same_ttls() {
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let cache = cache(seed, 0.5);
        cache.set("k", "v").ttl(TTL).await.unwrap();
        runs.push(left(&cache, "k").await);
    }

    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test(start_paused = true)]
async fn what_never_expires_is_zero_or_is_touched_has_no_jitter() {
    let cache = cache(1, 1.0);
    cache.set("never", "v").ttl(Ttl::Never).await.unwrap();
    cache.set("ever", "v").ttl(Duration::MAX).await.unwrap();
    cache.set("zero", "v").ttl(Duration::ZERO).await.unwrap();
    cache
        .set("brief", "v")
        .ttl(Duration::from_millis(1))
        .await
        .unwrap();
    cache.set("touched", "v").await.unwrap();
    cache.touch("touched", TTL).await.unwrap();

    assert_eq!(cache.ttl("never").await.unwrap(), Some(Ttl::Never));
    assert!(cache.has("ever").await.unwrap());
    assert!(!cache.has("zero").await.unwrap());
    assert!(
        cache.has("brief").await.unwrap(),
        "at least a millisecond is left"
    );
    assert_eq!(left(&cache, "touched").await, TTL);
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_ttls_are_what_was_said() {
    let cache = Cache::new(Memory::builder().clock(Clock::seeded(1)).build());

    cache.set("k", "v").ttl(TTL).await.unwrap();

    assert_eq!(left(&cache, "k").await, TTL);
}

#[test]
fn a_jitter_that_is_no_fraction_is_refused() {
    let build = |jitter| CacheBuilder::jitter(Cache::builder(Memory::new()), jitter).build();
    for jitter in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let refused = build(jitter).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{jitter}");
        assert!(refused.to_string().contains("jitter"), "{refused}");
    }
    assert!(build(1.0).is_ok());
}
