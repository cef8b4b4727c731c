//! `Vary` (RFC 9110 §12.5.5): which request headers choose among the variants of a page.

use std::borrow::Cow;

use http::header::{COOKIE, VARY};
use http::{HeaderMap, HeaderName};

use super::{Cookies, joined, replace};

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
/// §8.2.3). With [`Cookies::Only`] the value of `cookie` is what these cookies say, a name alone where there is no such
/// cookie: `lang; theme=dark`.
///
/// ```
/// use larder::page::rules::{Cookies, vary};
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("accept", "text/html".parse().expect("a header value"));
///
/// let values = vary::values(&["accept".into(), "cookie".into()], &headers, &Cookies::Private);
///
/// assert_eq!(values, [Some(b"text/html".as_slice().into()), None]);
/// ```
pub fn values<'a>(
    names: &[String],
    headers: &'a HeaderMap,
    cookies: &Cookies,
) -> Vec<Option<Cow<'a, [u8]>>> {
    let value = |name: &String| match cookies {
        Cookies::Only(which) if name == "cookie" => {
            Some(Cow::Owned(chosen_cookies(headers, which)))
        }
        _ => value(headers, name),
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

/// Returns the cookies that matter as one header value, in the order in which the program named them.
fn chosen_cookies(headers: &HeaderMap, which: &[String]) -> Vec<u8> {
    let sent: Vec<(&[u8], &[u8])> = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| pairs(line.as_bytes()))
        .collect();
    let mut said = Vec::new();
    for name in which.iter().map(String::as_bytes) {
        let before = said.len();
        let values = sent
            .iter()
            .filter(|(sent, _)| *sent == name)
            .map(|(_, value)| *value);
        said.extend(values.map(|value| [name, b"=", value].concat()));
        if said.len() == before {
            said.push(name.to_vec());
        }
    }
    said.join(&b"; "[..])
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

    fn one(name: &str, headers: &HeaderMap, cookies: &Cookies) -> Option<String> {
        let value = values(&[name.to_owned()], headers, cookies).remove(0);
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

        assert_eq!(
            one("accept", &headers, &Cookies::Private).as_deref(),
            Some("")
        );
        assert_eq!(one("cookie", &headers, &Cookies::Private), None);
        assert_eq!(one("no header", &headers, &Cookies::Private), None);
    }

    #[test]
    fn lines_of_a_header_are_one_value() {
        let headers = headers(&[
            ("accept", "a"),
            ("accept", "b"),
            ("cookie", "x=1"),
            ("cookie", "y=2"),
        ]);

        assert_eq!(
            one("accept", &headers, &Cookies::Private).as_deref(),
            Some("a,b")
        );
        assert_eq!(
            one("cookie", &headers, &Cookies::Private).as_deref(),
            Some("x=1; y=2")
        );
    }

    #[test]
    fn only_the_cookies_that_matter_choose_the_variant() {
        let only = Cookies::Only(vec!["lang".into(), "theme".into()]);
        let value = |text: &'static str| one("cookie", &headers(&[("cookie", text)]), &only);

        assert_eq!(
            value("_ga=123; theme=dark; lang=de").as_deref(),
            Some("lang=de; theme=dark")
        );
        assert_eq!(
            value("lang=de;theme=dark; _ga=456").as_deref(),
            Some("lang=de; theme=dark")
        );
        assert_eq!(value("theme=").as_deref(), Some("lang; theme="));
        assert_eq!(
            value("lang=a; lang=b").as_deref(),
            Some("lang=a; lang=b; theme")
        );
        assert_eq!(value("_ga=123; Theme=dark").as_deref(), Some("lang; theme"));
        assert_eq!(
            one("cookie", &headers(&[]), &only).as_deref(),
            Some("lang; theme")
        );
    }
}
