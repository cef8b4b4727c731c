//! Settings of the store.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::address::Address;
use super::connector::{Connector, Limits};
use super::leases::Leases;
use super::ring::Ring;
use super::{Inner, Memcached};
use crate::{Clock, Result};

/// Settings of a [`Memcached`].
///
/// ```
/// use std::time::Duration;
/// use larder::store::Memcached;
///
/// let memcached = Memcached::builder("memcached://a,b").timeout(Duration::from_millis(250)).lazy()?;
/// assert_eq!(memcached.to_string(), "memcached://a:11211,b:11211");
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct MemcachedBuilder {
    url: String,
    limits: Limits,
    ca_certificate: Option<Vec<u8>>,
    eject: Option<bool>,
    clock: Clock,
}

impl MemcachedBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            limits: Limits {
                timeout: Duration::from_secs(1),
                connect_timeout: Duration::from_secs(1),
                trust_restarts: false,
            },
            ca_certificate: None,
            eject: None,
            clock: Clock::system(),
        }
    }

    /// How long a server may take to answer. Default: one second.
    ///
    /// An act that compares before it writes asks at least twice; one that has to connect first may
    /// take the [connect timeout](Self::connect_timeout) more.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limits.timeout = limit;
        self
    }

    /// How long connecting to a server may take, with the login. Default: one second.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.limits.connect_timeout = limit;
        self
    }

    /// Serves what a server kept from before it was restarted. Default: off.
    ///
    /// That is nothing, unless it was started with a memory file (`-e`). Also for servers whose
    /// `stats` speaks of another process on every connection, such as proxies.
    pub fn trust_restarts(mut self) -> Self {
        self.limits.trust_restarts = true;
        self
    }

    /// Trusts the authorities in `pem` for `memcached+tls://`. Default: the usual ones of the web.
    pub fn ca_certificate_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_certificate = Some(pem.into());
        self
    }

    /// Lets other servers keep the keys of a server that cannot be reached. Default: off, or as the
    /// URL says (`?eject=true`): reads of those keys are misses, and writes of them errors.
    ///
    /// Outside the promise: when the server comes back it still has what was deleted meanwhile, and
    /// processes may differ about who is out.
    pub fn eject(mut self, eject: bool) -> Self {
        self.eject = Some(eject);
        self
    }

    /// Tells the time by `clock`. Default: the machine's.
    ///
    /// The servers themselves count real time: what they have let go of, no other clock brings back.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The store, connected to every server; with [`eject`](Self::eject), to at least one.
    pub async fn connect(self) -> Result<Memcached> {
        let store = self.lazy()?;
        let (mut any, mut first_error) = (false, None);
        for server in &store.0.servers {
            match server.link().await {
                Ok(_) => any = true,
                Err(error) if store.0.address.eject => drop(first_error.get_or_insert(error)),
                Err(error) => return Err(error),
            }
        }
        match first_error {
            Some(error) if !any => Err(error),
            _ => Ok(store),
        }
    }

    /// The store, which connects when it is first used.
    pub fn lazy(self) -> Result<Memcached> {
        let mut address = Address::parse(&self.url)?;
        if let Some(pem) = &self.ca_certificate {
            address = address.trust(pem)?;
        }
        address.eject = self.eject.unwrap_or(address.eject);
        let connector = |server| Connector::new(server, self.clock.clone(), self.limits.clone());
        Ok(Memcached(Arc::new(Inner {
            servers: address.servers()?.into_iter().map(connector).collect(),
            ring: Ring::new(&address.places, &address.weights),
            leases: Leases::default(),
            without: AtomicU64::new(0),
            address,
            clock: self.clock.clone(),
        })))
    }
}

impl fmt::Debug for MemcachedBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcachedBuilder")
            .field("address", &Address::parse(&self.url).ok())
            .field("limits", &self.limits)
            .field("eject", &self.eject)
            .finish_non_exhaustive()
    }
}
