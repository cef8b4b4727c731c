//! `Cache-Control` read (RFC 9111 §5.2), and Django's helpers that write it.
//!
//! Only real directive names count: `x-private-thing` is not `private`. A directive whose value cannot be read is
//! treated as if it were not there; it is never an error.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{CACHE_CONTROL, EXPIRES, HeaderName, HeaderValue};

use super::dates::http_date;
use super::{latin1, replace};

/// The longest time a directive can say: RFC 9111 §1.2.2 takes 2^31 seconds for whatever is longer.
const LONGEST: u64 = 1 << 31;

/// What a `Cache-Control` says, in a request or in a response.
///
/// ```
/// use larder::page::rules::CacheControl;
/// use std::time::Duration;
///
/// let said = CacheControl::parse(r#"Public, MAX-AGE=60, x="no-store, private""#);
///
/// assert!(said.public && !said.no_store && !said.private);
/// assert_eq!(said.max_age, Some(Duration::from_secs(60)));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a directive that is there or not"
)]
pub struct CacheControl {
    /// `no-store`: nothing of it may be kept.
    pub no_store: bool,
    /// `private`, with or without field names.
    pub private: bool,
    /// `no-cache`: not to be reused without asking the origin.
    pub no_cache: NoCache,
    /// `public`: may be kept even where it otherwise could not.
    pub public: bool,
    /// `max-age`. The last one counts; a negative one is zero.
    pub max_age: Option<Duration>,
    /// `s-maxage`: as `max-age`, for shared caches only.
    pub s_maxage: Option<Duration>,
    /// `must-revalidate`: never to be served stale.
    pub must_revalidate: bool,
    /// `proxy-revalidate`: never to be served stale by a shared cache.
    pub proxy_revalidate: bool,
    /// `must-understand`: to be kept only by who knows the status code.
    pub must_understand: bool,
    /// `stale-while-revalidate` (RFC 5861).
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861).
    pub stale_if_error: Option<Duration>,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `only-if-cached`, of a request.
    pub only_if_cached: bool,
    /// `max-stale`, of a request; without a value it is [`Duration::MAX`].
    pub max_stale: Option<Duration>,
    /// `min-fresh`, of a request.
    pub min_fresh: Option<Duration>,
    /// `no-transform`.
    pub no_transform: bool,
}

/// What `no-cache` covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// There is no `no-cache`.
    #[default]
    No,
    /// `no-cache="Link, Set-Cookie"`: these header fields, in lower case.
    Fields(Vec<String>),
    /// `no-cache`: the whole response.
    All,
}

impl CacheControl {
    /// Reads all `Cache-Control` lines of `headers` as one list.
    pub fn of(headers: &HeaderMap) -> Self {
        Self::read(&lines(headers))
    }

    /// Reads the value of one `Cache-Control` header.
    pub fn parse(text: &str) -> Self {
        Self::read(&[text])
    }

    fn read<T: AsRef<str>>(lines: &[T]) -> Self {
        let mut said = Self::default();
        for member in lines.iter().flat_map(|line| members(line.as_ref())) {
            said.take(&directive(member));
            said.take_refusals(member);
        }
        said
    }

    /// Heeds a refusal that a wrong separator hides, as in `private; max-age=60`: to keep what somebody wanted to be
    /// private is worse than not to keep what was not.
    fn take_refusals(&mut self, member: &str) {
        let plain = member.split('"').next().unwrap_or_default();
        let words = plain.split([';', ' ', '\t']);
        for name in words.map(|word| word.split('=').next().unwrap_or_default()) {
            match name.to_ascii_lowercase().as_str() {
                "no-store" => self.no_store = true,
                "private" => self.private = true,
                "no-cache" if self.no_cache == NoCache::No => self.no_cache = NoCache::All,
                _ => {}
            }
        }
    }

