//! What a URL names: one server, the nodes of a cluster, or sentinels that know where the primary is.
//!
//! `redis+cluster://user:password@a:7000,b:7001` and `redis+sentinel://:password@a,b:26380/mymaster/0`,
//! with `rediss` for TLS. User and password are those of the servers; those of the sentinels stand in
//! the query.

use super::address::{Address, bad_url, query};
use super::sentinels::Sentinels;
use crate::percent::decoded;
use crate::{Error, Result};

const CLUSTER: [&str; 4] = [
    "redis+cluster",
    "rediss+cluster",
    "valkey+cluster",
    "valkeys+cluster",
];
const SENTINEL: [&str; 4] = [
    "redis+sentinel",
    "rediss+sentinel",
    "valkey+sentinel",
    "valkeys+sentinel",
];
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;

/// What a URL names.
pub(super) enum Place {
    /// The one server.
    One(Address),
    /// Where the primary is, is asked at each connect. The address stands for all in texts.
    Named(Address, Box<Sentinels>),
    /// Some nodes of a cluster, which know the others. The address stands for all in texts.
    Cluster(Address, Vec<Address>),
}

impl Place {
    /// Reads `url`, with `pem` as the authorities to trust, if given.
    pub(super) fn parse(url: &str, pem: Option<&[u8]>) -> Result<Self> {
        let trusted = |address: Address| match pem {
            Some(pem) => address.trust(pem.to_vec()),
            None => Ok(address),
        };
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        if CLUSTER.contains(&scheme) {
            return cluster(&Several::read(url, scheme)?, trusted);
        }
        if SENTINEL.contains(&scheme) {
            return named(&Several::read(url, scheme)?, trusted);
        }
        trusted(Address::parse(url)?).map(Self::One)
    }

    /// What stands for all of it in texts; never holds a password.
    pub(super) fn address(&self) -> &Address {
        match self {
            Self::One(address) | Self::Named(address, _) | Self::Cluster(address, _) => address,
        }
    }
}

fn cluster(url: &Several<'_>, trusted: impl Fn(Address) -> Result<Address>) -> Result<Place> {
    let write = |error: Error| error.with_hint("write it as `redis+cluster://host:7000,host:7001`");
    let path = url.path.trim_matches('/');
    if !["", "0"].contains(&path) {
        return Err(write(bad_url("a cluster has no databases but 0")));
    }
    let mut seeds = Vec::new();
    for host in &url.hosts {
        let one = url.one(host, PORT, "", url.query).map_err(write)?;
        if one.database() != 0 {
            return Err(write(bad_url("a cluster has no databases but 0")));
        }
        seeds.push(trusted(one)?);
    }
    let first = seeds.first().expect("a URL names a host").clone();
    let shown = format!("{}+cluster://{}", url.base, shown_hosts(&seeds));
    Ok(Place::Cluster(first.shown_as(shown), seeds))
}

fn named(url: &Several<'_>, trusted: impl Fn(Address) -> Result<Address>) -> Result<Place> {
    let write = |error: Error| {
        error.with_hint("write it as `redis+sentinel://:password@host:26379,host:26379/mymaster/0`")
    };
    let (name, db) = (url.path.split_once('/')).unwrap_or((url.path, ""));
    let name = decoded(name).ok_or_else(|| write(bad_url("a `%` in it is no code")))?;
    if name.is_empty() {
        return Err(write(bad_url("it does not name the primary")));
    }
    let mut own = Vec::new();
    let mut login = Vec::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.strip_prefix("sentinel_") {
            Some(pair) if pair.starts_with("user=") || pair.starts_with("password=") => {
                login.push(pair);
            }
            _ => own.push(pair),
        }
    }
    let first = &url.hosts[0];
    let server = url.one(first, SENTINEL_PORT, db, &own.join("&"));
    let server = trusted(server.map_err(write)?)?;
    let bare = Several {
        login: "",
        hosts: Vec::new(),
        ..*url
    };
    let sentinel = |host: &&str| {
        let one = bare.one(host, SENTINEL_PORT, "", &login.join("&"));
        trusted(one.map_err(write)?)
    };
    let sentinels: Vec<Address> = url.hosts.iter().map(sentinel).collect::<Result<_>>()?;
    let (hosts, db) = (shown_hosts(&sentinels), server.database());
    let shown = format!("{}+sentinel://{hosts}/{name}/{db}", url.base);
    let secrets = sentinels[0].clone();
    Ok(Place::Named(
        server.clone().shown_as(shown).hiding(&secrets),
        Box::new(Sentinels::new(&sentinels, name, server)),
    ))
}

