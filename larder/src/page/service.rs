//! The answer to one request: serve, wait, or run the handler.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{IF_MATCH, IF_UNMODIFIED_SINCE, RANGE};
use http::{Method, Request, Response, Uri, request};
use http_body::Body;
use tower_service::Service;

use super::body::PageBody;
use super::layer::{Settings, Site};
use super::make::Made;
use super::route::Route;
use super::rules::storable::{Asked, is_personal, may_use};
use super::sight::Sight;
use crate::Clock;
use crate::cache::is_due;
use crate::entry::Entry;
use crate::event::{Bypass, Miss, Outcome, Reason};

/// How often a request looks for its page anew before it makes its own: each time, somebody else has
/// just found out that the URL varies on other headers.
const MOST_ROUNDS: usize = 4;

/// Answers from the cache when it can; made by [`CacheLayer`](super::CacheLayer).
#[derive(Debug, Clone)]
pub struct CacheService<S> {
    inner: S,
    site: Arc<Site>,
}

impl<S> CacheService<S> {
    pub(super) fn new(inner: S, site: Arc<Site>) -> Self {
        Self { inner, site }
    }
}

/// On a request: a [`CacheLayer`](super::CacheLayer) further out keeps its response.
#[derive(Debug, Clone, Copy)]
pub(super) struct InsideSite;

/// On a response: the TTL of the view that made it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ViewTtl(pub(super) Duration);

impl<S, A, B> Service<Request<A>> for CacheService<S>
where
    S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    A: Body + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Send,
{
    type Response = Response<PageBody<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    /// Always ready: a page that is kept needs nothing from the service inside, which is asked before
    /// it is called.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let question = self.site.question(&parts, &body);
        // A page in memory is answered without running anything.
        if let Ok(Some(question)) = &question
            && let Some(response) = self.site.answer_now(&parts, question)
        {
            return Box::pin(std::future::ready(Ok(response)));
        }
        let mut inner = self.inner.clone();
        let site = Arc::clone(&self.site);
        Box::pin(async move {
            match question {
                Ok(Some(question)) => site.answer(inner, parts, body, question).await,
                Ok(None) => {
                    ready(&mut inner).await?;
                    let response = inner.call(Request::from_parts(parts, body)).await?;
                    let mut response = response.map(PageBody::own);
                    if let Some(ttl) = site.settings.view_ttl {
                        response.extensions_mut().insert(ViewTtl(ttl));
                    }
                    Ok(response)
                }
                Err(reason) => {
                    site.tell_once(reason);
                    let outcome = Outcome::Refused(reason);
                    site.pass(inner, parts, body, None, &outcome).await
                }
            }
        })
    }
}

/// What a request asks of the cache.
pub(super) struct Question {
    pub(super) asked: Asked,
    pub(super) route: Arc<Route>,
    /// How eager this request is to make a page anew before its time: drawn once, however often it looks.
    eagerness: f64,
}

impl Question {
    /// Whether a hit on `entry` is to make the page anew behind it.
    pub(super) fn is_due(&self, entry: &Entry, clock: &Clock) -> bool {
        self.eagerness > 0.0 && is_due(entry, self.eagerness, clock)
    }
}

impl Site {
    /// What a request asks; nothing where a layer further out answers it.
    fn question<A: Body>(
        &self,
        parts: &request::Parts,
        body: &A,
    ) -> Result<Option<Question>, Reason> {
        if parts.extensions.get::<InsideSite>().is_some() {
            return Ok(None);
        }
        let settings = &self.settings;
        let asked = may_use(parts, &settings.rules)?;
        if !body.is_end_stream() && body.size_hint().exact() != Some(0) {
            return Err(Reason::RequestBody);
        }
        if let Some(hosts) = &settings.hosts {
            let host = settings.origin.host(parts);
            if !hosts.contains(&host) {
                return Err(Reason::Host);
            }
        }
        let target = original_uri(parts);
        let (origin, keys) = (&settings.origin, &settings.keys);
        let route = self.routes.of(parts, target, origin, keys, &settings.cache);
        let route = route.ok_or(Reason::Hosts)?;
        let eagerness = if settings.early > 0.0 {
            settings.early * -settings.cache.shared.clock.chance().ln()
        } else {
            0.0
        };
        Ok(Some(Question {
            asked,
            route,
            eagerness,
        }))
    }

