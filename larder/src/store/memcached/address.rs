//! Where the servers are, and how to say so without the password.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::percent::decoded;
use crate::{Error, ErrorKind, Result};

pub(super) const DEFAULT_PORT: u16 = 11211;
const TCP: &str = "memcached";
const TLS: &str = "memcached+tls";
const UNIX: &str = "memcached+unix";

/// Where the servers are and how to log in; its texts never hold the password.
#[derive(Clone)]
pub(super) struct Address {
    scheme: &'static str,
    pub(super) places: Vec<Place>,
    pub(super) weights: Vec<u32>,
    pub(super) login: Option<Login>,
    pub(super) eject: bool,
    tls: Option<Arc<ClientConfig>>,
}

/// Where one server is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Place {
    Host(String, u16),
    Socket(PathBuf),
}

/// Name and password.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

/// One server of an address.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) place: Place,
    pub(super) login: Option<Login>,
    /// How to encrypt, and the name that the server's certificate has to have.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    shown: String,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let scheme = [TCP, TLS, UNIX]
            .into_iter()
            .find(|known| *known == scheme)
            .ok_or_else(|| bad_url("it does not begin with `memcached://`, `memcached+tls://` or `memcached+unix://`"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, hosts) = match rest.rsplit_once('@') {
            Some((login, hosts)) if scheme != UNIX => (Some(Login::parse(login)?), hosts),
            _ => (None, rest),
        };
        let hosts = if scheme == UNIX {
            hosts
        } else {
            hosts.strip_suffix('/').unwrap_or(hosts)
        };
        let place = if scheme == UNIX { socket } else { host };
        let places = hosts.split(',').map(place).collect::<Result<Vec<_>>>()?;
        let twice = (1..places.len()).any(|at| places[..at].contains(&places[at]));
        if twice {
            return Err(bad_url("a server is named twice"));
        }
        let mut address = Self {
            scheme,
            weights: vec![1; places.len()],
            places,
            login,
            eject: false,
            tls: None,
        };
        for setting in query.split('&').filter(|setting| !setting.is_empty()) {
            address.set(setting)?;
        }
        if scheme == TLS {
            let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
            address.tls = Some(encryption(roots)?);
            // A name that no certificate can have is told here, not when connecting.
            address.servers()?;
        }
        Ok(address)
    }

    fn set(&mut self, setting: &str) -> Result<()> {
        match setting.split_once('=') {
            Some(("weight", weights)) => {
                let weights = weights
                    .split(',')
                    .map(|weight| weight.parse().ok().filter(|weight| *weight > 0));
                let weights: Option<Vec<u32>> = weights.collect();
                self.weights = weights
                    .filter(|weights| weights.len() == self.places.len())
                    .ok_or_else(|| bad_url("`weight` is not a positive number for each server"))?;
            }
            Some(("eject", "true")) => self.eject = true,
            Some(("eject", "false")) => self.eject = false,
            Some(("eject", _)) => return Err(bad_url("`eject` is neither `true` nor `false`")),
            _ => return Err(bad_url("it has a setting other than `weight` and `eject`")),
        }
        Ok(())
    }

    /// Trusts the authorities in `pem`, and no others.
    pub(super) fn trust(mut self, pem: &[u8]) -> Result<Self> {
        let odd = |what: &str| {
            let text = format!("`ca_certificate_pem` cannot be used: {what}");
            Error::new(ErrorKind::Invalid, "memcached", text)
        };
        let mut roots = RootCertStore::empty();
        for certificate in rustls::pki_types::CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| odd("it is not in PEM form"))?;
            let added = roots.add(certificate);
            added.map_err(|_| odd("a certificate cannot be read"))?;
        }
        if roots.is_empty() {
            return Err(odd("it holds no certificate"));
        }
        if self.tls.is_some() {
            self.tls = Some(encryption(roots)?);
        }
        Ok(self)
    }

    pub(super) fn servers(&self) -> Result<Vec<Server>> {
        let server = |place: &Place| {
            let tls = match (&self.tls, place) {
                (Some(tls), Place::Host(host, _)) => {
                    let name = ServerName::try_from(host.clone());
                    let name = name.map_err(|_| bad_url("a host has no name for a certificate"))?;
                    Some((Arc::clone(tls), name))
                }
                _ => None,
            };
            Ok(Server {
                place: place.clone(),
                login: self.login.clone(),
                tls,
                shown: format!("{}://{place}", self.scheme),
            })
        };
        self.places.iter().map(server).collect()
    }
}

impl Login {
    fn parse(text: &str) -> Result<Self> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let [user, password] = [user, password].map(decoded);
        let login = user.zip(password).filter(|(user, password)| {
            let odd = |text: &str| text.bytes().any(|byte| byte.is_ascii_control());
            // The server takes what is before the first blank for the name.
            !user.is_empty() && !user.contains([' ', ':']) && !odd(user) && !odd(password)
        });
        let (user, password) = login.ok_or_else(|| bad_url("the user or the password is none"))?;
        Ok(Self { user, password })
    }
}

