//! What takes rows away: in the background, by an index, a batch at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

    /// Raises the floor of a space that has given many numbers; where it is then.
    async fn lift_floor(&self, space: &str) -> Result<i64>;

    /// Removes up to [`BATCH`] numbers that are not above `floor`, and count as it anyway; how many.
    async fn drop_numbers(&self, space: &str, floor: i64) -> Result<u64>;
}

/// Removes what is gone, and what is too much; how many rows.
pub(super) async fn cull<S: Cull + ?Sized>(
    store: &S,
    culler: &Culler,
    max_entries: Option<u64>,
) -> Result<u64> {
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
    for (space, dropped_to) in culler.spaces() {
        let floor = store.lift_floor(&space).await?;
        if floor <= dropped_to {
            continue;
        }
        while store.drop_numbers(&space, floor).await? >= u64::from(BATCH) {}
        culler.dropped(&space, floor);
    }
    Ok(removed)
}

/// Spaces whose numbers one store looks after.
const MOST_SPACES: usize = 10_000;

/// The background task of one store; it ends with this value.
#[derive(Debug, Default)]
pub(super) struct Culler {
    task: Mutex<Option<JoinHandle<()>>>,
    /// The spaces in which this store gave numbers, and the floor down to which the old ones are dropped.
    spaces: Mutex<BTreeMap<Box<str>, i64>>,
}

impl Culler {
    /// Has the numbers of `space` looked after.
    pub(super) fn note(&self, space: &str) {
        let mut spaces = self.noted();
        if spaces.len() < MOST_SPACES && !spaces.contains_key(space) {
            spaces.insert(space.into(), i64::MIN);
        }
    }

    fn spaces(&self) -> Vec<(Box<str>, i64)> {
        let spaces = self.noted();
        spaces
            .iter()
            .map(|(space, floor)| (space.clone(), *floor))
            .collect()
    }

    fn dropped(&self, space: &str, floor: i64) {
        if let Some(dropped_to) = self.noted().get_mut(space) {
            *dropped_to = floor;
        }
    }

    fn noted(&self) -> MutexGuard<'_, BTreeMap<Box<str>, i64>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the task, if it does not run. `of` is where a store keeps its culler.
    pub(super) fn start<S: Cull>(
        &self,
        store: &Arc<S>,
        clock: &Clock,
        every: Duration,
        max_entries: Option<u64>,
        of: fn(&S) -> &Self,
    ) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is finished went with its runtime.
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (store, clock_of_task) = (Arc::downgrade(store), clock.clone());
        *task = Some(clock.spawn(async move {
            loop {
                clock_of_task.sleep(clock_of_task.jittered(every)).await;
                let Some(store) = store.upgrade() else { return };
                if let Err(error) = cull(&*store, of(&store), max_entries).await {
                    tracing::debug!(%error, "cull_failed");
                }
            }
        }));
    }
}

impl Drop for Culler {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}
