//! What a slot holds, and its frame: the only code that knows the bytes.
//!
//! A plain integer is kept as its ASCII digits, so that a server's own counting works on it and
//! other languages read it. All else is a frame:
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | format, `0xFB` |
//! | 1 | body: 0 none, 1 integer, 2 bytes, 3 integer that is never bare digits |
//! | 1 | codec of the body |
//! | 8 | incarnation of the server that took the write |
//! | 8 | stamp |
//! | 1 + 8 | state, and the moment until which it holds |
//! | 8 | fresh until |
//! | 8 | stale until |
//! | 4 | length of what follows before the body |
//! | … | era, tags with their numbers, whole key of a hashed name, decoded size, and how long its load took if that is told |
//! | rest | the body |
//!
//! Numbers are big-endian. Stamp to "stale until" lie together, so that a lease is put into a
//! slot without sending the value again.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::store::cells::InSight;
use crate::{Clock, Key, Moment};

/// The first byte of a frame: no digit, no sign, no start of JSON or of a Python pickle.
pub const FORMAT: u8 = 0xFB;
/// The length of a frame's fixed part.
pub const HEADER: usize = 48;
/// The largest decoded body that is read back; a frame that states more is unreadable.
pub const MAX_DECODED: u64 = 64 * 1024 * 1024;

const BODY_NONE: u8 = 0;
const BODY_INTEGER: u8 = 1;
const BODY_BYTES: u8 = 2;
const BODY_FRAMED: u8 = 3;
/// The most bytes that are read as a plain integer: the length of the smallest.
const MOST_DIGITS: usize = 20;

/// Tells one write of a slot from every other: random, drawn by the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp(u64);

impl Stamp {
    /// The stamp of every plain integer, which has no room for one.
    pub const PLAIN: Self = Self(0);

    /// A stamp that nobody else has.
    pub fn draw(clock: &Clock) -> Self {
        Self(clock.random().max(1))
    }

    /// The stamp as a number, for a store that writes it down.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The stamp whose [`number`](Self::number) this is.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// What is going on in a slot besides its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum State {
    /// Nothing.
    #[default]
    Idle,
    /// Somebody is loading and holds the lease; the stamp is their mark.
    Loading,
    /// The last load failed; nobody tries again for a moment.
    Failed,
    /// The last load gave what is not kept; callers need not queue for a moment.
    Pass,
}

impl State {
    /// The state as a byte, for a store that writes it down.
    pub const fn number(self) -> u8 {
        match self {
            Self::Idle => 0,
            Self::Loading => 1,
            Self::Failed => 2,
            Self::Pass => 3,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Idle,
            1 => Self::Loading,
            2 => Self::Failed,
            3 => Self::Pass,
            _ => return None,
        })
    }
}

/// What is put into a slot without touching its value: a lease, or a short marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The slot's stamp from now on.
    pub stamp: Stamp,
    /// What is going on.
    pub state: State,
    /// Until when; a state whose moment has passed is none.
    pub until: Moment,
}

/// A body: an integer that can be counted up, or bytes of some codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An integer.
    Integer(i64),
    /// Encoded bytes.
    Bytes(Bytes),
}

impl Value {
    /// The room it takes, in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Integer(_) => 8,
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether it takes no room.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A name that many entries can share, to invalidate them at once.
pub type Tag = Arc<str>;

/// What stands before a tag in the name that counts its invalidations, but not when it was expired.
const HARD: char = '!';

/// The name that counts the invalidations of `tag`. Should somebody have a tag of this name, it is
/// invalidated along with the other: more than was asked, never less.
pub(crate) fn hard_tag(tag: &Tag) -> Tag {
    format!("{HARD}{tag}").into()
}

/// The tag whose invalidations the name `hard` counts.
pub(crate) fn soft_tag(hard: &Tag) -> Tag {
    hard.strip_prefix(HARD).unwrap_or(hard).into()
}

/// The tags of an entry, each with the number that the entry is good from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tagged {
    /// The era in which the numbers were given.
    pub era: u64,
    /// Each tag with its number.
    pub good_from: Vec<(Tag, u64)>,
}

