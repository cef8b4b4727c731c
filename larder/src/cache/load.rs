//! The verbs that load what is missing.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Cache;
use super::fetch::{Fetched, within};
use super::lead::{Keep, Kept, Load, caught};
use super::look::STALE_LIFE;
use super::policy::Policy;
use super::rules::Rule;
use super::scope::Scope;
use super::write::Boxed;
use crate::codec::Coding;
use crate::entry::{Entry, Tag};
use crate::event::{Bypass, Miss, Outcome, Stale};
use crate::flight::{Failure, Flight, Noted};
use crate::{Error, ErrorKind, Key, Ttl};

/// Why a fetch gave no value.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use larder::{Cache, FetchError, store::Memory};
///
/// let cache = Cache::new(Memory::new());
/// let failed = cache.fetch("k", || async { Err::<i32, _>("no such row") }).await;
/// assert!(matches!(failed, Err(FetchError::Load(why)) if *why == "no such row"));
/// # }
/// ```
#[derive(Debug)]
pub enum FetchError<E> {
    /// The load's own error; all who waited for it share it.
    Load(Arc<E>),
    /// The load took longer than its time limit.
    Timeout,
    /// The load panicked.
    Panicked,
    /// The store failed before anything was loaded, or (of kind `LoadFailed`) a load failed in
    /// another process a moment ago.
    Store(Error),
}

impl<E> Clone for FetchError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Load(error) => Self::Load(Arc::clone(error)),
            Self::Timeout => Self::Timeout,
            Self::Panicked => Self::Panicked,
            Self::Store(error) => Self::Store(error.clone()),
        }
    }
}

impl<E: fmt::Display> fmt::Display for FetchError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(error) => write!(f, "the load failed: {error}"),
            Self::Timeout => f.write_str("the load took longer than its time limit"),
            Self::Panicked => f.write_str("the load panicked"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for FetchError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Load(error) => Some(&**error),
            Self::Store(error) => error.source(),
            Self::Timeout | Self::Panicked => None,
        }
    }
}

/// The load's side of a fetch: says what is to become of the value, once it is known.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), larder::FetchError<std::io::Error>> {
/// use std::time::Duration;
/// use larder::{Cache, store::Memory};
///
/// let cache = Cache::new(Memory::new());
/// let load = |loading: larder::Loading| async move {
///     let (row, category) = ("row".to_owned(), 3);
///     loading.tag(format!("category:{category}"));
///     loading.ttl(Duration::from_secs(30));
///     Ok(row)
/// };
/// let row: String = cache.fetch_with("row:5", load).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Loading(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    ttl: Ttl,
    tags: Vec<Tag>,
    pass: bool,
}

impl Loading {
    /// Sets how long the value is fresh, over what the caller of the fetch said.
    pub fn ttl(&self, ttl: impl Into<Ttl>) {
        self.said(|said| said.ttl = ttl.into());
    }

    /// Adds a tag to the value.
    pub fn tag(&self, tag: impl AsRef<str>) {
        self.said(|said| said.tags.push(tag.as_ref().into()));
    }

    /// The value is for this caller alone: it is not kept, and those who wait load for themselves.
    pub fn pass(&self) {
        self.said(|said| said.pass = true);
    }

    fn said<R>(&self, act: impl FnOnce(&mut Said) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A typed load: the user's closure, and how to encode what it gives.
pub(super) struct Typed<F, T, E> {
    pub(super) load: F,
    coding: Coding,
    kept_stale: Duration,
    /// Whether what is not kept is not shared.
    is_private: bool,
    types: PhantomData<fn() -> (T, E)>,
}

impl<F, Fut, T, E> Load for Typed<F, T, E>
where
    F: FnOnce(Loading) -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
    T: Serialize + Send,
    E: Send + Sync + 'static,
{
    type Out = T;
    const MISFIT: Miss = Miss::Unreadable;

    async fn run(self, _: Arc<Flight>) -> Result<(T, Keep), Failure> {
        let loading = Loading::default();
        let value = (self.load)(loading.clone()).await.map_err(failure)?;
        let Said { ttl, tags, pass } = loading.said(std::mem::take);
        let encoded = (!pass || !self.is_private).then(|| self.coding.encode(&value));
        let keep = match encoded {
            Some(Ok(encoded)) => Keep::Value(Kept {
                value: encoded.value,
                codec: encoded.codec,
                ttl,
                grace: self.kept_stale,
                tags,
                extra: None,
            }),
            failed => {
                if let Some(Err(error)) = failed {
                    tracing::warn!(%error, "not_kept_since_not_encodable");
                }
                // Not kept, but what is made of it may be.
                Scope::absorb_own(tags);
                Keep::Pass
            }
        };
        Ok((value, keep))
    }
}

fn failure<E: Send + Sync + 'static>(error: E) -> Failure {
    Failure::Load(Arc::new(error) as Arc<dyn Any + Send + Sync>)
}

impl<E: Send + Sync + 'static> From<Failure> for FetchError<E> {
    fn from(failure: Failure) -> Self {
        let elsewhere = || {
            let what = "a load of this key failed a moment ago";
            Self::Store(Error::new(ErrorKind::LoadFailed, "cache", what))
        };
        match failure {
            Failure::Load(error) => error.downcast().map_or_else(|_| elsewhere(), Self::Load),
            Failure::Timeout => Self::Timeout,
            Failure::Panicked => Self::Panicked,
            Failure::Elsewhere => elsewhere(),
            Failure::Store(error) => Self::Store(error),
        }
    }
}

