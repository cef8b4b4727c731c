//! [`CacheLayer`] and [`cache_page`]: the settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderName, StatusCode};
use tower_layer::Layer;

use super::keys::{KeyOptions, Origin};
use super::route::Routes;
use super::rules::Rules;
use super::service::CacheService;
use crate::django_keys::KeyFormat;
use crate::event::Reason;
use crate::{Cache, Error};

/// Keeps whole responses of the service it wraps.
///
/// Around a whole site by [`CacheLayer::new`], around one view by [`cache_page`]. Every setting has
/// a default that is safe to ship: see [`page`](super).
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use larder::page::CacheLayer;
/// use larder::{Cache, store::Memory};
///
/// let pages = CacheLayer::new(Cache::new(Memory::new()))
///     .ttl(Duration::from_secs(60))
///     .grace(Duration::from_secs(30))
///     .cookies(["lang"]);
/// let app: Router = Router::new().route("/", get(|| async { "page" })).layer(pages);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct CacheLayer(Arc<Site>);

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) cache: Cache,
    pub(super) rules: Rules,
    pub(super) origin: Origin,
    pub(super) keys: KeyOptions,
    /// The TTL of a view, over what its responses say.
    pub(super) view_ttl: Option<Duration>,
    pub(super) site_ttl: Duration,
    pub(super) grace: Duration,
    pub(super) if_error: Duration,
    pub(super) early: f64,
    pub(super) wait: Duration,
    pub(super) hosts: Option<Vec<String>>,
}

/// What all services made by one layer share: axum may make one for every request.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) settings: Settings,
    pub(super) routes: Routes,
    /// The reasons that were logged already, a bit each.
    told: AtomicU64,
    /// How the store does when it is read, and when it is written to: one can fail without the other.
    pub(super) reading: Health,
    pub(super) writing: Health,
}

/// Whether a way of using the store fails, told once until it works again.
#[derive(Debug, Default)]
pub(super) struct Health(AtomicBool);

impl Health {
    pub(super) fn fails(&self, error: &Error) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "page_store_failed");
        }
    }

    pub(super) fn works(&self) {
        if self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed) {
            tracing::info!("page_store_answers_again");
        }
    }
}

/// Keeps the responses of one view, or of the views of one router, for `ttl`, whatever their
/// `max-age` says. Zero keeps nothing.
///
/// Inside a [`CacheLayer`] it stores nothing itself: it gives the site its TTL, and its other
/// settings have no part.
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use larder::page::cache_page;
/// use larder::{Cache, store::Memory};
///
/// let cache = Cache::new(Memory::new());
/// let view = get(|| async { "slow" }).layer(cache_page(&cache, Duration::from_secs(300)));
/// let app: Router = Router::new().route("/slow", view);
/// ```
pub fn cache_page(cache: &Cache, ttl: Duration) -> CacheLayer {
    let mut layer = CacheLayer::new(cache.clone());
    layer.settings().view_ttl = Some(ttl);
    layer
}

impl CacheLayer {
    /// Keeps pages in `cache`.
    pub fn new(cache: Cache) -> Self {
        let settings = Settings {
            cache,
            rules: Rules::new(),
            origin: Origin::default(),
            keys: KeyOptions::default(),
            view_ttl: None,
            site_ttl: Duration::from_mins(10),
            grace: Duration::ZERO,
            if_error: Duration::ZERO,
            early: 0.0,
            wait: Duration::from_secs(10),
            hosts: None,
        };
        Self(Arc::new(Site::new(settings)))
    }

    /// The settings to change: of this layer alone, so that a clone keeps its own, and its own keys.
    fn settings(&mut self) -> &mut Settings {
        if Arc::get_mut(&mut self.0).is_none() {
            self.0 = Arc::new(Site::new(self.0.settings.clone()));
        }
        let site = Arc::get_mut(&mut self.0).expect("nobody else has it yet");
        &mut site.settings
    }

    fn rules(&mut self, change: impl FnOnce(Rules) -> Rules) {
        let settings = self.settings();
        settings.rules = change(settings.rules.clone());
    }

