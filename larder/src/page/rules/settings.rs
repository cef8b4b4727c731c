//! What a program can say about keeping pages.

use http::StatusCode;

/// The longest body kept unless the program says otherwise.
const BODY_LIMIT: u64 = 8 * 1024 * 1024;

/// What a program says about keeping pages; the default is the safe one.
///
/// ```
/// use larder::page::rules::Rules;
///
/// let rules = Rules::new().cookies(["lang", "theme"]).body_limit(1 << 20);
///
/// assert!(rules != Rules::new());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Rules {
    pub(super) statuses: Vec<StatusCode>,
    pub(super) cookies: Cookies,
    pub(super) body_limit: u64,
    pub(super) clients_decide: bool,
    pub(super) behind_proxy: bool,
}

/// What the cookies of a request mean for a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cookies {
    /// A request with cookies has no part in pages that do not say that they are for it.
    #[default]
    Private,
    /// Only these cookies matter: each combination of their values has its own page.
    Only(Vec<String>),
    /// Cookies do not matter, unless the response itself varies on them.
    Ignored,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            statuses: vec![StatusCode::OK],
            cookies: Cookies::default(),
            body_limit: BODY_LIMIT,
            clients_decide: false,
            behind_proxy: false,
        }
    }
}

impl Rules {
    /// Returns the safe rules, to be changed by the setters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only 200 by default: the statuses that are kept. 206, 304 and those below 200 never are.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.statuses = statuses.into_iter().collect();
        self
    }

    /// By default every cookie makes a request private: the cookies that matter, each combination with its own page.
    ///
    /// All others have no part in any page. A response that says `Vary: Cookie` knows better, and has a page per `Cookie`
    /// header.
    pub fn cookies<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.cookies = Cookies::Only(names.into_iter().map(Into::into).collect());
        self
    }

    /// By default every cookie makes a request private: says that no page depends on a cookie.
    ///
    /// A response that says `Vary: Cookie` knows better, and still has a page per `Cookie` header.
    pub fn ignore_cookies(mut self) -> Self {
        self.cookies = Cookies::Ignored;
        self
    }

    /// 8 MiB by default: the longest body that is kept.
    pub fn body_limit(mut self, bytes: u64) -> Self {
        self.body_limit = bytes;
        self
    }

    /// Off by default, since it lets a client force work: heeds `no-cache`, `no-store` and `max-age=0` of a request.
    pub fn clients_decide(mut self) -> Self {
        self.clients_decide = true;
        self
    }

    /// Off by default: `X-Forwarded-Host` is the proxy's word on the host, and not a disguise.
    ///
    /// Without it a request whose `X-Forwarded-Host` differs from its `Host` passes uncached: a handler that believes the
    /// former would fill a page of the latter.
    pub fn behind_proxy(mut self) -> Self {
        self.behind_proxy = true;
        self
    }

    /// Returns the longest body that is kept.
    pub fn longest_body(&self) -> u64 {
        self.body_limit
    }
}
