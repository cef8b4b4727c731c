//! `ETag`, `Last-Modified` and the conditional requests (RFC 9110 §13), as Django answers them.

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{
    CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, HeaderName, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, SET_COOKIE, VARY,
};
use http::{HeaderMap, Method, StatusCode};
use md5::{Digest, Md5};

use super::cache_control::add_if_missing;
use super::dates::{http_date, parse_http_date};
use super::{CacheControl, joined};
use crate::django_keys::hex;

/// The headers that a 304 keeps.
pub const KEPT_BY_304: [HeaderName; 8] = [
    CACHE_CONTROL,
    CONTENT_LOCATION,
    DATE,
    ETAG,
    EXPIRES,
    LAST_MODIFIED,
    VARY,
    SET_COOKIE,
];

/// How a conditional request is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As if it had no conditions.
    Continue,
    /// With 304 and [the headers it keeps](not_modified_headers).
    NotModified,
    /// With 412 and no body.
    PreconditionFailed,
}

/// What a page is known by.
///
/// ```
/// use larder::page::rules::validators::{Validators, Verdict, evaluate};
/// use http::{HeaderMap, Method, StatusCode};
/// use std::time::SystemTime;
///
/// let page = Validators { etag: Some("\"v1\""), last_modified: None };
/// let mut request = HeaderMap::new();
/// request.insert("if-none-match", "W/\"v1\"".parse().expect("a header value"));
///
/// let verdict = evaluate(&Method::GET, &request, page, StatusCode::OK, SystemTime::UNIX_EPOCH);
///
/// assert_eq!(verdict, Verdict::NotModified);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Validators<'a> {
    /// Its entity tag, quoted.
    pub etag: Option<&'a str>,
    /// When it was last changed.
    pub last_modified: Option<SystemTime>,
}

impl<'a> Validators<'a> {
    /// Reads them from the headers of a response; `now` is for [dates](parse_http_date).
    pub fn of(headers: &'a HeaderMap, now: SystemTime) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            etag: text(ETAG),
            last_modified: text(LAST_MODIFIED).and_then(|text| parse_http_date(text, now)),
        }
    }
}

/// Returns the entity tag of a body: its MD5, strong and quoted; `None` for an empty one.
///
/// ```
/// use larder::page::rules::validators::etag;
///
/// assert_eq!(etag(b"hello").as_deref(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
/// ```
pub fn etag(body: &[u8]) -> Option<String> {
    (!body.is_empty()).then(|| format!("\"{}\"", hex(&Md5::digest(body))))
}

/// Reports whether a response is to get an [`etag`]: it has none and does not say `no-store`.
pub fn wants_etag(headers: &HeaderMap) -> bool {
    !headers.contains_key(ETAG) && !CacheControl::of(headers).no_store
}

/// Returns an entity tag in quotes, unless it already has them.
///
/// ```
/// use larder::page::rules::validators::quote_etag;
///
/// assert_eq!(quote_etag("v1"), "\"v1\"");
/// assert_eq!(quote_etag("W/\"v1\""), "W/\"v1\"");
/// ```
pub fn quote_etag(etag: &str) -> String {
    if is_etag(etag) {
        etag.to_owned()
    } else {
        format!("\"{etag}\"")
    }
}

/// Returns the entity tags of an `If-Match` or `If-None-Match`, or its single `*`; what is neither is left out.
///
/// ```
/// use larder::page::rules::validators::parse_etags;
///
/// assert_eq!(parse_etags("W/\"a\", junk, \"b\""), ["W/\"a\"", "\"b\""]);
/// ```
pub fn parse_etags(text: &str) -> Vec<&str> {
    if text.trim() == "*" {
        return vec!["*"];
    }
    text.split(',')
        .map(str::trim)
        .filter(|etag| is_etag(etag))
        .collect()
}

fn is_etag(text: &str) -> bool {
    let quoted = text.strip_prefix("W/").unwrap_or(text);
    let inner = quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.is_some_and(|inner| !inner.contains('"'))
}

/// The headers that make a request conditional (RFC 9110 §13.1).
pub(crate) const CONDITIONS: [HeaderName; 4] = [
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
];

