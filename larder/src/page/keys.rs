//! Django's two keys of a page: the list of headers that a URL varies on, and the page of one variant.
//!
//! ```text
//! views.decorators.cache.cache_header.PREFIX.MD5(URL)[.LANGUAGE][.ZONE]
//! views.decorators.cache.cache_page.PREFIX.METHOD.MD5(URL).MD5(VALUES)[.LANGUAGE][.ZONE]
//! ```
//!
//! The URL is written as Django writes it, so different targets can have one key: `/%61` and `/a`, `/a%2Fb` and `/a/b`,
//! `/x/../a` and `/a`. Handlers may tell them apart. Whoever serves a page must have it name the scheme, host and target
//! it was made for, and check them.

use http::header::{HOST, HeaderName};
use http::request;
use md5::{Digest, Md5};

use super::rules::{joined, latin1};
use crate::django_keys::{KeyFormat, hex, netstring};

/// What a path keeps unquoted, besides letters, digits and `_.-~`.
const PATH_SAFE: &[u8] = b"/:@&+$,!*'()";

/// What a query, and the URL as a whole, keeps unquoted besides letters, digits and `_.-~`.
const URL_SAFE: &[u8] = b"/#%[]=:;$&()+,!?*@'";

/// What is part of both keys besides the URL.
///
/// ```
/// use larder::page::keys::{KeyOptions, header_list_key};
///
/// let mut options = KeyOptions::default();
/// options.language = Some("en-us".into());
/// options.time_zone = Some("UTC".into());
///
/// assert_eq!(
///     header_list_key("http://127.0.0.1:8000/", &options),
///     "views.decorators.cache.cache_header..17abf5259517d604cc9599a00b7385d6.en-us.UTC",
/// );
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyOptions {
    /// The prefix of all keys; none by default.
    pub prefix: String,
    /// The language of the page; none by default. With one, `Accept-Language` chooses no variant.
    pub language: Option<String>,
    /// The time zone of the page; none by default.
    pub time_zone: Option<String>,
    /// How the values become one digest; as Django 6.1 by default.
    pub format: KeyFormat,
}

/// Where the scheme and the host of a request are read; by default plain HTTP and the `Host` header.
///
/// ```
/// use larder::page::keys::Origin;
///
/// let (request, ()) = http::Request::get("/a?b=c").header("host", "example.com").body(()).expect("a request").into_parts();
/// let mut origin = Origin::default();
/// origin.https = true;
///
/// assert_eq!(origin.uri_of(&request), "https://example.com/a?b=c");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// The server itself speaks HTTPS.
    pub https: bool,
    /// `X-Forwarded-Host` names the host. Only behind a proxy that sets it.
    pub trust_forwarded_host: bool,
    /// A header that says `https` when the client's connection was secure. Only behind a proxy that sets it.
    pub secure_header: Option<HeaderName>,
}

impl Origin {
    /// Returns the absolute URI of a request, in [Django's spelling](absolute_uri).
    ///
    /// A request without a host has an empty one, which no request with a host can have.
    pub fn uri_of(&self, request: &request::Parts) -> String {
        let target = &request.uri;
        absolute_uri(
            self.is_https(request),
            &self.host(request),
            target.path(),
            target.query().unwrap_or_default(),
        )
    }

    /// Returns the host that a request asks for, as it was written.
    pub fn host(&self, request: &request::Parts) -> String {
        let header = |name: &HeaderName| joined(&request.headers, name, ",");
        let forwarded = HeaderName::from_static("x-forwarded-host");
        let forwarded = self
            .trust_forwarded_host
            .then(|| header(&forwarded))
            .flatten();
        forwarded
            .or_else(|| request.uri.authority().map(ToString::to_string))
            .or_else(|| header(&HOST))
            .unwrap_or_default()
    }

    /// Reports whether the client's connection is secure.
    pub fn is_https(&self, request: &request::Parts) -> bool {
        let says = self
            .secure_header
            .as_ref()
            .and_then(|name| request.headers.get(name));
        // The first of several proxies is the one that saw the client.
        let first = says.map(|value| {
            value
                .as_bytes()
                .split(|&byte| byte == b',')
                .next()
                .unwrap_or_default()
        });
        first.map_or(self.https, |first| first.trim_ascii() == b"https")
    }
}

