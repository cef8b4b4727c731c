//! Acts on a thread that may block.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{File, Inner};
use crate::Result;

/// Tells a job whether somebody still waits for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller(Arc<AtomicBool>);

impl Caller {
    pub(super) fn is_gone(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Held by who waits: whether the time is up or the future is dropped, the job learns of it.
struct Waiting(Caller);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}

impl File {
    /// Runs `work` on a thread that may block: one hop, however many keys it is about.
    pub(super) async fn job<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>, &Caller) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let caller = Caller::default();
        let waiting = Waiting(caller.clone());
        let inner = Arc::clone(&self.0);
        let job = tokio::task::spawn_blocking(move || work(&inner, &caller));
        let ended = self.0.clock.timeout(self.0.timeout, job).await;
        drop(waiting);
        match ended {
            Some(Ok(done)) => done,
            Some(Err(broken)) => Err(self.0.broken(broken)),
            None => Err(self.0.too_slow()),
        }
    }
}
