//! A response as its client gets it: from the cache, from the handler, or beside the cache.

use bytes::Bytes;
use http::header::{AGE, CONTENT_LENGTH, HeaderMap};
use http::{Method, Request, Response, StatusCode, request};
use http_body::Body;
use tower_service::Service;

use super::body::PageBody;
use super::layer::Site;
use super::load::Answer;
use super::rules::freshness;
use super::rules::validators::{CONDITIONS, Validators, Verdict, evaluate, not_modified_headers};
use super::service::{InsideSite, Question, ViewTtl, ready};
use super::status::{self, Stored};
use super::stored::{Page, PageHead};
use super::tags::PageTags;
use crate::Cache;
use crate::event::{Outcome, Reason};

impl Site {
    /// Runs the handler beside the cache. A response that is cacheable says so all the same.
    pub(super) async fn pass<S, A, B>(
        &self,
        mut inner: S,
        mut parts: request::Parts,
        body: A,
        question: Option<&Question>,
        outcome: &Outcome,
    ) -> Result<Response<PageBody<B>>, S::Error>
    where
        S: Service<Request<A>, Response = Response<B>>,
        B: Body<Data = Bytes>,
    {
        let cache = &self.settings.cache;
        match question {
            Some(question) => cache.hear(&question.route.list_key, || outcome.clone()),
            None => cache.shared.counters.hear(outcome),
        }
        parts.extensions.insert(InsideSite);
        let tags = PageTags::new();
        parts.extensions.insert(tags.clone());
        ready(&mut inner).await?;
        let response = inner.call(Request::from_parts(parts, body)).await?;
        let (mut parts, body) = response.into_parts();
        // Not kept here, but what is made of it may be.
        for tags in [Some(&tags), parts.extensions.get()].into_iter().flatten() {
            Cache::absorb_own(tags.so_far());
        }
        if let Some(question) = question
            && let Err(reason) = self.judge(question.asked, &mut parts)
        {
            self.tell_once(reason);
        }
        parts.extensions.remove::<ViewTtl>();
        status::add(&mut parts.headers, outcome, Stored::No(None));
        Ok(Response::from_parts(parts, PageBody::own(body)))
    }

    /// The handler's answer, as its client gets it: 304 if that is what the client asked.
    pub(super) fn give<E, B>(
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
        let stored = match reason {
            // Whether a body without a length is kept shows at its end, when the headers are gone.
            None if body.size_hint().exact().is_some() => Stored::Yes,
            reason => Stored::No(reason),
        };
        let now = self.settings.cache.shared.clock.now().to_system_time();
        let page = Validators::of(&parts.headers, now);
        let verdict = evaluate(&Method::GET, conditions, page, parts.status, now);
        if verdict == Verdict::NotModified {
            parts.status = StatusCode::NOT_MODIFIED;
            parts.headers = not_modified_headers(&parts.headers);
            body = PageBody::empty();
        }
        status::add(&mut parts.headers, outcome, stored);
        Ok(Response::from_parts(parts, body))
    }

    /// A page's age, in seconds.
    pub(super) fn age_of(&self, head: &PageHead) -> u64 {
        let now = self.settings.cache.shared.clock.now().to_system_time();
        freshness::age(head.stored.to_system_time(), head.age, now).as_secs()
    }

    /// A kept page as an answer, or 304, or 412.
    pub(super) fn serve<B: Body>(
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
        status::add(&mut headers, outcome, Stored::No(None));
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}
