//! The answer to one request: serve, wait, or run the handler.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AGE, CONTENT_LENGTH, HeaderMap, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE, RANGE,
};
use http::{Method, Request, Response, StatusCode, Uri, request};
use http_body::Body;
use tokio::sync::oneshot;
use tower_service::Service;

use super::body::PageBody;
use super::layer::{Settings, Site};
use super::load::{Answer, JustMade, PageLoad, Slot};
use super::route::{Route, Variant};
use super::rules::storable::{Asked, is_for_others, may_serve, may_use};
use super::rules::validators::{CONDITIONS, Validators, Verdict, evaluate, not_modified_headers};
use super::rules::{freshness, vary};
use super::status;
use super::stored::{HeaderList, Page, PageHead};
use crate::cache::{Fetched, Look, Served};
use crate::entry::{Entry, Stamp};
use crate::event::{Bypass, Miss, Outcome, Reason};
use crate::{Error, Moment, Policy};

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
struct InsideSite;

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

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
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
        // The instance that was polled ready is the one that is called.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let site = Arc::clone(&self.site);
        Box::pin(async move {
            match question {
                Ok(Some(question)) => site.answer(inner, parts, body, question).await,
                Ok(None) => {
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
struct Question {
    asked: Asked,
    route: Arc<Route>,
}

/// What the store has for a request.
enum Sight {
    Hit(Page, Outcome),
    /// A page that is another's, which this request must leave alone.
    NotOurs(Reason),
    /// A page past its TTL, which may stand in while, or if not, a new one is made.
    Stale(Page, Listed, Arc<Variant>),
    /// The URL is known, this variant of it is not.
    NoPage(Listed, Arc<Variant>, Miss),
    NoList(Miss),
}

/// A header list, and the stamp of its slot.
type Listed = (Arc<HeaderList>, Stamp);

/// A request and the handler that it is for.
type Errand<S, A> = (S, request::Parts, A);

/// What came of going through the engine.
enum Made<S, A, B: Body> {
    Answered(Response<PageBody<B>>),
    /// Look again: more is known of the URL now.
    Again(Errand<S, A>),
    /// Run the handler beside the cache.
    Alone(Errand<S, A>, Outcome),
}

/// Whichever of the two spoke first: the handler, or the engine.
enum First<L: crate::cache::Load, E, B: Body> {
    Handler(Answer<E, B>, Option<Fetched<L>>),
    Engine(Fetched<L>),
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
        if !body.is_end_stream() {
            return Err(Reason::RequestBody);
        }
        if let Some(hosts) = &settings.hosts {
            let host = settings.origin.host(parts);
            if !hosts.iter().any(|known| known.eq_ignore_ascii_case(&host)) {
                return Err(Reason::Host);
            }
        }
        let target = original_uri(parts);
        let (origin, keys) = (&settings.origin, &settings.keys);
        let route = self.routes.of(parts, target, origin, keys, &settings.cache);
        let route = route.ok_or(Reason::Hosts)?;
        Ok(Some(Question { asked, route }))
    }

    /// The page, if it is fresh and the store can tell without waiting.
    fn answer_now<B: Body>(
        &self,
        parts: &request::Parts,
        question: &Question,
    ) -> Option<Response<PageBody<B>>> {
        let Settings {
            cache, rules, keys, ..
        } = &self.settings;
        let route = &question.route;
        let variant = route.variant(&parts.headers, rules.cookie_rule(), keys, cache);
        let [list, page] = cache.look_at_pair_now(&route.list_key, &variant.key)?;
        let now = cache.shared.clock.now();
        let entry = list.live(now)?;
        let list = route
            .list(entry)
            .filter(|list| *list.names == *variant.names)?;
        let entry = page.live(now)?;
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
                    self.store_answers();
                    sight
                }
                Err(error) => {
                    self.tell_of_store(&error);
                    let outcome = Outcome::Bypass(Bypass::StoreFailed);
                    return self
                        .pass(inner, parts, body, Some(question.asked), &outcome)
                        .await;
                }
            };
            let (known, stale, miss) = match sight {
                Sight::Hit(page, outcome) => {
                    let key = &question.route.list_key;
                    self.settings.cache.hear(key, || outcome.clone());
                    return Ok(self.serve(&parts.method, &parts.headers, page, &outcome));
                }
                Sight::NotOurs(reason) => {
                    let outcome = Outcome::Refused(reason);
                    return self
                        .pass(inner, parts, body, Some(question.asked), &outcome)
                        .await;
                }
                _ if let Some(reason) = never_leads(&parts) => {
                    let outcome = Outcome::Refused(reason);
                    return self
                        .pass(inner, parts, body, Some(question.asked), &outcome)
                        .await;
                }
                Sight::Stale(page, listed, variant) => {
                    (Some((listed, variant)), Some(page), Miss::Expired)
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
                        .pass(inner, parts, body, Some(question.asked), &outcome)
                        .await;
                }
            }
        }
        let outcome = Outcome::Bypass(Bypass::WaitedTooLong);
        self.pass(inner, parts, body, Some(question.asked), &outcome)
            .await
    }

    /// Reads header list and page, in one round trip where the URL varies on what it did last time.
    async fn look(&self, question: &Question, headers: &HeaderMap) -> Result<Sight, Error> {
        let Self { settings, .. } = self;
        let (cache, route) = (&settings.cache, &question.route);
        loop {
            let cookies = settings.rules.cookie_rule();
            let variant = route.variant(headers, cookies, &settings.keys, cache);
            let [list_look, page_look] = cache.look_at_pair(&route.list_key, &variant.key).await?;
            let now = cache.shared.clock.now();
            let listed = list_look.usable(now);
            let Some((entry, list)) = listed.and_then(|entry| Some((entry, route.list(entry)?)))
            else {
                return Ok(Sight::NoList(list_look.miss()));
            };
            if *list.names != *variant.names {
                route.learn(&list.names);
                continue;
            }
            let listed = (list, entry.stamp);
            return Ok(self.sight(question, listed, variant, &page_look, now));
        }
    }

    fn sight(
        &self,
        question: &Question,
        listed: Listed,
        variant: Arc<Variant>,
        look: &Look,
        now: Moment,
    ) -> Sight {
        let Some(entry) = look.usable(now) else {
            let miss = look.miss();
            return Sight::NoPage(listed, variant, miss);
        };
        match self.suitable(question, listed.0.mark, &variant, entry) {
            None if let Some(reason) = self.whose(question, listed.0.mark, &variant, entry) => {
                Sight::NotOurs(reason)
            }
            None => Sight::NoPage(listed, variant, Miss::Unsuitable),
            Some(page) if entry.is_live(now) => {
                let cache = &self.settings.cache;
                cache.absorb(entry.tags.as_deref(), Some(entry.fresh_until));
                Sight::Hit(page, Outcome::Hit(entry.fresh_until.left(now)))
            }
            Some(page) => Sight::Stale(page, listed, variant),
        }
    }

    /// The page in `entry`, if it is this URL's, this variant's, and for such a request.
    fn suitable(
        &self,
        question: &Question,
        mark: u64,
        variant: &Variant,
        entry: &Entry,
    ) -> Option<Page> {
        let page = variant.page(entry)?;
        let head = &page.head;
        let is_this = head.mark == mark
            && head.url == question.route.url
            && head.values == variant.values
            && may_serve(question.asked, head.audience, &self.settings.rules).is_ok();
        is_this.then_some(page)
    }

    /// Why the page in `entry` is none for this request but good for others: to make this request's
    /// page in its place would throw it out.
    fn whose(
        &self,
        question: &Question,
        mark: u64,
        variant: &Variant,
        entry: &Entry,
    ) -> Option<Reason> {
        let (asked, route) = (question.asked, &question.route);
        let head = variant.page(entry)?.head;
        if head.mark != mark || head.values != variant.values {
            return None;
        }
        if head.url != route.url {
            // Of two spellings that have one key, Django's has the right of way.
            return (!route.is_as_django_spells()).then_some(Reason::Spelling);
        }
        is_for_others(asked, head.audience, &self.settings.rules)
            .then(|| may_serve(asked, head.audience, &self.settings.rules).err())?
    }

    /// Gets the page through the engine: by waiting for whoever makes it, or by making it.
    async fn make<S, A, B>(
        self: &Arc<Self>,
        (inner, mut parts, body): Errand<S, A>,
        question: &Question,
        known: Option<(Listed, Arc<Variant>)>,
        stale: Option<Page>,
        miss: Miss,
    ) -> Result<Made<S, A, B>, S::Error>
    where
        S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        A: Body + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Send,
    {
        let settings = &self.settings;
        // The handler makes the page for everybody, so that it must not answer that this client has it.
        let conditions = take_conditions(&mut parts.headers);
        let returned = |load| {
            let (inner, mut parts, body) = returned(load);
            parts.headers.extend(conditions.clone());
            (inner, parts, body)
        };
        let (key, slot) = match &known {
            None => (question.route.list_key.clone(), Slot::List),
            Some(((list, stamp), variant)) => {
                let (list, key) = (Arc::clone(list), variant.key.clone());
                (
                    key.clone(),
                    Slot::Page {
                        list,
                        stamp: *stamp,
                        key,
                    },
                )
            }
        };
        let mut policy = Policy::new().without_time_limit().wait(settings.wait);
        if let Some(page) = &stale {
            let head = &page.head;
            policy = policy
                .grace(head.while_revalidate)
                .stale_if_error(head.if_error);
        }
        // Whatever is inside leaves the keeping to us.
        parts.extensions.insert(InsideSite);
        let (answer, told) = oneshot::channel();
        let load = PageLoad {
            site: Arc::clone(self),
            route: Arc::clone(&question.route),
            asked: question.asked,
            inner,
            request: Request::from_parts(parts, body),
            slot,
            has_spare: stale.is_some(),
            answer,
        };
        let mut page = None;
        let mut accept = |entry: &Entry| match &known {
            None => HeaderList::decode(entry).is_some(),
            Some(((list, _), variant)) => {
                page = self.suitable(question, list.mark, variant, entry);
                page.is_some()
            }
        };
        let policy = Arc::new(policy);
        let first = self.first_of(&key, &policy, &mut accept, load, told).await;
        let serve = |page, outcome: Outcome| {
            settings.cache.hear(&key, || outcome.clone());
            Ok(Made::Answered(self.serve(
                &Method::GET,
                &conditions,
                page,
                &outcome,
            )))
        };
        let fetched = match first {
            First::Engine(fetched) => fetched,
            First::Handler(_, Some(Fetched::Served(served, _))) if page.is_some() => {
                let page = page.expect("it was looked at just now");
                return serve(page, served.outcome);
            }
            First::Handler(answer, _) => {
                let outcome = Outcome::Miss(miss);
                settings.cache.hear(&key, || outcome.clone());
                let given = self.give(answer, &outcome, &conditions);
                return given.map(Made::Answered);
            }
        };
        match fetched {
            Fetched::Served(served, unused) => {
                let load = unused.as_ref();
                let shared = || load.and_then(|load| self.shared(question, load, &served));
                if let Some(page) = page.or_else(shared) {
                    return serve(page, served.outcome);
                }
                let load = unused.expect("a header list is never refreshed behind a request");
                Ok(Made::Again(returned(load)))
            }
            Fetched::Alone(load, why, _) => Ok(Made::Alone(returned(load), Outcome::Bypass(why))),
            Fetched::StoreFailed(error, load) => {
                self.tell_of_store(&error);
                Ok(Made::Alone(
                    returned(load),
                    Outcome::Bypass(Bypass::StoreFailed),
                ))
            }
            Fetched::Failed(_, miss, Some(load)) => {
                Ok(Made::Alone(returned(load), Outcome::Miss(miss)))
            }
            // The load speaks before it ends, and is heard first.
            Fetched::Loaded(..) | Fetched::Failed(_, _, None) => panic!("the handler panicked"),
        }
    }

    /// Runs the engine until the handler has answered, or something is served without it.
    ///
    /// The handler's answer is sent on while its body is still being collected. For an error a kept
    /// page may stand in, which the engine knows at the end.
    async fn first_of<S, A, B>(
        &self,
        key: &crate::Key,
        policy: &Arc<Policy>,
        accept: &mut (dyn FnMut(&Entry) -> bool + Send),
        load: PageLoad<S, A, S::Error, B>,
        mut told: oneshot::Receiver<Answer<S::Error, B>>,
    ) -> First<PageLoad<S, A, S::Error, B>, S::Error, B>
    where
        S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        A: Body + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Send,
    {
        let may_stand_in = load.has_spare;
        let fetched = self.settings.cache.fetch_spawned(key, policy, accept, load);
        let mut fetched = std::pin::pin!(fetched);
        let answer = tokio::select! {
            biased;
            answer = &mut told => answer,
            fetched = &mut fetched => match told.try_recv() {
                Ok(answer) => return First::Handler(answer, Some(fetched)),
                Err(_) => return First::Engine(fetched),
            },
        };
        match answer {
            Ok(answer @ Answer::Response(..)) => First::Handler(answer, None),
            Ok(answer) if !may_stand_in => First::Handler(answer, None),
            Ok(answer) => First::Handler(answer, Some(fetched.await)),
            Err(_) => First::Engine(fetched.await),
        }
    }

    /// The page that another request just made, if it is for this one too.
    fn shared<S, A, E, B: Body>(
        &self,
        question: &Question,
        load: &PageLoad<S, A, E, B>,
        served: &Served,
    ) -> Option<Page> {
        let extra = served.landed.as_ref()?.extra.clone()?;
        let made = extra.downcast::<JustMade>().ok()?;
        let cookies = self.settings.rules.cookie_rule();
        let values = vary::values(&made.names, load.request.headers(), cookies);
        let same = values.iter().map(Option::as_deref);
        let is_this = made.head.url == question.route.url
            && made.head.values.iter().map(Option::as_deref).eq(same)
            && may_serve(question.asked, made.head.audience, &self.settings.rules).is_ok();
        is_this.then(|| Page {
            head: Arc::clone(&made.head),
            body: made.body.clone(),
        })
    }

    /// Runs the handler beside the cache. A response that is cacheable says so all the same.
    async fn pass<S, A, B>(
        &self,
        mut inner: S,
        mut parts: request::Parts,
        body: A,
        asked: Option<Asked>,
        outcome: &Outcome,
    ) -> Result<Response<PageBody<B>>, S::Error>
    where
        S: Service<Request<A>, Response = Response<B>>,
        B: Body<Data = Bytes>,
    {
        self.settings.cache.shared.counters.hear(outcome);
        parts.extensions.insert(InsideSite);
        let response = inner.call(Request::from_parts(parts, body)).await?;
        let (mut parts, body) = response.into_parts();
        if let Some(asked) = asked
            && let Err(reason) = self.judge(asked, &mut parts)
        {
            self.tell_once(reason);
        }
        parts.extensions.remove::<ViewTtl>();
        status::add(&mut parts.headers, outcome, None);
        Ok(Response::from_parts(parts, PageBody::own(body)))
    }

    /// The handler's answer, as its client gets it: 304 if that is what the client asked.
    fn give<E, B>(
        &self,
        answer: Answer<E, B>,
        outcome: &Outcome,
        conditions: &HeaderMap,
    ) -> Result<Response<PageBody<B>>, E>
    where
        B: Body<Data = Bytes>,
    {
        let (mut parts, mut body, reason) = match answer {
            Answer::Response(parts, body, reason) => (parts, body, reason),
            Answer::ServerError(parts, body) => (parts, body, Some(Reason::Status)),
            Answer::Failed(error) => return Err(error),
            // As it would have without a cache.
            Answer::Panicked => panic!("the handler panicked"),
        };
        if let Some(reason) = reason {
            self.tell_once(reason);
        }
        let now = self.settings.cache.shared.clock.now().to_system_time();
        let page = Validators::of(&parts.headers, now);
        let verdict = evaluate(&Method::GET, conditions, page, parts.status, now);
        if verdict == Verdict::NotModified {
            parts.status = StatusCode::NOT_MODIFIED;
            parts.headers = not_modified_headers(&parts.headers);
            body = PageBody::empty();
        }
        status::add(&mut parts.headers, outcome, reason);
        Ok(Response::from_parts(parts, body))
    }

    /// A page's age, in seconds.
    fn age_of(&self, head: &PageHead) -> u64 {
        let now = self.settings.cache.shared.clock.now().to_system_time();
        freshness::age(head.stored.to_system_time(), head.age, now).as_secs()
    }

    /// A kept page as an answer, or 304, or 412.
    fn serve<B: Body>(
        &self,
        method: &Method,
        request: &HeaderMap,
        page: Page,
        outcome: &Outcome,
    ) -> Response<PageBody<B>> {
        let now = self.settings.cache.shared.clock.now().to_system_time();
        let Page { head, body } = page;
        let is_conditional = CONDITIONS.iter().any(|name| request.contains_key(name));
        let verdict = if is_conditional {
            evaluate(
                method,
                request,
                Validators::of(&head.headers, now),
                head.status,
                now,
            )
        } else {
            Verdict::Continue
        };
        let (status, mut headers, body) = match verdict {
            Verdict::Continue if method == Method::HEAD => {
                let mut headers = head.headers.clone();
                headers.insert(CONTENT_LENGTH, body.len().into());
                (head.status, headers, PageBody::empty())
            }
            Verdict::Continue => (head.status, head.headers.clone(), PageBody::kept(body)),
            Verdict::NotModified => {
                let headers = not_modified_headers(&head.headers);
                (StatusCode::NOT_MODIFIED, headers, PageBody::empty())
            }
            Verdict::PreconditionFailed => (
                StatusCode::PRECONDITION_FAILED,
                HeaderMap::new(),
                PageBody::empty(),
            ),
        };
        headers.insert(AGE, self.age_of(&head).into());
        status::add(&mut headers, outcome, None);
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// Takes what a request that may lead says about a page that its client has.
fn take_conditions(headers: &mut HeaderMap) -> HeaderMap {
    let mut taken = HeaderMap::new();
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE] {
        for value in headers.get_all(&name) {
            taken.append(&name, value.clone());
        }
        headers.remove(name);
    }
    taken
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

/// The request that an unused load carries.
fn returned<S, A, E, B: Body>(load: PageLoad<S, A, E, B>) -> Errand<S, A> {
    let (parts, body) = load.request.into_parts();
    (load.inner, parts, body)
}

/// The target as the client wrote it; a router may have cut off a prefix since.
fn original_uri(parts: &request::Parts) -> &Uri {
    #[cfg(feature = "axum")]
    if let Some(axum::extract::OriginalUri(uri)) = parts.extensions.get() {
        return uri;
    }
    &parts.uri
}
