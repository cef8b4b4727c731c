//! How often what is asked for is there, in memory that holds a part of the keys.

use bytes::Bytes;
use larder::store::{Memory, Store, When};
use larder::{Entry, Key, Value};

use crate::values::now;

const KEYS: usize = 100_000;
const REQUESTS: usize = 2_000_000;
/// Requests that warm up and are not counted.
const WARM: usize = REQUESTS / 5;
/// The hot set moves by a hundredth of the keys every so many requests.
const STAYS: usize = 50_000;
const SEEDS: [u64; 3] = [1, 2, 3];
/// What each entry may take in the store: more than it does, so that the number of entries decides.
const ROOM: u64 = 1024;

/// Hit ratios in percent, of Larder's memory store and of moka's cache with room for as many entries.
pub(crate) fn memory_against_moka() {
    println!(
        "{:<58} {:>9} {:>9}  points",
        "hits in a hundred", "Larder", "peer"
    );
    for (moves, what) in [(false, "Zipf(0.99)"), (true, "the same, hot set moving")] {
        for share in [1, 10] {
            let room = KEYS * share / 100;
            let traces = SEEDS.map(|seed| trace(seed, moves));
            let ours = mean(traces.each_ref().map(|trace| larder(room, trace)));
            let peer = mean(traces.each_ref().map(|trace| moka(room, trace)));
            let what = format!("{what}, {share} % of the keys fit: moka");
            println!("{what:<58} {ours:>9.2} {peer:>9.2}  {:+.2}", ours - peer);
        }
    }
}

fn larder(room: usize, trace: &[u32]) -> f64 {
    let entries = u64::try_from(room).expect("a number of entries");
    let memory = Memory::builder()
        .max_entries(entries)
        .max_bytes(entries * ROOM)
        .build();
    let keys = names().map(Key::new).collect::<Vec<_>>();
    let entry = |memory: &Memory| Entry::new(memory.clock(), Value::Bytes(value()));
    ratio(trace, |number| {
        let key = &keys[number];
        if memory.get_now(key).flatten().is_some() {
            return true;
        }
        let put = now(memory.put(key, entry(&memory), When::Always));
        assert!(put.is_ok_and(|put| put), "a small entry fits");
        false
    })
}

fn moka(room: usize, trace: &[u32]) -> f64 {
    let room = u64::try_from(room).expect("a number of entries");
    let cache = moka::future::Cache::builder().max_capacity(room).build();
    let names: Vec<String> = names().collect();
    ratio(trace, |number| {
        let name = &names[number];
        if now(cache.get(name)).is_some() {
            return true;
        }
        now(cache.insert(name.clone(), value()));
        false
    })
}

/// Of the requests after the warm-up, how many in a hundred hit.
fn ratio(trace: &[u32], mut request: impl FnMut(usize) -> bool) -> f64 {
    let mut hits = 0_u32;
    for (at, number) in trace.iter().enumerate() {
        let hit = request(*number as usize);
        hits += u32::from(hit && at >= WARM);
    }
    let counted = u32::try_from(trace.len() - WARM).expect("a few millions");
    100.0 * f64::from(hits) / f64::from(counted)
}

fn names() -> impl Iterator<Item = String> {
    (0..KEYS).map(|number| format!(":1:user:{number:08}"))
}

fn value() -> Bytes {
    Bytes::from_static(&[b'x'; 100])
}

fn mean(of: [f64; SEEDS.len()]) -> f64 {
    of.iter().sum::<f64>() / f64::from(u32::try_from(of.len()).expect("a few"))
}

/// Which keys are asked for, by number.
fn trace(seed: u64, moves: bool) -> Vec<u32> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut keys: Vec<u32> = (0..u32::try_from(KEYS).expect("fits")).collect();
    chance.shuffle(&mut keys);
    let ranks = Zipf::new(0.99);
    let request = |at: usize| {
        let step = if moves { at / STAYS * (KEYS / 100) } else { 0 };
        keys[(ranks.draw(&mut chance) + step) % KEYS]
    };
    (0..REQUESTS).map(request).collect()
}

/// Draws ranks: the first is the most frequent.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(exponent: f64) -> Self {
        let mut sum = 0.0;
        let weight = |rank: usize| {
            sum += f64::from(u32::try_from(rank).expect("fits")).powf(-exponent);
            sum
        };
        Self((1..=KEYS).map(weight).collect())
    }

    fn draw(&self, chance: &mut fastrand::Rng) -> usize {
        let all = self.0.last().copied().unwrap_or_default();
        let point = chance.f64() * all;
        self.0.partition_point(|sum| *sum < point).min(KEYS - 1)
    }
}
