//! What happened to a key, and why: one enum, which every listener prints in its own way.

mod reason;

use std::fmt;
use std::time::Duration;

pub use self::reason::Reason;
use crate::Tag;

/// What came of asking for a key.
///
/// `Cache-Status` prints it on pages; [`Cache::counts`](crate::Cache::counts) counts it; a
/// [`Listener`] hears it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// A fresh value was there. What is left of its TTL, if it ends and the store knows.
    Hit(Option<Duration>),
    /// A value past its TTL was served.
    Stale(Stale),
    /// Nothing that can be served was there; a load ran, or the caller was told so.
    Miss(Miss),
    /// Nothing was there, and the load of another caller answered this one too.
    Joined(Miss),
    /// A load ran beside the cache.
    Bypass(Bypass),
    /// By the rules of HTTP, the cache had no part in it.
    Refused(Reason),
}

/// Why a stale value was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stale {
    /// It is being refreshed in the background.
    Refreshing,
    /// The load failed, now or a moment ago.
    LoadFailed,
    /// The load took longer than its soft limit.
    LoadSlow,
}

/// Why there was nothing to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Miss {
    /// The slot was empty.
    Absent,
    /// The value was past its TTL and its grace.
    Expired,
    /// This tag was invalidated after the value was loaded.
    Invalidated(Tag),
    /// Something was there that is not the value of this key, codec or type.
    Unreadable,
    /// What was there is not for this request: another mark, URL or variant.
    Unsuitable,
}

/// Why a load ran without the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bypass {
    /// The last load gave something that is not kept.
    Passed,
    /// Another's load of this key took longer than callers wait.
    WaitedTooLong,
    /// The load of this key needs this key.
    Cycle,
    /// The store did not answer.
    StoreFailed,
    /// The store would have had to be waited for, by a caller that cannot wait.
    NotAwaited,
}

impl Outcome {
    /// Returns the short word that it prints as.
    ///
    /// ```
    /// use larder::{Miss, Outcome};
    ///
    /// assert_eq!(Outcome::Miss(Miss::Expired).token(), "miss-expired");
    /// ```
    pub const fn token(&self) -> &'static str {
        match self {
            Self::Hit(_) => "hit",
            Self::Stale(Stale::Refreshing) => "stale-refreshing",
            Self::Stale(Stale::LoadFailed) => "stale-load-failed",
            Self::Stale(Stale::LoadSlow) => "stale-load-slow",
            Self::Miss(Miss::Absent) => "miss-absent",
            Self::Miss(Miss::Expired) => "miss-expired",
            Self::Miss(Miss::Invalidated(_)) => "miss-invalidated",
            Self::Miss(Miss::Unreadable) => "miss-unreadable",
            Self::Miss(Miss::Unsuitable) => "miss-unsuitable",
            Self::Joined(Miss::Absent) => "joined-absent",
            Self::Joined(Miss::Expired) => "joined-expired",
            Self::Joined(Miss::Invalidated(_)) => "joined-invalidated",
            Self::Joined(Miss::Unreadable) => "joined-unreadable",
            Self::Joined(Miss::Unsuitable) => "joined-unsuitable",
            Self::Bypass(Bypass::Passed) => "passed",
            Self::Bypass(Bypass::WaitedTooLong) => "waited-too-long",
            Self::Bypass(Bypass::Cycle) => "cycle",
            Self::Bypass(Bypass::StoreFailed) => "store-failed",
            Self::Bypass(Bypass::NotAwaited) => "not-awaited",
            Self::Refused(reason) => reason.token(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "absent",
            Self::Expired => "expired",
            Self::Invalidated(_) => "invalidated",
            Self::Unreadable => "unreadable",
            Self::Unsuitable => "unsuitable",
        })
    }
}

/// Hears what comes of every key that a cache is asked for.
///
/// Called on the caller's way: it must be quick and must not block.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use std::sync::Mutex;
/// use larder::{Cache, Listener, Outcome, store::Memory};
///
/// #[derive(Default, Debug)]
/// struct Log(Mutex<Vec<String>>);
///
/// impl Listener for Log {
///     fn heard(&self, key: &str, outcome: &Outcome) {
///         self.0.lock().unwrap().push(format!("{key} {outcome}"));
///     }
/// }
///
/// let log = std::sync::Arc::new(Log::default());
/// let cache = Cache::builder(Memory::new()).listener(log.clone()).build()?;
/// cache.get::<String>("k").await?;
/// assert_eq!(*log.0.lock().unwrap(), [":1:k miss-absent"]);
/// # Ok(())
/// # }
/// ```
pub trait Listener: fmt::Debug + Send + Sync + 'static {
    /// `key`, in full, was asked for with this outcome.
    fn heard(&self, key: &str, outcome: &Outcome);
}
