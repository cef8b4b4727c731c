//! Reads the URL of a store. What is wrong is said without repeating a part that may be secret.

use super::table::Parts;
use crate::percent::decoded;
use crate::{Error, ErrorKind, Result};

/// The parts of a URL, decoded.
pub(super) struct Url {
    pub(super) scheme: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// What stands between host and query, its first `/` included.
    pub(super) path: String,
    query: Vec<(String, String)>,
}

/// How a store writes its own URL, and where its errors happen.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) place: &'static str,
    pub(super) example: &'static str,
}

impl Form {
    pub(super) fn bad(self, what: &str) -> Error {
        let text = format!("the URL cannot be used: {what}");
        Error::new(ErrorKind::Invalid, self.place, text)
            .with_hint(format!("write it as `{}`", self.example))
    }
}

impl Url {
    pub(super) fn parse(url: &str, form: Form) -> Result<Self> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| form.bad("it holds no `://`"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':')) {
            Some(Some((user, password))) => (Some(user), Some(password)),
            Some(None) => (login, None),
            None => (None, None),
        };
        let (host, port) =
            host_and_port(address).ok_or_else(|| form.bad("its port is no number"))?;
        let decode = |text: &str| decoded(text).ok_or_else(|| form.bad("a `%` in it is no code"));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        };
        let some = |part: Option<&str>| {
            let given = part.filter(|part| !part.is_empty());
            given.map(decode).transpose()
        };
        Ok(Self {
            scheme: scheme.to_owned(),
            user: some(user)?,
            password: some(password)?,
            host: decode(host)?,
            port,
            path: decode(path)?,
            query: pairs.map(pair).collect::<Result<_>>()?,
        })
    }

    /// Takes the setting `name` out of the query.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.query.iter().position(|(other, _)| other == name)?;
        Some(self.query.remove(at).1)
    }

    /// Which tables are meant, by the setting `outbox` where it is given.
    pub(super) fn parts(&mut self, parts: Parts, form: Form) -> Result<Parts> {
        match (self.take("outbox").as_deref(), parts) {
            (Some("true"), Parts::Entries) => Ok(Parts::EntriesAndOutbox),
            (None | Some("true" | "false"), parts) => Ok(parts),
            (Some(_), _) => Err(form.bad("`outbox` is `true` or `false`")),
        }
    }

    /// That every setting of the query was taken.
    pub(super) fn all_taken(&self, form: Form, known: &str) -> Result<()> {
        match self.query.first() {
            None => Ok(()),
            Some(_) => Err(form.bad(&format!("the settings after `?` are {known}"))),
        }
    }
}

fn host_and_port(address: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = match address.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => address.split_at(address.find(':').unwrap_or(address.len())),
    };
    match rest.strip_prefix(':') {
        Some(port) => Some((host, Some(port.parse().ok()?))),
        None => rest.is_empty().then_some((host, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form = Form {
        place: "sql",
        example: "sql://host/db",
    };

    #[test]
    fn a_url_falls_into_its_parts() {
        let mut url = Url::parse("pg://m%40e:s%3acret@[::1]:54/db%20x?table=t&a=b%26c", FORM)
            .expect("a good URL");

        assert_eq!((url.scheme.as_str(), url.host.as_str()), ("pg", "::1"));
        assert_eq!(
            (url.user.as_deref(), url.password.as_deref()),
            (Some("m@e"), Some("s:cret"))
        );
        assert_eq!((url.port, url.path.as_str()), (Some(54), "/db x"));
        assert_eq!(
            (url.take("a").as_deref(), url.take("table").as_deref()),
            (Some("b&c"), Some("t"))
        );
        assert!(url.take("a").is_none() && url.all_taken(FORM, "`table`").is_ok());
    }

    #[test]
    fn what_is_wrong_is_said_without_secrets() {
        for url in [
            "secret",
            "pg://me:secret@host:secret/db",
            "pg://me:%zzsecret@host/db",
            "pg://[::1secret",
        ] {
            let error = Url::parse(url, FORM).map(|_| ()).expect_err(url);

            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        let url = Url::parse("pg://host/db?password=secret", FORM).expect("a good URL");
        let error = url
            .all_taken(FORM, "`table`")
            .expect_err("an unknown setting");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}
