//! What a page and a header list look like in a slot.
//!
//! A page is one block of bytes: the length of its head, the head, and the body as the tail, so
//! that a hit slices the body and never copies it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{StatusCode, response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rules::storable::Audience;
use crate::entry::{Entry, Value};
use crate::{Key, Moment};

/// The codec number of pages and header lists, which no codec of values has.
pub(super) const PAGE: u8 = 16;

/// How many variants of one URL are kept. Those that come first: a flood of made-up values is not to
/// throw them out.
pub(super) const MOST_VARIANTS: usize = 64;

/// The value of a request header that a page was chosen by; `None` if it was absent.
pub(super) type VaryValue = Option<Bytes>;

/// What the pages of one URL vary on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeaderList {
    /// Random; the URL's pages bear it too, and are dropped together when the list goes.
    pub(super) mark: u64,
    /// The headers, in the order of the page key.
    pub(super) names: Vec<String>,
    /// A digest of each variant kept, and until when it is, in milliseconds since 1970.
    variants: Vec<(u64, u64)>,
}

impl HeaderList {
    /// A list for the first page of a URL, kept under `page` until `until`.
    pub(super) fn new(mark: u64, names: Vec<String>, page: &Key, until: Moment) -> Self {
        Self {
            mark,
            names,
            variants: vec![(digest(page), until.as_millis())],
        }
    }

    /// The list with the page kept under `page` in it, and without what is over by `now`; `None` if
    /// there is no room for another.
    pub(super) fn with(&self, page: &Key, now: Moment, until: Moment) -> Option<Self> {
        let mut list = self.clone();
        let page = digest(page);
        list.variants
            .retain(|(variant, until)| *variant != page && *until > now.as_millis());
        list.variants.push((page, until.as_millis()));
        (list.variants.len() <= MOST_VARIANTS).then_some(list)
    }

    pub(super) fn encode(&self) -> Value {
        let bytes = rmp_serde::to_vec_named(self).expect("numbers and texts can be encoded");
        Value::Bytes(bytes.into())
    }

    pub(super) fn decode(entry: &Entry) -> Option<Self> {
        rmp_serde::from_slice(bytes(entry)?).ok()
    }
}

/// All of a page but its body.
#[derive(Debug)]
pub(super) struct PageHead {
    pub(super) mark: u64,
    /// Scheme, host and target as they were asked for, which the key does not tell apart.
    pub(super) url: Box<str>,
    /// The values it was chosen by.
    pub(super) values: Vec<VaryValue>,
    pub(super) audience: Audience,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) stored: Moment,
    /// The `Age` it came with.
    pub(super) age: Duration,
    /// How long past its TTL it may be served while a new one is made, and when that fails.
    pub(super) while_revalidate: Duration,
    pub(super) if_error: Duration,
}

/// A page as it is kept.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) head: Arc<PageHead>,
    pub(super) body: Bytes,
}

/// The head as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    mark: u64,
    url: Box<str>,
    values: Vec<VaryValue>,
    audience: u8,
    status: u16,
    headers: Vec<(String, Bytes)>,
    stored: u64,
    age: u64,
    while_revalidate: u64,
    if_error: u64,
}

impl PageHead {
    pub(super) fn encode(&self, body: &[u8]) -> Value {
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            (
                name.as_str().to_owned(),
                Bytes::copy_from_slice(value.as_bytes()),
            )
        };
        let written = Written {
            mark: self.mark,
            url: self.url.clone(),
            values: self.values.clone(),
            audience: self.audience.to_bits(),
            status: self.status.as_u16(),
            headers: self.headers.iter().map(header).collect(),
            stored: self.stored.as_millis(),
            age: self.age.as_secs(),
            while_revalidate: millis(self.while_revalidate),
            if_error: millis(self.if_error),
        };
        let head = rmp_serde::to_vec_named(&written).expect("numbers and bytes can be encoded");
        let mut block = BytesMut::with_capacity(4 + head.len() + body.len());
        block.put_u32(u32::try_from(head.len()).expect("headers are below 4 GiB"));
        block.put_slice(&head);
        block.put_slice(body);
        Value::Bytes(block.freeze())
    }

    pub(super) fn decode(entry: &Entry) -> Option<Self> {
        let block = bytes(entry)?;
        let written: Written = rmp_serde::from_slice(block.get(4..body_start(block)?)?).ok()?;
        let mut headers = HeaderMap::try_with_capacity(written.headers.len() + 4).ok()?;
        for (name, value) in written.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let value = HeaderValue::from_maybe_shared(value).ok()?;
            headers.try_append(name, value).ok()?;
        }
        Some(Self {
            mark: written.mark,
            url: written.url,
            values: written.values,
            audience: Audience::from_bits(written.audience),
            status: StatusCode::from_u16(written.status).ok()?,
            headers,
            stored: Moment::from_millis(written.stored),
            age: Duration::from_secs(written.age),
            while_revalidate: Duration::from_millis(written.while_revalidate),
            if_error: Duration::from_millis(written.if_error),
        })
    }
}

impl Page {
    /// The page in `entry`, whose head has been read already.
    pub(super) fn with_head(head: Arc<PageHead>, entry: &Entry) -> Option<Self> {
        let block = bytes(entry)?;
        let start = body_start(block)?;
        (start <= block.len()).then(|| Self {
            head,
            body: block.slice(start..),
        })
    }
}

/// The headers of a response that are kept: all that are not about its connection (RFC 9111 §3.1).
pub(super) fn kept_headers(parts: &response::Parts) -> HeaderMap {
    let mut headers = parts.headers.clone();
    let named: Vec<HeaderName> = (headers.get_all(CONNECTION).iter())
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let hop = [
        CONNECTION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        PROXY_AUTHENTICATE,
    ];
    for name in named.into_iter().chain(hop) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    headers.remove("proxy-authentication-info");
    headers.remove("cache-status");
    headers
}

/// Tells the variants of a URL apart, the same in every process.
fn digest(page: &Key) -> u64 {
    let digest = Sha256::digest(page.whole().as_bytes());
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes"))
}

fn bytes(entry: &Entry) -> Option<&Bytes> {
    match &entry.value {
        Some(Value::Bytes(bytes)) if entry.codec == PAGE => Some(bytes),
        _ => None,
    }
}

fn body_start(block: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(block.get(..4)?.try_into().ok()?);
    usize::try_from(length).ok()?.checked_add(4)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
