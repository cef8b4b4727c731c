//! Values of 100 bytes, from memory.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::store::{Memory, Store, When};
use larder::{Cache, Entry, Key, Value};

use crate::pairs::compare;

const KEYS: usize = 10_000;
const ROUNDS: usize = 100;
const MINUTES: Duration = Duration::from_mins(5);

/// Gets every key many times on `threads` threads; millions a second.
fn rate<S: Sync>(threads: usize, subject: &S, get: impl Fn(&S, usize) + Sync) -> f64 {
    let barrier = Barrier::new(threads + 1);
    let began = std::thread::scope(|scope| {
        for thread in 0..threads {
            let (barrier, get) = (&barrier, &get);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..ROUNDS {
                    for number in 0..KEYS {
                        get(subject, (number * 7919 + thread + round) % KEYS);
                    }
                }
            });
        }
        barrier.wait();
        Instant::now()
    });
    let gets = u32::try_from(threads * ROUNDS * KEYS).expect("a few millions");
    f64::from(gets) / began.elapsed().as_secs_f64() / 1e6
}

/// Polls a future that has nothing to wait for.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("memory has nothing to wait for"),
    }
}

fn names() -> Vec<String> {
    (0..KEYS)
        .map(|number| format!("user:{number:08}:profile"))
        .collect()
}

fn value() -> Bytes {
    Bytes::from(vec![b'x'; 100])
}

/// What somebody would write around `quick_cache` to have a TTL: the deadline beside the value, by the
/// system's coarse clock.
struct QuickWithTtl(quick_cache::sync::Cache<Box<str>, (Bytes, u64)>);

impl QuickWithTtl {
    fn get(&self, key: &str) -> Option<Bytes> {
        let (value, deadline) = self.0.get(key)?;
        (deadline > coarse_millis()).then_some(value)
    }
}

fn coarse_millis() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    u64::try_from(now.tv_sec * 1000 + now.tv_nsec / 1_000_000).unwrap_or(0)
}

/// `get_now` through `dyn Store` against `quick_cache` with a TTL.
pub(crate) fn store_against_quick_cache(threads: usize) {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let keys: Vec<Key> = names()
        .into_iter()
        .map(|name| Key::new(format!(":1:{name}")))
        .collect();
    let deadline = store.clock().now().plus(MINUTES);
    for key in &keys {
        let entry = Entry::new(store.clock(), Value::Bytes(value())).fresh_until(deadline);
        now(store.put(key, entry, When::Always)).expect("memory has room");
    }
    let peer = QuickWithTtl(quick_cache::sync::Cache::new(KEYS * 2));
    for key in &keys {
        peer.0
            .insert(key.name().into(), (value(), coarse_millis() + 300_000));
    }
    compare(
        &format!("memory get_now / quick_cache + coarse TTL, {threads} thread(s)"),
        "M/s",
        || {
            rate(threads, &store, |store, number| {
                assert!(black_box(store.get_now(&keys[number])).flatten().is_some());
            })
        },
        || {
            rate(threads, &peer, |peer, number| {
                assert!(black_box(peer.get(keys[number].name())).is_some());
            })
        },
    );
}

/// Gives each entry its own deadline, as Larder does.
struct PerEntry;

impl moka::Expiry<String, (String, Duration)> for PerEntry {
    fn expire_after_create(
        &self,
        _: &String,
        (_, ttl): &(String, Duration),
        _: Instant,
    ) -> Option<Duration> {
        Some(*ttl)
    }

    fn expire_after_update(
        &self,
        _: &String,
        (_, ttl): &(String, Duration),
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(*ttl)
    }
}

/// The whole `Cache::get` of a text of 100 bytes against moka's async get.
pub(crate) fn cache_against_moka(threads: usize) {
    let names = names();
    let text = "x".repeat(100);
    let cache = Cache::new(Memory::new());
    let peer = moka::future::Cache::builder()
        .max_capacity(KEYS as u64 * 2)
        .expire_after(PerEntry);
    let peer: moka::future::Cache<String, (String, Duration)> = peer.build();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a plain runtime");
    runtime.block_on(async {
        for name in &names {
            cache
                .set(name, &text)
                .ttl(MINUTES)
                .await
                .expect("memory has room");
            peer.insert(name.clone(), (text.clone(), MINUTES)).await;
        }
        peer.run_pending_tasks().await;
    });
    compare(
        &format!("Cache::get of 100 B / moka async get, {threads} thread(s)"),
        "M/s",
        || {
            rate(threads, &cache, |cache, number| {
                let found = now(cache.get::<String>(&names[number])).expect("memory answers");
                assert!(black_box(found).is_some());
            })
        },
        || {
            rate(threads, &peer, |peer, number| {
                assert!(black_box(now(peer.get(&names[number]))).is_some());
            })
        },
    );
}
