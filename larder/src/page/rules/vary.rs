//! `Vary` (RFC 9110 §12.5.5): which request headers choose among the variants of a page.

use std::borrow::Cow;

use http::header::{COOKIE, VARY};
use http::{HeaderMap, HeaderName};

use super::{joined, replace};

/// Begins the name of a variant's choice that is one cookie and not a whole header; no header's name holds a colon.
pub const MATTERS: &str = "cookie:";

/// What a response varies on.
///
/// ```
/// use larder::page::rules::Vary;
///
/// assert_eq!(Vary::parse(" Cookie,, Accept "), Vary::Names(vec!["cookie".into(), "accept".into()]));
/// assert_eq!(Vary::parse("Cookie , * "), Vary::Star);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vary {
    /// `*`: no request can be known to get the same answer.
    Star,
    /// These headers, in lower case, as often and in the order in which they were named.
    Names(Vec<String>),
}

impl Vary {
    /// Reads all `Vary` lines of `headers` as one.
    pub fn of(headers: &HeaderMap) -> Self {
        joined(headers, &VARY, ",").map_or(Self::Names(Vec::new()), |text| Self::parse(&text))
    }

    /// Reads the value of one `Vary` header; a `*` anywhere in it is [`Vary::Star`].
    pub fn parse(text: &str) -> Self {
        let names: Vec<String> = members(text).map(str::to_ascii_lowercase).collect();
        if names.iter().any(|name| name == "*") {
            Self::Star
        } else {
            Self::Names(names)
        }
    }

    /// Reports whether this header is named, in any case. `*` names none.
    pub fn names(&self, name: &str) -> bool {
        matches!(self, Self::Names(names) if names.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }
}

fn members(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

/// Adds names to `Vary`, leaving out those already there; a `*` among them leaves only `*`.
///
/// ```
/// use larder::page::rules::vary::patch_vary_headers;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("vary", "Cookie".parse().expect("a header value"));
///
/// patch_vary_headers(&mut headers, &["Accept-Encoding", "cookie"]);
///
/// assert_eq!(headers["vary"], "Cookie, Accept-Encoding");
/// ```
pub fn patch_vary_headers(headers: &mut HeaderMap, names: &[&str]) {
    let before = joined(headers, &VARY, ",").unwrap_or_default();
    let there: Vec<&str> = members(&before).collect();
    let new = |name: &&str| !there.iter().any(|known| known.eq_ignore_ascii_case(name));
    let added = names.iter().flat_map(|name| members(name)).filter(new);
    let all: Vec<&str> = there.iter().copied().chain(added).collect();
    if all.contains(&"*") {
        replace(headers, VARY, "*");
    } else if !all.is_empty() {
        replace(headers, VARY, &all.join(", "));
    }
}

/// Reports whether `Vary` has this member, in any case and with any blanks around it.
///
/// ```
/// use larder::page::rules::vary::has_vary_header;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("vary", "Accept, Cookie".parse().expect("a header value"));
///
/// assert!(has_vary_header(&headers, "cookie"));
/// ```
pub fn has_vary_header(headers: &HeaderMap, name: &str) -> bool {
    let text = joined(headers, &VARY, ",").unwrap_or_default();
    members(&text).any(|known| known.eq_ignore_ascii_case(name.trim()))
}

/// Returns the request's value for each name, `None` for a header that is absent, which is not the same as an empty one.
///
/// Several lines of a header are one value, joined by `,`; those of `Cookie` by `; `, as HTTP/2 splits them (RFC 9113
/// §8.2.3). The name `cookie:lang` stands for the cookie `lang` alone, whose values are joined in the same way.
///
/// Cookies that handlers may read in different ways (a name with an escape, bytes that are not ASCII) cannot be told apart
/// one by one: a request with such a line has its whole `Cookie` header as the value of each cookie.
///
/// ```
/// use larder::page::rules::vary;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("accept", "text/html".parse().expect("a header value"));
///
/// let values = vary::values(&["accept".into(), "cookie".into()], &headers);
///
/// assert_eq!(values, [Some(b"text/html".as_slice().into()), None]);
/// ```
pub fn values<'a>(names: &[String], headers: &'a HeaderMap) -> Vec<Option<Cow<'a, [u8]>>> {
    let value = |name: &String| match name.strip_prefix(MATTERS) {
        Some(cookie) => one_cookie(headers, cookie.as_bytes()),
        None => value(headers, name),
    };
    names.iter().map(value).collect()
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, [u8]>> {
    // A name that no header can have is absent from every request.
    let name = HeaderName::try_from(name).ok()?;
    let between: &[u8] = if name == COOKIE { b"; " } else { b"," };
    let mut lines = headers.get_all(name).iter();
    let mut value = Cow::Borrowed(lines.next()?.as_bytes());
    for line in lines {
        let value = value.to_mut();
        value.extend_from_slice(between);
        value.extend_from_slice(line.as_bytes());
    }
    Some(value)
}

/// Returns the values that a request gives to one cookie.
fn one_cookie<'a>(headers: &'a HeaderMap, name: &[u8]) -> Option<Cow<'a, [u8]>> {
    let lines = headers.get_all(COOKIE);
    if lines.iter().any(|line| is_ambiguous(line.as_bytes())) {
        // Behind a byte that no cookie can have, so that it is nobody's value.
        let whole = value(headers, COOKIE.as_str())?;
        return Some(Cow::Owned([b"\0", &*whole].concat()));
    }
    let mut values = lines
        .iter()
        .flat_map(|line| pairs(line.as_bytes()))
        .filter(|(sent, _)| *sent == name)
        .map(|(_, value)| value);
    let first = Cow::Borrowed(values.next()?);
    Some(values.fold(first, |said, value| {
        Cow::Owned([&*said, b"; ", value].concat())
    }))
}

