//! Settings of the store.

use std::fmt;
use std::time::Duration;

use super::Redis;
use super::address::Address;
use super::connection::Connector;
use crate::{Clock, Result};

/// Settings of a [`Redis`].
///
/// ```
/// use std::time::Duration;
/// use larder::store::Redis;
///
/// let redis = Redis::builder("redis://cache").timeout(Duration::from_millis(250)).lazy()?;
/// assert_eq!(redis.to_string(), "redis://cache:6379/0");
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct RedisBuilder {
    url: String,
    timeout: Duration,
    connect_timeout: Duration,
    trust_restarts: bool,
    ca_certificate: Option<Vec<u8>>,
    clock: Clock,
}

impl RedisBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            trust_restarts: false,
            ca_certificate: None,
            clock: Clock::system(),
        }
    }

    /// How long an operation may take. Default: one second.
    ///
    /// One that has to connect first may take the [connect timeout](Self::connect_timeout) more.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// How long connecting may take, with the login. Default: one second.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Serves what the server kept from before it was restarted. Default: off.
    ///
    /// Right where nothing is lost in a restart (`appendfsync always`, no failover to a replica).
    /// Elsewhere a value invalidated shortly before a crash may be served again after it.
    pub fn trust_restarts(mut self) -> Self {
        self.trust_restarts = true;
        self
    }

    /// Trusts the authorities in `pem` for `rediss://`. Default: the usual ones of the web.
    pub fn ca_certificate_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_certificate = Some(pem.into());
        self
    }

    /// Tells the time by `clock`. Default: the machine's.
    ///
    /// The server itself counts real time: what it has let go of, no other clock brings back.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The store, connected.
    pub async fn connect(self) -> Result<Redis> {
        let redis = self.lazy()?;
        redis.0.link().await?;
        Ok(redis)
    }

    /// The store, which connects when it is first used.
    pub fn lazy(self) -> Result<Redis> {
        let mut address = Address::parse(&self.url)?;
        if let Some(pem) = self.ca_certificate {
            address = address.trust(pem)?;
        }
        let limits = (self.timeout, self.connect_timeout);
        Ok(Redis(Connector::new(
            address,
            self.clock,
            limits,
            self.trust_restarts,
        )))
    }
}

impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder")
            .field("address", &Address::parse(&self.url).ok())
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("trust_restarts", &self.trust_restarts)
            .finish_non_exhaustive()
    }
}
