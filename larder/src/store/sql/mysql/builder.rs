//! Settings of the store.

use std::fmt;
use std::time::Duration;

use super::Mysql;
use super::address::Address;
use super::server::Server;
use crate::Result;
use crate::store::sql::settings::{Settings, common_setters};

/// Settings of a [`Mysql`].
///
/// ```
/// use std::time::Duration;
/// use larder::store::Mysql;
///
/// let mysql = Mysql::builder("mysql://me:secret@db/shop")
///     .timeout(Duration::from_millis(250))
///     .lazy()?;
/// assert_eq!(mysql.to_string(), "mysql://db:3306/shop");
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct MysqlBuilder {
    url: String,
    settings: Settings,
    ca_certificate: Option<Vec<u8>>,
}

impl MysqlBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            settings: Settings::new(Duration::from_secs(1)),
            ca_certificate: None,
        }
    }

    common_setters!("one second");

    /// Trusts the authorities in `pem` for `sslmode=require`. Default: the usual ones of the web.
    pub fn ca_certificate_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_certificate = Some(pem.into());
        self
    }

    /// The store, connected; an error says so if its table is missing.
    pub async fn connect(self) -> Result<Mysql> {
        let mysql = self.lazy()?;
        mysql.0.gate.link().await?;
        Ok(mysql)
    }

    /// The store, which connects when it is first used.
    pub fn lazy(self) -> Result<Mysql> {
        let address = Address::parse(
            &self.url,
            self.settings.parts,
            self.ca_certificate.as_deref(),
        )?;
        let server = Server::new(address, &self.settings);
        Ok(Mysql::new(server, self.settings))
    }
}

impl fmt::Debug for MysqlBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlBuilder")
            .field(
                "address",
                &Address::parse(&self.url, self.settings.parts, None).ok(),
            )
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
