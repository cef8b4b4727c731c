//! What is loaded, and what is done meanwhile.

#![allow(dead_code, reason = "each test file uses a part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What something is made from: a row with a version.
#[derive(Clone, Default)]
pub(crate) struct Row(Arc<AtomicU64>);

impl Row {
    pub(crate) fn at(version: u64) -> Self {
        Self(Arc::new(AtomicU64::new(version)))
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn write(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A way to say that what was made is old.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Act {
    Delete,
    Set,
    Tag,
    Clear,
}
