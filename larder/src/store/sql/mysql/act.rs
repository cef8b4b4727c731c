//! How an act is done: on a connection of its own, under which limit, and what happens when that breaks.

use std::sync::Arc;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Params, Row as Answer, Value};

use super::errors::{is_broken, is_clash};
use super::server::{Lease, Pool};
use super::{AFTER_CLASH, Inner, TRIES};
use crate::Result;

/// Whether an act may be done again when its connection breaks under way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Once,
    Never,
}

/// An act under way that writes. Dropped before it is over, whether its time or its caller has gone, it
/// may reach the server after the acts that follow; so the connections are made anew, once the server has
/// ended it.
struct Doubt<'a> {
    inner: &'a Inner,
    pool: &'a Arc<Pool>,
    lock: Option<String>,
}

impl Doubt<'_> {
    fn ends(mut self) {
        self.lock = None;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            // In this order: whoever connects next has to know.
            self.inner.server().suspect(lock);
            self.inner.gate.discard(self.pool);
        }
    }
}

type Outcome<T> = mysql_async::Result<T>;

impl Inner {
    /// What `act` gives, done on a connection that nobody else has.
    pub(super) async fn act<T, A, F>(&self, again: Again, act: A) -> Result<T>
    where
        A: Fn(Lease) -> F + Send + Sync,
        F: Future<Output = (Lease, Outcome<T>)> + Send,
        T: Send,
    {
        let mut clashes = 0;
        let mut tries = if again == Again::Once { 2 } else { 1 };
        loop {
            let pool = self.gate.link().await?;
            let limit = self.settings.timeout;
            let Some(place) = self.clock().timeout(limit, pool.places.acquire()).await else {
                return Err(self.server().late());
            };
            let (lease, is_new) = match pool.take() {
                Some(lease) => (lease, false),
                None => (self.connect(&pool).await?, true),
            };
            let doubt = Doubt {
                inner: self,
                pool: &pool,
                lock: (again == Again::Never).then(|| lease.lock.clone()),
            };
            let Some((lease, outcome)) = self.clock().timeout(limit, act(lease)).await else {
                self.gate.discard(&pool);
                return Err(self.server().late());
            };
            drop(place);
            let error = match outcome {
                Ok(answer) => {
                    doubt.ends();
                    pool.give_back(lease);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if is_broken(&error) {
                // On the way, perhaps: the server may still work on what it has.
                drop(doubt);
                self.gate.discard(&pool);
            } else {
                doubt.ends();
            }
            // Closed: what it has locked or begun is undone.
            drop(lease);
            if is_clash(&error) && clashes < TRIES {
                clashes += 1;
                let pause = self.clock().jittered(AFTER_CLASH * clashes);
                self.clock().sleep(pause).await;
                continue;
            }
            if is_broken(&error) {
                tries -= 1;
                if tries > 0 && !is_new {
                    continue;
                }
            }
            return Err(self.server().tell(&error));
        }
    }

    async fn connect(&self, pool: &Arc<Pool>) -> Result<Lease> {
        let connected = self.server().connect_bare().await;
        connected.inspect_err(|_| self.gate.discard(pool))
    }

    /// The rows that one statement gives.
    pub(super) async fn rows(
        &self,
        again: Again,
        text: &str,
        bound: Vec<Value>,
    ) -> Result<Vec<Answer>> {
        let bound = &bound;
        self.act(again, |mut lease| async move {
            let rows = rows(&mut lease.connection, text, bound.clone()).await;
            (lease, rows)
        })
        .await
    }

    /// How many rows one statement has changed, and the number that its answer carries.
    pub(super) async fn change(&self, text: &str, bound: Vec<Value>) -> Result<(u64, u64)> {
        let bound = &bound;
        self.act(Again::Never, |mut lease| async move {
            let changed = change(&mut lease.connection, text, bound.clone()).await;
            (lease, changed)
        })
        .await
    }
}

pub(super) async fn rows(
    connection: &mut Conn,
    text: &str,
    bound: Vec<Value>,
) -> Outcome<Vec<Answer>> {
    connection.exec(text, Params::from(bound)).await
}

pub(super) async fn change(
    connection: &mut Conn,
    text: &str,
    bound: Vec<Value>,
) -> Outcome<(u64, u64)> {
    connection.exec_drop(text, Params::from(bound)).await?;
    let number = connection.last_insert_id().unwrap_or(0);
    Ok((connection.affected_rows(), number))
}