/// What a slot holds.
///
/// A store keeps it whole and judges only what the contract asks of it; whether the tags have
/// moved is judged above.
///
/// ```
/// use larder::{Clock, Entry, Moment, Value};
/// use std::time::Duration;
///
/// let clock = Clock::manual();
/// let entry = Entry::new(&clock, Value::Bytes("page".into()))
///     .fresh_until(clock.now().plus(Duration::from_secs(1)));
/// assert!(entry.is_live(clock.now()));
/// clock.advance(Duration::from_secs(1));
/// assert!(!entry.is_live(clock.now()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The body; none in a slot that holds only a lease or a marker, or bytes that cannot be read.
    pub value: Option<Value>,
    /// Which codec wrote the body.
    pub codec: u8,
    /// Whether something was there that could not be read.
    pub unreadable: bool,
    /// Tells this write from every other.
    pub stamp: Stamp,
    /// What is going on besides.
    pub state: State,
    /// Until when that holds.
    pub state_until: Moment,
    /// The end of the TTL. A plain integer read from a server does not know it: ask for its head.
    pub fresh_until: Moment,
    /// The end of the grace, in which the engine may still serve the value.
    pub stale_until: Moment,
    /// The tags, if there are any.
    pub tags: Option<Arc<Tagged>>,
    /// Whether an integer is kept in a frame though digits would do; see [`Entry::framed`].
    pub(crate) is_framed: bool,
    /// How long the load took, for those who refresh early.
    pub(crate) took: Option<Duration>,
    /// Room for the decoded value, in a store that keeps it.
    pub(crate) decoded: Option<Decoded>,
    /// Whether it may be behind the store that it was copied from.
    pub(crate) copied: Copied,
    /// The numbers of its tags, in a store that counts in this process.
    pub(crate) in_sight: InSight,
}

/// Whether an entry may be behind the store that it was copied from. Never compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copied(pub(crate) bool);

impl PartialEq for Copied {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Copied {}

/// The decoded value beside its bytes, filled by the first who decodes them. Never compared.
#[derive(Clone, Default)]
pub(crate) struct Decoded(Arc<OnceLock<Arc<dyn Any + Send + Sync>>>);

impl Decoded {
    /// The decoded value, if it is there and of this type.
    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        Arc::clone(self.0.get()?).downcast().ok()
    }

    /// Keeps `value` unless another is kept already.
    pub(crate) fn fill<T: Send + Sync + 'static>(&self, value: &Arc<T>) {
        let _ = self.0.set(Arc::clone(value) as _);
    }
}

impl PartialEq for Decoded {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Decoded {}

impl fmt::Debug for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoded(filled: {})", self.0.get().is_some())
    }
}

impl Entry {
    /// An entry that never expires, with a stamp of its own.
    pub fn new(clock: &Clock, value: Value) -> Self {
        Self {
            value: Some(value),
            codec: 0,
            unreadable: false,
            stamp: Stamp::draw(clock),
            state: State::Idle,
            state_until: Moment::START,
            fresh_until: Moment::NEVER,
            stale_until: Moment::NEVER,
            tags: None,
            is_framed: false,
            took: None,
            decoded: None,
            copied: Copied(false),
            in_sight: InSight::default(),
        }
    }

    /// A slot that holds only `mark`.
    pub fn bare(mark: Mark) -> Self {
        Self {
            value: None,
            codec: 0,
            unreadable: false,
            stamp: mark.stamp,
            state: mark.state,
            state_until: mark.until,
            fresh_until: Moment::START,
            stale_until: Moment::START,
            tags: None,
            is_framed: false,
            took: None,
            decoded: None,
            copied: Copied(false),
            in_sight: InSight::default(),
        }
    }

    /// A plain integer, as a server keeps it.
    pub fn plain(number: i64) -> Self {
        Self {
            value: Some(Value::Integer(number)),
            codec: 0,
            unreadable: false,
            stamp: Stamp::PLAIN,
            state: State::Idle,
            state_until: Moment::START,
            fresh_until: Moment::NEVER,
            stale_until: Moment::NEVER,
            tags: None,
            is_framed: false,
            took: None,
            decoded: None,
            copied: Copied(false),
            in_sight: InSight::default(),
        }
    }