    /// How long a page is fresh whose view and whose response do not say. Default: ten minutes, as
    /// in Django.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings().site_ttl = ttl;
        self
    }

    /// For how long after its TTL a page is served while one request refreshes it, unless the
    /// response says otherwise by `stale-while-revalidate`. Default: not at all.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings().grace = grace;
        self
    }

    /// For how long after its TTL a page is served in place of a server error, unless the response
    /// says otherwise by `stale-if-error`. Default: not at all.
    pub fn stale_if_error(mut self, span: Duration) -> Self {
        self.settings().if_error = span;
        self
    }

    /// Makes a page anew in the background shortly before its TTL ends, so that nobody has to wait for it
    /// and nobody gets a stale one. Default: 0, not at all; 1 is the usual eagerness.
    ///
    /// As [`Policy::early`](crate::Policy::early): by chance, the likelier the nearer the end and the
    /// longer the page took to make, once however many ask.
    pub fn early(mut self, eagerness: f64) -> Self {
        self.settings().early = eagerness;
        self
    }

    /// How long a request waits for another's making of the same page before it makes its own.
    /// Default: 10 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.settings().wait = wait;
        self
    }

    /// The only cookies that pages depend on: each combination of their values is a variant, and
    /// other cookies play no part, unless a page's `Vary` names `Cookie`. What is kept says
    /// `Vary: Cookie`, for browsers and for caches further on. Default: a request with any cookie is
    /// not answered from a shared page.
    pub fn cookies<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.rules(|rules| rules.cookies(names));
        self
    }

    /// No page depends on a cookie, unless its `Vary` says so. A page that reads a session is then
    /// served to everybody. Default: off.
    pub fn ignore_cookies(mut self) -> Self {
        self.rules(Rules::ignore_cookies);
        self
    }

    /// The statuses that are kept. Default: 200, as in Django.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.rules(|rules| rules.statuses(statuses));
        self
    }

    /// The longest body that is kept, in bytes. Default: 8 MiB. A longer one is passed on.
    pub fn body_limit(mut self, bytes: u64) -> Self {
        self.rules(|rules| rules.body_limit(bytes));
        self
    }

    /// Heeds `no-cache`, `no-store` and `max-age=0` of requests. Default: off, since a client could
    /// force work that way.
    pub fn clients_decide(mut self) -> Self {
        self.rules(Rules::clients_decide);
        self
    }

    /// The hosts whose pages are kept, each as it stands in `Host`, with its port unless that is the
    /// usual one; others pass uncached, also in another case, which no browser sends. Default: all.
    pub fn hosts<N: Into<String>>(mut self, hosts: impl IntoIterator<Item = N>) -> Self {
        let lower = |host: N| host.into().to_ascii_lowercase();
        self.settings().hosts = Some(hosts.into_iter().map(lower).collect());
        self
    }

    /// What is part of every page's key, for sites that share a cache. Default: nothing.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings().keys.prefix = prefix.into();
        self
    }

    /// The form of page keys. Default: that of Django 6.1.
    pub fn key_format(mut self, format: KeyFormat) -> Self {
        self.settings().keys.format = format;
        self
    }

    /// Ends page keys in a time zone, as Django does with `USE_TZ`, such as `UTC`. Default: nothing.
    pub fn time_zone(mut self, zone: impl Into<String>) -> Self {
        self.settings().keys.time_zone = Some(zone.into());
        self
    }

    /// Ends page keys in a language, as Django does with `USE_I18N`, such as `en-us`; for a site in one
    /// language. Default: nothing.
    ///
    /// The setting chooses no page: a response in several languages says `Vary: Accept-Language`, and
    /// has a variant per value as without it, where Django would have one per language.
    pub fn language(mut self, language: impl Into<String>) -> Self {
        self.settings().keys.language = Some(language.into());
        self
    }

    /// The site speaks HTTPS, which is part of the URL in the keys. Default: HTTP.
    pub fn https(mut self) -> Self {
        self.settings().origin.https = true;
        self
    }

    /// `X-Forwarded-Host` and this header, which is `https` for a secure connection, tell the URL.
    /// Only behind a proxy that sets both. Default: neither is read, and a request whose
    /// `X-Forwarded-Host` differs from its `Host` passes uncached, since a handler may believe it.
    pub fn behind_proxy(mut self, secure_header: HeaderName) -> Self {
        self.rules(Rules::behind_proxy);
        self.settings().origin.trust_forwarded_host = true;
        self.settings().origin.secure_header = Some(secure_header);
        self
    }
}

impl<S> Layer<S> for CacheLayer {
    type Service = CacheService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CacheService::new(inner, Arc::clone(&self.0))
    }
}

impl Site {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            routes: Routes::default(),
            told: AtomicU64::new(0),
            reading: Health::default(),
            writing: Health::default(),
        }
    }

    /// Names the setting that would change a refusal, the first time that it is met.
    pub(super) fn tell_once(&self, reason: Reason) {
        let bit = 1 << reason.number();
        if self.told.load(Ordering::Relaxed) & bit == 0
            && self.told.fetch_or(bit, Ordering::Relaxed) & bit == 0
        {
            tracing::info!(%reason, hint = reason.hint(), "page_not_cached");
        }
    }
}