impl Server {
    /// `text` without the password: a server may repeat what it did not understand.
    pub(super) fn without_password(&self, text: &str) -> String {
        match &self.login {
            Some(login) if !login.password.is_empty() => text.replace(&login.password, "***"),
            _ => text.to_owned(),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.shown)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        listed(f, &self.places)?;
        let mut mark = '?';
        if self.weights.iter().any(|weight| *weight != 1) {
            write!(f, "{mark}weight=")?;
            listed(f, &self.weights)?;
            mark = '&';
        }
        if self.eject {
            write!(f, "{mark}eject=true")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

fn listed(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(",")?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

fn encryption(roots: RootCertStore) -> Result<Arc<ClientConfig>> {
    let cryptography = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(cryptography)
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            let text = "TLS cannot be set up";
            Error::new(ErrorKind::Invalid, "memcached", text).with_source(error)
        })?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

fn socket(path: &str) -> Result<Place> {
    match decoded(path) {
        Some(path) if path.starts_with('/') => Ok(Place::Socket(path.into())),
        _ => Err(bad_url("the path of a socket does not begin with `/`")),
    }
}

fn host(text: &str) -> Result<Place> {
    let odd = || bad_url("a host is none, or its port is no number");
    let (host, port) = match text.strip_prefix('[') {
        Some(text) => text.split_once(']').ok_or_else(odd)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(odd)?,
        None if port.is_empty() => DEFAULT_PORT,
        None => return Err(odd()),
    };
    let bare = |host: &&str| !host.is_empty() && !host.contains(['/', '[', ']', '@', '#', ' ']);
    let host = Some(host).filter(bare).ok_or_else(odd)?;
    Ok(Place::Host(host.to_owned(), port))
}

fn bad_url(what: &str) -> Error {
    let text = format!("the URL cannot be used: {what}");
    Error::new(ErrorKind::Invalid, "memcached", text)
        .with_hint("write it as `memcached://user:password@host:11211,host:11211`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_in_one_form_which_can_be_read_again() {
        for (url, shown) in [
            ("memcached://cache", "memcached://cache:11211"),
            ("memcached://cache/", "memcached://cache:11211"),
            ("memcached://me:s%40cret@a,b:7", "memcached://a:11211,b:7"),
            ("memcached://[::1]:7", "memcached://[::1]:7"),
            ("memcached+tls://cache:1", "memcached+tls://cache:1"),
            (
                "memcached+unix:///run/m.sock",
                "memcached+unix:///run/m.sock",
            ),
            (
                "memcached://a,b?weight=2,1&eject=true",
                "memcached://a:11211,b:11211?weight=2,1&eject=true",
            ),
            ("memcached://a?weight=1&eject=false", "memcached://a:11211"),
        ] {
            let address = Address::parse(url).expect(url);

            assert_eq!(address.to_string(), shown, "{url}");
            assert_eq!(Address::parse(shown).expect(shown).to_string(), shown);
            assert!(!format!("{address:?}").contains("cret"), "{url}");
        }
    }

    #[test]
    fn a_login_is_decoded() {
        let address = Address::parse("memcached://me:s%40:%20cret@cache").expect("a good URL");
        let login = address.login.expect("it has a login");

        assert_eq!(
            (login.user.as_str(), login.password.as_str()),
            ("me", "s@: cret")
        );
    }

    #[test]
    fn a_url_that_cannot_be_used_is_reported_without_secrets() {
        for url in [
            "",
            "cache:11211",
            "redis://secret@cache",
            "memcached://",
            "memcached://me:secret@",
            "memcached://me:secret@cache:port",
            "memcached://me:secret@cache:0",
            "memcached://me:secret@cache,",
            "memcached://me:secret@cache,cache:11211",
            "memcached://me:secret@cache/secret",
            "memcached://:secret@cache",
            "memcached://m%20e:secret@cache",
            "memcached://me:secret%0a@cache",
            "memcached://me:secret%zz@cache",
            "memcached://me:secret@cache?weight=secret",
            "memcached://me:secret@cache?weight=0",
            "memcached://me:secret@cache?weight=1,2",
            "memcached://me:secret@cache?eject=secret",
            "memcached://me:secret@cache?secret=1",
            "memcached+tls://me:secret@a_b..c",
            "memcached+unix://relative/secret",
        ] {
            let error = Address::parse(url).map(|_| ()).expect_err(url);

            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            let text = format!("{error} {error:?}");
            assert!(!text.contains("secret"), "{url}: {text}");
        }
    }

    #[test]
    fn a_text_loses_the_password() {
        let address = Address::parse("memcached://me:s%40cret@cache").expect("a good URL");
        let server = address.servers().expect("it has a server").remove(0);

        let text = server.without_password("CLIENT_ERROR s@cret");

        assert_eq!(text, "CLIENT_ERROR ***");
    }
}
