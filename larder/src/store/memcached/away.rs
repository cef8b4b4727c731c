//! Reading on while the numbers' server is down.
//!
//! Entries without tags are as good as ever, and a load of one is kept under its key's lease. To those
//! with tags nothing can be said, so they are not shown. Where a load is expected to have tags its slot
//! is shown as marked with `Pass`: nothing of it could be kept or given to those who wait for it, so each
//! caller loads for itself at once.
//!
//! Such a load has to be told from every later one. Its caller may have come before an invalidation
//! that this process could not hear of, and a later caller may not have what it gives: hence a counter
//! that goes on with each read.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Memcached;
use crate::entry::{Entry, Mark, Stamp, State};
use crate::store::{Numbers, Tags};
use crate::{Error, ErrorKind};

/// An era that no server draws, or only once in 2^64 times.
const NO_ERA: u64 = 0x6177_6179_5f65_7261;
/// How long a slot is shown as marked; who asks again is shown it again.
const PASS: Duration = Duration::from_secs(2);

impl Memcached {
    /// Whether `error` comes of one server of several that cannot be reached.
    pub(super) fn is_away(&self, error: &Error) -> bool {
        let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout];
        self.0.servers.len() > 1 && kinds.contains(&error.kind())
    }

    /// Numbers under which nothing with tags is valid and nothing made with tags now is kept; leaves of
    /// `entries` what can be judged without numbers.
    pub(super) fn go_without_numbers(
        &self,
        tags: Tags<'_>,
        entries: &mut [Option<Entry>],
    ) -> Numbers {
        let now = self.now();
        for slot in entries {
            let untagged = slot.as_ref().is_none_or(|entry| entry.tags.is_none());
            let is_live = slot.as_ref().is_some_and(|entry| entry.is_live(now));
            if untagged && (is_live || tags.names.is_empty()) {
                continue;
            }
            *slot = Some(Entry::bare(Mark {
                stamp: Stamp::draw(&self.0.clock),
                state: State::Pass,
                until: now.plus(PASS),
            }));
        }
        Numbers {
            era: NO_ERA,
            seq: self.0.without.fetch_add(1, Ordering::Relaxed),
            floor: u64::MAX,
            of: vec![None; tags.names.len()],
        }
    }
}
