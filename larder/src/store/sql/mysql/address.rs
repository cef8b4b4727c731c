//! Where the server is, and how to say so without its password.

use std::fmt;

use mysql_async::{Opts, OptsBuilder, SslOpts};

use crate::Result;
use crate::store::sql::table::{self, Dialect, Parts, Table};
use crate::store::sql::url::{Form, Url};

pub(super) const FORM: Form = Form {
    place: "mysql",
    example: "mysql://user:password@host:3306/database?table=larder",
};

const PORT: u16 = 3306;

/// Where the server is and how to log in; its texts never hold the password.
#[derive(Clone)]
pub(super) struct Address {
    shown: String,
    password: Option<String>,
    pub(super) options: Opts,
    pub(super) table: Table,
}

impl Address {
    pub(super) fn parse(url: &str, parts: Parts, authorities: Option<&[u8]>) -> Result<Self> {
        let mut url = Url::parse(url, FORM)?;
        if !matches!(url.scheme.as_str(), "mysql" | "mariadb") {
            return Err(FORM.bad("it does not begin with `mysql://` or `mariadb://`"));
        }
        let database = url.path.trim_start_matches('/').to_owned();
        if database.is_empty() || database.contains('/') {
            return Err(FORM.bad("it names no database"));
        }
        if url.host.is_empty() {
            return Err(FORM.bad("it names no host"));
        }
        let tls = match url.take("sslmode").as_deref() {
            None | Some("disable") => None,
            Some("require") => Some(tls(authorities)),
            Some(_) => return Err(FORM.bad("`sslmode` is `disable` or `require`")),
        };
        let table = url.take("table").unwrap_or_else(|| table::DEFAULT.into());
        let parts = url.parts(parts, FORM)?;
        url.all_taken(FORM, "`table`, `outbox` and `sslmode`")?;
        let table = Table::parse(Dialect::Mysql, FORM.place, &table)?.with(parts);
        let port = url.port.unwrap_or(PORT);
        let options = OptsBuilder::default()
            .ip_or_hostname(url.host.as_str())
            .tcp_port(port)
            .user(url.user.as_deref())
            .pass(url.password.as_deref())
            .db_name(Some(database.as_str()))
            .prefer_socket(false)
            .stmt_cache_size(64)
            .ssl_opts(tls);
        let host = if url.host.contains(':') {
            format!("[{}]", url.host)
        } else {
            url.host.clone()
        };
        let settings = table.settings();
        let mark = if settings.is_empty() { "" } else { "?" };
        let ending = format!("{mark}{}", settings.join("&"));
        Ok(Self {
            shown: format!("mysql://{host}:{port}/{database}{ending}"),
            password: url.password,
            options: options.into(),
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

/// Certificate and name are checked: by the authorities in `pem`, or by those of the web.
fn tls(pem: Option<&[u8]>) -> SslOpts {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Without a choice rustls panics. An error says that another thread was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    match pem {
        None => SslOpts::default(),
        Some(pem) => SslOpts::default()
            .with_root_certs(vec![pem.to_vec().into()])
            .with_disable_built_in_roots(true),
    }
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
            ("mysql://db/shop", "mysql://db:3306/shop"),
            ("mariadb://me:secret@db:6/shop", "mysql://db:6/shop"),
            (
                "mysql://[::1]/shop?table=pages",
                "mysql://[::1]:3306/shop?table=pages",
            ),
        ] {
            let address = Address::parse(url, Parts::Entries, None).expect(url);

            assert_eq!(address.to_string(), expected, "{url}");
            assert!(!format!("{address:?}").contains("secret"), "{url}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_reported_without_secrets() {
        for url in [
            "",
            "postgres://me:secret@db/shop",
            "mysql://me:secret@db",
            "mysql:///shop",
            "mysql://me:secret@db/shop?sslmode=secret",
            "mysql://me:secret@db/shop?table=a.b",
        ] {
            let error = Address::parse(url, Parts::Entries, None)
                .map(|_| ())
                .expect_err(url);

            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(!format!("{error:?}").contains("secret"), "{url}: {error:?}");
        }
    }
}
