//! How a key is loaded and how long what was loaded is good for.

use std::time::Duration;

use super::look::For;
use crate::{Clock, Entry, Tag, Ttl};

/// How a fetch behaves; each setting has a default that is safe to ship.
///
/// ```
/// use std::time::Duration;
/// use larder::Policy;
///
/// let policy = Policy::new().ttl(Duration::from_secs(60)).grace(Duration::from_secs(30));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Policy {
    pub(crate) ttl: Ttl,
    pub(crate) grace: Duration,
    pub(crate) if_error: Duration,
    pub(crate) early: f64,
    pub(crate) soft_limit: Option<Duration>,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) wait: Duration,
    pub(crate) retry_after: Duration,
    pub(crate) tags: Vec<Tag>,
}

/// How long a lease lasts unless it is renewed, which happens three times in that span.
pub(crate) const LEASE: Duration = Duration::from_secs(6);
/// How long callers do not queue after a load whose value was not kept.
pub(crate) const PASS: Duration = Duration::from_secs(2);

impl Policy {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            ttl: Ttl::Default,
            grace: Duration::ZERO,
            if_error: Duration::ZERO,
            early: 0.0,
            soft_limit: None,
            time_limit: Some(Duration::from_secs(30)),
            wait: Duration::from_secs(10),
            retry_after: Duration::from_secs(2),
            tags: Vec::new(),
        }
    }

    /// How long what is loaded is fresh. Default: the cache's, five minutes unless changed.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// For how long after its TTL a value is served while one load refreshes it in the background
    /// (stale-while-revalidate, RFC 5861 §3). Default: not at all.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// For how long after its TTL a value is served when a load fails or is slow (stale-if-error,
    /// RFC 5861 §4). Default: not at all.
    pub fn stale_if_error(mut self, span: Duration) -> Self {
        self.if_error = span;
        self
    }

    /// Refreshes a value in the background shortly before its TTL ends, so that callers need not wait
    /// for its load. Default: 0, not at all; 1 is the usual eagerness.
    ///
    /// A hit starts the refresh by chance, the likelier the nearer the end and the longer the last
    /// load took: at one such time before the end with every third hit or so, at three with every
    /// twentieth. Twice the eagerness begins twice as early. However many hits, one load runs. What
    /// is loaded so keeps how long that took; an integer is then counted up by compare-and-set.
    pub fn early(mut self, eagerness: f64) -> Self {
        self.early = eagerness;
        self
    }

    /// Whether hits may refresh what they find.
    pub(super) fn is_ever_early(&self) -> bool {
        self.early > 0.0
    }

    /// Whether a hit on `entry` is to refresh it: `XFetch`, of Vattani, Chierichetti and Lowenstein
    /// (2015), which needs no agreement between processes.
    pub(crate) fn is_due(&self, entry: &Entry, clock: &Clock) -> bool {
        self.early > 0.0 && is_due(entry, self.early * -clock.chance().ln(), clock)
    }

    /// After how long a caller is given a stale value, if [`stale_if_error`](Self::stale_if_error)
    /// allows one, while the load goes on. Default: never.
    pub fn soft_limit(mut self, limit: Duration) -> Self {
        self.soft_limit = Some(limit);
        self
    }

    /// After how long a load is given up. Default: 30 s.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Lets a load take as long as it takes: who makes pages has a limit of its own, and what a thread
    /// makes in one go cannot be broken off.
    #[cfg(any(feature = "minijinja", feature = "page"))]
    pub(crate) fn without_time_limit(mut self) -> Self {
        self.time_limit = None;
        self
    }

    /// How long to wait for another's load of the same key before loading beside the cache.
    /// Default: 10 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// For how long a failed load is not tried again. Default: 2 s.
    pub fn retry_after(mut self, span: Duration) -> Self {
        self.retry_after = span;
        self
    }

    /// Tags of what is loaded, for [`Cache::invalidate`](crate::Cache::invalidate). Default: none.
    pub fn tags<I: IntoIterator<Item: AsRef<str>>>(mut self, tags: I) -> Self {
        self.tags
            .extend(tags.into_iter().map(|tag| Tag::from(tag.as_ref())));
        self
    }

    /// What a look at the slot is for.
    pub(super) fn wanted(&self) -> For {
        if self.kept_stale().is_zero() {
            For::Fresh
        } else {
            For::Stale
        }
    }

    /// How long a value is kept past its TTL.
    pub(crate) fn kept_stale(&self) -> Duration {
        self.grace.max(self.if_error)
    }
}

/// Whether a hit on `entry` is to refresh it, by an eagerness times the luck of one caller.
pub(crate) fn is_due(entry: &Entry, eagerness: f64, clock: &Clock) -> bool {
    let Some(took) = entry.took else { return false };
    let left = entry.fresh_until.left(clock.now());
    left.is_some_and(|left| took.as_secs_f64() * eagerness >= left.as_secs_f64())
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}
