//! The stores that the tests run over, each empty and with a clock that can be moved.

use std::sync::Arc;
use std::time::Duration;

use larder::store::{Memory, Store};
use larder::{Cache, CacheBuilder, Clock};

/// A store to test over.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) name: &'static str,
    pub(crate) store: Arc<dyn Store>,
    /// Begins the prefix of every cache, so that runs over one server do not meet.
    own: String,
    /// Whether its clock moves only when told to.
    pub(crate) manual: bool,
}

/// Every store that the tests run over; a line for each.
pub(crate) fn all() -> Vec<Ground> {
    vec![memory()]
}

fn memory() -> Ground {
    Ground {
        name: "memory",
        store: Arc::new(Memory::builder().clock(Clock::manual()).build()),
        own: String::new(),
        manual: true,
    }
}

impl Ground {
    /// A cache with Django's defaults.
    pub(crate) fn cache(&self) -> Cache {
        self.builder("").build().expect("good settings")
    }

    /// Settings of a cache whose prefix ends in `prefix`.
    pub(crate) fn builder(&self, prefix: &str) -> CacheBuilder {
        let own = &self.own;
        Cache::builder(Arc::clone(&self.store)).prefix(format!("{own}{prefix}"))
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, span: Duration) {
        if self.manual {
            self.store.clock().advance(span);
        } else {
            tokio::time::sleep(span).await;
        }
    }
}
