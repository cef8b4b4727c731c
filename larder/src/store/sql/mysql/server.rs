//! The connections: made, lent to one act each, and given up.
//!
//! The protocol has one question at a time, so each act has a connection to itself. One whose act did not
//! come to its end is closed and never lent again: the answer that is still on its way is nobody's.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder};
use tokio::sync::Semaphore;

use super::address::Address;
use super::statements::Texts;
use crate::store::sql::gate::Connect;
use crate::store::sql::settings::Settings;
use crate::{Clock, Error, ErrorKind, Result};

/// Connections at a time.
const MOST: usize = 8;
/// How often, and how far apart, one asks whether a connection has ended.
const LOOKS: u32 = 25;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// A server and how to connect to it.
pub(super) struct Server {
    pub(super) address: Address,
    pub(super) texts: Texts,
    pub(super) timeout: Duration,
    connect_timeout: Duration,
    clock: Clock,
    /// Connections that were given up while they may still hold commands which the server has not
    /// read: by the locks that they hold.
    suspects: Mutex<Vec<String>>,
}

/// Connections to a server that has been looked at.
pub(super) struct Pool {
    idle: Mutex<Vec<Lease>>,
    pub(super) places: Semaphore,
    /// The largest question that the server takes.
    pub(super) largest: usize,
}

/// A connection, and the name of the lock by which the server knows it.
pub(super) struct Lease {
    pub(super) connection: Conn,
    pub(super) lock: String,
}

impl Pool {
    pub(super) fn take(&self) -> Option<Lease> {
        self.idle().pop()
    }

    pub(super) fn give_back(&self, lease: Lease) {
        self.idle().push(lease);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Lease>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    pub(super) fn new(address: Address, settings: &Settings) -> Self {
        Self {
            texts: Texts::new(&address.table),
            address,
            timeout: settings.timeout,
            connect_timeout: settings.connect_timeout,
            clock: settings.clock.clone(),
            suspects: Mutex::default(),
        }
    }

    /// Notes that a connection was given up after an answer did not come in time.
    ///
    /// Commands on their way could reach the server after those of the next connection, and undo
    /// them; so the next pool first makes the server end this one.
    pub(super) fn suspect(&self, lock: String) {
        self.suspects().push(lock);
    }

    fn suspects(&self) -> MutexGuard<'_, Vec<String>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to the server, whether our tables are there or not.
    pub(super) async fn connect_bare(&self) -> Result<Lease> {
        let connecting = self.clock.timeout(self.connect_timeout, self.shake_hands());
        match connecting.await {
            Some(Ok(lease)) => Ok(lease),
            Some(Err(error)) => Err(self.connect_error(&error)),
            None => Err(self.no_answer()),
        }
    }

    fn no_answer(&self) -> Error {
        let limit = self.connect_timeout;
        self.cannot_connect(&format!("no answer within {limit:?}"))
    }

    async fn shake_hands(&self) -> mysql_async::Result<Lease> {
        let lock = format!("larder-{:016x}", self.clock.random());
        let patience = self.timeout.as_secs().max(1);
        // The lock's name is ours: letters and digits. A statement sees what was committed before it,
        // and a value that does not fit is an error.
        let setup = format!(
            "SET SESSION transaction_isolation = 'READ-COMMITTED', autocommit = 1, \
             innodb_lock_wait_timeout = {patience}, sql_mode = 'STRICT_ALL_TABLES'"
        );
        let old_name = setup.replace("transaction_isolation", "tx_isolation");
        let options = OptsBuilder::from_opts(self.address.options.clone());
        let mut connection = Conn::new(options).await?;
        if connection.query_drop(&setup).await.is_err() {
            // Servers before MariaDB 11.1 have it under its old name only.
            connection.query_drop(&old_name).await?;
        }
        connection
            .query_drop(format!("SELECT GET_LOCK('{lock}', 0)"))
            .await?;
        Ok(Lease { connection, lock })
    }

    async fn end_suspects(&self, lease: &mut Lease) -> mysql_async::Result<()> {
        let locks = self.suspects().clone();
        for lock in &locks {
            for look in 0..LOOKS {
                let holder = format!("SELECT IS_USED_LOCK('{lock}')");
                let holder: Option<Option<u64>> = lease.connection.query_first(holder).await?;
                let Some(holder) = holder.flatten() else {
                    self.suspects().retain(|other| other != lock);
                    break;
                };
                if look == 0 {
                    // An error says that it has just ended.
                    let _ = lease.connection.query_drop(format!("KILL {holder}")).await;
                }
                self.clock.sleep(BETWEEN_LOOKS).await;
            }
        }
        Ok(())
    }

    /// How large a question may be, once the tables have been looked at.
    async fn look(&self, lease: &mut Lease) -> mysql_async::Result<usize> {
        self.end_suspects(lease).await?;
        let table = &self.address.table;
        let mut looks = Vec::new();
        if table.has_entries() {
            let (get, seen) = (self.texts.get(0, Some(1)), self.texts.seen());
            looks.extend([self.texts.put.clone(), get, seen]);
        }
        if table.has_outbox() {
            looks.push(self.texts.waiting.clone());
        }
        for text in looks {
            lease.connection.prep(text).await?;
        }
        let largest: Option<u64> = lease
            .connection
            .query_first("SELECT @@max_allowed_packet")
            .await?;
        Ok(largest
            .and_then(|largest| largest.try_into().ok())
            .unwrap_or(1 << 20))
    }
}

#[async_trait]
impl Connect for Server {
    type Link = Pool;

    const PLACE: &'static str = "mysql";

    async fn connect(&self) -> Result<Pool> {
        let mut lease = self.connect_bare().await?;
        let looking = self.look(&mut lease);
        let looked = self.clock.timeout(self.connect_timeout, looking).await;
        let largest = looked.ok_or_else(|| self.no_answer())?;
        let largest = largest.map_err(|error| self.tell(&error))?;
        if !self.suspects().is_empty() {
            let does = "still works on what was given up";
            return Err(self.complaint(ErrorKind::Unavailable, does));
        }
        Ok(Pool {
            idle: Mutex::new(vec![lease]),
            places: Semaphore::new(MOST),
            largest,
        })
    }

    /// Told by the acts, one by one.
    fn is_over(_: &Pool) -> bool {
        false
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
