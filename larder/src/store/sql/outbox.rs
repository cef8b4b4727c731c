//! The outbox: rows that a transaction puts there, each of which names a tag.
//!
//! A store that reads its outbox along with the numbers gives what waits there its number before it
//! answers, so that nobody can have noted a number between the commit and the invalidation: two callers,
//! one of before the commit and one of after it, could not be told apart by such a number.

use std::time::Duration;

use async_trait::async_trait;

use crate::entry::{Tag, hard_tag};
use crate::store::{Store, Tags};
use crate::{Error, ErrorKind, Result};

/// Rows that are read and removed at a time.
pub(crate) const BATCH: u32 = 1000;
/// Batches that one caller gives their numbers.
const MOST_BATCHES: u32 = 20;

/// A row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) id: i64,
    pub(crate) tag: String,
}

/// What is asked of an outbox; each is one statement.
#[async_trait]
pub(crate) trait Outgoing: Store {
    /// Up to [`BATCH`] committed rows of `space`, the oldest first.
    async fn waiting(&self, space: &str) -> Result<Vec<Waiting>>;

    /// Removes the rows with these identities, as far as they are there.
    async fn remove(&self, ids: &[i64]) -> Result<()>;
}

/// Gives what waits in the outbox of `space` its numbers, then removes it.
///
/// One at a time in a process: those who waited find nothing left, or give up after `patience`. In this order, since what is removed
/// first would be lost with this process; and rows that come meanwhile stay.
pub(super) async fn settle<S: Outgoing>(
    store: &S,
    turn: &tokio::sync::Mutex<()>,
    patience: Duration,
    space: &str,
) -> Result<()> {
    let Some(_turn) = store.clock().timeout(patience, turn.lock()).await else {
        let what = format!("`{store}` was still working off its outbox after {patience:?}");
        return Err(Error::new(ErrorKind::Timeout, store, what)
            .with_hint("is the database slow, or are there very many rows in the outbox?"));
    };
    for _ in 0..MOST_BATCHES {
        let rows = store.waiting(space).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut names: Vec<Tag> = rows.iter().flat_map(raised).collect();
        names.sort_unstable();
        names.dedup();
        let names = &names;
        store.raise(Tags { space, names }).await?;
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        store.remove(&ids).await?;
        if rows.len() < BATCH as usize {
            return Ok(());
        }
    }
    let what = format!("`{store}` has more than {BATCH} times {MOST_BATCHES} rows in its outbox");
    Err(Error::new(ErrorKind::Unavailable, store, what)
        .with_hint("those who ask next work it off; `larder table drain` does so at once"))
}

/// The names whose numbers an invalidation raises: the tag, and the twin that says that nothing of it may
/// be served stale either.
fn raised(row: &Waiting) -> [Tag; 2] {
    let tag = row.tag.as_str().into();
    [hard_tag(&tag), tag]
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::store::Sqlite;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_another_to_work_it_off_gives_up_in_time() {
        let store = Sqlite::lazy("sqlite:///no/such/folder/cache.db").expect("a good URL");
        let turn = tokio::sync::Mutex::new(());
        let held = turn.lock().await;

        let error = settle(&store, &turn, Duration::from_secs(5), "").await;

        let error = error.expect_err("it is never its turn");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let text = error.to_string();
        assert!(text.contains("working off its outbox after 5s"), "{text}");
        drop(held);
    }
}
