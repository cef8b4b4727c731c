//! Ready keys for the URLs asked lately, so that a hit computes no digest and formats no key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use http::{HeaderMap, request};

use super::keys::{KeyOptions, Origin, header_list_key, page_key};
use super::rules::vary;
use super::stored::{HeaderList, MOST_VARIANTS, Page, PageHead, VaryValue};
use crate::entry::{Entry, Stamp};
use crate::{Cache, Key, Moment};

/// What may be remembered of URLs and variants, in bytes; past it half of the URLs are forgotten.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// What a URL or a variant costs besides its own bytes, two heads of a page included.
const OVERHEAD: usize = 2048;
/// The longest URL remembered, and the longest values of a variant, in bytes: both are the client's.
const LONGEST: usize = 2048;

/// The URLs asked lately.
#[derive(Debug, Default)]
pub(super) struct Routes {
    known: RwLock<HashMap<Box<str>, Arc<Route>>>,
    /// About how much all of it takes.
    bytes: Arc<AtomicUsize>,
}

/// One URL: its keys, and what it was last known to vary on.
#[derive(Debug)]
pub(super) struct Route {
    /// Scheme, host and target as they were asked for.
    pub(super) url: Box<str>,
    pub(super) list_key: Key,
    /// The URL as it goes into the page's key.
    uri: String,
    known: RwLock<Known>,
    /// Until when requests with something of their sender's need not try to make the page: the last
    /// that did made none for others. In milliseconds since 1970.
    personal_until: AtomicU64,
    /// About how much this URL takes, and how much all of them do.
    bytes: AtomicUsize,
    all_bytes: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Known {
    names: Arc<[String]>,
    variants: Vec<Arc<Variant>>,
    list: Option<(Stamp, Arc<HeaderList>)>,
}

/// One variant of a URL.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) names: Arc<[String]>,
    pub(super) values: Vec<VaryValue>,
    pub(super) key: Key,
    head: RwLock<Option<(Stamp, Arc<PageHead>)>>,
    ready: RwLock<Option<(Second, HeaderMap)>>,
}

/// What the headers of a hit are made of: the write of the page, its age, and what is left of its
/// TTL, in seconds.
pub(super) type Second = (Stamp, u64, Option<u64>);

impl Routes {
    /// The route of a request's URL; none if what stands for its host cannot be one.
    pub(super) fn of(
        &self,
        request: &request::Parts,
        target: &http::Uri,
        origin: &Origin,
        options: &KeyOptions,
        cache: &Cache,
    ) -> Option<Arc<Route>> {
        let url = raw_url(request, target, origin)?;
        if let Some(route) = read(&self.known).get(url.as_str()) {
            return Some(Arc::clone(route));
        }
        let url = url.into_boxed_str();
        let (https, host) = (origin.is_https(request), origin.host(request));
        let query = target.query().unwrap_or_default();
        let uri = super::keys::absolute_uri(https, &host, target.path(), query);
        let list_key = cache.key(header_list_key(&uri, options));
        let route = Arc::new(Route {
            url: url.clone(),
            list_key,
            uri,
            known: RwLock::default(),
            personal_until: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            all_bytes: Arc::clone(&self.bytes),
        });
        if url.len() > LONGEST {
            return Some(route);
        }
        let mut known = write(&self.known);
        if self.bytes.load(Ordering::Relaxed) > MOST_BYTES {
            self.forget_half(&mut known);
        }
        route.grow(3 * url.len());
        known.insert(url, Arc::clone(&route));
        Some(route)
    }

    /// Forgets every other URL, in the map's own order, which is nobody's.
    fn forget_half(&self, known: &mut HashMap<Box<str>, Arc<Route>>) {
        let mut keep = false;
        known.retain(|_, _| {
            keep = !keep;
            keep
        });
        let left = known
            .values()
            .map(|route| route.bytes.load(Ordering::Relaxed));
        self.bytes.store(left.sum(), Ordering::Relaxed);
    }
}