    /// Sets the end of the TTL, without grace.
    #[must_use]
    pub fn fresh_until(mut self, moment: Moment) -> Self {
        self.fresh_until = moment;
        self.stale_until = moment;
        self
    }

    /// Lets the engine serve the value for `grace` after its TTL.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.stale_until = self.fresh_until.plus(grace);
        self
    }

    /// How long the engine may serve the value after its TTL: as long as there is time, where the grace
    /// has no end but the TTL has.
    pub fn grace(&self) -> std::time::Duration {
        if self.fresh_until == Moment::NEVER {
            return std::time::Duration::ZERO;
        }
        let grace = self.stale_until.left(self.fresh_until);
        grace.unwrap_or(std::time::Duration::MAX)
    }

    /// Adds tags.
    #[must_use]
    pub fn with_tags(mut self, tags: Tagged) -> Self {
        self.tags = (!tags.good_from.is_empty()).then(|| Arc::new(tags));
        self
    }

    /// Keeps an integer in a frame, so that whoever reads it knows its deadlines and its stamp; bare
    /// digits on a server have room for neither.
    ///
    /// For what a load gives: what is made of it inherits its life. Counting up a framed integer
    /// goes by compare-and-set.
    #[must_use]
    pub fn framed(mut self) -> Self {
        self.is_framed = matches!(self.value, Some(Value::Integer(_)));
        self
    }

    /// Whether it can be told at once that no tag has moved in `space`.
    pub(crate) fn is_unmoved_now(&self, space: &str) -> bool {
        let Some(tagged) = &self.tags else {
            return true;
        };
        self.in_sight.is_unmoved(space, tagged)
    }

    /// Whether the verbs see a value here at `now`.
    pub fn is_live(&self, now: Moment) -> bool {
        self.value.is_some() && self.fresh_until > now
    }

    /// Whether the engine may look at the value at `now`: it is live, or within its grace.
    pub fn is_within_grace(&self, now: Moment) -> bool {
        self.value.is_some() && self.stale_until > now
    }

    /// What is going on at `now`.
    pub fn state_at(&self, now: Moment) -> State {
        if self.state_until > now {
            self.state
        } else {
            State::Idle
        }
    }

    /// Whether this is kept as bare digits: an integer without tags, grace, state or time of loading, and
    /// not [framed](Self::framed).
    pub fn is_plain(&self) -> bool {
        matches!(self.value, Some(Value::Integer(_)))
            && !self.is_framed
            && self.tags.is_none()
            && self.stale_until == self.fresh_until
            && self.state == State::Idle
            && self.took.is_none()
    }

    /// The moment after which nothing in the slot matters.
    pub fn gone_after(&self) -> Moment {
        let value = if self.value.is_some() {
            self.stale_until
        } else {
            Moment::START
        };
        value.max(self.state_until)
    }

    /// This entry with `mark` put into it.
    #[must_use]
    pub fn marked(mut self, mark: Mark) -> Self {
        self.stamp = mark.stamp;
        self.state = mark.state;
        self.state_until = mark.until;
        self
    }

    /// All but the value.
    pub fn head(&self) -> Head {
        Head {
            fresh_until: self.fresh_until,
            tags: self.tags.clone(),
        }
    }

    /// The bytes to keep under `key` on the server that is now in its `incarnation`.
    pub fn to_frame(&self, key: &Key, incarnation: u64) -> Bytes {
        if let (true, Some(Value::Integer(number))) = (self.is_plain(), &self.value) {
            return Bytes::from(number.to_string());
        }
        self.to_full_frame(key, incarnation)
    }

    /// The frame, also of a plain integer: for a store that can keep stamp and deadlines of that too.
    pub(crate) fn to_full_frame(&self, key: &Key, incarnation: u64) -> Bytes {
        let body = self.value.as_ref().map_or(0, Value::len);
        let mut frame = BytesMut::with_capacity(HEADER + 64 + key.whole().len() + body);
        frame.put_u8(FORMAT);
        frame.put_u8(match self.value {
            None => BODY_NONE,
            Some(Value::Integer(_)) if self.is_framed => BODY_FRAMED,
            Some(Value::Integer(_)) => BODY_INTEGER,
            Some(Value::Bytes(_)) => BODY_BYTES,
        });
        frame.put_u8(self.codec);
        frame.put_u64(incarnation);
        frame.put_u64(self.stamp.0);
        frame.put_u8(self.state.number());
        frame.put_u64(self.state_until.as_millis());
        frame.put_u64(self.fresh_until.as_millis());
        frame.put_u64(self.stale_until.as_millis());
        frame.put_u32(0);
        self.put_meta(key, &mut frame);
        let meta = u32::try_from(frame.len() - HEADER).expect("tags and a key are below 4 GiB");
        frame[HEADER - 4..HEADER].copy_from_slice(&meta.to_be_bytes());
        match &self.value {
            None => {}
            Some(Value::Integer(number)) => frame.put_slice(number.to_string().as_bytes()),
            Some(Value::Bytes(bytes)) => frame.put_slice(bytes),
        }
        frame.freeze()
    }

    fn put_meta(&self, key: &Key, frame: &mut BytesMut) {
        let tags = self.tags.as_deref();
        frame.put_u64(tags.map_or(0, |tags| tags.era));
        let tags = tags.map_or(&[][..], |tags| &tags.good_from);
        frame.put_u32(u32::try_from(tags.len()).expect("fewer than 2^32 tags"));
        for (tag, number) in tags {
            put_text(frame, tag);
            frame.put_u64(*number);
        }
        put_text(frame, if key.is_hashed() { key.whole() } else { "" });
        frame.put_u64(self.value.as_ref().map_or(0, Value::len) as u64);
        if let Some(took) = self.took {
            frame.put_u64(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        }
    }

    /// What a frame says between header and body (tags, whole key, decoded size), for a store whose
    /// columns hold the rest; `None` without a body, and for an integer without tags.
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) fn to_meta(&self, key: &Key) -> Option<Bytes> {
        let untagged = matches!(self.value, Some(Value::Integer(_)))
            && self.tags.is_none()
            && self.took.is_none();
        if self.value.is_none() || untagged {
            return None;
        }
        let mut meta = BytesMut::new();
        self.put_meta(key, &mut meta);
        Some(meta.freeze())
    }

    /// This entry with the value and the tags that were kept apart from it; unreadable where they do
    /// not fit, or are another key's.
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) fn with_body(mut self, value: Value, meta: Option<&[u8]>, key: &Key) -> Self {
        let meta = match (&value, meta) {
            (Value::Integer(_), None) => Some(None),
            (Value::Integer(_), Some(meta)) => read_meta(meta, key).map(Some),
            (Value::Bytes(bytes), meta) => meta
                .and_then(|meta| read_meta(meta, key))
                .filter(|meta| meta.decoded == bytes.len() as u64 && meta.decoded <= MAX_DECODED)
                .map(Some),
        };
        match meta {
            Some(meta) => {
                self.value = Some(value);
                (self.tags, self.took) = meta.map_or((None, None), |meta| (meta.tags, meta.took));
            }
            None => self.unreadable = true,
        }
        self
    }

    /// Reads back what [`to_frame`](Self::to_frame) wrote.
    ///
    /// `None` where the slot counts as empty: the bytes are foreign or belong to another
    /// incarnation of the server. A frame of ours whose inside is broken, or that holds another
    /// key's entry, gives an entry without value, marked [`unreadable`](Self::unreadable), so that
    /// it can be written over.
    pub fn from_frame(frame: &Bytes, key: &Key, incarnation: u64) -> Option<Self> {
        if let Some(number) = plain_integer(frame) {
            return Some(Self::plain(number));
        }
        let mut header = Reader(frame);
        if header.u8()? != FORMAT {
            return None;
        }
        let (body, codec) = (header.u8()?, header.u8()?);
        if header.u64()? != incarnation {
            return None;
        }
        let mut entry = Self::bare(Mark {
            stamp: Stamp(header.u64()?),
            state: State::from_number(header.u8()?)?,
            until: Moment::from_millis(header.u64()?),
        });
        entry.codec = codec;
        let fresh_until = Moment::from_millis(header.u64()?);
        let stale_until = Moment::from_millis(header.u64()?);
        let meta = header.u32()? as usize;
        if body == BODY_NONE {
            return Some(entry);
        }
        match read_body(frame, key, body, meta) {
            Some((value, meta)) => {
                entry.value = Some(value);
                entry.tags = meta.tags;
                entry.took = meta.took;
                entry.is_framed = body == BODY_FRAMED;
                entry.fresh_until = fresh_until;
                entry.stale_until = stale_until;
            }
            None => entry.unreadable = true,
        }
        Some(entry)
    }
}

