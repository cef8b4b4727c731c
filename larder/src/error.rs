//! The one error type of this crate.

use std::fmt;
use std::sync::Arc;

/// A [`Result`](std::result::Result) whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong, where, and what to do about it.
///
/// Opaque on purpose: ask [`kind`](Error::kind). Cheap to clone, since one error may answer many
/// waiting callers. Its text never holds a password.
///
/// ```
/// use larder::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Unavailable, "redis", "cannot connect to `redis://cache:6379/0`")
///     .with_hint("is the server running?");
/// assert_eq!(error.to_string(), "redis: cannot connect to `redis://cache:6379/0`");
/// assert_eq!(error.hint(), Some("is the server running?"));
/// assert!(error.kind() == ErrorKind::Unavailable);
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    place: String,
    what: String,
    hint: Option<String>,
    source: Option<Source>,
}

/// What a caller can usefully tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store could not be reached, or broke the connection.
    Unavailable,
    /// The store did not answer in time; a write may or may not have happened.
    Timeout,
    /// A value could not be turned into bytes, or bytes into a value.
    Codec,
    /// A setting or an argument cannot be used.
    Invalid,
    /// An integer was to be changed at a key that holds nothing.
    NoSuchKey,
    /// An integer was to be changed at a key that holds something else, or past 64 bits.
    NotAnInteger,
    /// The value is larger than the store keeps.
    TooLarge,
    /// A load of this key failed a moment ago, here or in another process; nobody tries again yet.
    LoadFailed,
    /// The store cannot do this at all.
    Unsupported,
}

impl Error {
    /// An error of `kind`, met in `place` (a store, `cache`, a setting), while doing `what`.
    pub fn new(kind: ErrorKind, place: impl fmt::Display, what: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            place: place.to_string(),
            what: what.into(),
            hint: None,
            source: None,
        }))
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        self.map(|inner| inner.hint = Some(hint.into()))
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(self, source: impl Into<Source>) -> Self {
        self.map(|inner| inner.source = Some(source.into()))
    }

    /// What went wrong, as a kind to match on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the reader can do about it, if there is something.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    fn map(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        // Only a fresh error is decorated, so it has one owner; a shared one stays as it is.
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.place, self.0.what)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            place,
            what,
            hint,
            source,
        } = &*self.0;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("place", place)
            .field("what", what)
            .field("hint", hint)
            .field("source", source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
