//! Settings of the store.

use std::fmt;
use std::time::Duration;

use super::Redis;
use super::cluster::Cluster;
use super::connection::{Connector, Role};
use super::place::Place;
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
    read_replicas: bool,
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
            read_replicas: false,
            ca_certificate: None,
            clock: Clock::system(),
        }
    }

    /// How long an operation may take. Default: one second.
    ///
    /// One that has to connect first may take the [connect timeout](Self::connect_timeout) more. In a
    /// cluster both may be needed more than once: to learn where the slots are, to follow one that has
    /// moved, and for numbers of tags that are on another node.
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

    /// Reads plain values from replicas, where the primary lists some. Default: off.
    ///
    /// That is for [`get`](crate::Cache::get), `get_bytes`, `get_shared` and `get_many` of values
    /// without tags. Writes, tags and whatever loads or compares (`fetch`, tickets, `incr`, pages) stay
    /// with the primary.
    ///
    /// Outside the promise: a replica lags, mostly by less than a millisecond, and one that has lost
    /// its primary is believed for up to 15 seconds; so long a get may see what was deleted or
    /// replaced. Values kept before a restart or a failover are misses there as well. Replicas are
    /// reached by the addresses that the primary lists; where one cannot be, the primary is read.
    ///
    /// ```
    /// use larder::store::Redis;
    ///
    /// let redis = Redis::builder("redis+cluster://a:7000,b:7000").read_replicas().lazy()?;
    /// assert_eq!(redis.to_string(), "redis+cluster://a:7000,b:7000");
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn read_replicas(mut self) -> Self {
        self.read_replicas = true;
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
        match &redis.1 {
            Some(cluster) => drop(cluster.map().await?),
            None => drop(redis.0.link().await?),
        }
        Ok(redis)
    }

    /// The store, which connects when it is first used.
    pub fn lazy(self) -> Result<Redis> {
        let place = Place::parse(&self.url, self.ca_certificate.as_deref())?;
        let limits = (self.timeout, self.connect_timeout);
        let server = |address, role| {
            let (trusted, replicas) = (self.trust_restarts, self.read_replicas);
            Connector::new(address, role, self.clock.clone(), limits, trusted, replicas)
        };
        Ok(match place {
            Place::One(address) => Redis(server(address, Role::Alone), None),
            Place::Named(address, sentinels) => {
                Redis(server(address, Role::Named(sentinels)), None)
            }
            Place::Cluster(address, seeds) => {
                let front = server(address, Role::Node);
                let cluster = Cluster::new(front.clone(), seeds);
                Redis(front, Some(cluster))
            }
        })
    }
}

impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Place::parse(&self.url, None).ok();
        f.debug_struct("RedisBuilder")
            .field("address", &place.as_ref().map(Place::address))
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("trust_restarts", &self.trust_restarts)
            .field("read_replicas", &self.read_replicas)
            .finish_non_exhaustive()
    }
}
