//! Whether a request may use the cache, whether a response may be kept, and whether a kept page may be served.
//!
//! A response that is somebody's is nobody else's: whatever does not say that it is for everybody is kept only for
//! requests that carry nothing of their sender's. What a request says in `Cache-Control` is ignored unless the program lets
//! clients decide, and a `Range` gets the whole page.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, HOST, PRAGMA, SET_COOKIE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, request, response};

use super::validators::CONDITIONS;
use super::vary::{self, MATTERS};
use super::{CacheControl, Cookies, NoCache, Reason, Rules, Vary, joined};

/// What matters about a request whose page may come from the cache: all that is needed once its headers are gone.
///
/// [`may_use`] makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each asked once"
)]
pub struct Asked {
    cookies: bool,
    authorization: bool,
    anew: bool,
    /// It has conditions, so that 304 or 412 may be the answer.
    pub(crate) conditional: bool,
}

/// What a kept response brings along for later requests.
///
/// [`may_keep`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// What chooses among its variants: request headers in lower case, and cookies that matter, each as `cookie:NAME`.
    pub vary: Vec<String>,
    /// Who may have it.
    pub audience: Audience,
    /// What its `Cache-Control` said.
    pub said: CacheControl,
}

/// Who may have a kept page; it is stored with the page.
///
/// ```
/// use larder::page::rules::storable::Audience;
///
/// let audience = Audience::from_bits(0b0011);
///
/// assert!(audience.with_cookies && audience.with_authorization);
/// assert_eq!(audience.to_bits(), 0b0011);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent facts, one bit each in the stored page"
)]
pub struct Audience {
    /// The response itself lets requests with cookies have it.
    pub with_cookies: bool,
    /// The response itself lets requests with credentials have it.
    pub with_authorization: bool,
    /// It was made for a request with cookies.
    pub from_cookies: bool,
    /// Its variant was chosen by the cookies that matter.
    pub by_cookies: bool,
}

impl Audience {
    /// Returns the facts as the low four bits of a byte.
    pub fn to_bits(self) -> u8 {
        u8::from(self.with_cookies)
            | u8::from(self.with_authorization) << 1
            | u8::from(self.from_cookies) << 2
            | u8::from(self.by_cookies) << 3
    }

    /// Reads what [`to_bits`](Self::to_bits) wrote.
    pub fn from_bits(bits: u8) -> Self {
        let has = |bit: u8| bits & (1 << bit) != 0;
        Self {
            with_cookies: has(0),
            with_authorization: has(1),
            from_cookies: has(2),
            by_cookies: has(3),
        }
    }
}

/// Decides whether the cache may have a part in answering a request.
///
/// ```
/// use larder::page::rules::{Reason, Rules, storable::may_use};
///
/// let (post, ()) = http::Request::post("/").body(()).expect("a request").into_parts();
///
/// assert_eq!(may_use(&post, &Rules::new()), Err(Reason::Method));
/// ```
pub fn may_use(request: &request::Parts, rules: &Rules) -> Result<Asked, Reason> {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Err(Reason::Method);
    }
    let target = request.uri.authority();
    let marks = Marks::of(&request.headers, rules.behind_proxy);
    let differs = marks
        .host
        .zip(target)
        .is_some_and(|(host, target)| host != target.as_str().as_bytes());
    if marks.hosts > 1 || differs {
        return Err(Reason::Hosts);
    }
    if marks.disguised {
        return Err(Reason::Disguised);
    }
    if marks.upgrade {
        return Err(Reason::Upgrade);
    }
    if marks.body {
        return Err(Reason::RequestBody);
    }
    let (never, anew) = if rules.clients_decide {
        refusals(&request.headers)
    } else {
        (false, false)
    };
    if never {
        return Err(Reason::ClientRefused);
    }
    Ok(Asked {
        cookies: marks.cookies,
        authorization: marks.authorization,
        anew,
        conditional: marks.conditional,
    })
}

/// What the headers of a request say of it, gathered in one walk: this is the way of every hit.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each asked once"
)]
struct Marks<'a> {
    host: Option<&'a [u8]>,
    hosts: usize,
    cookies: bool,
    authorization: bool,
    upgrade: bool,
    body: bool,
    conditional: bool,
    /// It may be asking for another host or method than it seems to.
    disguised: bool,
}

impl<'a> Marks<'a> {
    fn of(headers: &'a HeaderMap, behind_proxy: bool) -> Self {
        let mut marks = Self::default();
        for (name, value) in headers {
            if name == HOST {
                marks.host.get_or_insert(value.as_bytes());
                marks.hosts += 1;
            } else if name == COOKIE {
                marks.cookies = true;
            } else if name == AUTHORIZATION {
                marks.authorization = true;
            } else if name == UPGRADE || (name == CONNECTION && lists(value, "upgrade")) {
                marks.upgrade = true;
            } else if name == TRANSFER_ENCODING
                || (name == CONTENT_LENGTH && value.as_bytes() != b"0")
            {
                marks.body = true;
            } else if CONDITIONS.contains(name) {
                marks.conditional = true;
            } else if DISGUISES.contains(&name.as_str()) {
                marks.disguised |= is_disguise(headers, name, value, behind_proxy);
            }
        }
        marks
    }
}

