//! Loads that go on without the cache, for what is a part of a page.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Cache;
use super::fetch::Fetched;
use super::lead::caught;
use super::load::{FetchError, Loading, Typed};
use super::policy::Policy;
use super::scope::Scope;
use crate::event::{Bypass, Outcome};
use crate::flight::Failure;
use crate::{Error, Key};

/// Whether the store fails, told once until it works again.
#[derive(Debug, Default)]
pub(crate) struct Health(AtomicBool);

impl Health {
    pub(crate) fn fails(&self, error: &Error) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "fragment_store_failed");
        }
    }

    pub(crate) fn works(&self) {
        if self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed) {
            tracing::info!("fragment_store_answers_again");
        }
    }
}

impl Cache {
    /// A fetch that loads beside the cache where the store fails, or where another process has failed
    /// to load a moment ago: its only errors are those of the load itself.
    pub(crate) async fn fetch_regardless<F, Fut, T, E>(
        &self,
        key: &Key,
        policy: Policy,
        load: F,
    ) -> Result<T, FetchError<E>>
    where
        F: FnOnce(Loading) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Send + Sync + 'static,
    {
        let policy = Arc::new(policy);
        let mut decoded = None;
        let typed = self.typed(load, &policy);
        let fetched = {
            let mut accept = self.accept(&mut decoded);
            self.fetch_spawned(key, &policy, &mut accept, typed).await
        };
        self.answer_regardless(key, &policy, fetched, decoded).await
    }

    /// Makes a caller's answer of what the engine came to, without the cache if it must be.
    pub(super) async fn answer_regardless<F, Fut, T, E>(
        &self,
        key: &Key,
        policy: &Policy,
        fetched: Fetched<Typed<F, T, E>>,
        decoded: Option<T>,
    ) -> Result<T, FetchError<E>>
    where
        F: FnOnce(Loading) -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Serialize + DeserializeOwned + Send,
        E: Send + Sync + 'static,
    {
        let (load, why) = match fetched {
            Fetched::StoreFailed(error, typed) => {
                self.shared.fragments.fails(&error);
                (typed.load, Bypass::StoreFailed)
            }
            Fetched::Failed(failure, _, Some(typed)) if is_of_others::<E>(&failure) => {
                (typed.load, Bypass::Passed)
            }
            fetched => {
                self.shared.fragments.works();
                return self.answer(key, policy, fetched, decoded).await;
            }
        };
        self.hear(key, || Outcome::Bypass(why));
        // In the scope of who asked: what is read becomes a part of that.
        let load = caught(async { load(Loading::default()).await });
        let done = match policy.time_limit {
            None => Some(load.await),
            Some(limit) => self.shared.clock.timeout(limit, load).await,
        };
        match done {
            Some(Some(Ok(value))) => {
                self.absorb_beside(policy);
                Ok(value)
            }
            Some(Some(Err(error))) => Err(FetchError::Load(Arc::new(error))),
            Some(None) => Err(FetchError::Panicked),
            None => Err(FetchError::Timeout),
        }
    }

    /// Hands the tags and the life that `policy` says to the load that the caller runs in. Its numbers
    /// were noted before anything of this was read, and serve for both.
    pub(super) fn absorb_beside(&self, policy: &Policy) {
        let ttl = policy.ttl.or(self.shared.default_ttl);
        let deadline = ttl.deadline(self.shared.clock.now());
        self.absorb(None, super::look::life(deadline));
        if !self.untracked {
            Scope::absorb_beside(self.identity(), &policy.tags);
        }
    }
}

/// Whether this is nothing that a caller whose loads fail with an `E` could be told.
fn is_of_others<E: 'static>(failure: &Failure) -> bool {
    match failure {
        Failure::Elsewhere | Failure::Store(_) => true,
        Failure::Load(error) => !error.is::<E>(),
        Failure::Timeout | Failure::Panicked => false,
    }
}