/// Returns an absolute URI as Django writes it: the host as it is, the path decoded and quoted again, the query quoted
/// only where it must be, `/./` and `/../` resolved.
///
/// ```
/// use larder::page::keys::absolute_uri;
///
/// assert_eq!(absolute_uri(false, "example.com", "/%61;b/../c%c3%a9", "q=%61"), "http://example.com/c%C3%A9?q=%61");
/// ```
pub fn absolute_uri(https: bool, host: &str, path: &str, query: &str) -> String {
    let path = quote(&readable(&unquote(path.as_bytes())), PATH_SAFE);
    let scheme = if https { "https" } else { "http" };
    let host = quote(host.as_bytes(), URL_SAFE);
    let mut uri = format!("{scheme}://{host}{}", resolved(&path));
    if !query.is_empty() {
        uri.push('?');
        uri.push_str(&quote(query.as_bytes(), URL_SAFE));
    }
    uri
}

/// Returns the key under which the list of headers is kept that the pages of a URL vary on.
pub fn header_list_key(uri: &str, options: &KeyOptions) -> String {
    let KeyOptions { prefix, .. } = options;
    format!(
        "views.decorators.cache.cache_header.{prefix}.{}{}",
        md5(uri),
        suffix(options)
    )
}

/// Returns the key of a page: `values` are those of the headers in [`header_list`]'s order, `None` for an absent one.
///
/// ```
/// use larder::page::keys::{KeyOptions, page_key};
///
/// let key = page_key("GET", "http://127.0.0.1:8000/", &[] as &[Option<&[u8]>], &KeyOptions::default());
///
/// assert_eq!(
///     key,
///     "views.decorators.cache.cache_page..GET.17abf5259517d604cc9599a00b7385d6.d41d8cd98f00b204e9800998ecf8427e",
/// );
/// ```
pub fn page_key<V: AsRef<[u8]>>(
    method: &str,
    uri: &str,
    values: &[Option<V>],
    options: &KeyOptions,
) -> String {
    let KeyOptions { prefix, format, .. } = options;
    let mut digest = Md5::new();
    for value in values {
        // Headers are read as latin-1 and hashed as UTF-8, as a Python server hands them over.
        match value.as_ref().map(|value| latin1(value.as_ref())) {
            None => digest.update(b"-,"),
            Some(text) if *format == KeyFormat::Django52 => digest.update(text),
            Some(text) => netstring(&mut digest, text.as_bytes()),
        }
    }
    let variant = hex(&digest.finalize());
    format!(
        "views.decorators.cache.cache_page.{prefix}.{method}.{}.{variant}{}",
        md5(uri),
        suffix(options)
    )
}

/// Returns the names that a page varies on in the order of its key: sorted as Django spells them, without
/// `Accept-Language` if the key has a language.
///
/// ```
/// use larder::page::keys::{KeyOptions, header_list};
///
/// let names = ["x-b".to_owned(), "accept".to_owned(), "xa".to_owned()];
///
/// assert_eq!(header_list(&names, &KeyOptions::default()), ["accept", "xa", "x-b"]);
/// ```
pub fn header_list(names: &[String], options: &KeyOptions) -> Vec<String> {
    let in_key = |name: &&String| {
        options.language.is_none() || !name.eq_ignore_ascii_case("accept-language")
    };
    let mut list: Vec<String> = names
        .iter()
        .filter(in_key)
        .map(|name| name.to_ascii_lowercase())
        .collect();
    list.sort_by_cached_key(|name| cgi_name(name));
    list
}

/// Returns a header's name as Django spells it in the stored list: `HTTP_ACCEPT_ENCODING`.
///
/// ```
/// assert_eq!(larder::page::keys::cgi_name("accept-encoding"), "HTTP_ACCEPT_ENCODING");
/// ```
pub fn cgi_name(name: &str) -> String {
    format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_"))
}

