//! What all stores of this folder can be set to.

use std::time::Duration;

use super::table::Parts;
use crate::Clock;

/// Settings that do not depend on the database.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) max_entries: Option<u64>,
    pub(super) cull_every: Duration,
    pub(super) clock: Clock,
    pub(super) parts: Parts,
}

impl Settings {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            connect_timeout: timeout,
            max_entries: None,
            cull_every: Duration::from_mins(1),
            clock: Clock::system(),
            parts: Parts::Entries,
        }
    }
}

/// The setters that every builder of this folder has.
macro_rules! common_setters {
    ($default_timeout:literal) => {
        #[doc = concat!("How long an operation may take. Default: ", $default_timeout, ".")]
        ///
        /// One that has to connect first may take the [connect timeout](Self::connect_timeout) more.
        pub fn timeout(mut self, limit: std::time::Duration) -> Self {
            self.settings.timeout = limit;
            self
        }

        #[doc = concat!("How long connecting may take. Default: ", $default_timeout, ".")]
        pub fn connect_timeout(mut self, limit: std::time::Duration) -> Self {
            self.settings.connect_timeout = limit;
            self
        }

        /// How many entries to keep, about. Default: no limit.
        ///
        /// Kept by the [background task](Self::cull_every): what would expire first leaves first.
        pub fn max_entries(mut self, entries: u64) -> Self {
            self.settings.max_entries = Some(entries);
            self
        }

        /// How often the background task removes what has expired. Default: a minute, give or take a
        /// quarter. It starts with the first write, and ends with the store.
        pub fn cull_every(mut self, span: std::time::Duration) -> Self {
            self.settings.cull_every = span.max(std::time::Duration::from_millis(1));
            self
        }

        /// Reads the table's outbox along with the numbers of tags, so that a row which a transaction
        /// has put there invalidates at its commit. Default: off; the URL says `outbox=true`.
        ///
        /// See [`outbox`](crate::outbox). All who share the table have to say so. The outbox is then
        /// this store's: caches on other stores have an outbox of another name. Costs a look into an
        /// index with each read of numbers, and whoever first meets new rows gives them their numbers.
        pub fn outbox(mut self) -> Self {
            self.settings.parts = $crate::store::sql::table::Parts::EntriesAndOutbox;
            self
        }

        /// For an outbox alone, whose entries are elsewhere.
        pub(crate) fn only_outbox(mut self) -> Self {
            self.settings.parts = $crate::store::sql::table::Parts::Outbox;
            self
        }

        /// Tells the time by `clock`. Default: the machine's. Everyone who shares the table has to
        /// agree about the time.
        pub fn clock(mut self, clock: $crate::Clock) -> Self {
            self.settings.clock = clock;
            self
        }
    };
}
pub(super) use common_setters;