impl Route {
    fn grow(&self, bytes: usize) {
        let bytes = bytes + OVERHEAD;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.all_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes note that a request with something of its sender's made no page for others.
    pub(super) fn is_personal_until(&self, moment: Moment) {
        self.personal_until
            .store(moment.as_millis(), Ordering::Relaxed);
    }

    /// Whether that was a moment ago.
    pub(super) fn is_personal(&self, now: Moment) -> bool {
        self.personal_until.load(Ordering::Relaxed) > now.as_millis()
    }

    /// The variant that a request asks for, as far as it is known what the URL varies on.
    pub(super) fn variant(
        &self,
        headers: &HeaderMap,
        options: &KeyOptions,
        cache: &Cache,
    ) -> Arc<Variant> {
        let known = read(&self.known);
        let names = Arc::clone(&known.names);
        let values = vary::values(&names, headers);
        let same = |variant: &&Arc<Variant>| {
            let asked = values.iter().map(Option::as_deref);
            variant.values.iter().map(Option::as_deref).eq(asked)
        };
        if let Some(variant) = known.variants.iter().find(same) {
            return Arc::clone(variant);
        }
        drop(known);
        let values: Vec<VaryValue> = (values.into_iter())
            .map(|value| value.map(|value| Bytes::from(value.into_owned())))
            .collect();
        let key = self.page_key(&values, options, cache);
        let (head, ready) = (RwLock::default(), RwLock::default());
        let variant = Arc::new(Variant {
            names: Arc::clone(&names),
            values,
            key,
            head,
            ready,
        });
        let length: usize = variant.values.iter().flatten().map(Bytes::len).sum();
        let mut known = write(&self.known);
        if known.names == names && length <= LONGEST {
            if known.variants.len() >= MOST_VARIANTS {
                // The oldest: what is asked again comes again.
                known.variants.remove(0);
            } else {
                self.grow(2 * length);
            }
            known.variants.push(Arc::clone(&variant));
        }
        variant
    }

    /// Whether the URL was asked for as it stands in its key, so that no other spelling has a better
    /// claim to it.
    pub(super) fn is_as_django_spells(&self) -> bool {
        *self.url == *self.uri
    }

    /// The key of the variant with these values.
    pub(super) fn page_key(
        &self,
        values: &[VaryValue],
        options: &KeyOptions,
        cache: &Cache,
    ) -> Key {
        cache.key(page_key("GET", &self.uri, values, options))
    }

    /// Takes note of what the URL varies on.
    pub(super) fn learn(&self, names: &[String]) {
        let mut known = write(&self.known);
        if *known.names != *names {
            known.names = names.into();
            known.variants.clear();
        }
    }

    /// The header list in `entry`, read once for each write of it.
    pub(super) fn list(&self, entry: &Entry) -> Option<Arc<HeaderList>> {
        if let Some((stamp, list)) = &read(&self.known).list
            && *stamp == entry.stamp
        {
            return Some(Arc::clone(list));
        }
        let list = Arc::new(HeaderList::decode(entry)?);
        write(&self.known).list = Some((entry.stamp, Arc::clone(&list)));
        Some(list)
    }
}

impl Variant {
    /// The page in `entry`, whose head is read once for each write of it.
    pub(super) fn page(&self, entry: &Entry) -> Option<Page> {
        if let Some((stamp, head)) = &*read(&self.head)
            && *stamp == entry.stamp
        {
            return Page::with_head(Arc::clone(head), entry);
        }
        let head = Arc::new(PageHead::decode(entry)?);
        *write(&self.head) = Some((entry.stamp, Arc::clone(&head)));
        Page::with_head(head, entry)
    }

    /// The headers of a hit, if they were made in this second.
    pub(super) fn ready_headers(&self, second: Second) -> Option<HeaderMap> {
        let ready = read(&self.ready);
        let (_, headers) = ready.as_ref().filter(|(made, _)| *made == second)?;
        Some(headers.clone())
    }

    pub(super) fn keep_ready(&self, second: Second, headers: &HeaderMap) {
        *write(&self.ready) = Some((second, headers.clone()));
    }
}

/// Scheme, host and target, unchanged.
///
/// A host that holds part of a path would make another URL's out of them.
fn raw_url(request: &request::Parts, target: &http::Uri, origin: &Origin) -> Option<String> {
    let path = target
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let mut url = String::with_capacity(64 + path.len());
    url.push_str(if origin.is_https(request) {
        "https://"
    } else {
        "http://"
    });
    let begin = url.len();
    match plain_host(request, origin) {
        Some(host) => url.push_str(host),
        None => url.push_str(&origin.host(request)),
    }
    let can_be_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if !url.as_bytes()[begin..].iter().copied().all(can_be_host) {
        return None;
    }
    url.push_str(path);
    Some(url)
}

/// The host in the usual case: one `Host` header, which can be read without a copy.
fn plain_host<'a>(request: &'a request::Parts, origin: &Origin) -> Option<&'a str> {
    if origin.trust_forwarded_host || request.uri.authority().is_some() {
        return None;
    }
    request.headers.get(http::header::HOST)?.to_str().ok()
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
