//! The connection: made, judged, and given up.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::AbortHandle;
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::address::Address;
use crate::store::sql::gate::Connect;
use crate::store::sql::settings::Settings;
use crate::store::sql::statements::{Ask, Way};
use crate::{Clock, Error, ErrorKind, Result};

/// A server and how to connect to it.
pub(super) struct Server {
    pub(super) address: Address,
    pub(super) timeout: Duration,
    connect_timeout: Duration,
    clock: Clock,
    texts: [OnceLock<String>; Ask::COUNT],
    /// Connections that were given up while they may still hold commands which the server has not
    /// read: by the names that the server knows them by.
    suspects: Mutex<BTreeSet<String>>,
}

/// A connection, and the statements that it has prepared.
pub(super) struct Link {
    pub(super) client: Client,
    name: String,
    statements: [OnceLock<Statement>; Ask::COUNT],
    driver: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// The statement, prepared when it is first used.
    pub(super) async fn statement(
        &self,
        server: &Server,
        ask: Ask,
    ) -> Result<&Statement, tokio_postgres::Error> {
        let place = &self.statements[ask as usize];
        if let Some(statement) = place.get() {
            return Ok(statement);
        }
        let prepared = self.client.prepare(server.text(ask)).await?;
        Ok(place.get_or_init(|| prepared))
    }
}

impl Server {
    pub(super) fn new(address: Address, settings: &Settings) -> Self {
        Self {
            address,
            timeout: settings.timeout,
            connect_timeout: settings.connect_timeout,
            clock: settings.clock.clone(),
            texts: [const { OnceLock::new() }; Ask::COUNT],
            suspects: Mutex::default(),
        }
    }

    fn text(&self, ask: Ask) -> &str {
        self.texts[ask as usize].get_or_init(|| ask.text(Way::Served, &self.address.table))
    }

    /// Notes that `link` was given up after an answer did not come in time.
    ///
    /// Commands on their way could reach the server after those of the next connection, and undo
    /// them; so the next one first makes the server end this one.
    pub(super) fn suspect(&self, link: &Link) {
        self.suspects().insert(link.name.clone());
    }

    fn suspects(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to the server, whether our tables are there or not.
    pub(super) async fn connect_bare(&self) -> Result<Link> {
        let connecting = self.clock.timeout(self.connect_timeout, self.shake_hands());
        match connecting.await {
            Some(Ok(link)) => Ok(link),
            Some(Err(error)) => Err(self.connect_error(&error)),
            None => Err(self.no_answer()),
        }
    }

    fn no_answer(&self) -> Error {
        let limit = self.connect_timeout;
        self.cannot_connect(&format!("no answer within {limit:?}"))
    }

    async fn shake_hands(&self) -> Result<Link, tokio_postgres::Error> {
        let name = format!("larder-{:016x}", self.clock.random());
        let mut config = self.address.config.clone();
        config.application_name(&name);
        let (client, connection) = config.connect(self.address.tls.clone()).await?;
        let driver = self.clock.spawn(async move {
            // Its callers are told.
            let _ = connection.await;
        });
        let link = Link {
            client,
            name,
            statements: [const { OnceLock::new() }; Ask::COUNT],
            driver: driver.abort_handle(),
        };
        // One act is one statement, and sees what was committed before it; and what nobody waits for
        // any more must not hold up those behind it. Each statement has an index for it, whatever the
        // server believes of the table's size; by it rows are locked in the order of their names, so
        // that two batches do not wait for each other in a ring.
        let limit = self.timeout.as_millis().max(1);
        let settings = format!(
            "SET default_transaction_isolation = 'read committed'; SET statement_timeout = {limit}; \
             SET enable_seqscan = off; SET enable_bitmapscan = off"
        );
        link.client.batch_execute(&settings).await?;
        self.end_suspects(&link).await?;
        Ok(link)
    }

    async fn end_suspects(&self, link: &Link) -> Result<(), tokio_postgres::Error> {
        let names = self.suspects().clone();
        for name in &names {
            // Our own names: letters and digits.
            let end = format!(
                "SELECT pg_terminate_backend(pid, 500) FROM pg_stat_activity \
                 WHERE application_name = '{name}'"
            );
            let rows = link.client.simple_query(&end).await?;
            let lives_on = rows.iter().any(|message| {
                matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("f"))
            });
            if !lives_on {
                self.suspects().retain(|other| other != name);
            }
        }
        Ok(())
    }

    async fn check_table(&self, link: &Link) -> Result<()> {
        let table = &self.address.table;
        let of_entries = [Ask::GetOne, Ask::Put, Ask::Numbers];
        let of_outbox = [Ask::Waiting, Ask::Remove];
        let of_entries = of_entries.iter().filter(|_| table.has_entries());
        let of_outbox = of_outbox.iter().filter(|_| table.has_outbox());
        for &ask in of_entries.chain(of_outbox) {
            let prepared = self
                .clock
                .timeout(self.connect_timeout, link.statement(self, ask))
                .await
                .ok_or_else(|| self.no_answer())?;
            prepared.map_err(|error| self.tell(&error))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Connect for Server {
    type Link = Link;

    const PLACE: &'static str = "postgres";

    async fn connect(&self) -> Result<Link> {
        let link = self.connect_bare().await?;
        if !self.suspects().is_empty() {
            let does = "still works on what was given up";
            return Err(self.complaint(ErrorKind::Unavailable, does));
        }
        self.check_table(&link).await?;
        Ok(link)
    }

    fn is_over(link: &Link) -> bool {
        link.client.is_closed()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.address)
    }
}
