//! Running the handler under the engine, and collecting its body while it is sent.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{Request, Response, response};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::{mpsc, oneshot};
use tower_service::Service;

use super::body::{PageBody, Piece};
use super::keep::Maker;
use super::layer::{Settings, Site};
use super::route::Route;
use super::rules::storable::{Asked, Kept as Verdict, is_personal, may_keep, patch_vary};
use super::rules::{cache_control, freshness};
use super::service::{ViewTtl, ready};
use super::stored::{HeaderList, PageHead};
use super::tags::PageTags;
use crate::cache::{Keep, Load};
use crate::entry::Stamp;
use crate::event::{Miss, Reason};
use crate::flight::{Failure, Flight, Landing};
use crate::{Cache, Key, Moment};

/// After how long those who wait for a page are let go, and a handler whose client has gone is given
/// up.
const LIMIT: Duration = Duration::from_secs(30);
/// For how long requests with something of their sender's do not try to make a page again.
const PERSONAL: Duration = Duration::from_secs(2);

/// A page that is to be made.
pub(super) struct PageLoad<S, A, E, B: Body> {
    pub(super) site: Arc<Site>,
    pub(super) route: Arc<Route>,
    pub(super) asked: Asked,
    pub(super) inner: S,
    pub(super) request: Request<A>,
    pub(super) slot: Slot,
    /// Whether there is a page to serve in place of a server error.
    pub(super) has_spare: bool,
    pub(super) answer: oneshot::Sender<Answer<E, B>>,
}

/// Which slot is being filled.
pub(super) enum Slot {
    /// The URL's header list: nothing is known of the URL.
    List,
    /// The page of one variant.
    Page {
        list: Arc<HeaderList>,
        stamp: Stamp,
        key: Key,
    },
}

/// What came of the handler, for the client whose request ran it.
pub(super) enum Answer<E, B: Body> {
    /// A response, and why it is not kept, if so.
    Response(response::Parts, PageBody<B>, Option<Reason>),
    /// A server error in whose place a kept page may be served.
    ServerError(response::Parts, PageBody<B>),
    Failed(E),
    Panicked,
}

/// A page just made, as those who waited for it get it.
#[derive(Debug)]
pub(super) struct JustMade {
    pub(super) names: Vec<String>,
    pub(super) head: Arc<PageHead>,
    pub(super) body: Bytes,
}

/// What has been decided from a response's head.
pub(super) struct Plan {
    pub(super) verdict: Verdict,
    /// When the response was there: its life and its age count from here, not from its body's end.
    pub(super) at: Moment,
    pub(super) ttl: Duration,
}

impl Site {
    /// Judges a response by its head and sets the headers of one that is cacheable, as Django does.
    pub(super) fn judge(&self, asked: Asked, parts: &mut response::Parts) -> Result<Plan, Reason> {
        let settings = &self.settings;
        let at = settings.cache.shared.clock.now();
        let now = at.to_system_time();
        let view = parts.extensions.remove::<ViewTtl>().map(|ViewTtl(ttl)| ttl);
        let view = settings.view_ttl.or(view);
        // A 304 is not kept, but says how long what its client has is good: as the page itself would.
        let not_modified = parts.status == http::StatusCode::NOT_MODIFIED;
        if not_modified {
            parts.status = http::StatusCode::OK;
        }
        let verdict = may_keep(asked, parts, &settings.rules);
        if not_modified {
            parts.status = http::StatusCode::NOT_MODIFIED;
        }
        let verdict = verdict?;
        let ttl = freshness::ttl(view, &verdict.said, settings.site_ttl);
        if view.is_some() || ttl.is_ok() {
            let ttl = ttl.unwrap_or_default();
            cache_control::patch_response_headers(&mut parts.headers, ttl, now);
            patch_vary(&mut parts.headers, &verdict);
        }
        if not_modified {
            return Err(Reason::Status);
        }
        // What the response says of its life began when it was made, further in (RFC 9111 §4.2).
        let said = view.is_none() && (verdict.said.s_maxage.or(verdict.said.max_age)).is_some();
        let spent = said.then(|| freshness::age_of(&parts.headers));
        let ttl = ttl?.saturating_sub(spent.unwrap_or_default());
        if ttl.is_zero() {
            return Err(Reason::ZeroTtl);
        }
        Ok(Plan { verdict, at, ttl })
    }

    /// What becomes of the lease after a response that is not kept.
    ///
    /// One made for a request with something of its sender's tells nothing of what others get: the
    /// next of them may make the page.
    fn not_kept(&self, asked: Asked, route: &Route) -> Keep {
        let Settings { cache, rules, .. } = &self.settings;
        if !is_personal(asked, rules) {
            return Keep::Pass;
        }
        route.is_personal_until(cache.shared.clock.now().plus(PERSONAL));
        Keep::Leave
    }
}

