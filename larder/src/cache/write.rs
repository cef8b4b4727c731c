//! The verbs that write values by hand.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use serde::Serialize;

use super::Cache;
use super::rules::Rule;
use super::scope::Scope;
use crate::entry::{Entry, Tag, Tagged, Value};
use crate::store::When;
use crate::{Key, Result, Ttl};

/// What an awaited verb becomes.
pub(super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What `ttl` and `tags` set, on every verb that writes.
#[derive(Debug, Default)]
pub(super) struct Terms {
    ttl: Ttl,
    tags: Vec<Tag>,
}

macro_rules! terms {
    () => {
        /// How long the value is fresh. Default: the cache's. Zero: it is not kept, and what was
        /// there is removed.
        #[must_use = "nothing is written until it is awaited"]
        pub fn ttl(mut self, ttl: impl Into<crate::Ttl>) -> Self {
            self.terms.set_ttl(ttl.into());
            self
        }

        /// Tags by which [`Cache::invalidate`](crate::Cache::invalidate) finds the value. Default:
        /// none. Costs a second round trip.
        #[must_use = "nothing is written until it is awaited"]
        pub fn tags<I: IntoIterator<Item: AsRef<str>>>(mut self, tags: I) -> Self {
            self.terms.add_tags(tags);
            self
        }
    };
}
pub(super) use terms;

impl Terms {
    pub(super) fn set_ttl(&mut self, ttl: Ttl) {
        self.ttl = ttl;
    }

    pub(super) fn add_tags<I: IntoIterator<Item: AsRef<str>>>(&mut self, tags: I) {
        self.tags
            .extend(tags.into_iter().map(|tag| Tag::from(tag.as_ref())));
    }

    pub(super) fn tags(&self) -> &[Tag] {
        &self.tags
    }

    /// The TTL, with the cache's for the default.
    pub(super) fn resolved_ttl(&self, cache: &Cache) -> Ttl {
        self.ttl.or(cache.shared.default_ttl)
    }
}

/// A [`set`](Cache::set) to be awaited.
#[derive(Debug)]
#[must_use = "nothing is written until it is awaited"]
pub struct Set<'a> {
    cache: &'a Cache,
    key: Key,
    value: Result<Value>,
    terms: Terms,
}

/// An [`add`](Cache::add) to be awaited.
#[derive(Debug)]
#[must_use = "nothing is written until it is awaited"]
pub struct Add<'a> {
    cache: &'a Cache,
    key: Key,
    value: Result<Value>,
    terms: Terms,
}

/// A [`set_many`](Cache::set_many) to be awaited.
#[derive(Debug)]
#[must_use = "nothing is written until it is awaited"]
pub struct SetMany<'a> {
    cache: &'a Cache,
    values: Vec<(String, Result<Value>)>,
    terms: Terms,
}

impl Cache {
    /// Writes `value` at `key`, whatever was there; a load of the key that is under way will not be
    /// kept.
    ///
    /// Promises nothing about when the value was read: to read and then set without ever keeping
    /// what is outdated, take a [`ticket`](Self::ticket) first or use [`fetch`](Self::fetch).
    /// A value larger than the store keeps is an error, and what was there is gone.
    pub fn set<T: Serialize + ?Sized>(&self, key: impl AsRef<str>, value: &T) -> Set<'_> {
        let value = self.codec.encode(value);
        Set {
            cache: self,
            key: self.key(key),
            value,
            terms: Terms::default(),
        }
    }

    /// Writes `value` at `key` if no value is there; says whether it did. Of many at once, one wins.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> larder::Result<()> {
    /// let cache = larder::Cache::new(larder::store::Memory::new());
    /// assert!(cache.add("k", "first").await?);
    /// assert!(!cache.add("k", "second").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn add<T: Serialize + ?Sized>(&self, key: impl AsRef<str>, value: &T) -> Add<'_> {
        let value = self.codec.encode(value);
        Add {
            cache: self,
            key: self.key(key),
            value,
            terms: Terms::default(),
        }
    }

    /// Writes all `values` in one round trip; returns the keys of those that were not stored.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> larder::Result<()> {
    /// let cache = larder::Cache::new(larder::store::Memory::new());
    /// let failed = cache.set_many([("a", 1), ("b", 2)]).await?;
    /// assert!(failed.is_empty());
    /// assert_eq!(cache.get_many::<i32, _>(["a", "b", "c"]).await?.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_many<K, T, I>(&self, values: I) -> SetMany<'_>
    where
        K: Into<String>,
        T: Serialize,
        I: IntoIterator<Item = (K, T)>,
    {
        let encode = |(key, value): (K, T)| (key.into(), self.codec.encode(&value));
        let values = values.into_iter().map(encode).collect();
        SetMany {
            cache: self,
            values,
            terms: Terms::default(),
        }
    }

    /// The entry for `value`; `None` if its TTL is zero.
    pub(super) fn entry(
        &self,
        value: Value,
        terms: &Terms,
        tagged: Option<&Tagged>,
    ) -> Option<Entry> {
        let ttl = terms.resolved_ttl(self);
        if ttl.is_zero() {
            return None;
        }
        let deadline = ttl.deadline(self.shared.clock.now());
        let mut entry = Entry::new(&self.shared.clock, value).fresh_until(deadline);
        entry.codec = self.codec.number();
        if let Some(tagged) = tagged {
            entry = entry.with_tags(tagged.clone());
        }
        Some(entry)
    }

    /// The numbers from which a value set by hand is good: the scope's where there is one, since the
    /// value was read inside it, else the present ones.
    async fn tagged_by_hand(&self, terms: &Terms) -> Result<Option<Tagged>> {
        if terms.tags().is_empty() {
            return Ok(None);
        }
        let numbers = self.numbers(terms.tags()).await?;
        let noted = Scope::current()
            .filter(|scope| scope.space == self.shared.space)
            .filter(|_| self.shared.rules.keep(Rule::SetFromScope));
        // In a scope of another era nothing can be set: what was read may be older than its numbers.
        let (era, seq) = noted.map_or((numbers.era, numbers.seq), |scope| (scope.era, scope.seq));
        let good_from = terms.tags().iter().map(|tag| (tag.clone(), seq)).collect();
        Ok(Some(Tagged { era, good_from }))
    }
}

