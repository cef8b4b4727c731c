//! Loads that are no futures: what a thread makes in one go, with what it has borrowed.
//!
//! The engine's future stops where the value is to be made, the caller's thread makes it, and the
//! future goes on with it. Nothing is made while the future is polled: so a load may wait for another
//! fetch on its own thread, which no runtime allows inside a future.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use super::Cache;
use super::load::FetchError;
use super::look::{Look, life};
use super::policy::Policy;
use super::scope::Scope;
use crate::Key;
use crate::event::Outcome;

/// Where the engine's future and the thread that makes the value meet.
struct Desk<T, E>(Mutex<Stage<T, E>>);

enum Stage<T, E> {
    /// The engine has not come to it.
    Away,
    /// The value is to be made, in this scope.
    Wanted(Option<Arc<Scope>>),
    /// It is made; `None`: making it panicked.
    Made(Option<Result<T, E>>),
}

impl<T, E> Desk<T, E> {
    fn stage(&self) -> MutexGuard<'_, Stage<T, E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is made, for the engine.
    async fn made(self: Arc<Self>) -> Result<T, E> {
        let made = std::future::poll_fn(|_| {
            let mut stage = self.stage();
            match std::mem::replace(&mut *stage, Stage::Away) {
                Stage::Made(made) => Poll::Ready(made),
                Stage::Away | Stage::Wanted(_) => {
                    *stage = Stage::Wanted(Scope::current());
                    Poll::Pending
                }
            }
        });
        let Some(made) = made.await else {
            // Told already by who made it; the engine learns that it was a panic.
            std::panic::resume_unwind(Box::new("the load panicked"))
        };
        made
    }

    /// Whether the value is wanted, and in which scope.
    fn wanted<R>(&self) -> Option<Turn<R>> {
        match &*self.stage() {
            Stage::Wanted(scope) => Some(Turn::Make(scope.clone())),
            Stage::Away | Stage::Made(_) => None,
        }
    }
}

/// What a store tells without being waited for.
pub(crate) enum AtOnce<T> {
    Value(T),
    /// There is no value, or the store has to be asked more.
    Nothing,
    /// It would have to be waited for.
    Waits,
}

/// What the engine's future has come to.
enum Turn<R> {
    Ended(R),
    Make(Option<Arc<Scope>>),
    /// It waits for something.
    Waits,
}

impl Cache {
    /// Gets `key`; `make` runs on this thread if it comes to that. The thread waits on `waits`; without
    /// it nothing is waited for, and `None` says that something would have to be: then `make` has not
    /// run, and is still there.
    ///
    /// Errors are those of [`fetch_regardless`](Self::fetch_regardless). Needs a runtime around it.
    pub(crate) fn fetch_in_place<T, E>(
        &self,
        key: &Key,
        policy: &Arc<Policy>,
        waits: Option<&Handle>,
        fits: &(dyn Fn(&T) -> bool + Sync),
        make: &mut Option<impl FnOnce() -> Result<T, E>>,
    ) -> Option<Result<T, FetchError<E>>>
    where
        T: Serialize + DeserializeOwned + Clone + Send,
        E: Clone + Send + Sync + 'static,
    {
        let desk = Arc::new(Desk(Mutex::new(Stage::Away)));
        let load = {
            let desk = Arc::clone(&desk);
            move |_| desk.made()
        };
        let mut fetch = pin!(async {
            let mut decoded = None;
            let typed = self.typed(load, policy);
            let fetched = {
                let mut accept = self.accept_if(&mut decoded, fits);
                self.fetch_inline(key, policy, &mut accept, typed).await
            };
            self.answer_regardless(key, policy, fetched, decoded).await
        });
        let mut copy = None;
        loop {
            match turn(fetch.as_mut(), &desk, waits) {
                Turn::Ended(result) => return Some(result),
                Turn::Waits => return copy,
                Turn::Make(scope) => {
                    let make = make.take().expect("a load runs once");
                    let value = match scope {
                        Some(scope) => caught_here(|| scope.around_now(make)),
                        None => caught_here(make),
                    };
                    // The write may have to wait where the read had not.
                    copy = waits.is_none().then(|| match value.clone() {
                        Some(value) => value.map_err(|error| FetchError::Load(Arc::new(error))),
                        None => Err(FetchError::Panicked),
                    });
                    *desk.stage() = Stage::Made(value);
                }
            }
        }
    }

    /// The value at `key`, if the store can tell without being waited for.
    pub(crate) fn fetch_at_once<T: DeserializeOwned>(
        &self,
        key: &Key,
        fits: impl Fn(&T) -> bool,
    ) -> AtOnce<T> {
        let Some(entry) = self.shared.store.get_now(key) else {
            return AtOnce::Waits;
        };
        let space = &self.shared.space;
        let look = Look::of(entry.filter(|entry| entry.is_unmoved_now(space)));
        let now = self.shared.clock.now();
        let Some(entry) = look.live(now) else {
            return AtOnce::Nothing;
        };
        let mut decoded = None;
        if !self.accept(&mut decoded)(entry) {
            return AtOnce::Nothing;
        }
        let Some(value) = decoded.filter(fits) else {
            return AtOnce::Nothing;
        };
        self.absorb(entry.tags.as_deref(), life(entry.fresh_until));
        self.hear(key, || Outcome::Hit(entry.fresh_until.left(now)));
        AtOnce::Value(value)
    }
}

/// Lets the engine go on until it ends, or the value is to be made, or it would have to be waited for.
fn turn<R, T, E>(
    mut fetch: Pin<&mut impl Future<Output = R>>,
    desk: &Desk<T, E>,
    waits: Option<&Handle>,
) -> Turn<R> {
    let mut poll = |context: &mut Context<'_>| match fetch.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(Turn::Ended(result)),
        Poll::Pending => match desk.wanted() {
            Some(turn) => Poll::Ready(turn),
            None => Poll::Pending,
        },
    };
    // Twice: the engine gives way once before a load, which is no waiting.
    for _ in 0..2 {
        if let Poll::Ready(turn) = poll(&mut Context::from_waker(Waker::noop())) {
            return turn;
        }
    }
    match waits {
        Some(handle) => handle.block_on(std::future::poll_fn(poll)),
        None => Turn::Waits,
    }
}

/// Does `work`; `None` if it panicked.
pub(crate) fn caught_here<R>(work: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}