/// Whether readers of cookies differ about this line: some decode names, some drop a line that is not ASCII.
fn is_ambiguous(line: &[u8]) -> bool {
    !line.is_ascii() || pairs(line).any(|(name, _)| name.contains(&b'%'))
}

fn pairs(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    line.split(|&byte| byte == b';').map(|pair| {
        let cut = pair
            .iter()
            .position(|&byte| byte == b'=')
            .unwrap_or(pair.len());
        (
            pair[..cut].trim_ascii(),
            pair.get(cut + 1..).unwrap_or_default().trim_ascii(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        list.iter()
            .map(pair)
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            })
    }

    fn one(name: &str, headers: &HeaderMap) -> Option<String> {
        let value = values(&[name.to_owned()], headers).remove(0);
        value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    #[test]
    fn star_counts_wherever_it_stands() {
        for text in ["*", " * ", "Cookie,*", "*, Cookie", "Cookie , * , Accept"] {
            assert_eq!(Vary::parse(text), Vary::Star, "{text}");
        }
        assert!(matches!(Vary::parse("Cookie*"), Vary::Names(_)));
        assert_eq!(
            Vary::of(&headers(&[("vary", "cookie"), ("vary", "*")])),
            Vary::Star
        );
    }

    #[test]
    fn blank_members_name_nothing() {
        assert_eq!(Vary::parse(" , ,"), Vary::Names(Vec::new()));
        assert_eq!(
            Vary::parse("Cookie, cookie"),
            Vary::Names(vec!["cookie".into(), "cookie".into()])
        );
    }

    #[test]
    fn absent_header_is_not_an_empty_one() {
        let headers = headers(&[("accept", "")]);

        assert_eq!(one("accept", &headers).as_deref(), Some(""));
        assert_eq!(one("cookie", &headers), None);
        assert_eq!(one("no header", &headers), None);
    }

    #[test]
    fn lines_of_a_header_are_one_value() {
        let headers = headers(&[
            ("accept", "a"),
            ("accept", "b"),
            ("cookie", "x=1"),
            ("cookie", "y=2"),
        ]);

        assert_eq!(one("accept", &headers).as_deref(), Some("a,b"));
        assert_eq!(one("cookie", &headers).as_deref(), Some("x=1; y=2"));
    }

    #[test]
    fn a_cookie_that_matters_is_a_value_of_its_own() {
        let lang = |text: &'static str| one("cookie:lang", &headers(&[("cookie", text)]));

        for text in [
            "_ga=123; theme=dark; lang=de",
            "lang=de;theme=dark; _ga=456",
        ] {
            assert_eq!(lang(text).as_deref(), Some("de"), "{text}");
        }
        assert_eq!(lang("lang=").as_deref(), Some(""));
        assert_eq!(lang("lang=a; lang=b").as_deref(), Some("a; b"));
        assert_eq!(lang("_ga=123; Lang=de"), None);
        assert_eq!(one("cookie:lang", &headers(&[])), None);
    }

    #[test]
    fn cookies_that_are_read_in_two_ways_are_nobody_elses_variant() {
        let lang = |text: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, HeaderValue::from_bytes(text).expect("a value"));
            values(&["cookie:lang".to_owned()], &headers)[0]
                .as_deref()
                .map(<[u8]>::to_vec)
        };

        assert_eq!(lang(b"%6Cang=fr").as_deref(), Some(&b"\0%6Cang=fr"[..]));
        assert_eq!(
            lang(b"lang=fr; x=\xff").as_deref(),
            Some(&b"\0lang=fr; x=\xff"[..])
        );
        assert_eq!(lang(b"lang=%66r").as_deref(), Some(&b"%66r"[..]));
    }
}
