//! A store that fails on command.

#![allow(dead_code, reason = "each test file uses a part")]

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use larder::store::{Ears, Found, Memory, News, Scan, Store, Sum, Tags, Watch, When};
use larder::{Clock, Entry, Error, ErrorKind, Head, Key, Mark, Moment, Result, Stamp};
use tokio::sync::{Notify, mpsc, oneshot};

type Told = (News, oneshot::Sender<()>);

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It is done.
    Sound,
    /// It is not done, and an error.
    Refused,
    /// It is not done, since it cannot be: a table is missing.
    Invalid,
    /// It is done, and an error.
    Lost,
    /// It is done, and its answer is held back until [`Faulty::release`].
    Held,
}

/// A [`Memory`] behind a wire, which fails as it is told; a clone is the same store.
#[derive(Debug, Clone)]
pub(crate) struct Faulty {
    pub(crate) memory: Memory,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    how: Mutex<How>,
    /// Every call, with how many keys it was about.
    calls: Mutex<Vec<(&'static str, usize)>>,
    /// Whether it takes no leases.
    is_busy: AtomicBool,
    /// The last lease that was to be placed.
    marked: Mutex<Option<(Key, Mark)>>,
    is_held: Notify,
    released: Notify,
    /// What is told to who listens, if anybody may.
    watched: Mutex<Option<mpsc::UnboundedSender<Told>>>,
}

impl Faulty {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self {
            memory: Memory::builder().clock(clock.clone()).build(),
            state: Arc::new(State {
                how: Mutex::new(How::Sound),
                calls: Mutex::default(),
                is_busy: AtomicBool::new(false),
                marked: Mutex::default(),
                is_held: Notify::new(),
                released: Notify::new(),
                watched: Mutex::default(),
            }),
        }
    }

    /// From now on, calls go `how`.
    pub(crate) fn go(&self, how: How) {
        *self
            .state
            .how
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = how;
    }

    /// From now on it takes no leases, as a folder that is being cleared, or takes them again.
    pub(crate) fn be_busy(&self, is_busy: bool) {
        self.state.is_busy.store(is_busy, Ordering::Relaxed);
    }

    /// Has whoever listens hear `news`; waits until somebody listens, and until it is heard.
    pub(crate) async fn tell(&self, news: News) {
        loop {
            let watched = self.watched().clone();
            let (sender, heard) = oneshot::channel();
            if watched.is_some_and(|watched| watched.send((news.clone(), sender)).is_ok())
                && heard.await.is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, Option<mpsc::UnboundedSender<Told>>> {
        self.state
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until an answer is held back; the calls after it are sound.
    pub(crate) async fn until_held(&self) {
        self.state.is_held.notified().await;
        self.go(How::Sound);
    }

    /// Lets the answer go that is held back.
    pub(crate) fn release(&self) {
        self.state.released.notify_one();
    }

    /// Waits until a lease was to be placed; which.
    pub(crate) async fn until_marked(&self) -> (Key, Mark) {
        loop {
            let marked = self.state.marked.lock();
            let marked = marked.unwrap_or_else(PoisonError::into_inner).take();
            if let Some(marked) = marked {
                return marked;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// The calls since it was last asked.
    pub(crate) fn calls(&self) -> Vec<(&'static str, usize)> {
        std::mem::take(
            &mut self
                .state
                .calls
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    async fn act<T>(
        &self,
        verb: &'static str,
        keys: usize,
        act: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let calls = || {
            self.state
                .calls
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        calls().push((verb, keys));
        let how = *self
            .state
            .how
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let kind = match how {
            How::Sound => return act.await,
            How::Refused => ErrorKind::Unavailable,
            How::Invalid => ErrorKind::Invalid,
            How::Lost => {
                act.await?;
                ErrorKind::Timeout
            }
            How::Held => {
                let done = act.await;
                self.state.is_held.notify_one();
                self.state.released.notified().await;
                return done;
            }
        };
        Err(Error::new(kind, "faulty", "as it was told"))
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl Store for Faulty {
    fn clock(&self) -> &Clock {
        self.memory.clock()
    }

    fn get_now(&self, _: &Key) -> Option<Option<Arc<Entry>>> {
        None
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        self.act("get", keys.len(), self.memory.get(keys, tags))
            .await
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        self.act("heads", keys.len(), self.memory.heads(keys)).await
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        self.act("put", 1, self.memory.put(key, entry, when)).await
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        self.act("put_many", entries.len(), self.memory.put_many(entries))
            .await
    }

    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        *(self.state.marked.lock()).unwrap_or_else(PoisonError::into_inner) =
            Some((key.clone(), mark));
        let marking = async {
            let is_busy = self.state.is_busy.load(Ordering::Relaxed);
            let is_refused = is_busy && mark.state == larder::State::Loading;
            Ok(!is_refused && self.memory.mark(key, seen, mark).await?)
        };
        self.act("mark", 1, marking).await
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        self.act("touch", 1, self.memory.touch(key, fresh_until))
            .await
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        self.act("add_to", 1, self.memory.add_to(key, delta)).await
    }

    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        self.act("raise", 0, self.memory.raise(tags)).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        self.act("delete", keys.len(), self.memory.delete(keys))
            .await
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        self.act("clear", 0, self.memory.clear(scope, space)).await
    }

    async fn close(&self) -> Result<()> {
        self.act("close", 0, self.memory.close()).await
    }

    fn scan(&self) -> Option<&dyn Scan> {
        self.memory.scan()
    }

    fn watch(&self) -> Option<&dyn Watch> {
        Some(self)
    }
}

#[async_trait]
impl Watch for Faulty {
    async fn watch(&self, ears: &dyn Ears, _: Duration) -> Result<Infallible> {
        let (sender, mut told) = mpsc::unbounded_channel();
        ears.hear(News::Everything).await;
        *self.watched() = Some(sender);
        while let Some((news, heard)) = told.recv().await {
            ears.hear(news).await;
            let _ = heard.send(());
        }
        Err(Error::new(ErrorKind::Unavailable, "faulty", "nobody tells"))
    }
}
