//! Caches by name.

use std::collections::BTreeMap;

use crate::{Cache, Error, ErrorKind, Result};

/// The caches of a program, by alias.
///
/// All are in one tag space unless told otherwise, so that what is made of values of several stays
/// right: one invalidation for each store reaches them.
///
/// ```
/// use larder::{Cache, Caches, store::Memory};
///
/// let caches = Caches::new().with("default", Cache::new(Memory::new()));
/// assert!(caches.get("default").is_ok());
/// assert_eq!(caches.get("defualt").unwrap_err().to_string(), "caches: there is no cache `defualt`");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Caches(BTreeMap<String, Cache>);

impl Caches {
    /// No cache yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `cache` as `alias`, in the place of one of that name.
    #[must_use]
    pub fn with(mut self, alias: impl Into<String>, cache: Cache) -> Self {
        self.0.insert(alias.into(), cache);
        self
    }

    /// The cache `alias`; an error of kind `Invalid` that names those there are.
    pub fn get(&self, alias: &str) -> Result<&Cache> {
        self.0.get(alias).ok_or_else(|| {
            let all: Vec<&str> = self.aliases().collect();
            let hint = if all.is_empty() {
                "there is none at all".to_owned()
            } else {
                format!("there are {}", all.join(", "))
            };
            let what = format!("there is no cache `{alias}`");
            Error::new(ErrorKind::Invalid, "caches", what).with_hint(hint)
        })
    }

    /// The names, in order.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The caches, in the order of their names.
    ///
    /// ```
    /// use larder::{Cache, Caches, store::Memory};
    ///
    /// let caches = Caches::new().with("default", Cache::new(Memory::new()));
    /// assert_eq!(caches.all().count(), 1);
    /// ```
    pub fn all(&self) -> impl Iterator<Item = &Cache> {
        self.0.values()
    }

    /// Closes every cache: waits for the loads under way, then lets the stores go. The first error, when
    /// all are closed.
    pub async fn close(&self) -> Result<()> {
        let mut closed = Ok(());
        for cache in self.0.values() {
            closed = closed.and(cache.close().await);
        }
        closed
    }
}
