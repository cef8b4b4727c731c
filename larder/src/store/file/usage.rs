//! How much is kept, as far as this process knows.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;

/// The room that a file takes at least.
const BLOCK: u64 = 4096;

/// Entries and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Amount {
    /// What a file of `length` bytes counts for.
    pub(super) fn of(length: u64) -> Self {
        let bytes = length.max(1).div_ceil(BLOCK).saturating_mul(BLOCK);
        Self { entries: 1, bytes }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.entries = self.entries.saturating_add(other.entries);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    pub(super) fn take(&mut self, other: Self) {
        self.entries = self.entries.saturating_sub(other.entries);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }

    /// Whether more is kept than `most`.
    pub(super) fn is_over(self, most: Self) -> bool {
        self.entries > most.entries || self.bytes > most.bytes
    }

    /// Nine tenths, so that not every write past a limit calls for another sweep.
    pub(super) fn lowered(self) -> Self {
        let lowered = |number: u64| number - number / 10;
        Self {
            entries: lowered(self.entries),
            bytes: lowered(self.bytes),
        }
    }
}

/// Counts what this process writes and removes; a sweep counts all.
#[derive(Debug)]
pub(super) struct Usage {
    entries: AtomicU64,
    bytes: AtomicU64,
    most: Amount,
    sweeper: OnceLock<Option<Thread>>,
    called: AtomicBool,
}

impl Usage {
    pub(super) fn new(most: Amount) -> Self {
        Self {
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            most,
            sweeper: OnceLock::new(),
            called: AtomicBool::new(false),
        }
    }

    pub(super) fn most(&self) -> Amount {
        self.most
    }

    pub(super) fn now(&self) -> Amount {
        Amount {
            entries: self.entries.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// A file of `before` bytes was replaced by one of `after`, `None` being no file.
    pub(super) fn changed(&self, before: Option<u64>, after: Option<u64>) {
        if let Some(after) = after.map(Amount::of) {
            self.entries.fetch_add(after.entries, Ordering::Relaxed);
            self.bytes.fetch_add(after.bytes, Ordering::Relaxed);
        }
        if let Some(before) = before.map(Amount::of) {
            take(&self.entries, before.entries);
            take(&self.bytes, before.bytes);
        }
        if self.is_over() {
            self.call();
        }
    }

    /// This much was found by a sweep that began when the count was `before`. What has come since may
    /// have been found or not: it counts once more, so that a limit is rather kept too early.
    pub(super) fn found(&self, mut amount: Amount, before: Amount) {
        let mut come = self.now();
        come.take(before);
        amount.add(come);
        self.entries.store(amount.entries, Ordering::Relaxed);
        self.bytes.store(amount.bytes, Ordering::Relaxed);
    }

    /// Whether too much is kept.
    pub(super) fn is_over(&self) -> bool {
        self.now().is_over(self.most)
    }

    /// Tells the thread that sweeps that too much is kept, once until it has heard.
    fn call(&self) {
        if let Some(Some(sweeper)) = self.sweeper.get()
            && !self.called.swap(true, Ordering::Relaxed)
        {
            sweeper.unpark();
        }
    }

    /// From now on a call is a new one.
    pub(super) fn heard(&self) {
        self.called.store(false, Ordering::Relaxed);
    }

    /// Sets who is told; `start` runs at most once.
    pub(super) fn swept_by(&self, start: impl FnOnce() -> Option<Thread>) {
        self.sweeper.get_or_init(start);
    }
}

/// Subtracts without going below zero: what another process wrote was never added here.
fn take(from: &AtomicU64, number: u64) {
    let _ = from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |have| {
        Some(have.saturating_sub(number))
    });
}
