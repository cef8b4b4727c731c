//! Values of 100 bytes in files: many entries against few, and against plain files.
//!
//! The folders are made below `TMPDIR`, else below `/tmp`, and removed. A million entries take four
//! gigabytes and a million inodes there.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use larder::store::{File, Store, When};
use larder::{Entry, Key, Value};
use tokio::runtime::Runtime;

use crate::pairs::compare;

const FEW: u64 = 100;
const MANY: u64 = 1_000_000;
/// Entries of the peer that lists its folder with every set, as Django does.
const LISTED: u64 = 10_000;
const BATCH: u64 = 1000;

/// A store with `count` entries.
struct Filled {
    store: File,
    folder: PathBuf,
    count: u64,
}

impl Drop for Filled {
    fn drop(&mut self) {
        // A sweep may put a lock where it was just removed.
        while self.folder.exists() && fs::remove_dir_all(&self.folder).is_err() {}
    }
}

fn new_folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("larder-bench-{}-{name}", std::process::id()))
}

fn key(number: u64) -> Key {
    Key::new(format!(":1:user:{number:08}:profile"))
}

fn entry(store: &File) -> Entry {
    Entry::new(store.clock(), Value::Bytes(vec![b'x'; 100].into()))
}

impl Filled {
    fn new(runtime: &Runtime, count: u64) -> Self {
        let folder = new_folder(&count.to_string());
        let store = File::builder(&folder).max_bytes(u64::MAX).open();
        let store = store.expect("a temporary folder can be made");
        for first in (0..count).step_by(usize::try_from(BATCH).unwrap_or(1)) {
            let batch = first..(first + BATCH).min(count);
            let entries = batch.map(|number| (key(number), entry(&store))).collect();
            let put = runtime.block_on(store.put_many(entries));
            assert!(put.expect("the disk has room").is_empty());
        }
        Self {
            store,
            folder,
            count,
        }
    }

    /// Some key, another with each `turn`, all over what is kept.
    fn key(&self, turn: u64) -> Key {
        key(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.count)
    }

    fn gets(&self, runtime: &Runtime, from: u64) -> f64 {
        rate(from, 10_000, |turn| {
            let found = runtime.block_on(self.store.get(&[self.key(turn)], None));
            assert!(black_box(found).expect("it answers").entries[0].is_some());
        })
    }

    fn sets(&self, runtime: &Runtime, from: u64) -> f64 {
        rate(from, 4000, |turn| {
            let (key, entry) = (self.key(turn), entry(&self.store));
            let put = self.store.put(&key, entry, When::Always);
            assert!(runtime.block_on(put).expect("the disk has room"));
        })
    }
}

/// How often a second `act` runs, in thousands.
fn rate(from: u64, times: u32, mut act: impl FnMut(u64)) -> f64 {
    let began = Instant::now();
    for turn in 0..times {
        act(from + u64::from(turn));
    }
    f64::from(times) / began.elapsed().as_secs_f64() / 1000.0
}

/// A set that first counts the files of its one folder.
fn listed_set(folder: &Path, number: u64) {
    let count = fs::read_dir(folder).expect("it is there").count();
    assert!(count as u64 >= LISTED);
    write(folder, number);
}

fn write(folder: &Path, number: u64) {
    let draft = folder.join("draft");
    fs::write(&draft, [b'x'; 100]).expect("the disk has room");
    fs::rename(draft, folder.join(number.to_string())).expect("the disk has room");
}

/// A million entries against a hundred.
pub(crate) fn many_against_few() {
    let runtime = runtime();
    let many = Filled::new(&runtime, MANY);
    let few = Filled::new(&runtime, FEW);
    let (mut ours, mut theirs) = (0, 0);
    compare(
        "file get, 1,000,000 entries / 100",
        "K/s",
        || many.gets(&runtime, next(&mut ours)),
        || few.gets(&runtime, next(&mut theirs)),
    );
    compare(
        "file set, 1,000,000 entries / 100",
        "K/s",
        || many.sets(&runtime, next(&mut ours)),
        || few.sets(&runtime, next(&mut theirs)),
    );
}

/// Ten thousand entries against plain files, and against those of a folder that is listed.
pub(crate) fn store_against_plain_files() {
    let runtime = runtime();
    let filled = Filled::new(&runtime, LISTED);
    let peer = new_folder("plain");
    fs::create_dir(&peer).expect("a temporary folder can be made");
    (0..LISTED).for_each(|number| write(&peer, number));
    let (mut ours, mut theirs) = (0, 0);
    compare(
        "file get / fs::read on the spot, 10,000",
        "K/s",
        || filled.gets(&runtime, next(&mut ours)),
        || {
            rate(next(&mut theirs), 4000, |turn| {
                let path = peer.join((turn * 7919 % LISTED).to_string());
                black_box(fs::read(path).expect("it is there"));
            })
        },
    );
    compare(
        "file set / write and rename on the spot, 10,000",
        "K/s",
        || filled.sets(&runtime, next(&mut ours)),
        || {
            rate(next(&mut theirs), 2000, |turn| {
                write(&peer, turn * 7919 % LISTED);
            })
        },
    );
    compare(
        "file set / the same after listing the folder, 10,000",
        "K/s",
        || filled.sets(&runtime, next(&mut ours)),
        || {
            rate(next(&mut theirs), 50, |turn| {
                listed_set(&peer, turn * 7919 % LISTED);
            })
        },
    );
    let _ = fs::remove_dir_all(peer);
}

fn next(turns: &mut u64) -> u64 {
    *turns += 100_000;
    *turns
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a plain runtime")
}
