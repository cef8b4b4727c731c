//! Invalidating tags, now and once more.

use std::future::IntoFuture;
use std::time::Duration;

use super::Cache;
use super::write::Boxed;
use crate::Result;
use crate::entry::{Tag, hard_tag};

/// How often a repetition that did not reach its store is tried again.
const TRIES: u32 = 5;

/// An [`invalidate`](Cache::invalidate) or [`expire`](Cache::expire) to be awaited.
#[derive(Debug)]
#[must_use = "nothing is invalidated until it is awaited"]
pub struct Invalidate<'a> {
    cache: &'a Cache,
    names: Vec<Tag>,
    settle: Option<Duration>,
}

impl Cache {
    /// Invalidates `tags`: from the moment this returns, no value, and no load begun before, that
    /// carries one of them is served from the cache, in any process that shares the store.
    ///
    /// One act and one round trip, whatever hangs on the tags. After an error it may or may not have
    /// happened.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> larder::Result<()> {
    /// let cache = larder::Cache::new(larder::store::Memory::new());
    /// cache.set("list", "old").tags(["objects"]).await?;
    /// cache.invalidate(["objects"]).await?;
    /// assert_eq!(cache.get::<String>("list").await?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn invalidate<I>(&self, tags: I) -> Invalidate<'_>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let mut invalidate = self.expire(tags);
        let hard: Vec<Tag> = invalidate.names.iter().map(hard_tag).collect();
        invalidate.names.extend(hard);
        invalidate
    }

    /// Ends the TTL of all that carries one of `tags`, as of now: the soft form of
    /// [`invalidate`](Self::invalidate), for what may be old for a moment.
    ///
    /// A fetch with a [`grace`](crate::Policy::grace) is given the old value once more, while one
    /// load refreshes it; so is a page with `stale-while-revalidate`. To everybody else the value is
    /// gone, as after its TTL. A load that had begun before is not kept. One act and one round trip.
    ///
    /// On Memcached, which forgets tags one by one, it may be as hard as `invalidate`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), larder::FetchError<std::io::Error>> {
    /// use std::time::Duration;
    /// use larder::{Cache, store::Memory};
    ///
    /// let cache = Cache::new(Memory::new());
    /// let list = async |text: &'static str| {
    ///     let load = move || async move { Ok(text.to_owned()) };
    ///     cache.fetch("list", load).tags(["objects"]).grace(Duration::from_secs(60)).await
    /// };
    /// assert_eq!(list("old").await?, "old");
    /// # cache.expire(["others"]).await.map_err(larder::FetchError::Store)?;
    /// cache.expire(["objects"]).await.map_err(larder::FetchError::Store)?;
    /// assert_eq!(list("new").await?, "old", "and a load is under way");
    /// # while list("newer").await? == "old" {
    /// #     tokio::task::yield_now().await;
    /// # }
    /// # assert_eq!(list("newest").await?, "new");
    /// # Ok(())
    /// # }
    /// ```
    pub fn expire<I>(&self, tags: I) -> Invalidate<'_>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        Invalidate {
            cache: self,
            names: tags.into_iter().map(|tag| tag.as_ref().into()).collect(),
            settle: None,
        }
    }

    async fn raise(&self, names: &[Tag]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let raised = self.shared.store.raise(self.shared.tags(names)).await;
        raised.map(drop)
    }
}

impl Invalidate<'_> {
    /// Does the same again after `span`, in the background.
    ///
    /// For loads that read a replica of the database: one that begins right after the invalidation
    /// may still read what was there before, and keep it. `span` is what the replica may lag behind.
    /// Needs a runtime; a process that ends meanwhile does not repeat it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> larder::Result<()> {
    /// # use std::time::Duration;
    /// # let cache = larder::Cache::new(larder::store::Memory::new());
    /// cache.invalidate(["objects"]).settle(Duration::from_secs(2)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn settle(mut self, span: Duration) -> Self {
        self.settle = Some(span);
        self
    }
}

impl<'a> IntoFuture for Invalidate<'a> {
    type Output = Result<()>;
    type IntoFuture = Boxed<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self {
                cache,
                names,
                settle,
            } = self;
            cache.raise(&names).await?;
            if let Some(span) = settle {
                let cache = cache.clone();
                let clock = cache.shared.clock.clone();
                clock.spawn_if_running(async move { cache.raise_later(&names, span).await });
            }
            Ok(())
        })
    }
}

impl Cache {
    async fn raise_later(&self, names: &[Tag], span: Duration) {
        let clock = &self.shared.clock;
        clock.sleep(span).await;
        for attempt in 1..=TRIES {
            match self.raise(names).await {
                Ok(()) => return,
                Err(error) if attempt == TRIES => {
                    tracing::warn!(%error, tags = ?names, "invalidation_not_repeated");
                }
                Err(_) => clock.sleep(clock.jittered(span)).await,
            }
        }
    }
}
