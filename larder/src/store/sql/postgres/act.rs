//! How a statement is sent: on which connection, under which limit, and what happens when that breaks.

use std::sync::Arc;

use tokio_postgres::Row as Answer;
use tokio_postgres::types::ToSql;

use super::errors::{is_broken, is_clash};
use super::server::Link;
use super::{AFTER_CLASH, Inner, TRIES};
use crate::Result;
use crate::store::sql::statements::Ask;

/// What is bound to the places of a statement.
pub(super) type Bound<'a> = &'a [&'a (dyn ToSql + Sync)];

/// What is sent together.
#[derive(Clone, Copy)]
pub(super) enum Send<'a> {
    /// A statement that only reads; after it, if wanted, the numbers of tags.
    Read(Ask, Bound<'a>, Option<Bound<'a>>),
    /// A statement that writes and gives rows.
    Write(Ask, Bound<'a>),
    /// A statement that writes and gives how many rows.
    Count(Ask, Bound<'a>),
}

/// What came back.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) rows: Vec<Answer>,
    pub(super) numbers: Vec<Answer>,
    pub(super) count: u64,
}

impl Inner {
    /// Sends in one trip, and once more where that can do no harm.
    pub(super) async fn call(&self, send: Send<'_>) -> Result<Answers> {
        let mut clashes = 0;
        let mut breaks = 0;
        loop {
            let link = self.gate.link().await?;
            let limit = self.settings.timeout;
            let work = self.send(&link, send);
            let Some(outcome) = self.clock().timeout(limit, work).await else {
                self.server().suspect(&link);
                self.gate.discard(&link);
                return Err(self.server().late());
            };
            let error = match outcome {
                Ok(answers) => return Ok(answers),
                Err(error) => error,
            };
            if is_clash(&error) && clashes < TRIES {
                clashes += 1;
                let pause = self.clock().jittered(AFTER_CLASH * clashes);
                self.clock().sleep(pause).await;
                continue;
            }
            if is_broken(&error) {
                // Broken on the way, perhaps: the server may still work on what it has.
                self.server().suspect(&link);
                self.gate.discard(&link);
                // A statement that writes may have been carried out.
                if breaks == 0 && matches!(send, Send::Read(..)) {
                    breaks = 1;
                    continue;
                }
            }
            return Err(self.server().tell(&error));
        }
    }

    async fn send(
        &self,
        link: &Arc<Link>,
        send: Send<'_>,
    ) -> Result<Answers, tokio_postgres::Error> {
        let client = &link.client;
        let mut answers = Answers::default();
        match send {
            Send::Count(ask, bound) => {
                let statement = link.statement(self.server(), ask).await?;
                answers.count = client.execute(statement, bound).await?;
            }
            Send::Write(ask, bound) | Send::Read(ask, bound, None) => {
                let statement = link.statement(self.server(), ask).await?;
                answers.rows = client.query(statement, bound).await?;
            }
            Send::Read(ask, bound, Some(tags)) => {
                let statement = link.statement(self.server(), ask).await?;
                let numbers = link.statement(self.server(), Ask::Numbers).await?;
                // Polled in this order, so sent in this order: numbers older than the entries could
                // hide an invalidation.
                let (rows, numbers) = tokio::join!(
                    biased;
                    client.query(statement, bound),
                    client.query(numbers, tags),
                );
                (answers.rows, answers.numbers) = (rows?, numbers?);
            }
        }
        Ok(answers)
    }
}
