//! What takes rows away: in the background, by an index, a batch at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use crate::{Clock, Result};

/// Rows that one statement removes.
pub(super) const BATCH: u32 = 1000;
/// Rows that are counted past the limit at a time.
const SURPLUS: u64 = 10_000;
/// Numbers that a space has given before those of its oldest tags may be dropped.
pub(super) const MOST_NUMBERS: i64 = 1 << 20;

/// What culling asks of a table; each is one statement.
#[async_trait]
pub(super) trait Cull: Send + Sync + 'static {
    /// Removes up to [`BATCH`] rows in which nothing matters any more; how many.
    async fn remove_gone(&self) -> Result<u64>;

    /// How many rows there are, counted up to `most`.
    async fn count(&self, most: u64) -> Result<u64>;

    /// Removes up to `most` rows, those first that would be gone first; how many.
    async fn remove_soonest(&self, most: u64) -> Result<u64>;

    /// Raises the floor of spaces that have given many numbers, and drops the numbers below it.
    async fn drop_old_numbers(&self) -> Result<()>;
}

/// Removes what is gone, and what is too much; how many rows.
pub(super) async fn cull<S: Cull + ?Sized>(store: &S, max_entries: Option<u64>) -> Result<u64> {
    let mut removed = 0;
    loop {
        let gone = store.remove_gone().await?;
        removed += gone;
        if gone < u64::from(BATCH) {
            break;
        }
    }
    while let Some(max) = max_entries {
        let count = store.count(max.saturating_add(SURPLUS)).await?;
        let mut surplus = count.saturating_sub(max);
        if surplus == 0 {
            break;
        }
        while surplus > 0 {
            let taken = store.remove_soonest(surplus.min(BATCH.into())).await?;
            removed += taken;
            // Others may have been faster.
            surplus = surplus.saturating_sub(taken.max(1));
        }
    }
    store.drop_old_numbers().await?;
    Ok(removed)
}

/// The background task of one store; it ends with this value.
#[derive(Debug, Default)]
pub(super) struct Culler(Mutex<Option<JoinHandle<()>>>);

impl Culler {
    /// Starts the task, if it does not run.
    pub(super) fn start<S: Cull>(
        &self,
        store: &Arc<S>,
        clock: &Clock,
        every: Duration,
        max_entries: Option<u64>,
    ) {
        let mut task = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is finished went with its runtime.
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (store, clock_of_task) = (Arc::downgrade(store), clock.clone());
        *task = Some(clock.spawn(async move {
            loop {
                clock_of_task.sleep(clock_of_task.jittered(every)).await;
                let Some(store) = store.upgrade() else { return };
                if let Err(error) = cull(&*store, max_entries).await {
                    tracing::debug!(%error, "cull_failed");
                }
            }
        }));
    }
}

impl Drop for Culler {
    fn drop(&mut self) {
        let task = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}
