//! Who acts on an outbox.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::Outbox;
#[cfg(feature = "postgres")]
use super::place::Place;
use crate::store::{BATCH, Outgoing};
use crate::{Cache, Clock, Result};

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Outbox {
    /// Acts on what is committed: invalidates its tags in `caches`, then removes it; how many rows.
    ///
    /// When this returns, everything that had been committed before the call is invalidated. Rows of
    /// tag spaces that none of `caches` has stay. An error of a cache or of the database leaves the rows
    /// where they are; the other caches have been told nevertheless. Any number of processes may drain
    /// at once. Costs two round trips to the database and one to each store per thousand rows, one to
    /// the database where nothing waits.
    ///
    /// ```no_run
    /// # async fn example(cache: larder::Cache) -> larder::Result<()> {
    /// use larder::outbox::Outbox;
    ///
    /// let outbox = Outbox::lazy("postgres://me:secret@db/shop")?;
    /// // … write, insert, commit …
    /// outbox.drain([&cache]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn drain<'a, I>(&self, caches: I) -> Result<usize>
    where
        I: IntoIterator<Item = &'a Cache>,
    {
        drain(self.place.outgoing(), &apart(caches)).await
    }

    /// Drains in the background, from now on: at once, then every second
    /// ([`poll_every`](Self::poll_every)) and whenever it is woken.
    ///
    /// What was committed while nobody drained is found at the start. Errors are logged and tried
    /// again after a pause, which grows to half a minute. Needs a runtime of tokio.
    ///
    /// ```no_run
    /// # async fn example(caches: larder::Caches) -> larder::Result<()> {
    /// use larder::outbox::Outbox;
    ///
    /// let outbox = Outbox::lazy("postgres://me:secret@db/shop")?;
    /// let draining = outbox.run(caches.all().cloned());
    /// // … serve …
    /// draining.close().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run(&self, caches: impl IntoIterator<Item = Cache>) -> Draining {
        let caches: Vec<Cache> = caches.into_iter().collect();
        let caches = apart(&caches).into_iter().cloned().collect();
        let clock = self.place.outgoing().clock().clone();
        let stop = Arc::new(Notify::new());
        let work = work(
            self.clone(),
            caches,
            self.woken.subscribe(),
            Arc::clone(&stop),
        );
        let drainer = clock.spawn(work);
        Draining {
            stop,
            drainer: Some(drainer),
            listener: self.listener(&clock),
        }
    }

    /// What hears `NOTIFY`. It only wakes: what it misses while it is away is found all the same.
    #[cfg(feature = "postgres")]
    fn listener(&self, clock: &Clock) -> Option<JoinHandle<()>> {
        #[cfg_attr(
            not(any(feature = "sqlite", feature = "mysql")),
            expect(irrefutable_let_patterns, reason = "a build with one database")
        )]
        let Place::Postgres(store) = &self.place else {
            return None;
        };
        let (store, outbox, pauses) = (store.clone(), self.clone(), clock.clone());
        Some(clock.spawn(async move {
            let mut pause = SHORTEST_PAUSE;
            loop {
                let mut has_heard = false;
                let ended = store.listen(|| {
                    has_heard = true;
                    outbox.wake();
                });
                let error = ended.await;
                tracing::debug!(outbox = %outbox, %error, "listener_ended");
                pause = if has_heard {
                    SHORTEST_PAUSE
                } else {
                    longer(pause)
                };
                pauses.sleep(pauses.jittered(pause)).await;
            }
        }))
    }

    #[cfg(not(feature = "postgres"))]
    #[expect(clippy::unused_self, reason = "a build without PostgreSQL has none")]
    fn listener(&self, _: &Clock) -> Option<JoinHandle<()>> {
        None
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(LONGEST_PAUSE)
}

/// One of those caches whose tags are the same.
fn apart<'a>(caches: impl IntoIterator<Item = &'a Cache>) -> Vec<&'a Cache> {
    let mut apart: Vec<&Cache> = Vec::new();
    for cache in caches {
        if !apart.iter().any(|other| other.shares_tags_with(cache)) {
            apart.push(cache);
        }
    }
    apart
}

async fn drain(outgoing: &dyn Outgoing, caches: &[&Cache]) -> Result<usize> {
    let mut spaces: Vec<&str> = caches.iter().map(|cache| cache.space()).collect();
    spaces.sort_unstable();
    spaces.dedup();
    let mut drained = 0;
    for space in spaces {
        loop {
            let rows = outgoing.waiting(space).await?;
            if rows.is_empty() {
                break;
            }
            let mut tags: Vec<&str> = rows.iter().map(|row| row.tag.as_str()).collect();
            tags.sort_unstable();
            tags.dedup();
            let mut told = Ok(());
            for cache in caches.iter().filter(|cache| cache.space() == space) {
                told = told.and(cache.invalidate(&tags).await);
            }
            // Not before every cache knows: with this process the rows would be lost.
            told?;
            let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
            outgoing.remove(&ids).await?;
            drained += rows.len();
            if rows.len() < BATCH as usize {
                break;
            }
        }
    }
    Ok(drained)
}

async fn work(
    outbox: Outbox,
    caches: Vec<Cache>,
    mut woken: watch::Receiver<()>,
    stop: Arc<Notify>,
) {
    let outgoing = outbox.place.outgoing();
    let clock = outgoing.clock();
    let caches: Vec<&Cache> = caches.iter().collect();
    let mut pause = None;
    loop {
        woken.mark_unchanged();
        match drain(outgoing, &caches).await {
            Ok(drained) => {
                if pause.take().is_some() || drained > 0 {
                    tracing::debug!(outbox = %outbox, drained, "outbox_drained");
                }
            }
            Err(error) => {
                if pause.is_none() {
                    tracing::warn!(outbox = %outbox, %error, "outbox_not_drained");
                }
                pause = Some(pause.map_or(SHORTEST_PAUSE, longer));
            }
        }
        let span = pause.map_or(outbox.every, |pause| clock.jittered(pause));
        tokio::select! {
            biased;
            () = stop.notified() => return,
            // After a failure only the pause counts.
            Ok(()) = woken.changed(), if pause.is_none() => {}
            () = clock.sleep(span) => {}
        }
    }
}

/// A background task that drains an outbox; it ends with this value.
#[must_use = "draining ends with this value"]
pub struct Draining {
    stop: Arc<Notify>,
    drainer: Option<JoinHandle<()>>,
    listener: Option<JoinHandle<()>>,
}

impl Draining {
    /// Ends it, once what it is about to do is done.
    pub async fn close(mut self) {
        self.stop.notify_one();
        if let Some(drainer) = self.drainer.take() {
            // An error says that its runtime ends.
            let _ = drainer.await;
        }
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        for task in [&self.drainer, &self.listener].into_iter().flatten() {
            task.abort();
        }
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draining").finish_non_exhaustive()
    }
}
