//! What is written into a slot, for how long, and how it is read.

use bytes::Bytes;
use redis::Value as Reply;

use super::connection::Link;
use super::reply;
use crate::entry::{Entry, FORMAT, Stamp, Value};
use crate::store::When;
use crate::{Clock, Error, ErrorKind, Key, MAX_DECODED, Moment};

/// What an entry's life is cut to: past what servers take, and past all who wait for it.
const LONGEST_LIFE: u64 = 1_000_000_000_000_000;

/// What is kept: bare digits only where these are integers, else a frame that has a stamp.
pub(super) fn frame(clock: &Clock, entry: &Entry, key: &Key, link: &Link) -> Bytes {
    if link.takes_digits {
        return entry.to_frame(key, link.incarnation);
    }
    if entry.stamp != Stamp::PLAIN {
        return entry.to_full_frame(key, link.incarnation);
    }
    let stamped = Entry {
        stamp: Stamp::draw(clock),
        ..entry.clone()
    };
    stamped.to_full_frame(key, link.incarnation)
}

/// What a slot held that was read by `link`.
pub(super) fn entry_of(answer: Reply, key: &Key, link: &Link) -> Option<Entry> {
    let slot = reply::bytes(answer)?;
    let is_read = link.takes_digits || slot.first() == Some(&FORMAT);
    is_read.then(|| Entry::from_frame(&slot, key, link.incarnation))?
}

/// How long the server shall keep an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Gone,
    Ms(u64),
    Endless,
}

impl Life {
    pub(super) fn of(entry: &Entry, now: Moment) -> Self {
        let end = entry.gone_after();
        match end.as_millis().saturating_sub(now.as_millis()) {
            _ if end == Moment::NEVER => Self::Endless,
            0 => Self::Gone,
            ms => Self::Ms(ms.min(LONGEST_LIFE)),
        }
    }
}

/// Whether what is written is read back, and is no longer than a string may be on a server.
pub(super) fn fits(entry: &Entry) -> bool {
    let tags = entry.tags.as_ref().map_or(0, |tags| {
        tags.good_from.iter().map(|(tag, _)| tag.len() + 12).sum()
    });
    let body = entry.value.as_ref().map_or(0, Value::len);
    tags.max(body) as u64 <= MAX_DECODED
}

pub(super) fn too_large() -> Error {
    let text = "the value is larger than the 64 MiB that are read back";
    Error::new(ErrorKind::TooLarge, "redis", text)
}

pub(super) fn condition(when: When) -> Option<Vec<u8>> {
    match when {
        When::Always => None,
        When::IfAbsent => Some(b"absent".to_vec()),
        When::IfPresent => Some(b"present".to_vec()),
        When::IfStamp(stamp) => Some(stamp.number().to_be_bytes().to_vec()),
    }
}

/// The key, if the entry is written as bare digits.
pub(super) fn bare<'k>(key: &'k Key, entry: &Entry) -> Option<&'k Key> {
    entry.is_plain().then_some(key)
}

pub(super) fn is_bare(entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| entry.stamp == Stamp::PLAIN)
}