/// All of an entry but its value: what a verb needs to know that does not read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The end of the TTL.
    pub fresh_until: Moment,
    /// The tags, if there are any.
    pub tags: Option<Arc<Tagged>>,
}

impl Head {
    /// Reads the start of a frame, up to its body, of a live entry.
    pub fn from_frame(frame: &[u8], key: &Key) -> Option<Self> {
        let fresh_until = Moment::from_millis(Reader(frame.get(28..HEADER)?).u64()?);
        let Meta { tags, .. } = read_meta(frame.get(HEADER..)?, key)?;
        Some(Self { fresh_until, tags })
    }

    /// The head of a live entry whose tags were kept apart by [`Entry::to_meta`].
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) fn from_meta(fresh_until: Moment, meta: Option<&[u8]>, key: &Key) -> Option<Self> {
        let tags = match meta {
            Some(meta) => read_meta(meta, key)?.tags,
            None => None,
        };
        Some(Self { fresh_until, tags })
    }
}

/// The whole key that a frame states: of a hashed name nothing else tells it.
#[cfg(any(feature = "file", feature = "redis"))]
pub(crate) fn whole_key(frame: &[u8]) -> Option<&str> {
    whole_key_of_meta(frame.get(HEADER..)?)
}

/// The whole key in what stands between header and body.
#[cfg(any(
    feature = "file",
    feature = "redis",
    feature = "sqlite",
    feature = "postgres",
    feature = "mysql"
))]
pub(crate) fn whole_key_of_meta(meta: &[u8]) -> Option<&str> {
    let mut meta = Reader(meta);
    meta.u64()?;
    for _ in 0..meta.u32()? {
        meta.text()?;
        meta.u64()?;
    }
    meta.text()
}

