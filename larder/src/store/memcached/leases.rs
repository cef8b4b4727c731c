//! The leases that this process has put into slots, with the state that their items had then.
//!
//! Who holds a lease comes back to write under it, to renew it or to end it; with the state known
//! that is one round trip, and the slot is not read again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::connection::Link;
use crate::entry::Stamp;
use crate::{Key, Moment};

/// Leases remembered before those that are over are forgotten.
const MOST: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<HashMap<Stamp, Lease>>);

#[derive(Debug)]
struct Lease {
    key: Key,
    link: Weak<Link>,
    cas: u64,
    until: Moment,
}

impl Leases {
    /// Notes that the slot of `key` holds the lease `stamp` and nothing else.
    pub(super) fn put(
        &self,
        key: &Key,
        (stamp, until): (Stamp, Moment),
        link: &Arc<Link>,
        cas: u64,
        now: Moment,
    ) {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if leases.len() >= MOST {
            leases.retain(|_, lease| lease.until > now);
        }
        if leases.len() < MOST {
            let (key, link) = (key.clone(), Arc::downgrade(link));
            let lease = Lease {
                key,
                link,
                cas,
                until,
            };
            leases.insert(stamp, lease);
        }
    }

    /// The state that the item of `key` had when the lease `stamp` was put there, on `link`.
    pub(super) fn take(&self, key: &Key, stamp: Stamp, link: &Arc<Link>) -> Option<u64> {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lease = leases.remove(&stamp)?;
        // On another run of the server the same number stands for another state.
        let same = lease.key == *key && Weak::ptr_eq(&lease.link, &Arc::downgrade(link));
        same.then_some(lease.cas)
    }
}
