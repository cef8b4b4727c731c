//! How long a page is kept, how long it may be served stale, and how old it is.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::AGE;

use super::{CacheControl, Reason};

/// Returns how long a page is kept: what its view was given, else what the response says, else the site's default.
///
/// A response says it by `s-maxage`, else by `max-age`. Zero means that it is not kept; a view's own TTL is stronger than
/// the response's `max-age=0`.
///
/// ```
/// use larder::page::rules::{CacheControl, Reason, freshness};
/// use std::time::Duration;
///
/// let said = CacheControl::parse("max-age=0");
/// let minute = Duration::from_secs(60);
///
/// assert_eq!(freshness::ttl(Some(minute), &said, minute), Ok(minute));
/// assert_eq!(freshness::ttl(None, &said, minute), Err(Reason::ZeroTtl));
/// ```
pub fn ttl(
    view: Option<Duration>,
    said: &CacheControl,
    default: Duration,
) -> Result<Duration, Reason> {
    let ttl = view.or(said.s_maxage).or(said.max_age).unwrap_or(default);
    if ttl.is_zero() {
        Err(Reason::ZeroTtl)
    } else {
        Ok(ttl)
    }
}

/// How long past its TTL a page may still be served (RFC 5861).
///
/// ```
/// use larder::page::rules::freshness::{Stale, stale};
/// use larder::page::rules::CacheControl;
///
/// let windows = stale(&CacheControl::parse("max-age=60, stale-while-revalidate=30"));
///
/// assert_eq!(windows.while_revalidate.map(|window| window.as_secs()), Some(30));
/// assert_eq!(windows.if_error, None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stale {
    /// While a new one is being made; `None` if the response does not say.
    pub while_revalidate: Option<Duration>,
    /// When making a new one has failed; `None` if the response does not say.
    pub if_error: Option<Duration>,
}

/// Returns the windows that a response gives; both are zero where it forbids to serve it stale.
pub fn stale(said: &CacheControl) -> Stale {
    // RFC 9111 §5.2.2.2 and §5.2.2.8. `s-maxage` forbids it as well, but those who send it together with
    // `stale-while-revalidate` mean the latter.
    if said.must_revalidate || said.proxy_revalidate {
        return Stale {
            while_revalidate: Some(Duration::ZERO),
            if_error: Some(Duration::ZERO),
        };
    }
    Stale {
        while_revalidate: said.stale_while_revalidate,
        if_error: said.stale_if_error,
    }
}

/// Returns the `Age` that a response arrived with; one that is not a number is ignored (RFC 9111 §5.1).
///
/// ```
/// use larder::page::rules::freshness::age_of;
/// use std::time::Duration;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("age", "30".parse().expect("a header value"));
///
/// assert_eq!(age_of(&headers), Duration::from_secs(30));
/// ```
pub fn age_of(headers: &HeaderMap) -> Duration {
    let text = headers
        .get(AGE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    // RFC 9111 §5.1: of several members the first counts.
    let first = text.split(',').next().unwrap_or_default().trim();
    let digits = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = if digits {
        first.parse().unwrap_or(u64::MAX).min(1 << 31)
    } else {
        0
    };
    Duration::from_secs(seconds)
}

/// Returns how old a kept page is: the time since it was stored and the age it had by then (RFC 9111 §4.2.3).
///
/// A clock set back makes it no younger than it was then.
///
/// ```
/// use larder::page::rules::freshness::age;
/// use std::time::{Duration, SystemTime};
///
/// let stored = SystemTime::UNIX_EPOCH;
/// let now = stored + Duration::from_secs(20);
///
/// assert_eq!(age(stored, Duration::from_secs(5), now), Duration::from_secs(25));
/// ```
pub fn age(stored: SystemTime, arrived_with: Duration, now: SystemTime) -> Duration {
    now.duration_since(stored)
        .unwrap_or_default()
        .saturating_add(arrived_with)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn view_then_response_then_site_give_the_ttl() {
        for (view, said, expected) in [
            (Some(60), "max-age=30", Ok(60)),
            (Some(60), "max-age=300, s-maxage=1", Ok(60)),
            (Some(60), "max-age=0", Ok(60)),
            (Some(0), "max-age=30", Err(Reason::ZeroTtl)),
            (None, "max-age=30", Ok(30)),
            (None, "max-age=30, s-maxage=7", Ok(7)),
            (None, "max-age=30, s-maxage=0", Err(Reason::ZeroTtl)),
            (None, "max-age=30, s-maxage=x", Ok(30)),
            (None, "max-age=0", Err(Reason::ZeroTtl)),
            (None, "max-age=-5", Err(Reason::ZeroTtl)),
            (None, "max-age=abc", Ok(600)),
            (None, "public", Ok(600)),
        ] {
            let ttl = ttl(view.map(secs), &CacheControl::parse(said), secs(600));

            assert_eq!(ttl, expected.map(secs), "{view:?} {said}");
        }
    }

    #[test]
    fn site_default_of_zero_keeps_nothing() {
        assert_eq!(
            ttl(None, &CacheControl::default(), Duration::ZERO),
            Err(Reason::ZeroTtl)
        );
    }

    #[test]
    fn revalidate_directives_close_the_stale_windows() {
        let closed = Stale {
            while_revalidate: Some(secs(0)),
            if_error: Some(secs(0)),
        };

        assert_eq!(
            stale(&CacheControl::parse("must-revalidate, stale-if-error=9")),
            closed
        );
        assert_eq!(
            stale(&CacheControl::parse(
                "proxy-revalidate, stale-while-revalidate=9"
            )),
            closed
        );
        assert_eq!(
            stale(&CacheControl::parse("s-maxage=1, stale-if-error=9")).if_error,
            Some(secs(9))
        );
        assert_eq!(stale(&CacheControl::default()), Stale::default());
    }

    #[test]
    fn age_that_is_not_a_number_is_ignored() {
        for (text, expected) in [
            ("30", 30),
            (" 30 , 50", 30),
            ("-1", 0),
            ("+1", 0),
            ("1.5", 0),
            ("", 0),
            ("99999999999999999999", 1 << 31),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AGE, HeaderValue::from_static(text));

            assert_eq!(age_of(&headers), secs(expected), "{text}");
        }
        assert_eq!(age_of(&HeaderMap::new()), secs(0));
    }

    #[test]
    fn clock_set_back_makes_no_page_younger_than_it_came() {
        let stored = SystemTime::UNIX_EPOCH + secs(100);

        assert_eq!(age(stored, secs(5), SystemTime::UNIX_EPOCH), secs(5));
    }
}