macro_rules! policy {
    () => {
        /// Sets the whole [`Policy`](crate::Policy).
        pub fn policy(mut self, policy: crate::Policy) -> Self {
            self.policy = policy;
            self
        }

        /// How long what is loaded is fresh. Default: the cache's.
        pub fn ttl(self, ttl: impl Into<crate::Ttl>) -> Self {
            self.change(|policy| policy.ttl(ttl))
        }

        /// For how long after its TTL a value is served while it is refreshed. Default: not at all.
        pub fn grace(self, grace: std::time::Duration) -> Self {
            self.change(|policy| policy.grace(grace))
        }

        /// How eagerly a value is refreshed before its TTL ends, as
        /// [`Policy::early`](crate::Policy::early). Default: 0, not at all.
        pub fn early(self, eagerness: f64) -> Self {
            self.change(|policy| policy.early(eagerness))
        }

        /// For how long after its TTL a value is served if loads fail. Default: not at all.
        pub fn stale_if_error(self, span: std::time::Duration) -> Self {
            self.change(|policy| policy.stale_if_error(span))
        }

        /// After how long a stale value stands in for a load that goes on, if
        /// [`stale_if_error`](Self::stale_if_error) allows one. Default: never.
        pub fn soft_limit(self, limit: std::time::Duration) -> Self {
            self.change(|policy| policy.soft_limit(limit))
        }

        /// After how long a load is given up. Default: 30 s.
        pub fn time_limit(self, limit: std::time::Duration) -> Self {
            self.change(|policy| policy.time_limit(limit))
        }

        /// Tags of what is loaded. Default: none.
        pub fn tags<I: IntoIterator<Item: AsRef<str>>>(self, tags: I) -> Self {
            self.change(|policy| policy.tags(tags))
        }

        fn change(mut self, change: impl FnOnce(crate::Policy) -> crate::Policy) -> Self {
            self.policy = change(std::mem::take(&mut self.policy));
            self
        }
    };
}
pub(crate) use policy;

/// A [`fetch`](Cache::fetch) to be awaited.
#[must_use = "nothing is read until it is awaited"]
pub struct Fetch<'a, F, T, E> {
    cache: &'a Cache,
    key: Key,
    policy: Policy,
    load: F,
    types: PhantomData<fn() -> (T, E)>,
}

/// A [`fetch_here`](Cache::fetch_here) to be awaited.
#[must_use = "nothing is read until it is awaited"]
pub struct FetchHere<'a, F, T, E>(Fetch<'a, F, T, E>);