/// Evaluates the conditions of a request against what the page is known by.
///
/// A response that is not a success (2xx) has no conditions. `If-Range` has no part: a `Range` gets the whole page.
pub fn evaluate(
    method: &Method,
    request: &HeaderMap,
    page: Validators<'_>,
    status: StatusCode,
    now: SystemTime,
) -> Verdict {
    let etags = |name| joined(request, name, ",").unwrap_or_default();
    let date = |name| joined(request, name, ",").and_then(|text| parse_http_date(&text, now));
    let (if_match, if_none_match) = (etags(&IF_MATCH), etags(&IF_NONE_MATCH));
    let (if_match, if_none_match) = (parse_etags(&if_match), parse_etags(&if_none_match));
    let reads = method == Method::GET || method == Method::HEAD;

    if !status.is_success() {
        return Verdict::Continue;
    }
    let passes = match date(&IF_UNMODIFIED_SINCE) {
        _ if !if_match.is_empty() => has_strong(&if_match, page.etag),
        Some(since) => unmodified_since(page, since),
        None => true,
    };
    if !passes {
        return Verdict::PreconditionFailed;
    }
    let known = match date(&IF_MODIFIED_SINCE) {
        _ if !if_none_match.is_empty() => has_weak(&if_none_match, page.etag),
        Some(since) => reads && unmodified_since(page, since),
        None => false,
    };
    match (known, reads) {
        (false, _) => Verdict::Continue,
        (true, true) => Verdict::NotModified,
        (true, false) => Verdict::PreconditionFailed,
    }
}

fn has_strong(list: &[&str], etag: Option<&str>) -> bool {
    etag.is_some_and(|etag| list == ["*"] || (!etag.starts_with("W/") && list.contains(&etag)))
}

fn has_weak(list: &[&str], etag: Option<&str>) -> bool {
    let same = |known: &str, etag: &str| opaque(known) == opaque(etag);
    etag.is_some_and(|etag| list == ["*"] || list.iter().any(|known| same(known, etag)))
}

fn opaque(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

fn unmodified_since(page: Validators<'_>, since: SystemTime) -> bool {
    // A header has whole seconds, so a fraction of the page's own time must not count as a change.
    page.last_modified
        .is_some_and(|changed| whole_seconds(changed) <= since)
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    time.duration_since(UNIX_EPOCH).map_or(time, |since| {
        UNIX_EPOCH + std::time::Duration::from_secs(since.as_secs())
    })
}

/// Returns the headers that a 304 keeps of a response.
///
/// ```
/// use larder::page::rules::validators::not_modified_headers;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("etag", "\"v1\"".parse().expect("a header value"));
/// headers.insert("content-length", "649".parse().expect("a header value"));
///
/// let kept = not_modified_headers(&headers);
///
/// assert!(kept.contains_key("etag") && !kept.contains_key("content-length"));
/// ```
pub fn not_modified_headers(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in KEPT_BY_304 {
        for value in headers.get_all(&name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// Adds `ETag` and `Last-Modified` to the answer to a GET or HEAD, where they are missing; also to a 304 or 412.
pub fn add_validators(method: &Method, headers: &mut HeaderMap, page: Validators<'_>) {
    if method != Method::GET && method != Method::HEAD {
        return;
    }
    if let Some(changed) = page.last_modified {
        add_if_missing(headers, LAST_MODIFIED, &http_date(changed));
    }
    if let Some(etag) = page.etag {
        add_if_missing(headers, ETAG, etag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::time::Duration;

    fn request(name: &'static str, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn lines_of_a_condition_are_one_list() {
        let page = Validators {
            etag: Some("\"b\""),
            last_modified: None,
        };
        let headers = request("if-none-match", &["\"a\"", "\"b\""]);

        let verdict = evaluate(&Method::GET, &headers, page, StatusCode::OK, UNIX_EPOCH);

        assert_eq!(verdict, Verdict::NotModified);
    }

    #[test]
    fn failures_have_no_conditions() {
        let page = Validators {
            etag: Some("\"a\""),
            last_modified: None,
        };
        let headers = request("if-match", &["\"b\""]);
        let verdict = |status| evaluate(&Method::GET, &headers, page, status, UNIX_EPOCH);

        assert_eq!(verdict(StatusCode::NOT_FOUND), Verdict::Continue);
        assert_eq!(verdict(StatusCode::CREATED), Verdict::PreconditionFailed);
    }

    #[test]
    fn fraction_of_a_second_is_no_change() {
        let changed = UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
        let page = Validators {
            etag: None,
            last_modified: Some(changed),
        };
        let headers = request("if-modified-since", &["Tue, 14 Nov 2023 22:13:20 GMT"]);

        let verdict = evaluate(&Method::GET, &headers, page, StatusCode::OK, UNIX_EPOCH);

        assert_eq!(verdict, Verdict::NotModified);
    }

    #[test]
    fn validators_are_read_back_from_headers() {
        let changed = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let page = Validators {
            etag: Some("\"a\""),
            last_modified: Some(changed),
        };
        let mut headers = HeaderMap::new();

        add_validators(&Method::PUT, &mut headers, page);
        assert!(headers.is_empty());
        add_validators(&Method::GET, &mut headers, page);

        assert_eq!(Validators::of(&headers, UNIX_EPOCH), page);
    }

    #[test]
    fn single_quote_mark_is_no_tag() {
        assert_eq!(parse_etags("\""), Vec::<&str>::new());
        assert_eq!(parse_etags("\"\""), ["\"\""]);
    }
}
