//! What tags cost a hit: with one and with ten, beside the same hit without.

use std::hint::black_box;
use std::time::{Duration, Instant};

use larder::store::{Memory, Redis};
use larder::{Cache, Policy};

use crate::pairs::compare;
use crate::servers::{self, Outcome};

const KEYS: usize = 10_000;
const TTL: Duration = Duration::from_mins(30);
const COUNTS: [usize; 2] = [1, 10];

/// One tag is the object's own; the others are shared by a hundredth of the keys each.
fn tags(key: usize, count: usize) -> Vec<String> {
    let all = (0..count).map(|at| match at {
        0 => format!("object:{key}"),
        at => format!("group:{at}:{}", key % 100),
    });
    all.collect()
}

fn name(key: usize, count: usize) -> String {
    format!("{count} tags:{key:08}")
}

/// Keys with `count` tags, got one after the other; thousands a second.
struct Row {
    cache: Cache,
    names: Vec<String>,
    policies: Vec<Policy>,
}

impl Row {
    async fn new(cache: &Cache, keys: usize, count: usize) -> Self {
        let policy = |key| Policy::new().ttl(TTL).tags(tags(key, count));
        let row = Self {
            cache: cache.clone(),
            names: (0..keys).map(|key| name(key, count)).collect(),
            policies: (0..keys).map(policy).collect(),
        };
        for at in 0..keys {
            row.fetch(at).await;
        }
        row
    }

    async fn fetch(&self, at: usize) {
        let load = || async { "x".repeat(100) };
        let fetch = self.cache.get_or_set(&self.names[at], load);
        let value = fetch.policy(self.policies[at].clone()).await;
        assert_eq!(black_box(value).expect("it is loaded").len(), 100);
    }

    async fn get(&self, at: usize) {
        let value = self.cache.get::<String>(&self.names[at]).await;
        assert!(black_box(value).expect("the store answers").is_some());
    }

    async fn gets(&self, count: usize) -> f64 {
        let began = Instant::now();
        for turn in 0..count {
            self.get(turn * 7919 % self.names.len()).await;
        }
        rate(count, began)
    }

    async fn fetches(&self, count: usize) -> f64 {
        let began = Instant::now();
        for turn in 0..count {
            self.fetch(turn * 7919 % self.names.len()).await;
        }
        rate(count, began)
    }
}

fn rate(count: usize, began: Instant) -> f64 {
    let count = u32::try_from(count).expect("a few millions");
    f64::from(count) / began.elapsed().as_secs_f64() / 1e3
}

/// Hits with tags against hits without, from memory and from Redis.
pub(crate) fn hits_with_tags() -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    against_none(
        &runtime,
        "memory",
        &Cache::new(Memory::new()),
        KEYS,
        1_000_000,
    );
    let (_place, url) = servers::redis()?;
    let redis = runtime.block_on(Redis::connect(url))?;
    against_none(&runtime, "redis", &Cache::new(redis), 1000, 10_000);
    Ok(())
}

fn against_none(
    runtime: &tokio::runtime::Runtime,
    store: &str,
    cache: &Cache,
    keys: usize,
    count: usize,
) {
    let none = runtime.block_on(Row::new(cache, keys, 0));
    for tags in COUNTS {
        let tagged = runtime.block_on(Row::new(cache, keys, tags));
        compare(
            &format!("{store}: get of 100 B with {tags} tag(s) / without"),
            "k/s",
            || runtime.block_on(tagged.gets(count)),
            || runtime.block_on(none.gets(count)),
        );
        compare(
            &format!("{store}: fetch of 100 B with {tags} tag(s) / without"),
            "k/s",
            || runtime.block_on(tagged.fetches(count / 4)),
            || runtime.block_on(none.fetches(count / 4)),
        );
    }
}
