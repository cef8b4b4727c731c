//! Hearing what changes: a rarer power, which not every store has.

use std::convert::Infallible;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Moment, Result};

/// Tells who keeps copies what has changed in the store, by whomever.
///
/// Asked of a store by [`Store::watch`](super::Store::watch);
/// [`Tiered::watched`](crate::wrap::Tiered::watched) uses it.
///
/// *For implementers.* One call is one connection. The order of what is told is what makes it worth
/// anything: [`News::Everything`] comes first, when every later change will be told; a change that may
/// have been missed is made up for by another `Everything`; and [`News::Current`] is told only after
/// all that it vouches for. A message that comes twice, or for a key that has not changed, does no
/// harm. Whoever listens comes back after an error, so that nothing need be tried again here.
#[async_trait]
pub trait Watch: Send + Sync {
    /// Listens and tells `ears` until that fails, and then why.
    ///
    /// About every `pace` it finds out whether all is told, and says so by [`News::Current`]. An
    /// error of kind `Unsupported` says that it will not work here at all.
    async fn watch(&self, ears: &dyn Ears, pace: Duration) -> Result<Infallible>;
}

/// Who listens to a [`Watch`].
#[async_trait]
pub trait Ears: Send + Sync {
    /// Takes note of `news`; done when nothing that it concerns can be read any more.
    async fn hear(&self, news: News);
}

/// What a [`Watch`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum News {
    /// Slots of these [names](crate::Key::name) have changed, or may have.
    Changed(Vec<Box<str>>),
    /// Every slot whose name starts with this may have changed.
    Scope(Box<str>),
    /// Numbers of this tag space have changed.
    Space(Box<str>),
    /// Anything may have changed: what was read before this is not covered.
    Everything,
    /// All that was acknowledged to anybody before this moment has been told.
    Current(Moment),
}
