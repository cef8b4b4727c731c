//! Why a request went past the cache, a response was not kept, or a page was not served.

use std::fmt;

/// Why the cache had no part in an answer.
///
/// It prints as a short token, fit for the `detail` of a `Cache-Status` header (RFC 9211).
///
/// ```
/// use larder::Reason;
///
/// assert_eq!(Reason::SetCookie.to_string(), "set-cookie");
/// assert!(Reason::Cookie.hint().contains("ignore_cookies"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The request's method is neither GET nor HEAD.
    Method,
    /// The request has a body, which may change the answer and is no part of the key.
    RequestBody,
    /// The request names several hosts, or something that can be none.
    Hosts,
    /// The request has a header by which some handlers take another host, method or path than it shows.
    Disguised,
    /// The request asks to switch to another protocol.
    Upgrade,
    /// The request says `no-cache`, `no-store` or `max-age=0`, and the program lets clients decide.
    ClientRefused,
    /// The response's status is not one of those kept.
    Status,
    /// The response is a part of a page, or the request asks for one and found no page.
    Partial,
    /// The response sets a cookie, which is for one client.
    SetCookie,
    /// The response says `private`.
    Private,
    /// The response says `no-store`.
    NoStore,
    /// The response says `no-cache`.
    NoCache,
    /// The response says `Vary: *`.
    VaryStar,
    /// The response is a stream of events that does not end.
    EventStream,
    /// The body is longer than the limit.
    TooLong,
    /// The request has credentials, and nothing says that the response is for others as well.
    Authorization,
    /// The request has cookies, and nothing says that the response does not depend on them.
    Cookie,
    /// The time to keep it is zero.
    ZeroTtl,
    /// The host is not one of those named.
    Host,
    /// The URL has as many variants as are kept.
    Variants,
    /// HEAD found nothing; it is answered by the handler and never fills the cache.
    Head,
    /// The request has a precondition, such as `If-Match`, and found nothing.
    Precondition,
    /// The body has trailers, broke off, or is not as long as it says.
    Body,
    /// A page of the same key, whose URL is spelled in another way, is kept.
    Spelling,
}

impl Reason {
    /// A number below 64, its own.
    #[cfg(feature = "page")]
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    /// Returns the short name that it prints as.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestBody => "request-body",
            Self::Hosts => "hosts",
            Self::Disguised => "disguised",
            Self::Upgrade => "upgrade",
            Self::ClientRefused => "client-refused",
            Self::Status => "status",
            Self::Partial => "partial",
            Self::SetCookie => "set-cookie",
            Self::Private => "private",
            Self::NoStore => "no-store",
            Self::NoCache => "no-cache",
            Self::VaryStar => "vary-star",
            Self::EventStream => "event-stream",
            Self::TooLong => "too-long",
            Self::Authorization => "authorization",
            Self::Cookie => "cookie",
            Self::ZeroTtl => "zero-ttl",
            Self::Host => "host",
            Self::Variants => "variants",
            Self::Head => "head",
            Self::Precondition => "precondition",
            Self::Body => "body",
            Self::Spelling => "spelling",
        }
    }

    /// Returns a sentence that names the setting or the header that would change it, or says that none would.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Method => {
                "only GET and HEAD are answered from the cache; no setting changes that"
            }
            Self::RequestBody => {
                "send the parameters in the query: a body is no part of a page's key"
            }
            Self::Hosts => {
                "send one well-formed `Host`, the same as in the request's target; no setting changes that"
            }
            Self::Disguised => {
                "`Forwarded`, `X-Forwarded-Host` or a method override differs from the request itself; behind a proxy that sets the host say `behind_proxy(…)`"
            }
            Self::Upgrade => "a connection that changes its protocol is never cached",
            Self::ClientRefused => {
                "the client asked for a new answer; leave out `clients_decide()` to ignore that"
            }
            Self::Status => "only status 200 is kept; name others with `statuses([…])`",
            Self::Partial => "a part of a page is never kept; answer with the whole page",
            Self::SetCookie => {
                "a response that sets a cookie is for one client; set the cookie in another response"
            }
            Self::Private => {
                "take `private` out of the response's `Cache-Control` if everybody may have it"
            }
            Self::NoStore => {
                "take `no-store` out of the response's `Cache-Control` if it may be kept"
            }
            Self::NoCache => {
                "take `no-cache` out of the response's `Cache-Control` if it may be reused"
            }
            Self::VaryStar => "name the request headers that matter in `Vary` instead of `*`",
            Self::EventStream => "a stream of events has no end and is never kept",
            Self::TooLong => "raise `body_limit(…)` if pages of this length are worth their memory",
            Self::Authorization => {
                "say `Cache-Control: public` if everybody may have it, or `Vary: Authorization` for a page per client"
            }
            Self::Cookie => {
                "name the cookies that matter with `cookies([…])`, or say `ignore_cookies()`, `Cache-Control: public` or `Vary: Cookie`"
            }
            Self::ZeroTtl => {
                "give the view a TTL, or take `max-age=0` out of the response's `Cache-Control`"
            }
            Self::Host => "name the host in `hosts([…])` if its pages may be kept",
            Self::Variants => {
                "a URL has at most 64 variants; let `Vary` name headers with fewer values"
            }
            Self::Head => "a GET of the same URL fills the cache; HEAD is then answered from it",
            Self::Precondition => {
                "a GET without `If-Match` and `If-Unmodified-Since` fills the cache; others are then answered from it"
            }
            Self::Body => {
                "a body that breaks off, ends in trailers or belies its `Content-Length` is never kept"
            }
            Self::Spelling => "link to the URL in one spelling: `/a`, not `/%61`, `/./a` or `/a?`",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.token())
    }
}
