//! Settings of the store.

use std::fmt;
use std::time::Duration;

use super::Postgres;
use super::address::Address;
use super::server::Server;
use crate::Result;
use crate::store::sql::settings::{Settings, common_setters};

/// Settings of a [`Postgres`].
///
/// ```
/// use std::time::Duration;
/// use larder::store::Postgres;
///
/// let postgres = Postgres::builder("postgres://me:secret@db/shop")
///     .timeout(Duration::from_millis(250))
///     .lazy()?;
/// assert_eq!(postgres.to_string(), "postgres://db:5432/shop");
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct PostgresBuilder {
    url: String,
    settings: Settings,
    unlogged: bool,
    ca_certificate: Option<Vec<u8>>,
}

impl PostgresBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            settings: Settings::new(Duration::from_secs(1)),
            unlogged: false,
            ca_certificate: None,
        }
    }

    common_setters!("one second");

    /// Lets [`create_table`](Postgres::create_table) make tables that are not in the log of the
    /// server. Default: off.
    ///
    /// Writes cost less. After a crash of the server both tables are empty: every entry is a miss.
    pub fn unlogged(mut self) -> Self {
        self.unlogged = true;
        self
    }

    /// Trusts the authorities in `pem` for `sslmode=require`. Default: the usual ones of the web.
    pub fn ca_certificate_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_certificate = Some(pem.into());
        self
    }

    /// The store, connected; an error says so if its table is missing.
    pub async fn connect(self) -> Result<Postgres> {
        let postgres = self.lazy()?;
        postgres.0.gate.link().await?;
        Ok(postgres)
    }

    /// The store, which connects when it is first used.
    pub fn lazy(self) -> Result<Postgres> {
        let address = Address::parse(
            &self.url,
            self.unlogged,
            self.settings.parts,
            self.ca_certificate.as_deref(),
        )?;
        let server = Server::new(address, &self.settings);
        Ok(Postgres::new(server, self.settings))
    }
}

impl fmt::Debug for PostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder")
            .field(
                "address",
                &Address::parse(&self.url, self.unlogged, self.settings.parts, None).ok(),
            )
            .field("settings", &self.settings)
            .field("unlogged", &self.unlogged)
            .finish_non_exhaustive()
    }
}