    /// The page, if it is fresh and the store can tell without waiting.
    fn answer_now<B: Body>(
        &self,
        parts: &request::Parts,
        question: &Question,
    ) -> Option<Response<PageBody<B>>> {
        let Settings { cache, keys, .. } = &self.settings;
        let route = &question.route;
        let variant = route.variant(&parts.headers, keys, cache);
        let [list, page] = cache.look_at_pair_now(&route.list_key, &variant.key)?;
        let now = cache.shared.clock.now();
        let entry = list.usable(now)?;
        let list = route
            .list(entry)
            .filter(|list| *list.names == *variant.names)?;
        let entry = page.live(now)?;
        if question.is_due(entry, &cache.shared.clock) {
            return None;
        }
        let page = self.suitable(question, list.mark, &variant, entry)?;
        let left = entry.fresh_until.left(now);
        cache.hear(&route.list_key, || Outcome::Hit(left));
        let outcome = Outcome::Hit(left);
        cache.absorb(entry.tags.as_deref(), Some(entry.fresh_until));
        if parts.method == Method::HEAD || question.asked.conditional {
            return Some(self.serve(&parts.method, &parts.headers, page, &outcome));
        }
        // The headers of a hit change once a second.
        let second = (
            entry.stamp,
            self.age_of(&page.head),
            left.map(|left| left.as_secs()),
        );
        let headers = variant.ready_headers(second).unwrap_or_else(|| {
            let served = self.serve::<B>(&Method::GET, &parts.headers, page.clone(), &outcome);
            variant.keep_ready(second, served.headers());
            served.headers().clone()
        });
        let mut response = Response::new(PageBody::kept(page.body));
        *response.status_mut() = page.head.status;
        *response.headers_mut() = headers;
        Some(response)
    }

    async fn answer<S, A, B>(
        self: Arc<Self>,
        mut inner: S,
        mut parts: request::Parts,
        mut body: A,
        question: Question,
    ) -> Result<Response<PageBody<B>>, S::Error>
    where
        S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        A: Body + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Send,
    {
        for _ in 0..MOST_ROUNDS {
            let sight = match self.look(&question, &parts.headers).await {
                Ok(sight) => {
                    self.reading.works();
                    sight
                }
                Err(error) => {
                    self.reading.fails(&error);
                    let outcome = Outcome::Bypass(Bypass::StoreFailed);
                    return self
                        .pass(inner, parts, body, Some(&question), &outcome)
                        .await;
                }
            };
            let (known, stale, miss) = match sight {
                Sight::Due(page, listed, variant, _)
                    if never_leads(&parts).is_none() && !self.would_be_personal(&question) =>
                {
                    (Some((listed, variant)), Some((page, true)), Miss::Expired)
                }
                Sight::Hit(page, outcome) | Sight::Due(page, _, _, outcome) => {
                    let key = &question.route.list_key;
                    self.settings.cache.hear(key, || outcome.clone());
                    return Ok(self.serve(&parts.method, &parts.headers, page, &outcome));
                }
                Sight::NotOurs(reason) => {
                    self.tell_once(reason);
                    let outcome = Outcome::Refused(reason);
                    return self
                        .pass(inner, parts, body, Some(&question), &outcome)
                        .await;
                }
                _ if let Some(reason) = never_leads(&parts) => {
                    let outcome = Outcome::Refused(reason);
                    return self
                        .pass(inner, parts, body, Some(&question), &outcome)
                        .await;
                }
                _ if self.would_be_personal(&question) => {
                    let outcome = Outcome::Bypass(Bypass::Passed);
                    return self
                        .pass(inner, parts, body, Some(&question), &outcome)
                        .await;
                }
                Sight::Stale(page, listed, variant) => {
                    (Some((listed, variant)), Some((page, false)), Miss::Expired)
                }
                Sight::NoPage(listed, variant, miss) => (Some((listed, variant)), None, miss),
                Sight::NoList(miss) => (None, None, miss),
            };
            match self
                .make((inner, parts, body), &question, known, stale, miss)
                .await?
            {
                Made::Answered(response) => return Ok(response),
                Made::Again(errand) => (inner, parts, body) = errand,
                Made::Alone((inner, parts, body), outcome) => {
                    return self
                        .pass(inner, parts, body, Some(&question), &outcome)
                        .await;
                }
            }
        }
        let outcome = Outcome::Bypass(Bypass::WaitedTooLong);
        self.pass(inner, parts, body, Some(&question), &outcome)
            .await
    }

    /// Whether the page that this request would make is known to be none for others.
    fn would_be_personal(&self, question: &Question) -> bool {
        let Settings { cache, rules, .. } = &self.settings;
        is_personal(question.asked, rules) && question.route.is_personal(cache.shared.clock.now())
    }
}

/// Waits until a service can be called, as it must before each call.
pub(super) async fn ready<S: Service<R>, R>(service: &mut S) -> Result<(), S::Error> {
    poll_fn(|context| service.poll_ready(context)).await
}

/// Why a request that finds no page is answered beside the cache: the answer would be none for
/// everybody.
fn never_leads(parts: &request::Parts) -> Option<Reason> {
    if parts.method == Method::HEAD {
        Some(Reason::Head)
    } else if parts.headers.contains_key(RANGE) {
        Some(Reason::Partial)
    } else if parts.headers.contains_key(IF_MATCH)
        || parts.headers.contains_key(IF_UNMODIFIED_SINCE)
    {
        Some(Reason::Precondition)
    } else {
        None
    }
}
/// The target as the client wrote it; a router may have cut off a prefix since.
fn original_uri(parts: &request::Parts) -> &Uri {
    #[cfg(feature = "axum")]
    if let Some(axum::extract::OriginalUri(uri)) = parts.extensions.get() {
        return uri;
    }
    &parts.uri
}