fn plain_integer(bytes: &[u8]) -> Option<i64> {
    let first = bytes.first()?;
    if (!first.is_ascii_digit() && *first != b'-') || bytes.len() > MOST_DIGITS {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn put_text(frame: &mut BytesMut, text: &str) {
    frame.put_u32(u32::try_from(text.len()).expect("a key or a tag is below 4 GiB"));
    frame.put_slice(text.as_bytes());
}

fn read_body(frame: &Bytes, key: &Key, body: u8, meta: usize) -> Option<(Value, Meta)> {
    let start = HEADER.checked_add(meta)?;
    let meta = read_meta(frame.get(HEADER..start)?, key)?;
    if meta.decoded > MAX_DECODED {
        return None;
    }
    let bytes = frame.slice(start..);
    let value = match body {
        BODY_INTEGER | BODY_FRAMED => Value::Integer(plain_integer(&bytes)?),
        BODY_BYTES if bytes.len() as u64 == meta.decoded => Value::Bytes(bytes),
        _ => return None,
    };
    Some((value, meta))
}

/// What a frame holds between header and body.
struct Meta {
    tags: Option<Arc<Tagged>>,
    decoded: u64,
    took: Option<Duration>,
}

/// What stands before the body, if this is the entry of `key`.
fn read_meta(meta: &[u8], key: &Key) -> Option<Meta> {
    let mut meta = Reader(meta);
    let era = meta.u64()?;
    let count = meta.u32()? as usize;
    // Not reserved from the stated count: bytes that lie must not ask for the memory.
    let mut good_from = Vec::new();
    for _ in 0..count {
        let tag = meta.text()?;
        good_from.push((Tag::from(tag), meta.u64()?));
    }
    let whole = meta.text()?;
    if key.is_hashed() && whole != key.whole() {
        return None;
    }
    let tags = (count > 0).then(|| Arc::new(Tagged { era, good_from }));
    Some(Meta {
        tags,
        decoded: meta.u64()?,
        took: meta.u64().map(Duration::from_millis),
    })
}

/// Takes numbers and texts off the front; `None` where there is too little left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        std::str::from_utf8(self.take(length)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged() -> Entry {
        let clock = Clock::manual();
        Entry::new(&clock, Value::Bytes(Bytes::from_static(b"a page")))
            .fresh_until(clock.now().plus(Duration::from_millis(1500)))
            .with_grace(Duration::from_secs(9))
            .with_tags(Tagged {
                era: 7,
                good_from: vec![("object:5".into(), 3)],
            })
    }

    #[test]
    fn what_is_framed_is_read_back() {
        for key in [Key::new(":1:k"), Key::new(":1:a b")] {
            for took in [None, Some(Duration::from_millis(250))] {
                let entry = Entry { took, ..tagged() };

                let frame = entry.to_frame(&key, 42);

                assert_eq!(Entry::from_frame(&frame, &key, 42), Some(entry.clone()));
                assert_eq!(Head::from_frame(&frame, &key), Some(entry.head()));
            }
        }
    }

    #[test]
    fn a_plain_integer_is_its_digits() {
        let key = Key::new(":1:n");
        let clock = Clock::manual();

        for number in [0, 5, -5, i64::MAX, i64::MIN] {
            let frame = Entry::new(&clock, Value::Integer(number)).to_frame(&key, 1);
            assert_eq!(frame, number.to_string());
            assert_eq!(
                Entry::from_frame(&frame, &key, 1),
                Some(Entry::plain(number))
            );
        }
    }

    #[test]
    fn a_framed_integer_keeps_its_deadline_and_its_stamp() {
        let key = Key::new(":1:n");
        let clock = Clock::manual();
        let entry = Entry::new(&clock, Value::Integer(7))
            .fresh_until(clock.now().plus(Duration::from_secs(2)))
            .framed();

        let frame = entry.to_frame(&key, 1);

        assert_eq!(Entry::from_frame(&frame, &key, 1), Some(entry.clone()));
        assert!(!entry.is_plain());
    }

    #[test]
    fn a_frame_of_another_incarnation_is_nothing() {
        let key = Key::new(":1:k");

        assert_eq!(
            Entry::from_frame(&tagged().to_frame(&key, 1), &key, 2),
            None
        );
    }

    #[test]
    fn foreign_bytes_are_nothing() {
        let key = Key::new(":1:k");

        for bytes in [
            &b""[..],
            b"\x80\x05pickle",
            b"{\"json\":1}",
            b"12abc",
            b" 12",
            b"-",
            b"000000000000000000007",
            &[0xfb],
        ] {
            assert_eq!(
                Entry::from_frame(&Bytes::from(bytes), &key, 1),
                None,
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn another_keys_entry_in_a_hashed_slot_is_unreadable() {
        let frame = tagged().to_frame(&Key::new(":1:a b"), 1);

        let read =
            Entry::from_frame(&frame, &Key::new(":1:other key"), 1).expect("a frame of ours");

        assert!(read.unreadable && read.value.is_none());
    }

    #[test]
    fn no_cut_and_no_flipped_bit_makes_a_frame_panic_or_lie_about_its_length() {
        let key = Key::new(":1:a b");
        let frame = tagged().to_frame(&key, 42);

        for end in 0..frame.len() {
            let read = Entry::from_frame(&frame.slice(..end), &key, 42);
            assert!(
                read.is_none_or(|entry| entry.value.is_none()),
                "cut at {end}"
            );
        }
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = Entry::from_frame(&flipped.into(), &key, 42);
        }
    }
}