impl<S, A, B> Load for PageLoad<S, A, S::Error, B>
where
    S: Service<Request<A>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    A: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Send,
{
    type Out = ();
    const MISFIT: Miss = Miss::Unsuitable;

    async fn run(self, flight: Arc<Flight>) -> Result<((), Keep), Failure> {
        let Self {
            site,
            route,
            asked,
            mut inner,
            request,
            slot,
            has_spare,
            mut answer,
        } = self;
        let began = site.settings.cache.shared.clock.now();
        let headers = request.headers().clone();
        let asked_tags = request.extensions().get::<PageTags>().cloned();
        let call = crate::cache::caught(async move {
            ready(&mut inner).await?;
            inner.call(request).await
        });
        let Some(called) = bounded(&site, &flight, call, &mut answer).await else {
            return Ok(((), Keep::Pass));
        };
        let (mut parts, body) = match called {
            Some(Ok(response)) => response.into_parts(),
            Some(Err(error)) => {
                let _ = answer.send(Answer::Failed(error));
                return gave_up(has_spare);
            }
            None => {
                let _ = answer.send(Answer::Panicked);
                return gave_up(has_spare);
            }
        };
        let said_tags = parts.extensions.get::<PageTags>().cloned();
        let absorb_tags = || {
            for tags in asked_tags.iter().chain(&said_tags) {
                Cache::absorb_own(tags.so_far());
            }
        };
        absorb_tags();
        site.settings.cache.hand_on(None);
        if parts.status.is_server_error() && has_spare {
            let _ = answer.send(Answer::ServerError(parts, PageBody::own(body)));
            return gave_up(true);
        }
        let plan = match site.judge(asked, &mut parts) {
            Ok(plan) => plan,
            Err(reason) => {
                let keep = site.not_kept(asked, &route);
                let _ = answer.send(Answer::Response(parts, PageBody::own(body), Some(reason)));
                return Ok(((), keep));
            }
        };
        let (pieces, fed) = mpsc::unbounded_channel();
        let fed = PageBody::fed(fed, body.size_hint());
        let kept = parts.clone();
        let _ = answer.send(Answer::Response(parts, fed, None));
        let body = match collect(&site, body, &pieces).await {
            Ok(body) => body,
            Err(reason) => {
                site.tell_once(reason);
                return Ok(((), Keep::Pass));
            }
        };
        absorb_tags();
        // Before the client has it all: whoever asked from inside a load may end that one next.
        site.settings.cache.hand_on(Some(plan.at.plus(plan.ttl)));
        let _ = pieces.send(Piece::End);
        if !is_as_long_as_said(&kept, &body) {
            site.tell_once(Reason::Body);
            return Ok(((), Keep::Pass));
        }
        let maker = Maker {
            site: &site,
            route: &route,
            request: &headers,
            plan,
            parts: kept,
            made_of: Cache::gathered(),
            began,
        };
        Ok(((), maker.keep(slot, body).await))
    }
}

/// Whether a body is as long as its `Content-Length` says; if not, a part is missing, or too much.
fn is_as_long_as_said(parts: &response::Parts, body: &Bytes) -> bool {
    let mut said = parts.headers.get_all(CONTENT_LENGTH).iter();
    said.all(|said| said.to_str().ok().and_then(|said| said.parse().ok()) == Some(body.len()))
}

/// A load that gave no page: with one to serve in its place the slot is marked as failed, else those
/// who wait run their own.
fn gave_up(has_spare: bool) -> Result<((), Keep), Failure> {
    if has_spare {
        Err(Failure::Elsewhere)
    } else {
        Ok(((), Keep::Pass))
    }
}

/// Runs the handler. Past the limit nobody waits for it any more; it goes on for its own client, and
/// is given up when that one has gone.
async fn bounded<T, E, B: Body>(
    site: &Site,
    flight: &Flight,
    call: impl Future<Output = T>,
    answer: &mut oneshot::Sender<Answer<E, B>>,
) -> Option<T> {
    let mut call = pin!(call);
    if let Some(called) = site
        .settings
        .cache
        .shared
        .clock
        .timeout(LIMIT, &mut call)
        .await
    {
        return Some(called);
    }
    flight.land(Landing::NotShared);
    tokio::select! {
        called = call => Some(called),
        () = answer.closed() => None,
    }
}

/// Collects a body while handing each piece to the client. An error says why it is not to be kept:
/// the client then gets the rest by itself.
async fn collect<B: Body<Data = Bytes>>(
    site: &Site,
    body: B,
    pieces: &mpsc::UnboundedSender<Piece<B>>,
) -> Result<Bytes, Reason> {
    let clock = &site.settings.cache.shared.clock;
    let limit = usize::try_from(site.settings.rules.longest_body()).unwrap_or(usize::MAX);
    let give_up = clock.now().plus(LIMIT);
    let mut body = Box::pin(body);
    let mut first = Bytes::new();
    let mut collected = BytesMut::new();
    loop {
        let left = give_up.left(clock.now()).unwrap_or(LIMIT);
        let Some(frame) = clock.timeout(left, next_frame(&mut body)).await else {
            let _ = pieces.send(Piece::Rest(body));
            return Err(Reason::EventStream);
        };
        let data = match frame {
            None => {
                return Ok(if collected.is_empty() {
                    first
                } else {
                    collected.freeze()
                });
            }
            Some(Err(error)) => {
                let _ = pieces.send(Piece::Broken(error));
                return Err(Reason::Body);
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let _ = pieces.send(Piece::Trailers(trailers));
                    }
                    let _ = pieces.send(Piece::Rest(body));
                    return Err(Reason::Body);
                }
            },
        };
        if first.len() + collected.len() + data.len() > limit {
            let _ = pieces.send(Piece::Data(data));
            let _ = pieces.send(Piece::Rest(body));
            return Err(Reason::TooLong);
        }
        // Most bodies are one piece, which is kept as it is.
        if first.is_empty() && collected.is_empty() {
            first = data.clone();
        } else {
            if collected.is_empty() {
                collected.extend_from_slice(&first);
                first = Bytes::new();
            }
            collected.extend_from_slice(&data);
        }
        let _ = pieces.send(Piece::Data(data));
    }
}

async fn next_frame<B: Body<Data = Bytes>>(
    body: &mut Pin<Box<B>>,
) -> Option<Result<http_body::Frame<Bytes>, B::Error>> {
    body.frame().await
}