fn suffix(
    KeyOptions {
        language,
        time_zone,
        ..
    }: &KeyOptions,
) -> String {
    [language, time_zone]
        .into_iter()
        .flatten()
        .flat_map(|part| [".", part])
        .collect()
}

fn md5(text: &str) -> String {
    hex(&Md5::digest(text))
}

fn quote(bytes: &[u8], safe: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) || safe.contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push_str(&hex(&[byte]).to_ascii_uppercase());
        }
    }
    text
}

fn unquote(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((&first, rest)) = text.split_first() {
        let escaped = (first == b'%').then(|| escape(rest)).flatten();
        bytes.push(escaped.unwrap_or(first));
        text = if escaped.is_some() { &rest[2..] } else { rest };
    }
    bytes
}

fn escape(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// Quotes again what is not UTF-8, so that it counts as the text of its escapes.
fn readable(mut bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    while let Err(error) = std::str::from_utf8(bytes) {
        let (good, rest) = bytes.split_at(error.valid_up_to());
        let (broken, rest) = rest.split_at(error.error_len().unwrap_or(rest.len()));
        text.extend_from_slice(good);
        text.extend_from_slice(quote(broken, b"").as_bytes());
        bytes = rest;
    }
    text.extend_from_slice(bytes);
    text
}

fn resolved(path: &str) -> String {
    // Django looks for these two only, so a path that merely ends in `/..` stays.
    if !path.contains("/./") && !path.contains("/../") {
        return path.to_owned();
    }
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        kept.push("");
    }
    let joined = kept.join("/");
    if joined.starts_with('/') {
        joined
    } else {
        format!("/{joined}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> String {
        absolute_uri(false, "h", path, "").split_off("http://h".len())
    }

    #[test]
    fn paths_are_spelled_as_django_spells_them() {
        for (raw, spelled) in [
            ("/%zz%4", "/%25zz%254"),
            ("/%ff/%c3%a9%c3", "/%25FF/%C3%A9%25C3"),
            ("/%e2%82/x", "/%25E2%2582/x"),
            ("/a/./b", "/a/b"),
            ("/a/b/..", "/a/b/.."),
            ("/a/./b/..", "/a/"),
            ("/../../a", "/a"),
            ("//x/../y", "//y"),
            ("/a/%2e%2e/b", "/b"),
        ] {
            assert_eq!(path(raw), spelled, "{raw}");
        }
    }

    #[test]
    fn targets_that_name_a_host_are_asked_of_it() {
        let request = |uri: &str| {
            http::Request::get(uri)
                .body(())
                .expect("a sound request")
                .into_parts()
                .0
        };

        assert_eq!(
            Origin::default().uri_of(&request("http://a:80/b?c")),
            "http://a:80/b?c"
        );
        assert_eq!(Origin::default().uri_of(&request("/b")), "http:///b");
    }

    #[test]
    fn proxies_are_believed_only_if_told_so() {
        let request = http::Request::get("/")
            .header("host", "inside")
            .header("x-forwarded-host", "outside")
            .header("x-forwarded-proto", "https, http")
            .body(())
            .expect("a sound request")
            .into_parts()
            .0;
        let trusting = Origin {
            trust_forwarded_host: true,
            secure_header: Some(HeaderName::from_static("x-forwarded-proto")),
            ..Origin::default()
        };

        assert_eq!(Origin::default().uri_of(&request), "http://inside/");
        assert_eq!(trusting.uri_of(&request), "https://outside/");
    }

    #[test]
    fn absent_value_has_no_forger_in_the_new_format() {
        let key = |value: Option<&[u8]>, format| {
            page_key(
                "GET",
                "u",
                &[value],
                &KeyOptions {
                    format,
                    ..KeyOptions::default()
                },
            )
        };

        assert_eq!(
            key(None, KeyFormat::Django52),
            key(Some(b"-,"), KeyFormat::Django52)
        );
        for value in [&b"-,"[..], b"", b"-"] {
            assert_ne!(
                key(None, KeyFormat::Django61),
                key(Some(value), KeyFormat::Django61)
            );
        }
    }
}
