//! How long an entry is fresh.

use std::time::Duration;

use crate::Moment;

/// How long an entry is fresh, to the millisecond.
///
/// ```
/// use std::time::Duration;
/// use larder::Ttl;
///
/// assert_eq!(Ttl::from(Duration::from_secs(60)), Ttl::For(Duration::from_secs(60)));
/// assert!(Ttl::from(Duration::ZERO).is_zero());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ttl {
    /// What the cache was set to: five minutes unless changed, as in Django.
    #[default]
    Default,
    /// For ever, or until the store needs the room.
    Never,
    /// This long; zero means "do not keep".
    For(Duration),
}

impl Ttl {
    /// This TTL, or `default` where it names the default.
    #[must_use]
    pub fn or(self, default: Self) -> Self {
        if self == Self::Default { default } else { self }
    }

    /// Whether this means "do not keep".
    pub fn is_zero(self) -> bool {
        self == Self::For(Duration::ZERO)
    }

    /// When an entry written at `now` stops being fresh. An unresolved default counts as never.
    pub(crate) fn deadline(self, now: Moment) -> Moment {
        match self {
            Self::For(span) => now.plus(span),
            Self::Never | Self::Default => Moment::NEVER,
        }
    }
}

impl From<Duration> for Ttl {
    fn from(span: Duration) -> Self {
        Self::For(span)
    }
}
