//! Running the handler under the engine, and collecting its body while it is sent.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, response};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::{mpsc, oneshot};
use tower_service::Service;

use super::body::{PageBody, Piece};
use super::layer::Site;
use super::rules::storable::{Asked, Kept as Verdict, may_keep};
use super::rules::{cache_control, freshness, validators, vary};
use super::service::ViewTtl;
use super::stored::{HeaderList, PAGE, PageHead, VaryValue, kept_headers};
use super::{keys, route::Route};
use crate::cache::{Keep, Kept, Load};
use crate::entry::{Entry, Stamp};
use crate::event::Reason;
use crate::flight::{Failure, Flight, Landing};
use crate::store::When;
use crate::{Key, Moment, Ttl};

/// After how long those who wait for a page are let go, and a handler whose client has gone is given
/// up.
const LIMIT: Duration = Duration::from_secs(30);

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
    verdict: Verdict,
    ttl: Duration,
}

impl Site {
    /// Judges a response by its head and sets the headers of one that is cacheable, as Django does.
    pub(super) fn judge(&self, asked: Asked, parts: &mut response::Parts) -> Result<Plan, Reason> {
        let settings = &self.settings;
        let now = settings.cache.shared.clock.now().to_system_time();
        let view = parts.extensions.remove::<ViewTtl>().map(|ViewTtl(ttl)| ttl);
        let view = settings.view_ttl.or(view);
        let not_modified = parts.status == http::StatusCode::NOT_MODIFIED;
        let verdict = match may_keep(asked, parts, &settings.rules) {
            Err(Reason::Status) if not_modified => Err(Reason::Status),
            verdict => Ok(verdict?),
        };
        let said = match &verdict {
            Ok(verdict) => verdict.said.clone(),
            Err(_) => cache_control::CacheControl::of(&parts.headers),
        };
        let ttl = freshness::ttl(view, &said, settings.site_ttl);
        if view.is_some() || ttl.is_ok() {
            let ttl = ttl.unwrap_or_default();
            cache_control::patch_response_headers(&mut parts.headers, ttl, now);
        }
        Ok(Plan {
            verdict: verdict?,
            ttl: ttl?,
        })
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
        let headers = request.headers().clone();
        let call = crate::cache::caught(async move { inner.call(request).await });
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
        if parts.status.is_server_error() && has_spare {
            let _ = answer.send(Answer::ServerError(parts, PageBody::own(body)));
            return gave_up(true);
        }
        let plan = match site.judge(asked, &mut parts) {
            Ok(plan) => plan,
            Err(reason) => {
                let _ = answer.send(Answer::Response(parts, PageBody::own(body), Some(reason)));
                return Ok(((), Keep::Pass));
            }
        };
        let (pieces, fed) = mpsc::unbounded_channel();
        let fed = PageBody::fed(fed, body.size_hint());
        let kept = parts.clone();
        let _ = answer.send(Answer::Response(parts, fed, None));
        let Some(body) = collect(&site, body, &pieces).await else {
            return Ok(((), Keep::Pass));
        };
        let _ = pieces.send(Piece::End);
        let maker = Maker {
            site: &site,
            route: &route,
            request: &headers,
            plan,
            parts: kept,
        };
        Ok(((), maker.keep(slot, body).await))
    }
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

/// Collects a body while handing each piece to the client. `None` if it is not to be kept: the
/// client then gets the rest by itself.
async fn collect<B: Body<Data = Bytes>>(
    site: &Site,
    body: B,
    pieces: &mpsc::UnboundedSender<Piece<B>>,
) -> Option<Bytes> {
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
            return None;
        };
        let data = match frame {
            None => {
                return Some(if collected.is_empty() {
                    first
                } else {
                    collected.freeze()
                });
            }
            Some(Err(error)) => {
                let _ = pieces.send(Piece::Broken(error));
                return None;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let _ = pieces.send(Piece::Trailers(trailers));
                    }
                    let _ = pieces.send(Piece::Rest(body));
                    return None;
                }
            },
        };
        if first.len() + collected.len() + data.len() > limit {
            let _ = pieces.send(Piece::Data(data));
            let _ = pieces.send(Piece::Rest(body));
            return None;
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

/// Turns a response into what is kept of it.
struct Maker<'a> {
    site: &'a Site,
    route: &'a Route,
    request: &'a http::HeaderMap,
    plan: Plan,
    parts: response::Parts,
}

