//! Removing what has expired, and what is too much.
//!
//! The modification time of a slot's file is the moment after which nothing in it matters, so that a
//! sweep opens no file but those that it removes. The time of change, which nobody can set, is when
//! the file was written, by which the oldest go first.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::room::{self, Room, TEMPORARY};
use super::usage::Amount;
use super::{Inner, slot};
use crate::Moment;

/// How often all folders are swept.
const ROUND: Duration = Duration::from_secs(60);
/// How often it is looked whether the store is still there, or another's sweep has ended.
const TICK: Duration = Duration::from_secs(1);
/// The file that is locked by the process that sweeps.
const LOCK: &str = ".sweep";

/// When a file was written, in nanoseconds, and what it counts for.
type Age = (i128, Amount);

impl Inner {
    /// Starts the thread that sweeps, with the first write. It ends with the store.
    pub(super) fn start_sweeping(self: &Arc<Self>) {
        if !self.clock.is_for_all_threads() {
            return;
        }
        self.usage.swept_by(|| {
            if self
                .sweeping
                .swap(true, std::sync::atomic::Ordering::Relaxed)
            {
                return None;
            }
            let inner = Arc::downgrade(self);
            let thread = std::thread::Builder::new().name("larder-file-sweep".into());
            match thread.spawn(move || sweep_while_there(&inner)) {
                Ok(thread) => Some(thread.thread().clone()),
                // Without the thread nothing leaves but what is deleted or written over.
                Err(error) => {
                    tracing::warn!(%error, "file_sweeper_missing");
                    None
                }
            }
        });
    }

    /// Sweeps all folders, unless another process does; says whether it did.
    pub(super) fn sweep(&self) -> bool {
        let path = self.root.join(LOCK);
        let lock = match room::create(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                fs::File::open(&path)
            }
            lock => lock,
        };
        // Held until the end; closing the file unlocks it.
        let Ok(lock) = lock else { return false };
        if lock.try_lock().is_err() {
            return false;
        }
        let mut ages = Vec::new();
        for room in &self.rooms {
            self.sweep_room(room, &mut ages);
        }
        for name in self.numbers.room().names().unwrap_or_default() {
            if name.starts_with(TEMPORARY) {
                self.numbers.room().remove_if_stray(&name);
            }
        }
        let mut kept = Amount::default();
        for (_, amount) in &ages {
            kept.add(*amount);
        }
        self.usage.found(kept);
        if kept.is_over(self.usage.most()) {
            let newest = newest_to_go(ages, kept, self.usage.most().lowered());
            self.evict(newest, kept);
        }
        true
    }

    /// Removes what has expired, and notes the ages of the rest.
    fn sweep_room(&self, room: &Room, ages: &mut Vec<Age>) {
        let now = self.clock.now();
        for name in room.names().unwrap_or_default() {
            if name.starts_with(TEMPORARY) {
                room.remove_if_stray(&name);
                continue;
            }
            let Some((age, until)) = about(room, &name) else {
                continue;
            };
            if until > now || !self.let_go(room, &name, |_, until| until <= now) {
                ages.push(age);
            }
        }
    }

    /// Removes the oldest files up to those written at `newest`, until no more than nine tenths of
    /// the limits are kept.
    fn evict(&self, newest: i128, mut kept: Amount) {
        let target = self.usage.most().lowered();
        for room in &self.rooms {
            for name in room.names().unwrap_or_default() {
                let Some(((written, amount), _)) = about(room, &name) else {
                    continue;
                };
                if written > newest || !kept.is_over(target) {
                    continue;
                }
                if self.let_go(room, &name, |age, _| age.0 <= newest) {
                    kept.take(amount);
                }
            }
        }
        self.usage.found(kept);
    }

    /// Removes a file of ours if it may still go once nobody can change it. One that is being
    /// changed stays until the next sweep.
    fn let_go(&self, room: &Room, name: &str, may: impl FnOnce(Age, Moment) -> bool) -> bool {
        let Some(lock) = room.try_lock() else {
            return false;
        };
        let may = about(room, name).is_some_and(|(age, until)| may(age, until));
        may && is_ours(room, name) && lock.remove(name).is_ok()
    }
}

/// The age of a slot's file, and after which moment nothing in it matters.
fn about(room: &Room, name: &str) -> Option<(Age, Moment)> {
    if !slot::is_place(name) {
        return None;
    }
    let about = fs::symlink_metadata(room.path().join(name)).ok()?;
    if !about.is_file() {
        return None;
    }
    let written = i128::from(about.ctime()) * 1_000_000_000 + i128::from(about.ctime_nsec());
    let until = about
        .modified()
        .ok()?
        .duration_since(SystemTime::UNIX_EPOCH);
    let until = Moment::START.plus(until.unwrap_or_default());
    Some(((written, Amount::of(about.len())), until))
}

/// Whether the file is this store's: begun by it, or empty, as a crash of the machine leaves it.
fn is_ours(room: &Room, name: &str) -> bool {
    room::read_start(&room.path().join(name), slot::HEAD)
        .is_ok_and(|start| start.is_empty() || slot::is_ours(&start))
}

/// When the newest file was written that has to go, so that the older ones leave no more than
/// `target`.
fn newest_to_go(mut ages: Vec<Age>, mut kept: Amount, target: Amount) -> i128 {
    ages.sort_unstable_by_key(|(written, _)| *written);
    let mut newest = i128::MIN;
    for (written, amount) in ages {
        if !kept.is_over(target) {
            break;
        }
        kept.take(amount);
        newest = written;
    }
    newest
}

fn sweep_while_there(inner: &Weak<Inner>) {
    let mut next = Instant::now();
    loop {
        {
            let Some(inner) = inner.upgrade() else { return };
            if inner.usage.is_called() || Instant::now() >= next {
                inner.sweep();
                next = Instant::now() + ROUND;
                inner.usage.heard();
            }
        }
        std::thread::park_timeout(TICK);
    }
}
