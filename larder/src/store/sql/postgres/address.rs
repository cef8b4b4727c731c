//! Where the server is, and how to say so without its password.

use std::fmt;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use super::tls::Tls;
use crate::Result;
use crate::store::sql::table::{self, Dialect, Parts, Table};
use crate::store::sql::url::{Form, Url};

pub(super) const FORM: Form = Form {
    place: "postgres",
    example: "postgres://user:password@host:5432/database?table=larder",
};

const PORT: u16 = 5432;

/// Where the server is and how to log in; its texts never hold the password.
#[derive(Clone)]
pub(super) struct Address {
    shown: String,
    password: Option<String>,
    pub(super) config: Config,
    pub(super) tls: Tls,
    pub(super) table: Table,
}

impl Address {
    pub(super) fn parse(
        url: &str,
        unlogged: bool,
        parts: Parts,
        authorities: Option<&[u8]>,
    ) -> Result<Self> {
        let mut url = Url::parse(url, FORM)?;
        if !matches!(url.scheme.as_str(), "postgres" | "postgresql") {
            return Err(FORM.bad("it does not begin with `postgres://`"));
        }
        let database = url.path.trim_start_matches('/').to_owned();
        if database.is_empty() || database.contains('/') {
            return Err(FORM.bad("it names no database"));
        }
        // A folder with the server's socket, as in `postgres:///shop?host=/run/postgresql`.
        let host = url.take("host").unwrap_or_else(|| url.host.clone());
        if host.is_empty() {
            return Err(FORM.bad("it names no host"));
        }
        let mode = match url.take("sslmode").as_deref() {
            None | Some("disable") => SslMode::Disable,
            Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
            Some(_) => return Err(FORM.bad("`sslmode` is `disable` or `require`")),
        };
        let table = url.take("table").unwrap_or_else(|| table::DEFAULT.into());
        let parts = url.parts(parts, FORM)?;
        url.all_taken(FORM, "`table`, `outbox`, `host` and `sslmode`")?;
        let table = Table::parse(Dialect::Postgres { unlogged }, FORM.place, &table)?.with(parts);
        let tls = Tls::new(authorities)?;
        let port = url.port.unwrap_or(PORT);
        let mut config = Config::new();
        config
            .host(&host)
            .port(port)
            .dbname(&database)
            .ssl_mode(mode);
        config.user(url.user.as_deref().unwrap_or("postgres"));
        if let Some(password) = &url.password {
            config.password(password);
        }
        Ok(Self {
            shown: shown(&host, port, &database, &table),
            password: url.password,
            config,
            tls,
            table,
        })
    }

    /// `text` without the password.
    pub(super) fn without_password(&self, text: &str) -> String {
        match &self.password {
            Some(password) => text.replace(password.as_str(), "***"),
            None => text.to_owned(),
        }
    }
}

fn shown(host: &str, port: u16, database: &str, table: &Table) -> String {
    let mut settings = Vec::new();
    let host = match host {
        socket if socket.starts_with('/') => {
            settings.push(format!("host={socket}"));
            String::new()
        }
        v6 if v6.contains(':') => format!("[{v6}]:{port}"),
        name => format!("{name}:{port}"),
    };
    settings.extend(table.settings());
    let mark = if settings.is_empty() { "" } else { "?" };
    format!("postgres://{host}/{database}{mark}{}", settings.join("&"))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn an_address_is_shown_in_one_form_without_login() {
        for (url, expected) in [
            ("postgres://db/shop", "postgres://db:5432/shop"),
            ("postgresql://me:secret@db:6/shop", "postgres://db:6/shop"),
            (
                "postgres://[::1]/shop?table=web.pages",
                "postgres://[::1]:5432/shop?table=web.pages",
            ),
            (
                "postgres://me:secret@/shop?host=/run/pg&sslmode=disable",
                "postgres:///shop?host=/run/pg",
            ),
        ] {
            let address = Address::parse(url, false, Parts::Entries, None).expect(url);

            assert_eq!(address.to_string(), expected, "{url}");
            assert!(!format!("{address:?}").contains("secret"), "{url}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_reported_without_secrets() {
        for url in [
            "",
            "db/shop",
            "mysql://me:secret@db/shop",
            "postgres://me:secret@db",
            "postgres://me:secret@db/a/b",
            "postgres:///shop",
            "postgres://me:secret@db:port/shop",
            "postgres://me:secret@db/shop?sslmode=secret",
            "postgres://me:secret@db/shop?password=secret",
            "postgres://me:secret@db/shop?table=a%20b",
        ] {
            let error = Address::parse(url, false, Parts::Entries, None)
                .map(|_| ())
                .expect_err(url);

            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(!format!("{error:?}").contains("secret"), "{url}: {error:?}");
        }
    }
}