    fn take(&mut self, Directive { name, value }: &Directive<'_>) {
        match name.as_str() {
            "no-store" => self.no_store = true,
            "private" => self.private = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "immutable" => self.immutable = true,
            "only-if-cached" => self.only_if_cached = true,
            "no-transform" => self.no_transform = true,
            "no-cache" => self.no_cache.take(*value),
            "max-age" => self.max_age = seconds(*value).or(self.max_age),
            "s-maxage" => self.s_maxage = seconds(*value).or(self.s_maxage),
            "min-fresh" => self.min_fresh = seconds(*value).or(self.min_fresh),
            "max-stale" if value.is_none() => self.max_stale = Some(Duration::MAX),
            "max-stale" => self.max_stale = seconds(*value).or(self.max_stale),
            "stale-while-revalidate" => {
                self.stale_while_revalidate = seconds(*value).or(self.stale_while_revalidate);
            }
            "stale-if-error" => self.stale_if_error = seconds(*value).or(self.stale_if_error),
            _ => {}
        }
    }

    /// Reports whether the response was declared fit for everybody: by `public`, or by an `s-maxage` of more than zero.
    pub fn is_shared(&self) -> bool {
        self.public || self.s_maxage.is_some_and(|age| !age.is_zero())
    }
}

impl NoCache {
    fn take(&mut self, value: Option<&str>) {
        let fields: Vec<String> = value
            .map(unquoted)
            .unwrap_or_default()
            .split(',')
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| !name.is_empty())
            .collect();
        match self {
            Self::All => {}
            _ if fields.is_empty() => *self = Self::All,
            Self::Fields(known) => known.extend(fields),
            Self::No => *self = Self::Fields(fields),
        }
    }
}

struct Directive<'a> {
    name: String,
    value: Option<&'a str>,
}

/// Returns the lines one by one, so that a quote left open in one has no part in the next.
fn lines(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(CACHE_CONTROL).iter();
    lines.map(|line| latin1(line.as_bytes())).collect()
}

/// Splits a list at its commas, leaving those in quoted strings, and drops blanks and empty members.
fn members(text: &str) -> impl Iterator<Item = &str> {
    let mut whole = Quotes::default();
    text.chars().for_each(|char| whole.pass(char));
    // A quote that is never closed must not hide a `private` behind it.
    let trusted = !whole.open;
    let mut quotes = Quotes::default();
    text.split(move |char| {
        let ends = char == ',' && !(quotes.open && trusted);
        quotes.pass(char);
        ends
    })
    .map(str::trim)
    .filter(|member| !member.is_empty())
}

/// Whether a place in a text is inside a quoted string.
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    fn pass(&mut self, char: char) {
        let escapes = self.open && !self.escaped && char == '\\';
        if char == '"' && !self.escaped {
            self.open = !self.open;
        }
        self.escaped = escapes;
    }
}

fn directive(member: &str) -> Directive<'_> {
    let (name, value) = match member.split_once('=') {
        // A blank before `=` makes the value unreadable, not the name: `private = x` still refuses to be shared.
        Some((name, _)) if name.ends_with(char::is_whitespace) => (name.trim_end(), None),
        Some((name, value)) => (name, Some(value.trim_start())),
        None => (member, None),
    };
    Directive {
        name: name.to_ascii_lowercase(),
        value,
    }
}

fn seconds(value: Option<&str>) -> Option<Duration> {
    // RFC 9111 §5.2: both the token and the quoted form are to be understood.
    let value = unquoted(value?).trim();
    let (digits, negative) = value
        .strip_prefix('-')
        .map_or((value, false), |digits| (digits, true));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = if negative {
        0
    } else {
        digits.parse().unwrap_or(LONGEST).min(LONGEST)
    };
    Some(Duration::from_secs(seconds))
}

fn unquoted(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(value)
}

/// Returns the `max-age` of the headers, if it is there and can be read.
///
/// ```
/// use larder::page::rules::cache_control::max_age;
/// use std::time::Duration;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("cache-control", "public, max-age=5".parse().expect("a header value"));
///
/// assert_eq!(max_age(&headers), Some(Duration::from_secs(5)));
/// ```
pub fn max_age(headers: &HeaderMap) -> Option<Duration> {
    CacheControl::of(headers).max_age
}

