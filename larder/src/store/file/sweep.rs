//! Removing what has expired, and what is too much.
//!
//! The modification time of a slot's file is the moment after which nothing in it matters, so that a
//! sweep opens no file but those that it removes. The time of change, which nobody can set, is when
//! the file was written, by which the oldest go first.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::room::{self, Room};
use super::usage::Amount;
use super::{Inner, clearing, slot};
use crate::Moment;

/// How often all folders are swept.
const ROUND: Duration = Duration::from_mins(1);
/// How often it is looked whether the store is still there, or another's sweep has ended.
const TICK: Duration = Duration::from_secs(1);
/// The file that is locked by the process that sweeps.
const LOCK: &str = ".sweep";

/// A slot's file as a sweep sees it.
#[derive(Clone, Copy)]
struct Seen {
    /// When it was written, in nanoseconds.
    written: u64,
    length: u64,
    /// After which moment nothing in it matters.
    until: Moment,
}

/// When a file was written, and its length.
type Age = (u64, u64);

impl Inner {
    /// Starts the thread that sweeps, with the first write. It ends with the store.
    pub(super) fn start_sweeping(self: &Arc<Self>) {
        if !self.clock.is_for_all_threads() {
            return;
        }
        self.usage.swept_by(|| {
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
        // The thread's own sweep is waited for, so that all that was there before this call is swept.
        let _here = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(_everywhere) = self.sweep_alone() else {
            return false;
        };
        let before = self.usage.now();
        let mut ages = Vec::new();
        for room in &self.rooms {
            self.sweep_room(room, &mut ages);
        }
        if let Some(lock) = self.numbers.room().try_lock() {
            lock.remove_strays();
        }
        clearing::sweep(&self.root);
        let mut kept = Amount::default();
        for (_, length) in &ages {
            kept.add(Amount::of(*length));
        }
        if kept.is_over(self.usage.most()) {
            let newest = newest_to_go(ages, kept, self.usage.most().lowered());
            self.evict(newest, &mut kept);
        }
        self.usage.found(kept, before);
        true
    }

    /// The lock that is held by the process that sweeps; closing the file unlocks it.
    fn sweep_alone(&self) -> Option<fs::File> {
        let path = self.root.join(LOCK);
        let lock = match room::create(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                fs::File::open(&path)
            }
            lock => lock,
        };
        lock.ok().filter(|lock| lock.try_lock().is_ok())
    }

    /// Removes what has expired, and notes the ages of the rest.
    fn sweep_room(&self, room: &Room, ages: &mut Vec<Age>) {
        let names = room.names().unwrap_or_default();
        if names.iter().any(|name| room::is_draft(name))
            && let Some(lock) = room.try_lock()
        {
            lock.remove_strays();
        }
        let now = self.clock.now();
        for name in names {
            let Some(seen) = look(room, &name) else {
                continue;
            };
            if seen.until > now || !let_go(room, &name, |seen| seen.until <= now) {
                ages.push((seen.written, seen.length));
            }
        }
    }

    /// Removes the oldest files, up to those written at `newest`, until no more than nine tenths of
    /// the limits are kept.
    fn evict(&self, newest: u64, kept: &mut Amount) {
        let target = self.usage.most().lowered();
        for room in &self.rooms {
            for name in room.names().unwrap_or_default() {
                if !kept.is_over(target) {
                    break;
                }
                let is_old = |seen: &Seen| seen.written <= newest;
                if let Some(seen) = look(room, &name).filter(is_old)
                    && let_go(room, &name, is_old)
                {
                    kept.take(Amount::of(seen.length));
                }
            }
        }
    }
}

/// Removes a file of ours if it still `may` go once nobody can change it. One whose folder is locked
/// stays until the next sweep.
fn let_go(room: &Room, name: &str, may: impl FnOnce(&Seen) -> bool) -> bool {
    let Some(lock) = room.try_lock() else {
        return false;
    };
    let may = look(room, name).is_some_and(|seen| may(&seen));
    may && is_ours(room, name) && lock.remove(name).is_ok()
}

fn look(room: &Room, name: &str) -> Option<Seen> {
    if !slot::is_place(name) {
        return None;
    }
    let about = fs::symlink_metadata(room.path().join(name)).ok()?;
    if !about.is_file() {
        return None;
    }
    let nanos = |seconds: i64, nanos: i64| u64::try_from(seconds * 1_000_000_000 + nanos);
    let until = about
        .modified()
        .ok()?
        .duration_since(SystemTime::UNIX_EPOCH);
    Some(Seen {
        written: nanos(about.ctime(), about.ctime_nsec()).unwrap_or(0),
        length: about.len(),
        until: Moment::START.plus(until.unwrap_or_default()),
    })
}

/// Whether the file is this store's: begun by it, or empty, as a crash of the machine leaves it.
fn is_ours(room: &Room, name: &str) -> bool {
    room::read_start(&room.path().join(name), slot::HEAD)
        .is_ok_and(|start| start.is_empty() || slot::is_ours(&start))
}

/// When the newest file was written that has to go, so that the older ones leave no more than
/// `target`.
fn newest_to_go(mut ages: Vec<Age>, mut kept: Amount, target: Amount) -> u64 {
    ages.sort_unstable();
    let mut newest = 0;
    for (written, length) in ages {
        if !kept.is_over(target) {
            break;
        }
        kept.take(Amount::of(length));
        newest = written;
    }
    newest
}

fn sweep_while_there(inner: &Weak<Inner>) {
    let mut next = Instant::now();
    loop {
        let Some(there) = inner.upgrade() else { return };
        there.usage.heard();
        let due = Instant::now() >= next;
        let swept = (due || there.usage.is_over()).then(|| there.sweep());
        drop(there);
        match swept {
            // Another process sweeps, and calls of this one change nothing about that.
            Some(false) => std::thread::sleep(TICK),
            Some(true) => next = Instant::now() + ROUND,
            None => std::thread::park_timeout(TICK),
        }
    }
}