impl Set<'_> {
    terms!();
}

impl<'a> IntoFuture for Set<'a> {
    type Output = Result<()>;
    type IntoFuture = Boxed<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self {
                cache,
                key,
                value,
                terms,
            } = self;
            let value = value?;
            let tagged = cache.tagged_by_hand(&terms).await?;
            match cache.entry(value, &terms, tagged.as_ref()) {
                Some(entry) => cache
                    .shared
                    .store
                    .put(&key, entry, When::Always)
                    .await
                    .map(drop),
                None => cache.shared.store.delete(&[key]).await.map(drop),
            }
        })
    }
}

impl Add<'_> {
    terms!();
}

impl<'a> IntoFuture for Add<'a> {
    type Output = Result<bool>;
    type IntoFuture = Boxed<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self {
                cache,
                key,
                value,
                terms,
            } = self;
            let (store, value) = (&cache.shared.store, value?);
            let tagged = cache.tagged_by_hand(&terms).await?;
            let Some(entry) = cache.entry(value, &terms, tagged.as_ref()) else {
                let heads = store.heads(&[key]).await?;
                return Ok(cache.unmoved(heads).await?[0].is_none());
            };
            if store.put(&key, entry.clone(), When::IfAbsent).await? {
                return Ok(true);
            }
            // What is there may be gone all the same: one of its tags has moved.
            let look = cache.look(&key).await?;
            match (look.live(cache.shared.clock.now()), look.stamp()) {
                (None, Some(stamp)) => store.put(&key, entry, When::IfStamp(stamp)).await,
                (None, None) => store.put(&key, entry, When::IfAbsent).await,
                (Some(_), _) => Ok(false),
            }
        })
    }
}

impl SetMany<'_> {
    terms!();
}

impl<'a> IntoFuture for SetMany<'a> {
    type Output = Result<Vec<String>>;
    type IntoFuture = Boxed<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self {
                cache,
                values,
                terms,
            } = self;
            let tagged = cache.tagged_by_hand(&terms).await?;
            let (mut names, mut entries, mut failed) = (Vec::new(), Vec::new(), Vec::new());
            let mut removed = Vec::new();
            for (name, value) in values {
                let Ok(value) = value else {
                    failed.push(name);
                    continue;
                };
                let key = cache.key(&name);
                match cache.entry(value, &terms, tagged.as_ref()) {
                    Some(entry) => {
                        names.push(name);
                        entries.push((key, entry));
                    }
                    None => removed.push(key),
                }
            }
            if !removed.is_empty() {
                cache.shared.store.delete(&removed).await?;
            }
            if !entries.is_empty() {
                let refused = cache.shared.store.put_many(entries).await?;
                failed.extend(refused.into_iter().map(|at| std::mem::take(&mut names[at])));
            }
            Ok(failed)
        })
    }
}