/// Adds directives to `Cache-Control`, each a name and, unless it stands alone, a value.
///
/// What is there keeps its place; a directive given again has the new value. Of two `max-age` the smaller stays. A new
/// `private` removes `public` and the other way round. `no-cache` collects its field names until a bare one covers all.
///
/// ```
/// use larder::page::rules::cache_control::patch_cache_control;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("cache-control", "private, max-age=30".parse().expect("a header value"));
///
/// patch_cache_control(&mut headers, &[("public", None), ("max-age", Some("60"))]);
///
/// assert_eq!(headers["cache-control"], "max-age=30, public");
/// ```
pub fn patch_cache_control(headers: &mut HeaderMap, directives: &[(&str, Option<&str>)]) {
    let before = lines(headers);
    let mut list: Vec<Directive<'_>> = Vec::new();
    for member in before.iter().flat_map(|line| members(line)) {
        put(&mut list, directive(member));
    }
    for (new, other) in [("public", "private"), ("private", "public")] {
        let given = directives
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(new));
        let there = list.iter().position(|known| known.name == other);
        // Where both are given, Django lets the new `public` remove the old `private` and looks no further.
        if let (true, Some(at)) = (given, there) {
            list.remove(at);
            break;
        }
    }
    for &(name, value) in directives {
        let name = name.to_ascii_lowercase();
        let old = list
            .iter()
            .find(|known| known.name == name)
            .and_then(|known| known.value);
        let smaller = match (seconds(old), seconds(value)) {
            (Some(before), Some(after)) if name == "max-age" && before < after => old,
            _ => None,
        };
        put(
            &mut list,
            Directive {
                name,
                value: smaller.or(value),
            },
        );
    }
    let text: Vec<String> = list
        .iter()
        .map(|Directive { name, value }| {
            value.map_or_else(|| name.clone(), |value| format!("{name}={value}"))
        })
        .collect();
    replace(headers, CACHE_CONTROL, &text.join(", "));
}

/// Gives a directive its value where it stands, or puts it at the end.
fn put<'a>(list: &mut Vec<Directive<'a>>, new: Directive<'a>) {
    let known = list.iter().position(|known| known.name == new.name);
    match known {
        Some(at) if new.name == "no-cache" => {
            let covered = list
                .iter()
                .any(|known| known.name == "no-cache" && known.value.is_none());
            let same = list
                .iter()
                .any(|known| known.name == "no-cache" && known.value == new.value);
            if new.value.is_none() {
                list.retain(|known| known.name != "no-cache");
                list.insert(at.min(list.len()), new);
            } else if !covered && !same {
                list.insert(at + 1, new);
            }
        }
        Some(at) => list[at] = new,
        None => list.push(new),
    }
}

/// Says that a response must not be kept by anybody.
///
/// ```
/// use larder::page::rules::cache_control::add_never_cache_headers;
///
/// let mut headers = http::HeaderMap::new();
/// add_never_cache_headers(&mut headers, std::time::SystemTime::UNIX_EPOCH);
///
/// assert_eq!(headers["cache-control"], "max-age=0, no-cache, no-store, must-revalidate, private");
/// ```
pub fn add_never_cache_headers(headers: &mut HeaderMap, now: SystemTime) {
    patch_response_headers(headers, Duration::ZERO, now);
    let never = ["no-cache", "no-store", "must-revalidate", "private"].map(|name| (name, None));
    patch_cache_control(headers, &never);
}

/// Says that a response may be kept for `ttl`: `Expires` if it is missing, and the smaller `max-age`.
///
/// `max-age` counts whole seconds, so a fraction of one is left out.
///
/// ```
/// use larder::page::rules::cache_control::patch_response_headers;
/// use std::time::{Duration, SystemTime};
///
/// let mut headers = http::HeaderMap::new();
/// patch_response_headers(&mut headers, Duration::from_secs(60), SystemTime::UNIX_EPOCH);
///
/// assert_eq!(headers["expires"], "Thu, 01 Jan 1970 00:01:00 GMT");
/// assert_eq!(headers["cache-control"], "max-age=60");
/// ```
pub fn patch_response_headers(headers: &mut HeaderMap, ttl: Duration, now: SystemTime) {
    add_if_missing(
        headers,
        EXPIRES,
        &http_date(now.checked_add(ttl).unwrap_or(now)),
    );
    let seconds = ttl.as_secs().min(LONGEST).to_string();
    patch_cache_control(headers, &[("max-age", Some(&seconds))]);
}

/// Adds a header unless there is one of its name.
pub(super) fn add_if_missing(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let (false, Ok(value)) = (headers.contains_key(&name), HeaderValue::from_str(text)) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
#[path = "cache_control_tests.rs"]
mod tests;
