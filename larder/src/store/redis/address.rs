//! Where the server is, and how to say so without its password.

use std::fmt;

use redis::{
    Client, ConnectionAddr, ConnectionInfo, ProtocolVersion, RedisConnectionInfo, TlsCertificates,
};
use rustls::crypto::CryptoProvider;

use crate::percent::decoded;
use crate::{Error, ErrorKind, Result};

const SCHEMES: [&str; 7] = [
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "unix",
    "redis+unix",
    "valkey+unix",
];

/// Where the server is and how to log in; its texts never hold the password.
#[derive(Clone)]
pub(super) struct Address {
    shown: String,
    password: Option<String>,
    /// Another password that texts may hold.
    second: Option<String>,
    info: ConnectionInfo,
    certificates: Option<TlsCertificates>,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self> {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !SCHEMES.contains(&scheme) {
            return Err(bad_url(
                "it does not begin with `redis://`, `rediss://`, `redis+unix://`, \
                 `redis+cluster://` or `redis+sentinel://`",
            ));
        }
        let client = Client::open(url).map_err(|error| bad_url(&reason(&error)))?;
        let info = client.get_connection_info().clone();
        let login = &Said::in_query(url)?.added_to(info.redis_settings().clone(), url)?;
        if login.db() < 0 {
            return Err(bad_url("the database number is negative"));
        }
        if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
            return Err(bad_url("a certificate is always checked")
                .with_hint("drop `#insecure` and give the authority by `ca_certificate_pem`"));
        }
        let shown = show(info.addr(), login.db());
        let password = login.password().map(str::to_owned);
        // RESP3 tells at once when the server closes the connection; see `connection.rs`.
        let protocol = if asks_for_resp2(url) {
            ProtocolVersion::RESP2
        } else {
            ProtocolVersion::RESP3
        };
        let login = login.clone().set_protocol(protocol);
        Ok(Self {
            shown,
            password: password.filter(|password| !password.is_empty()),
            second: None,
            info: info.set_redis_settings(login),
            certificates: None,
        })
    }

    /// Trusts the authorities in `pem`, and no others.
    pub(super) fn trust(mut self, pem: Vec<u8>) -> Result<Self> {
        let marker = b"-----BEGIN CERTIFICATE-----";
        if !pem.windows(marker.len()).any(|window| window == marker) {
            let text = "`ca_certificate_pem` holds no certificate in PEM form";
            return Err(Error::new(ErrorKind::Invalid, "redis", text));
        }
        self.certificates = Some(TlsCertificates {
            client_tls: None,
            root_cert: Some(pem),
        });
        self.client().map_err(|error| {
            let text = format!("`ca_certificate_pem` cannot be used: {}", reason(&error));
            Error::new(ErrorKind::Invalid, "redis", text)
        })?;
        Ok(self)
    }

    pub(super) fn client(&self) -> redis::RedisResult<Client> {
        if matches!(self.info.addr(), ConnectionAddr::TcpTls { .. }) {
            choose_cryptography();
        }
        match &self.certificates {
            None => Client::open(self.info.clone()),
            Some(certificates) => Client::build_with_tls(self.info.clone(), certificates.clone()),
        }
    }

    pub(super) fn speaks_resp3(&self) -> bool {
        self.info.redis_settings().protocol() == ProtocolVersion::RESP3
    }

    /// This address for a server too old for RESP3.
    pub(super) fn with_resp2(&self) -> Self {
        let login = self.info.redis_settings().clone();
        Self {
            info: (self.info.clone())
                .set_redis_settings(login.set_protocol(ProtocolVersion::RESP2)),
            ..self.clone()
        }
    }

    /// This address with another server, the login as it is.
    pub(super) fn at(&self, host: &str, port: u16) -> Self {
        let host = host.to_owned();
        let address = match self.info.addr() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        let mut there = self.clone();
        there.shown = show(&address, self.database());
        there.info = there.info.set_addr(address);
        there
    }

    /// This address under another name.
    pub(super) fn shown_as(mut self, shown: String) -> Self {
        self.shown = shown;
        self
    }

    /// This address, which does not show the password of `other` either.
    pub(super) fn hiding(mut self, other: &Self) -> Self {
        self.second.clone_from(&other.password);
        self
    }

    pub(super) fn database(&self) -> i64 {
        self.info.redis_settings().db()
    }

    /// The host; of a socket there is none.
    pub(super) fn host(&self) -> &str {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
            _ => "",
        }
    }

    pub(super) fn host_and_port(&self) -> String {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                format!("{}:{port}", bracketed(host))
            }
            _ => self.shown.clone(),
        }
    }

    /// `text` without the password: a server may repeat the arguments that it did not understand.
    pub(super) fn without_password(&self, text: &str) -> String {
        let passwords = self.password.iter().chain(&self.second);
        passwords.fold(text.to_owned(), |text, password| {
            text.replace(password.as_str(), "***")
        })
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

/// Without a choice rustls panics; one that the program has made stays.
fn choose_cryptography() {
    if CryptoProvider::get_default().is_none() {
        // An error says that another thread was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

fn show(address: &ConnectionAddr, db: i64) -> String {
    match address {
        ConnectionAddr::Tcp(host, port) => format!("redis://{}:{port}/{db}", bracketed(host)),
        ConnectionAddr::TcpTls { host, port, .. } => {
            format!("rediss://{}:{port}/{db}", bracketed(host))
        }
        ConnectionAddr::Unix(path) => format!("redis+unix://{}?db={db}", path.display()),
        _ => "redis".to_owned(),
    }
}

fn asks_for_resp2(url: &str) -> bool {
    query(url)
        .split('&')
        .any(|pair| pair == "protocol=resp2" || pair == "protocol=2")
}

pub(super) fn query(url: &str) -> &str {
    let before = url.split('#').next().unwrap_or_default();
    before.split_once('?').map_or("", |(_, query)| query)
}

/// What the query says of database and login: the client itself reads that for sockets only.
#[derive(Default)]
struct Said<'a> {
    db: Option<(&'a str, String)>,
    user: Option<(&'a str, String)>,
    password: Option<(&'a str, String)>,
}

impl<'a> Said<'a> {
    fn in_query(url: &'a str) -> Result<Self> {
        let mut said = Self::default();
        for pair in query(url).split('&') {
            let (word, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match word {
                "db" => &mut said.db,
                // Django's words are the longer ones.
                "user" | "username" => &mut said.user,
                "pass" | "password" => &mut said.password,
                _ => continue,
            };
            if place.is_some() {
                return Err(bad_url(&format!("`{word}` is given twice")));
            }
            let value = decoded(value).ok_or_else(|| bad_url("a `%` in it is no code"))?;
            *place = Some((word, value));
        }
        Ok(said)
    }

    /// `login` with what was said; the rest of the URL may say it as well, but nothing else.
    fn added_to(self, mut login: RedisConnectionInfo, url: &str) -> Result<RedisConnectionInfo> {
        let (scheme, _) = url.split_once(':').unwrap_or_default();
        // Of a socket nothing else is said: the client has read the same words.
        let is_socket = scheme.ends_with("unix");
        let differs =
            |word: &str| bad_url(&format!("`{word}` differs from what stands before `?`"));
        if let Some((word, db)) = self.db {
            let db = db.parse().map_err(|_| bad_url("`db` is no number"))?;
            if !is_socket && names_database(url) && login.db() != db {
                return Err(differs(word));
            }
            login = login.set_db(db);
        }
        if let Some((word, user)) = self.user {
            if !is_socket && login.username().is_some_and(|before| before != user) {
                return Err(differs(word));
            }
            login = login.set_username(user);
        }
        if let Some((word, password)) = self.password {
            if !is_socket && login.password().is_some_and(|before| before != password) {
                return Err(differs(word));
            }
            login = login.set_password(password);
        }
        Ok(login)
    }
}

/// Whether the path of a URL names a database.
fn names_database(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    rest.split_once('/')
        .is_some_and(|(_, path)| !path.trim_matches('/').is_empty())
}

/// What is wrong, in lower case, without the parts of the URL that may be secret.
fn reason(error: &redis::RedisError) -> String {
    let text = error.to_string();
    let text = text.split(" - ").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "it cannot be read".to_owned(),
    }
}

pub(super) fn bad_url(what: &str) -> Error {
    let text = format!("the URL cannot be used: {what}");
    Error::new(ErrorKind::Invalid, "redis", text)
        .with_hint("write it as `redis://user:password@host:6379/0`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_in_one_form() {
        for (url, shown) in [
            ("redis://cache", "redis://cache:6379/0"),
            ("redis://:secret@cache:1234/5", "redis://cache:1234/5"),
            ("valkey://me:secret@cache/", "redis://cache:6379/0"),
            ("rediss://cache/2", "rediss://cache:6379/2"),
            ("valkeys://cache", "rediss://cache:6379/0"),
            ("redis://[::1]:7/1", "redis://[::1]:7/1"),
            ("unix:///run/r.sock", "redis+unix:///run/r.sock?db=0"),
            (
                "redis+unix:///run/r.sock?db=3&pass=secret",
                "redis+unix:///run/r.sock?db=3",
            ),
            ("redis://cache?db=5", "redis://cache:6379/5"),
            ("redis://cache/5?db=5", "redis://cache:6379/5"),
            ("rediss://cache/?db=5&pass=secret", "rediss://cache:6379/5"),
        ] {
            let address = Address::parse(url).expect(url);

            assert_eq!(address.to_string(), shown, "{url}");
            assert!(!format!("{address:?}").contains("secret"), "{url}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_reported_in_one_line_without_secrets() {
        for url in [
            "",
            "cache:6379",
            "http://:secret@cache",
            "secret://cache",
            "redis://",
            "redis://:secret@cache:port",
            "redis://:secret@cache/secret",
            "redis://:secret@cache/-1",
            "redis://:secret@0.0.0.0/0",
            "rediss://:secret@cache/#insecure",
            "redis://:secret@cache/?protocol=secret",
            "unix://relative",
            "redis+unix:///run/r.sock?db=secret",
            "redis://cache?db=secret",
            "redis://cache?db=-1",
            "redis://cache/0?db=5",
            "redis://cache?db=5&db=5",
            "redis://cache?pass=secret&password=secret",
            "redis://:secret@cache?pass=secret2",
            "redis://secret@cache?user=secret2",
            "redis://cache?pass=secret%zz",
        ] {
            let error = Address::parse(url).map(|_| ()).expect_err(url);

            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            let text = error.to_string();
            assert!(
                !text.contains('\n') && !text.contains("secret"),
                "{url}: {text}"
            );
            assert!(!format!("{error:?}").contains("secret"), "{url}");
        }
    }

    #[test]
    fn a_login_may_stand_in_the_query_of_every_scheme() {
        for url in [
            "redis://cache?user=m%40e&pass=s%20+%26cret",
            "rediss://cache?username=m%40e&password=s%20+%26cret",
            "redis://m%40e@cache?user=m%40e&pass=s%20+%26cret",
            "unix:///run/r.sock?user=m%40e&pass=s%20+%26cret",
            "redis+unix:///run/r.sock?username=m%40e&password=s%20+%26cret",
        ] {
            let address = Address::parse(url).expect(url);

            let login = address.info.redis_settings();
            let said = (login.username(), login.password());
            assert_eq!(said, (Some("m@e"), Some("s +&cret")), "{url}");
            assert_eq!(address.without_password("s +&cret"), "***", "{url}");
        }
    }

    #[test]
    fn a_text_loses_the_password() {
        let address = Address::parse("redis://:s%40cret@cache").expect("a good URL");

        let text = address.without_password("ERR unknown command, args: 's@cret'");

        assert_eq!(text, "ERR unknown command, args: '***'");
    }
}
