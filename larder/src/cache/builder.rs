//! The settings of a cache.

use std::fmt;
use std::sync::Arc;

use super::counts::Counters;
use super::lead::Failures;
use super::look::Hints;
use super::rules::Rules;
use super::{Cache, KeyFunction, Shared};
#[cfg(any(feature = "lz4", feature = "zstd"))]
use crate::Compression;
use crate::codec::Coding;
use crate::event::Listener;
use crate::key::{MARKER, fits_scope};
use crate::store::Store;
use crate::{Codec, Error, ErrorKind, Result, Ttl, Version};

/// Settings of a [`Cache`], with Django's defaults.
///
/// ```
/// use std::time::Duration;
/// use larder::{Cache, Codec, store::Memory};
///
/// let cache = Cache::builder(Memory::new())
///     .prefix("shop")
///     .version(2)
///     .ttl(Duration::from_secs(60))
///     .codec(Codec::Json)
///     .build()?;
/// assert_eq!(cache.key("k").name(), "shop:2:k");
/// # Ok::<(), larder::Error>(())
/// ```
#[must_use]
pub struct CacheBuilder {
    store: Arc<dyn Store>,
    prefix: String,
    space: String,
    version: Version,
    key_function: Option<KeyFunction>,
    ttl: Ttl,
    jitter: f64,
    coding: Coding,
    listener: Option<Arc<dyn Listener>>,
    rules: Rules,
}

impl CacheBuilder {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            prefix: String::new(),
            space: String::new(),
            version: Version::Number(1),
            key_function: None,
            ttl: Ttl::For(std::time::Duration::from_mins(5)),
            jitter: 0.0,
            coding: Coding::default(),
            listener: None,
            rules: Rules::default(),
        }
    }

    /// What begins every key, so that several caches can share a store. Default: nothing. It may
    /// not hold `:`, blanks or control characters, nor be longer than 177 bytes.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The tag space: caches of one store and one space share their tags. Default: one for all. It
    /// may not hold `:`.
    pub fn space(mut self, space: impl Into<String>) -> Self {
        self.space = space.into();
        self
    }

    /// The version of all keys. Default: 1.
    pub fn version(mut self, version: impl Into<Version>) -> Self {
        self.version = version.into();
        self
    }

    /// Makes the whole key of key, prefix and version. Default: the three with `:` between, as
    /// Django.
    pub fn key_function(
        mut self,
        function: impl Fn(&str, &str, &str) -> String + Send + Sync + 'static,
    ) -> Self {
        self.key_function = Some(Arc::new(function));
        self
    }

    /// How long entries are fresh whose caller does not say. Default: five minutes.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into().or(self.ttl);
        self
    }

    /// Shortens every TTL by a random part of it, at most `fraction`, so that what was written together
    /// does not expire together. Default: 0, not at all.
    ///
    /// From 0 to 1, both included. [`touch`](Cache::touch) sets what it is told.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> larder::Result<()> {
    /// use std::time::Duration;
    /// use larder::{Cache, Ttl, store::Memory};
    ///
    /// let cache = Cache::builder(Memory::new()).jitter(0.1).build()?;
    /// cache.set("k", &1).ttl(Duration::from_secs(100)).await?;
    /// let Some(Ttl::For(left)) = cache.ttl("k").await? else { panic!("it expires") };
    /// assert!(left <= Duration::from_secs(100) && left > Duration::from_secs(89));
    /// # Ok(())
    /// # }
    /// ```
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = fraction;
        self
    }

    /// How values become bytes. Default: [`Codec::MessagePack`].
    pub fn codec(mut self, codec: Codec) -> Self {
        self.coding.codec = codec;
        self
    }

    /// Compresses values that are longer than `threshold` bytes once encoded, where that makes them
    /// smaller. Default: off. Pages are kept as they are sent.
    ///
    /// It runs on the caller's way: some milliseconds for a megabyte.
    #[cfg(any(feature = "lz4", feature = "zstd"))]
    pub fn compression(mut self, compression: Compression, threshold: usize) -> Self {
        self.coding.compression = Some((compression, threshold));
        self
    }

    /// Who hears what comes of every key. Default: nobody.
    pub fn listener(mut self, listener: Arc<dyn Listener>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Signs every value with `key`, and does not read what is not signed so. Default: no signature.
    ///
    /// For a store that others can write to; see [`Signed`](crate::wrap::Signed) for what is covered
    /// and what it costs.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> larder::Result<()> {
    /// use larder::{Cache, store::Memory};
    ///
    /// let store = Memory::new();
    /// let ours = Cache::builder(store.clone()).sign("a secret of 32 bytes or more ...").build()?;
    /// Cache::new(store).set("k", "forged").await?;
    /// assert_eq!(ours.get::<String>("k").await?, None);
    /// assert_eq!(ours.counts().unreadable, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "sign")]
    pub fn sign(mut self, key: impl AsRef<[u8]>) -> Self {
        self.store = Arc::new(crate::wrap::Signed::new(self.store, key));
        self
    }

    /// Breaks a rule of the engine, to see that a simulation finds it.
    #[cfg(feature = "simulation")]
    pub fn break_rule(mut self, rule: super::rules::Rule) -> Self {
        self.rules.broken = Some(rule);
        self
    }

    /// The cache, or the setting that cannot be used. Nothing is sent to the store.
    pub fn build(self) -> Result<Cache> {
        for (setting, text) in [("prefix", &self.prefix), ("space", &self.space)] {
            if text.contains(':') {
                let what = format!("the {setting} `{text}` cannot be used: it holds `:`");
                return Err(Error::new(ErrorKind::Invalid, "cache", what));
            }
        }
        // Of a hashed key only the prefix stays readable, and `clear` goes by it.
        if !fits_scope(&format!("{}:", self.prefix)) {
            let what = format!(
                "the prefix `{}` cannot be used: it holds blanks, control characters or `{MARKER}`, or is too long",
                self.prefix
            );
            return Err(Error::new(ErrorKind::Invalid, "cache", what));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            let what = format!(
                "the jitter {} cannot be used: it is not from 0 to 1",
                self.jitter
            );
            return Err(Error::new(ErrorKind::Invalid, "cache", what));
        }
        let shared = Shared {
            clock: self.store.clock().clone(),
            store: self.store,
            prefix: self.prefix.into(),
            space: self.space.into(),
            key_function: self.key_function,
            default_ttl: self.ttl,
            jitter: self.jitter,
            hints: Hints::default(),
            flights: Arc::default(),
            failures: Failures::default(),
            counters: Counters::default(),
            #[cfg(feature = "fragment")]
            fragments: super::beside::Health::default(),
            listener: self.listener,
            rules: self.rules,
        };
        let cache = Cache {
            shared: Arc::new(shared),
            version: Version::Number(1),
            scope: "".into(),
            coding: self.coding,
            untracked: false,
        };
        cache.version(self.version)
    }
}

impl fmt::Debug for CacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("store", &format_args!("{}", self.store))
            .field("prefix", &self.prefix)
            .field("version", &self.version)
            .field("ttl", &self.ttl)
            .field("jitter", &self.jitter)
            .field("coding", &self.coding)
            .finish_non_exhaustive()
    }
}
