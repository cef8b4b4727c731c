//! A page through the engine: by waiting for whoever makes it, or by making it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{Method, Request, Response, request};
use http_body::Body;
use tokio::sync::oneshot;
use tower_service::Service;

use super::body::PageBody;
use super::layer::Site;
use super::load::{Answer, JustMade, PageLoad, Slot};
use super::route::Variant;
use super::rules::storable::{is_personal, may_serve};
use super::rules::vary;
use super::service::{InsideSite, Question};
use super::sight::Listed;
use super::stored::{HeaderList, Page};
use super::tags::PageTags;
use crate::cache::{Fetched, Served};
use crate::entry::Entry;
use crate::event::{Bypass, Miss, Outcome};
use crate::{Key, Policy};

/// A request and the handler that it is for.
pub(super) type Errand<S, A> = (S, request::Parts, A);

/// What came of going through the engine.
pub(super) enum Made<S, A, B: Body> {
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
    /// Gets the page through the engine: by waiting for whoever makes it, or by making it.
    ///
    /// `spare` may stand in for it; whether it is good yet, and the new page is to be made behind it.
    pub(super) async fn make<S, A, B>(
        self: &Arc<Self>,
        (inner, mut parts, body): Errand<S, A>,
        question: &Question,
        known: Option<(Listed, Arc<Variant>)>,
        spare: Option<(Page, bool)>,
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
        let (key, slot) = slot_for(question, known.as_ref());
        let mut policy = Policy::new().without_time_limit().wait(settings.wait);
        if known.is_some() {
            // A page, which then remembers how long it took to make.
            policy = policy.early(settings.early);
        }
        if let Some((page, is_due)) = &spare {
            let head = &page.head;
            policy = policy
                .grace(head.while_revalidate)
                .stale_if_error(head.if_error);
            if *is_due {
                policy = policy.early(f64::INFINITY);
            }
        }
        // Whatever is inside leaves the keeping to us.
        parts.extensions.insert(InsideSite);
        parts.extensions.insert(PageTags::new());
        let (answer, told) = oneshot::channel();
        let load = PageLoad {
            site: Arc::clone(self),
            route: Arc::clone(&question.route),
            asked: question.asked,
            inner,
            request: Request::from_parts(parts, body),
            slot,
            has_spare: spare.is_some(),
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
                // It ran under a lease, which the store has taken.
                self.writing.works();
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
            // What was made was its client's own: of the others one makes the page for all.
            Fetched::Alone(load, Bypass::Passed, _)
                if !is_personal(question.asked, &settings.rules)
                    && question
                        .route
                        .is_personal(settings.cache.shared.clock.now()) =>
            {
                Ok(Made::Again(returned(load)))
            }
            Fetched::Alone(load, why, _) => Ok(Made::Alone(returned(load), Outcome::Bypass(why))),
            Fetched::StoreFailed(error, load) => {
                self.writing.fails(&error);
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
        key: &Key,
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
        let values = vary::values(&made.names, load.request.headers());
        let same = values.iter().map(Option::as_deref);
        let is_this = made.head.url == question.route.url
            && made.head.values.iter().map(Option::as_deref).eq(same)
            && may_serve(question.asked, made.head.audience, &self.settings.rules).is_ok();
        is_this.then(|| Page {
            head: Arc::clone(&made.head),
            body: made.body.clone(),
        })
    }
}

/// The slot that a load fills: the list of a URL of which nothing is known, else one variant's page.
fn slot_for(question: &Question, known: Option<&(Listed, Arc<Variant>)>) -> (Key, Slot) {
    let Some(((list, stamp), variant)) = known else {
        return (question.route.list_key.clone(), Slot::List);
    };
    let slot = Slot::Page {
        list: Arc::clone(list),
        stamp: *stamp,
        key: variant.key.clone(),
    };
    (variant.key.clone(), slot)
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
/// The request that an unused load carries.
fn returned<S, A, E, B: Body>(load: PageLoad<S, A, E, B>) -> Errand<S, A> {
    let (parts, body) = load.request.into_parts();
    (load.inner, parts, body)
}