impl Cache {
    /// Returns the value at `key`, loading it if there is none.
    ///
    /// However many ask at once, in this process and in others, one load runs; it runs in a task of
    /// its own, so that a caller that goes away does not take it along, and under a time limit. A
    /// value whose load began before `key` was set or deleted, or one of its tags invalidated, is
    /// not served from the cache afterwards.
    ///
    /// A fresh value in memory is returned without waiting; from a server it is one round trip.
    pub fn fetch<T, E, Fut>(
        &self,
        key: impl AsRef<str>,
        load: impl FnOnce() -> Fut + Send + 'static,
    ) -> Fetch<'_, impl FnOnce(Loading) -> Fut + Send + 'static, T, E>
    where
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.fetch_with(key, |_| load())
    }

    /// As [`fetch`](Self::fetch), with a load that says what is to become of the value.
    pub fn fetch_with<T, E, F, Fut>(&self, key: impl AsRef<str>, load: F) -> Fetch<'_, F, T, E>
    where
        F: FnOnce(Loading) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let key = self.key(key);
        Fetch {
            cache: self,
            key,
            policy: Policy::new(),
            load,
            types: PhantomData,
        }
    }

    /// As [`fetch_with`](Self::fetch_with), with a load that borrows.
    ///
    /// It runs on the caller's own way: if the caller goes away, so does the load, and one of those
    /// who wait runs its own. A stale value is served while somebody else loads, or when the
    /// load fails; there is no soft limit, since a load that the caller leaves is none.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = larder::Cache::new(larder::store::Memory::new());
    /// let table = vec!["a row".to_owned()];
    /// let load = |_| async { table.first().cloned().ok_or("no rows") };
    /// assert_eq!(cache.fetch_here("first", load).await.unwrap(), "a row");
    /// # }
    /// ```
    pub fn fetch_here<'a, T, E, F, Fut>(
        &'a self,
        key: impl AsRef<str>,
        load: F,
    ) -> FetchHere<'a, F, T, E>
    where
        F: FnOnce(Loading) -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        let key = self.key(key);
        FetchHere(Fetch {
            cache: self,
            key,
            policy: Policy::new(),
            load,
            types: PhantomData,
        })
    }

    /// Returns the value at `key`, or runs `load`, which cannot fail, and keeps what it gives.
    ///
    /// A [`fetch`](Self::fetch) in all but the error.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = larder::Cache::new(larder::store::Memory::new());
    /// assert_eq!(cache.get_or_set("n", || async { 5 }).await?, 5);
    /// assert_eq!(cache.get_or_set("n", || async { 6 }).await?, 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_or_set<T, Fut>(
        &self,
        key: impl AsRef<str>,
        load: impl FnOnce() -> Fut + Send + 'static,
    ) -> Fetch<
        '_,
        impl FnOnce(Loading) -> Boxed<'static, Result<T, Infallible>> + Send + 'static,
        T,
        Infallible,
    >
    where
        Fut: Future<Output = T> + Send + 'static,
        T: 'static,
    {
        self.fetch_with(key, |_| {
            let value = load();
            let value: Boxed<'static, _> = Box::pin(async { Ok(value.await) });
            value
        })
    }

    /// Returns the value at `key`, or keeps and returns `value`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = larder::Cache::new(larder::store::Memory::new());
    /// assert_eq!(cache.get_or_set_value("n", 5).tags(["numbers"]).await?, 5);
    /// assert_eq!(cache.get_or_set_value("n", 6).await?, 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_or_set_value<T>(
        &self,
        key: impl AsRef<str>,
        value: T,
    ) -> Fetch<
        '_,
        impl FnOnce(Loading) -> Boxed<'static, Result<T, Infallible>> + Send + 'static,
        T,
        Infallible,
    >
    where
        T: Send + 'static,
    {
        self.get_or_set(key, || std::future::ready(value))
    }

    /// Makes a caller's answer of what the engine came to.
    pub(super) async fn answer<F, Fut, T, E>(
        &self,
        key: &Key,
        policy: &Policy,
        fetched: Fetched<Typed<F, T, E>>,
        mut decoded: Option<T>,
    ) -> Result<T, FetchError<E>>
    where
        F: FnOnce(Loading) -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Serialize + DeserializeOwned + Send,
        E: Send + Sync + 'static,
    {
        match fetched {
            Fetched::Served(served, _) => {
                self.hear(key, || served.outcome);
                Ok(decoded
                    .take()
                    .expect("an entry is served only if it was accepted, decoded"))
            }
            Fetched::Loaded(value, miss) => {
                self.hear(key, || Outcome::Miss(miss));
                Ok(value)
            }
            Fetched::Failed(failure, miss, _) => {
                self.hear(key, || Outcome::Miss(miss));
                Err(failure.into())
            }
            Fetched::StoreFailed(error, _) => {
                self.hear(key, || Outcome::Bypass(Bypass::StoreFailed));
                Err(FetchError::Store(error))
            }
            Fetched::Alone(typed, why, noted) => {
                self.hear(key, || Outcome::Bypass(why));
                self.load_alone(key, policy, noted, typed.load).await
            }
        }
    }

    /// Loads beside the cache. Nothing is kept of it, but what the caller makes of it may be; should it
    /// fail, a stale value stands in where one may.
    async fn load_alone<F, Fut, T, E>(
        &self,
        key: &Key,
        policy: &Policy,
        noted: Noted,
        load: F,
    ) -> Result<T, FetchError<E>>
    where
        F: FnOnce(Loading) -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        T: DeserializeOwned,
    {
        let loading = Loading::default();
        let scope = Scope::new(self, vec![key.clone()], noted);
        let given = loading.clone();
        let load = caught(scope.clone().around(async { load(given).await }));
        let done = match policy.time_limit {
            None => Some(load.await),
            Some(limit) => self.shared.clock.timeout(limit, load).await,
        };
        let Said { ttl, tags, .. } = loading.said(std::mem::take);
        let verdict = self.not_kept(noted, policy, ttl, tags, scope.take());
        let error = match done {
            Some(Some(Ok(value))) => {
                self.absorb(verdict.tagged.as_deref(), verdict.life);
                return Ok(value);
            }
            Some(Some(Err(error))) => FetchError::Load(Arc::new(error)),
            Some(None) => FetchError::Panicked,
            None => FetchError::Timeout,
        };
        self.stand_in(key, policy).await.ok_or(error)
    }

    /// The stale value at `key`, if there is one that may be served in place of a failed load.
    async fn stand_in<T: DeserializeOwned>(&self, key: &Key, policy: &Policy) -> Option<T> {
        if policy.if_error.is_zero() {
            return None;
        }
        let look = self.look_for_stale(key).await.ok()?;
        let now = self.shared.clock.now();
        let entry = look
            .usable(now)
            .filter(|entry| within(entry, policy.if_error, now))?;
        let value = self.decode(entry)?;
        self.hear(key, || Outcome::Stale(Stale::LoadFailed));
        self.absorb(entry.tags.as_deref(), Some(now.plus(STALE_LIFE)));
        Some(value)
    }

    /// Decodes entries for a typed fetch; says whether it could. However often it could not, that
    /// counts once.
    pub(super) fn accept<T: DeserializeOwned>(
        &self,
        decoded: &mut Option<T>,
    ) -> impl FnMut(&Entry) -> bool {
        self.accept_if(decoded, |_| true)
    }

    /// The same for who can use only what `fits`.
    pub(super) fn accept_if<T: DeserializeOwned>(
        &self,
        decoded: &mut Option<T>,
        fits: impl Fn(&T) -> bool,
    ) -> impl FnMut(&Entry) -> bool {
        let mut is_counted = false;
        move |entry| {
            *decoded = self.decode(entry);
            if decoded.is_none() && !std::mem::replace(&mut is_counted, true) {
                super::count(&self.shared.counters.unreadable);
            }
            decoded.as_ref().is_some_and(&fits)
        }
    }

    pub(super) fn typed<F, T, E>(&self, load: F, policy: &Policy) -> Typed<F, T, E> {
        let kept_stale = policy.kept_stale();
        Typed {
            load,
            coding: self.coding,
            kept_stale,
            is_private: self.shared.rules.keep(Rule::PassIsPrivate),
            types: PhantomData,
        }
    }
}