fn shown_hosts(addresses: &[Address]) -> String {
    let host = |address: &Address| address.host_and_port();
    addresses.iter().map(host).collect::<Vec<_>>().join(",")
}

/// The parts of a URL that names several hosts.
struct Several<'a> {
    /// The scheme of one server.
    base: &'static str,
    /// User and password with the `@`, or nothing.
    login: &'a str,
    hosts: Vec<&'a str>,
    /// Without the slash in front.
    path: &'a str,
    query: &'a str,
}

impl Several<'_> {
    fn read<'a>(url: &'a str, scheme: &str) -> Result<Several<'a>> {
        let encrypted = scheme.starts_with("rediss") || scheme.starts_with("valkeys");
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        if rest.contains('#') {
            return Err(bad_url("it ends in `#…`, which means nothing here"));
        }
        let before = rest.split('?').next().unwrap_or_default();
        let (authority, path) = before.split_once('/').unwrap_or((before, ""));
        let (login, hosts) = match authority.rfind('@') {
            Some(at) => authority.split_at(at + 1),
            None => ("", authority),
        };
        let hosts: Vec<&str> = hosts.split(',').collect();
        if hosts.iter().any(|host| host.is_empty()) {
            return Err(bad_url("it lists an empty host"));
        }
        Ok(Several {
            base: if encrypted { "rediss" } else { "redis" },
            login,
            hosts,
            path,
            query: query(url),
        })
    }

    /// The address of one of the hosts.
    fn one(&self, host: &str, port: u16, path: &str, query: &str) -> Result<Address> {
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.is_empty() && !port.ends_with(']'));
        let port = if has_port {
            String::new()
        } else {
            format!(":{port}")
        };
        let (base, login) = (self.base, self.login);
        Address::parse(&format!("{base}://{login}{host}{port}/{path}?{query}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn several_hosts_are_shown_without_secrets() {
        for (url, shown) in [
            ("redis+cluster://a", "redis+cluster://a:6379"),
            (
                "valkey+cluster://me:secret@a:1,b/0",
                "redis+cluster://a:1,b:6379",
            ),
            (
                "rediss+cluster://a:1,[::1]:2?password=secret",
                "rediss+cluster://a:1,[::1]:2",
            ),
            (
                "redis+sentinel://:secret@a,b:1/main",
                "redis+sentinel://a:26379,b:1/main/0",
            ),
            (
                "valkeys+sentinel://a/ma%20in/3?sentinel_password=secret&pass=secret",
                "rediss+sentinel://a:26379/ma in/3",
            ),
        ] {
            let place = Place::parse(url, None).map_err(|error| error.to_string());

            let place = place.expect(url);
            let address = place.address();
            assert_eq!(address.to_string(), shown, "{url}");
            assert!(!format!("{address:?}").contains("secret"), "{url}");
            let told = address.without_password("a secret");
            assert_eq!(told.contains("secret"), !url.contains("secret"), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_said_in_one_line_without_secrets() {
        for (url, said) in [
            ("redis+cluster://", "empty host"),
            ("redis+cluster://:secret@a,,b", "empty host"),
            ("redis+cluster://:secret@a/1", "no databases but 0"),
            ("redis+cluster://:secret@a?db=1", "no databases but 0"),
            ("redis+cluster://:secret@a:port", "did not parse"),
            ("rediss+cluster://:secret@a#insecure", "means nothing here"),
            ("redis+sentinel://:secret@a", "does not name the primary"),
            ("redis+sentinel://:secret@a/main/x", "invalid database"),
            ("redis+sentinel://:secret@a/%zz", "no code"),
            ("redis+clusters://:secret@a", "does not begin with"),
            ("redis-cluster://:secret@a", "does not begin with"),
        ] {
            let error = Place::parse(url, None).map(|_| ()).expect_err(url);

            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            let text = format!("{error} {error:?}");
            assert!(text.contains(said), "{url}: {text}");
            assert!(!text.contains("secret"), "{url}: {text}");
            assert!(error.hint().is_some(), "{url}");
        }
    }
}