impl Maker<'_> {
    async fn keep(self, slot: Slot, body: Bytes) -> Keep {
        let settings = &self.site.settings;
        let names = keys::header_list(&self.plan.verdict.vary, &settings.keys);
        let values = vary::values(&names, self.request, settings.rules.cookie_rule());
        let values: Vec<VaryValue> = (values.into_iter())
            .map(|value| value.map(|value| Bytes::from(value.into_owned())))
            .collect();
        let page_key = self
            .route
            .page_key(&values, &settings.keys, &settings.cache);
        match slot {
            Slot::Page { list, stamp, key } if list.names == names && page_key == key => {
                let Some(next) = list.with(&key) else {
                    self.site.tell_once(Reason::Variants);
                    return Keep::Pass;
                };
                let head = self.head(list.mark, values, &body);
                self.extend_list(&list, &next, stamp).await;
                self.kept(head.encode(&body), &head, names, body)
            }
            slot => {
                let mark = settings.cache.shared.clock.random();
                let list = HeaderList::new(mark, names.clone(), &page_key);
                let head = self.head(mark, values, &body);
                self.put(&page_key, head.encode(&body), When::Always).await;
                if let Slot::Page { stamp, .. } = slot {
                    // The URL varies on other headers than before. Should somebody have dropped or
                    // replaced the list meanwhile, the page stays out of reach.
                    self.put(&self.route.list_key, list.encode(), When::IfStamp(stamp))
                        .await;
                    return Keep::Pass;
                }
                self.kept(list.encode(), &head, names, body)
            }
        }
    }

    /// Gives the list its new variant, and as long a life as the page's.
    async fn extend_list(&self, list: &HeaderList, next: &HeaderList, stamp: Stamp) {
        let cache = &self.site.settings.cache;
        let key = std::slice::from_ref(&self.route.list_key);
        let until = self.entry_until(cache.shared.clock.now());
        let heads = cache.shared.store.heads(key).await;
        let known = heads.ok().and_then(|mut heads| heads.pop().flatten());
        // A list that is gone stays gone: what it led to is out of reach on purpose.
        let Some(known) = known else { return };
        if list == next && known.fresh_until >= until {
            return;
        }
        let mut entry = Entry::new(&cache.shared.clock, next.encode());
        entry = entry.fresh_until(until.max(known.fresh_until));
        entry.codec = PAGE;
        entry.tags = known.tags;
        if let Err(error) = cache
            .shared
            .store
            .put(&key[0], entry, When::IfStamp(stamp))
            .await
        {
            tracing::debug!(%error, "header_list_not_extended");
        }
    }

    /// Until when the page may be served, stale or not.
    fn entry_until(&self, now: Moment) -> Moment {
        now.plus(self.plan.ttl).plus(self.grace())
    }

    fn windows(&self) -> (Duration, Duration) {
        let said = freshness::stale(&self.plan.verdict.said);
        let settings = &self.site.settings;
        (
            said.while_revalidate.unwrap_or(settings.grace),
            said.if_error.unwrap_or(settings.if_error),
        )
    }

    fn grace(&self) -> Duration {
        let (while_revalidate, if_error) = self.windows();
        while_revalidate.max(if_error)
    }

    fn head(&self, mark: u64, values: Vec<VaryValue>, body: &[u8]) -> Arc<PageHead> {
        let stored = self.site.settings.cache.shared.clock.now();
        let mut headers = kept_headers(&self.parts);
        let age = freshness::age_of(&headers);
        headers.remove(http::header::AGE);
        if validators::wants_etag(&headers)
            && let Some(etag) = validators::etag(body)
            && let Ok(etag) = format!("W/{etag}").try_into()
        {
            // Weak, since a layer further out may still compress the body.
            headers.insert(http::header::ETAG, etag);
        }
        let (while_revalidate, if_error) = self.windows();
        Arc::new(PageHead {
            mark,
            url: self.route.url.clone(),
            values,
            audience: self.plan.verdict.audience,
            status: self.parts.status,
            headers,
            stored,
            age,
            while_revalidate,
            if_error,
        })
    }

    fn kept(
        &self,
        value: crate::Value,
        head: &Arc<PageHead>,
        names: Vec<String>,
        body: Bytes,
    ) -> Keep {
        let made = JustMade {
            names,
            head: Arc::clone(head),
            body,
        };
        Keep::Value(Kept {
            value,
            codec: PAGE,
            ttl: Ttl::For(self.plan.ttl),
            grace: self.grace(),
            tags: Vec::new(),
            extra: Some(Arc::new(made)),
        })
    }

    /// Writes beside the engine's own write. What fails here is out of reach, and harmless.
    async fn put(&self, key: &Key, value: crate::Value, when: When) {
        let cache = &self.site.settings.cache;
        let now = cache.shared.clock.now();
        let mut entry = Entry::new(&cache.shared.clock, value)
            .fresh_until(now.plus(self.plan.ttl))
            .with_grace(self.grace());
        entry.codec = PAGE;
        if let Err(error) = cache.shared.store.put(key, entry, when).await {
            tracing::debug!(%error, "page_not_written");
        }
    }
}