impl<F, T, E> Fetch<'_, F, T, E> {
    policy!();
}

impl<F, T, E> FetchHere<'_, F, T, E> {
    /// Sets the whole [`Policy`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.0.policy = policy;
        self
    }
}

impl<'a, F, Fut, T, E> IntoFuture for Fetch<'a, F, T, E>
where
    F: FnOnce(Loading) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    E: Send + Sync + 'static,
{
    type Output = Result<T, FetchError<E>>;
    type IntoFuture = Boxed<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self {
                cache,
                key,
                policy,
                load,
                ..
            } = self;
            let policy = Arc::new(policy);
            let mut decoded = None;
            let typed = cache.typed(load, &policy);
            let fetched = {
                let mut accept = cache.accept(&mut decoded);
                cache.fetch_spawned(&key, &policy, &mut accept, typed).await
            };
            cache.answer(&key, &policy, fetched, decoded).await
        })
    }
}

impl<'a, F, Fut, T, E> IntoFuture for FetchHere<'a, F, T, E>
where
    F: FnOnce(Loading) -> Fut + Send + 'a,
    Fut: Future<Output = Result<T, E>> + Send + 'a,
    T: Serialize + DeserializeOwned + Send + 'a,
    E: Send + Sync + 'static,
{
    type Output = Result<T, FetchError<E>>;
    type IntoFuture = Boxed<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Fetch {
                cache,
                key,
                policy,
                load,
                ..
            } = self.0;
            let policy = Arc::new(policy);
            let mut decoded = None;
            let typed = cache.typed(load, &policy);
            let fetched = {
                let mut accept = cache.accept(&mut decoded);
                cache.fetch_inline(&key, &policy, &mut accept, typed).await
            };
            cache.answer(&key, &policy, fetched, decoded).await
        })
    }
}

impl<F, T, E> fmt::Debug for Fetch<'_, F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl<F, T, E> fmt::Debug for FetchHere<'_, F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FetchHere").field(&self.0).finish()
    }
}