/// Headers by which handlers are known to take another host, method or path than the key has.
const DISGUISES: [&str; 7] = [
    "forwarded",
    "x-forwarded-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// Whether this line says something else than the request itself. Proxies repeat the host, and that is no disguise.
fn is_disguise(
    headers: &HeaderMap,
    name: &http::HeaderName,
    value: &HeaderValue,
    behind_proxy: bool,
) -> bool {
    let asked = headers.get(HOST).map(HeaderValue::as_bytes);
    match name.as_str() {
        "x-forwarded-host" => !behind_proxy && asked != Some(value.as_bytes()),
        "forwarded" => {
            let lower = value.as_bytes().to_ascii_lowercase();
            let parts = lower.split(|&byte| byte == b';' || byte == b',');
            let mut hosts = parts.filter_map(|part| part.trim_ascii().strip_prefix(b"host="));
            hosts.any(|host| {
                let host = host.strip_prefix(b"\"").unwrap_or(host);
                let host = host.strip_suffix(b"\"").unwrap_or(host);
                asked.is_none_or(|asked| !asked.eq_ignore_ascii_case(host))
            })
        }
        _ => true,
    }
}

/// Decides whether a response may be kept, from its head alone.
///
/// For how long is [`freshness::ttl`](super::freshness::ttl)'s to say.
///
/// ```
/// use larder::page::rules::{Reason, Rules, storable};
///
/// let (request, ()) = http::Request::get("/").header("cookie", "session=alice").body(()).expect("a request").into_parts();
/// let (response, ()) = http::Response::new(()).into_parts();
/// let keep = |rules: Rules| {
///     let asked = storable::may_use(&request, &rules).expect("a plain GET");
///     storable::may_keep(asked, &response, &rules).map(|kept| kept.vary)
/// };
///
/// assert_eq!(keep(Rules::new()), Err(Reason::Cookie));
/// assert_eq!(keep(Rules::new().ignore_cookies()), Ok(vec![]));
/// assert_eq!(keep(Rules::new().cookies(["theme"])), Ok(vec!["cookie:theme".to_owned()]));
/// ```
pub fn may_keep(asked: Asked, response: &response::Parts, rules: &Rules) -> Result<Kept, Reason> {
    let headers = &response.headers;
    let said = CacheControl::of(headers);
    let Vary::Names(mut names) = Vary::of(headers) else {
        return Err(Reason::VaryStar);
    };
    let varies_on = |name: &str| names.iter().any(|known| known == name);
    refused_by_status(response.status, rules)?;
    refused_by_headers(headers, &said, rules)?;

    let audience = Audience {
        with_cookies: said.is_shared() || varies_on("cookie"),
        // RFC 9111 §3.5 names `must-revalidate` as well, but only for a cache that asks the origin again.
        with_authorization: said.is_shared() || varies_on("authorization"),
        from_cookies: asked.cookies,
        by_cookies: matches!(rules.cookies, Cookies::Only(_)),
    };
    open_to(asked, audience, rules)?;
    // A response that varies on the whole header knows better than the program.
    if let Cookies::Only(which) = &rules.cookies
        && !varies_on("cookie")
    {
        names.extend(which.iter().map(|name| format!("{MATTERS}{name}")));
    }
    // What is encoded was chosen by what the client accepts, whether the response says so or not.
    if is_encoded(headers) && !names.iter().any(|known| known == "accept-encoding") {
        names.push("accept-encoding".to_owned());
    }
    Ok(Kept {
        vary: names,
        audience,
        said,
    })
}

/// Adds to `Vary` what the choice among a kept page's variants was made by and the response did not name: whoever keeps
/// the page further on has to choose in the same way.
pub fn patch_vary(headers: &mut HeaderMap, kept: &Kept) {
    let cookies = kept.vary.iter().any(|name| name.starts_with(MATTERS));
    let encoded = kept.vary.iter().any(|name| name == "accept-encoding");
    for (needed, name) in [(cookies, "Cookie"), (encoded, "Accept-Encoding")] {
        if needed {
            vary::patch_vary_headers(headers, &[name]);
        }
    }
}

/// Whether a request carries something of its sender's that its page must not depend on: what comes of it may be another
/// thing than what others get.
pub fn is_personal(asked: Asked, rules: &Rules) -> bool {
    asked.authorization || (asked.cookies && rules.cookies == Cookies::Private)
}

/// Decides whether a kept page may answer a request.
///
/// ```
/// use larder::page::rules::{Reason, Rules, storable::{Audience, may_serve, may_use}};
///
/// let rules = Rules::new();
/// let (request, ()) = http::Request::get("/").header("cookie", "session=alice").body(()).expect("a request").into_parts();
/// let asked = may_use(&request, &rules).expect("a plain GET");
///
/// assert_eq!(may_serve(asked, Audience::default(), &rules), Err(Reason::Cookie));
/// assert_eq!(may_serve(asked, Audience { with_cookies: true, ..Audience::default() }, &rules), Ok(()));
/// ```
pub fn may_serve(asked: Asked, audience: Audience, rules: &Rules) -> Result<(), Reason> {
    if asked.anew {
        return Err(Reason::ClientRefused);
    }
    open_to(asked, audience, rules)
}

/// Reports whether a kept page is for requests that carry nothing of their sender's, but not for this one.
///
/// ```
/// use larder::page::rules::{Rules, storable::{Audience, is_for_others, may_use}};
///
/// let (request, ()) = http::Request::get("/").header("cookie", "session=alice").body(()).expect("a request").into_parts();
/// let asked = may_use(&request, &Rules::new()).expect("a plain GET");
///
/// assert!(is_for_others(asked, Audience::default(), &Rules::new()));
/// ```
pub fn is_for_others(asked: Asked, audience: Audience, rules: &Rules) -> bool {
    let nobody = Asked {
        cookies: false,
        authorization: false,
        anew: false,
        conditional: false,
    };
    open_to(asked, audience, rules).is_err() && open_to(nobody, audience, rules).is_ok()
}

fn open_to(asked: Asked, audience: Audience, rules: &Rules) -> Result<(), Reason> {
    if asked.authorization && !audience.with_authorization {
        return Err(Reason::Authorization);
    }
    let open = match rules.cookies {
        Cookies::Ignored => true,
        // A page kept under other settings has no variants by these cookies.
        Cookies::Only(_) => audience.with_cookies || audience.by_cookies,
        Cookies::Private => audience.with_cookies || !(asked.cookies || audience.from_cookies),
    };
    if open { Ok(()) } else { Err(Reason::Cookie) }
}

fn refused_by_status(status: StatusCode, rules: &Rules) -> Result<(), Reason> {
    let never = status.is_informational() || status == StatusCode::NOT_MODIFIED;
    if status == StatusCode::PARTIAL_CONTENT {
        Err(Reason::Partial)
    } else if never || !rules.statuses.contains(&status) {
        Err(Reason::Status)
    } else {
        Ok(())
    }
}

fn refused_by_headers(
    headers: &HeaderMap,
    said: &CacheControl,
    rules: &Rules,
) -> Result<(), Reason> {
    let reason = if headers.contains_key(SET_COOKIE) {
        Reason::SetCookie
    } else if said.no_store {
        Reason::NoStore
    } else if said.private {
        // RFC 9111 §5.2.2.7: with field names it may be taken as if it had none.
        Reason::Private
    } else if said.no_cache != NoCache::No {
        // RFC 9111 §5.2.2.4 says the same of this one.
        Reason::NoCache
    } else if headers.contains_key(CONTENT_RANGE) {
        Reason::Partial
    } else if is_event_stream(headers) {
        Reason::EventStream
    } else if length(headers).is_some_and(|length| length > rules.body_limit) {
        Reason::TooLong
    } else {
        return Ok(());
    };
    Err(reason)
}

/// Reads what a request refuses: to be kept or looked up at all, and a page that is already there.
fn refusals(headers: &HeaderMap) -> (bool, bool) {
    let said = CacheControl::of(headers);
    // RFC 9111 §5.4: `Pragma` counts only without `Cache-Control`.
    let old = !headers.contains_key(http::header::CACHE_CONTROL)
        && has_member(headers, &PRAGMA, "no-cache");
    let anew = said.no_cache != NoCache::No || said.max_age.is_some_and(|age| age.is_zero()) || old;
    (said.no_store, anew)
}

fn has_member(headers: &HeaderMap, name: &http::HeaderName, wanted: &str) -> bool {
    headers.get_all(name).iter().any(|line| lists(line, wanted))
}

fn lists(line: &HeaderValue, wanted: &str) -> bool {
    let mut members = line.as_bytes().split(|&byte| byte == b',');
    members.any(|member| member.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Media types of bodies that need not come to an end.
const STREAMS: [&str; 6] = [
    "application/grpc",
    "application/json-seq",
    "application/stream+json",
    "application/x-ndjson",
    "multipart/x-mixed-replace",
    "text/event-stream",
];

fn is_event_stream(headers: &HeaderMap) -> bool {
    let text = joined(headers, &CONTENT_TYPE, ",").unwrap_or_default();
    let kind = text.split([';', ',']).next().unwrap_or_default().trim();
    // One that says how long it is has an end.
    STREAMS
        .iter()
        .any(|stream| kind.eq_ignore_ascii_case(stream))
        && length(headers).is_none()
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let encoded = |line: &HeaderValue| {
        !line
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"identity")
    };
    headers.get_all(CONTENT_ENCODING).iter().any(encoded)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
#[path = "storable_tests.rs"]
mod tests;
