//! Caches by name, from a TOML file, the environment or URLs, with Django's words.
//!
//! ```toml
//! [caches.default]
//! backend = "redis"
//! location = "redis://127.0.0.1:6379/1"
//! timeout = 300           # seconds, or "90s", "5m", "never"; 0: nothing is kept
//! key_prefix = "shop"
//! version = 2
//!
//! [caches.local]
//! url = "memory://?timeout=60&max_entries=10000"
//! ```
//!
//! The same by the environment: `LARDER_DEFAULT_URL=redis://127.0.0.1:6379/1?timeout=300&key_prefix=shop`
//! is the cache `default`, whatever a file says of it. A setting that is unknown or cannot be used is an
//! error that names it, with the file and the line, and suggests the nearest word; it is told when that
//! cache is opened, and does not keep others from being used. Words may be in capitals, as Django's are.
//!
//! | setting | in a URL | meaning | default |
//! | --- | --- | --- | --- |
//! | `backend` | the scheme | which store; Django's dotted paths mean the same | – |
//! | `location` | the rest | where it is, as the store's own URL or path | – |
//! | `url` | – | both in one, with options as its query | – |
//! | `timeout` | `timeout` | the TTL of what is set without one | 300 s |
//! | `key_prefix` | `key_prefix` | what begins every key | nothing |
//! | `version` | `version` | the version of all keys | 1 |
//! | `codec` | `codec` | `messagepack`, `json` or `raw` | `messagepack` |
//! | `space` | `space` | the tag space | one for all |
//! | `options` | the rest of the query | what the store itself can be told | – |
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Settings`] and [`Backends`] |
//! | `read.rs` | TOML, lines and values |
//! | `backend.rs` | a backend and its location as one URL |
//! | `url.rs` | a cache as a URL |
//! | `stores.rs` | every store by its scheme: the only file that names them all |
//! | `nearest.rs` | the word that was meant |

mod backend;
mod nearest;
mod read;
mod stores;
mod url;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

pub use self::stores::Backends;
use crate::cache::Caches;
use crate::store::Store;
use crate::{Cache, Codec, Error, ErrorKind, Result, Ttl, Version};

/// The caches of a program as they were written down, not yet opened.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::Settings;
///
/// let settings = Settings::parse("[caches.default]\nurl = 'memory://?timeout=60'", "larder.toml")?;
/// let caches = settings.open().await?;
/// caches.get("default")?.set("k", "v").await?;
///
/// let typo = Settings::parse("[caches.default]\nurl = 'memory://'\ntimout = 5", "larder.toml")?;
/// let error = typo.open().await.unwrap_err();
/// assert_eq!(error.to_string(), "settings: larder.toml:3: `timout` is no setting of `[caches.default]`");
/// assert_eq!(error.hint(), Some("did you mean `timeout`?"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What is wrong with one is told to who opens it.
    caches: BTreeMap<String, Result<CacheSettings>>,
}

/// One cache as it was written down.
#[derive(Debug, Clone, Default)]
struct CacheSettings {
    place: Place,
    ttl: Ttl,
    prefix: String,
    version: Option<Version>,
    codec: Codec,
    space: String,
    /// Where each setting stands.
    lines: BTreeMap<String, String>,
}

/// Which store, where, and what it is told: what a [backend](Backends::register) opens.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Place {
    /// The scheme, such as `redis`.
    pub scheme: String,
    /// The URL without what Larder itself takes from its query; may hold a password.
    pub location: String,
    /// What the store is told, such as `max_entries`.
    pub options: BTreeMap<String, String>,
    /// Where this was written, such as `larder.toml:3`.
    pub written: String,
    /// Where the scheme was written.
    named: String,
    /// Where each option was written.
    lines: BTreeMap<String, String>,
}

impl Place {
    /// An error about this place: where it was written, and `what` is wrong.
    pub fn error(&self, what: impl fmt::Display) -> Error {
        url::error(&self.written, what)
    }

    /// An error about the option `name`: where that was written, and `what` is wrong.
    pub fn error_about(&self, name: &str, what: impl fmt::Display) -> Error {
        url::error(self.lines.get(name).unwrap_or(&self.written), what)
    }

    /// What a store says of its settings, with the place it does not know itself.
    fn told(&self, error: &Error) -> Error {
        let text = error.to_string();
        let is_named = |name: &&String| text.contains(&format!("`{name}`"));
        let name = self.options.keys().find(is_named);
        let told = self.error_about(name.map_or("", String::as_str), &text);
        told.with_source(error.clone())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The location may hold a password, and so may an option.
        let names: Vec<&String> = self.options.keys().collect();
        f.debug_struct("Place")
            .field("scheme", &self.scheme)
            .field("options", &names)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// A store that is being opened.
pub(crate) type Opening = Pin<Box<dyn Future<Output = Result<Arc<dyn Store>>> + Send>>;

impl Settings {
    /// Reads the `[caches.ALIAS]` tables of `text`; `name` stands for it in errors.
    ///
    /// What is wrong with a cache is told when it is opened.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        read::settings(text, name)
    }

    /// Reads the `[caches.ALIAS]` tables of a file.
    ///
    /// ```no_run
    /// # async fn example() -> larder::Result<()> {
    /// let caches = larder::Settings::from_file("larder.toml")?.with_env().open().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let what = format!("cannot read `{}`", path.display());
            Error::new(ErrorKind::Invalid, "settings", what)
                .with_hint("give the path of a TOML file with `[caches.default]` in it")
                .with_source(error)
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Adds the caches that the environment names: `LARDER_DEFAULT_URL` is the cache `default`, and
    /// stronger than one of that name that is there already.
    #[must_use]
    pub fn with_env(self) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        self.with_variables(std::env::vars_os().filter_map(text))
    }

    /// As [`with_env`](Self::with_env), with these variables.
    ///
    /// ```
    /// let variables = [("LARDER_SHOP_URL".to_owned(), "memory://?key_prefix=shop".to_owned())];
    /// let settings = larder::Settings::default().with_variables(variables);
    /// assert_eq!(settings.aliases().collect::<Vec<_>>(), ["shop"]);
    /// ```
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        for (name, value) in variables {
            let alias = name.strip_prefix("LARDER_");
            if let Some(alias) = alias.and_then(|name| name.strip_suffix("_URL"))
                && !alias.is_empty()
            {
                let cache = url::cache(&value, &name);
                self.caches.insert(alias.to_ascii_lowercase(), cache);
            }
        }
        self
    }

    /// Adds the cache `alias` at `url`, in the place of one of that name.
    pub fn with_url(mut self, alias: impl Into<String>, url: &str) -> Result<Self> {
        let alias = alias.into();
        let cache = url::cache(url, &format!("the URL of `{alias}`"))?;
        self.caches.insert(alias, Ok(cache));
        Ok(self)
    }

    /// Keeps the cache `alias` alone, so that what is wrong with others does not matter.
    ///
    /// An error if there is no such cache, or if something is wrong with it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> larder::Result<()> {
    /// use larder::Settings;
    ///
    /// let text = "[caches.shop]\nurl = 'memory://'\n[caches.broken]\nurl = 'reds://cache'";
    /// let settings = Settings::parse(text, "larder.toml")?;
    /// assert!(settings.open().await.is_err());
    ///
    /// let caches = settings.only("shop")?.open().await?;
    /// caches.get("shop")?.set("k", "v").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn only(&self, alias: &str) -> Result<Self> {
        let cache = self.cache(alias)?.clone();
        let caches = BTreeMap::from([(alias.to_owned(), Ok(cache))]);
        Ok(Self { caches })
    }

    /// The names of the caches, in order.
    pub fn aliases(&self) -> impl Iterator<Item = &str> + Clone {
        self.caches.keys().map(String::as_str)
    }

    /// Opens every cache, with the stores that this build knows. Servers are connected to when they
    /// are first used.
    pub async fn open(&self) -> Result<Caches> {
        self.open_with(&Backends::new()).await
    }

    /// The statements that make the table of the SQL store of `alias`, without running them.
    ///
    /// An error of kind `Invalid` where that store has no table.
    pub fn table_sql(&self, alias: &str) -> Result<Vec<String>> {
        stores::table_sql(&self.cache(alias)?.place)
    }

    /// Makes the table of the SQL store of `alias`; says whether it was not there.
    ///
    /// An error of kind `Invalid` where that store has no table.
    pub async fn create_table(&self, alias: &str) -> Result<bool> {
        stores::create_table(&self.cache(alias)?.place).await
    }

    fn cache(&self, alias: &str) -> Result<&CacheSettings> {
        let Some(cache) = self.caches.get(alias) else {
            let what = format!("there is no cache `{alias}`");
            let error = Error::new(ErrorKind::Invalid, "settings", what);
            return Err(nearest::suggest(error, alias, self.aliases()));
        };
        cache.as_ref().map_err(Error::clone)
    }

    /// Opens every cache, with `backends`.
    ///
    /// Caches with the same store, location and options share one.
    pub async fn open_with(&self, backends: &Backends) -> Result<Caches> {
        let mut stores: HashMap<_, Arc<dyn Store>> = HashMap::new();
        let mut caches = Caches::new();
        for (alias, settings) in &self.caches {
            let settings = settings.as_ref().map_err(Error::clone)?;
            let place = &settings.place;
            let same = (&place.scheme, &place.location, &place.options);
            let store = match stores.get(&same) {
                Some(store) => Arc::clone(store),
                None => backends.open(place.clone()).await?,
            };
            stores.insert(same, Arc::clone(&store));
            caches = caches.with(alias, settings.cache(store)?);
        }
        Ok(caches)
    }
}

impl CacheSettings {
    fn cache(&self, store: Arc<dyn Store>) -> Result<Cache> {
        let mut builder = Cache::builder(store)
            .prefix(&self.prefix)
            .space(&self.space)
            .ttl(self.ttl)
            .codec(self.codec);
        if let Some(version) = &self.version {
            builder = builder.version(version.clone());
        }
        builder.build().map_err(|error| {
            let text = error.to_string();
            let named = [
                ("the prefix", "key_prefix"),
                ("the space", "space"),
                ("the version", "version"),
            ];
            let named = named.iter().find(|(what, _)| text.contains(what));
            let line = named.and_then(|(_, word)| self.lines.get(*word));
            let told = url::error(line.unwrap_or(&self.place.written), text);
            told.with_source(error)
        })
    }
}
