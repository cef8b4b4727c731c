//! Slots: an item each, compared by its CAS unique before it is written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Memcached;
use super::connection::Link;
use super::reply::{Code, Refusal, Reply};
use super::request::{Batch, Beside, Mode, What};
use crate::entry::{Entry, Stamp, Value};
use crate::{Error, ErrorKind, HEADER, Key, MAX_DECODED, Moment, Result};

/// How often an act is begun anew since somebody else wrote in between.
const MOST_TRIES: u32 = 256;
/// From this many tries on, writers who meet step aside for a moment.
const PATIENT_TRIES: u32 = 4;
/// Seconds up to which the server counts from now; more is a date to it.
const LONGEST_SPAN: u64 = 30 * 24 * 60 * 60;
/// The last second that the server can name.
const LAST_SECOND: u64 = i32::MAX as u64;
/// A plain integer with less to live is framed: the server counts whole seconds. A minute, less the
/// time that a writer takes.
const SHORTEST_PLAIN: u64 = 55_000;
/// How far off the server's count of seconds may be from the moment that the writer noted.
const SLACK: u64 = 4_000;
/// What the server needs for an item besides name and value.
const ITEM_ROOM: usize = 128;

/// What was read of a slot.
pub(super) struct Slot {
    pub(super) entry: Option<Entry>,
    /// The state of the item, if there is one.
    pub(super) cas: Option<u64>,
}

/// What a judge of a slot decides.
pub(super) enum Verdict<R> {
    Leave(R),
    Write(Box<Entry>, R),
}

/// How the server is to keep an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Gone,
    Until(Beside),
}

impl Memcached {
    /// Whether the TTL of the bare integer that `reply` speaks of is over.
    pub(super) fn has_ended(&self, reply: &Reply) -> bool {
        deadline(self.now(), reply.line.left, reply.line.flags) <= self.now()
    }

    /// What `reply` says that the slot of `key` holds.
    pub(super) fn slot(
        &self,
        server: usize,
        key: &Key,
        link: &Link,
        reply: &Reply,
    ) -> Result<Slot> {
        match reply.line.code {
            Code::Value => Ok(Slot {
                entry: self.entry(key, link, reply),
                cas: Some(reply.line.cas),
            }),
            Code::Miss => Ok(Slot {
                entry: None,
                cas: None,
            }),
            _ => Err(self.odd(server, Some(reply))),
        }
    }

    fn entry(&self, key: &Key, link: &Link, reply: &Reply) -> Option<Entry> {
        let bytes = without_padding(&reply.value);
        let entry = Entry::from_frame(&bytes, key, link.hello.incarnation)?;
        if bytes.first() == Some(&crate::FORMAT) {
            return Some(entry);
        }
        Some(entry.fresh_until(deadline(self.now(), reply.line.left, reply.line.flags)))
    }

    /// Adds the command that writes `entry`, whatever it takes; false if it is too large to be kept.
    pub(super) fn write(
        &self,
        batch: &mut Batch,
        key: &Key,
        entry: &Entry,
        link: &Link,
        mode: Mode,
    ) -> bool {
        let cas = mode.cas();
        let Life::Until(beside) = life(entry, self.now(), link.server_time()) else {
            batch.delete(key.name(), cas);
            return true;
        };
        if !fits(key, entry, link) {
            // Nothing older is to be served in its place.
            batch.delete(key.name(), cas);
            return false;
        }
        let plain = is_bare(entry, self.now(), beside);
        let bytes = if plain {
            entry.to_frame(key, link.hello.incarnation)
        } else {
            entry.to_full_frame(key, link.hello.incarnation)
        };
        let flags = if plain { beside.flags } else { 0 };
        batch.set(key.name(), &bytes, Beside { flags, ..beside }, mode);
        true
    }

    /// Reads the slot, lets `judge` decide, and writes if nobody has written in between; else again.
    pub(super) async fn change<R: Send>(
        &self,
        key: &Key,
        judge: impl Fn(Option<&Entry>) -> Verdict<R> + Send + Sync,
    ) -> Result<R> {
        let server = self.server_of(key.name());
        for tries in 0..MOST_TRIES {
            self.step_aside(tries).await;
            let link = self.link(server).await?;
            let read = |_: &Link, batch: &mut Batch| batch.get(key.name(), What::State);
            let replies = self.ask_on(server, &link, 1, read).await?;
            let reply = replies.first().ok_or_else(|| self.odd(server, None))?;
            let slot = self.slot(server, key, &link, reply)?;
            if let Some(done) = self.settle(server, key, &link, slot, &judge).await? {
                return Ok(done);
            }
        }
        Err(self.too_busy(server))
    }

    /// Does what `judge` decides about `slot`, read on `link`; `None` if somebody else has written.
    pub(super) async fn settle<R: Send>(
        &self,
        server: usize,
        key: &Key,
        link: &Arc<Link>,
        slot: Slot,
        judge: impl Fn(Option<&Entry>) -> Verdict<R> + Send + Sync,
    ) -> Result<Option<R>> {
        let (entry, done) = match judge(slot.entry.as_ref()) {
            Verdict::Leave(done) => return Ok(Some(done)),
            Verdict::Write(entry, done) => (*entry, done),
        };
        // Nothing to write, and nothing that would have to go.
        if slot.cas.is_none() && entry.gone_after() <= self.now() {
            return Ok(Some(done));
        }
        if slot.cas.is_none() && !fits(key, &entry, link) {
            return Err(too_large());
        }
        let mode = slot.cas.map_or(Mode::Add, Mode::Cas);
        let wrote = self.write_on(server, key, link, &entry, mode).await?;
        Ok(wrote.then_some(done))
    }

    /// Writes `entry` if the slot of `key` holds nothing but the lease `stamp`, which this process has put
    /// there; false if the slot has to be read to know.
    pub(super) async fn write_under(&self, key: &Key, stamp: Stamp, entry: &Entry) -> Result<bool> {
        let server = self.server_of(key.name());
        let link = self.link(server).await?;
        match self.0.leases.take(key, stamp, &link) {
            Some(cas) => {
                let mode = Mode::Cas(cas);
                self.write_on(server, key, &link, entry, mode).await
            }
            None => Ok(false),
        }
    }

    /// Writes `entry` on `link`; false if somebody else has written.
    pub(super) async fn write_on(
        &self,
        server: usize,
        key: &Key,
        link: &Arc<Link>,
        entry: &Entry,
        mode: Mode,
    ) -> Result<bool> {
        // What is there decides first: it may have to stay.
        if mode == Mode::Add && !fits(key, entry, link) {
            return Ok(false);
        }
        let mut batch = link.batch(1);
        let fits = self.write(&mut batch, key, entry, link, mode);
        let replies = self.ask_batch(server, link, batch).await?;
        let reply = replies.first().ok_or_else(|| self.odd(server, None))?;
        match &reply.line.code {
            Code::Done if fits => {
                if entry.value.is_none() && reply.line.cas > 0 {
                    let lease = (entry.stamp, entry.state_until);
                    let leases = &self.0.leases;
                    leases.put(key, lease, link, reply.line.cas, self.now());
                }
                Ok(true)
            }
            Code::Done => Err(too_large()),
            // To remove what is not there is no trouble, unless it was to be there in a certain state.
            Code::NotFound if !matches!(mode, Mode::Cas(_)) => {
                if fits {
                    Ok(true)
                } else {
                    Err(too_large())
                }
            }
            Code::NotFound | Code::NotStored | Code::Exists => Ok(false),
            Code::Refused(Refusal::TooLarge | Refusal::NoMemory) => {
                if mode != Mode::Add {
                    self.drop_refused(server, link, &[key], mode).await?;
                }
                Err(refused(&reply.line.code))
            }
            _ => Err(self.odd(server, Some(reply))),
        }
    }

    /// Removes what was in slots whose new values the server refused: nothing older is to be served.
    ///
    /// Servers up to now do so themselves where memory is short, whatever the condition of the write.
    pub(super) async fn drop_refused(
        &self,
        server: usize,
        link: &Arc<Link>,
        keys: &[&Key],
        mode: Mode,
    ) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut batch = link.batch(keys.len());
        for key in keys {
            batch.delete(key.name(), mode.cas());
        }
        self.ask_batch(server, link, batch).await.map(|_| ())
    }

    /// Pauses a writer that has met others again and again.
    pub(super) async fn step_aside(&self, tries: u32) {
        if tries >= PATIENT_TRIES {
            let pause = Duration::from_micros(200) * tries.min(50);
            self.0.clock.sleep(self.0.clock.jittered(pause)).await;
        }
    }

    pub(super) fn too_busy(&self, server: usize) -> Error {
        let does = "has others writing there faster than this one can";
        self.0.servers[server].complaint(ErrorKind::Unavailable, does)
    }
}

/// The error for what the server refused to keep.
pub(super) fn refused(code: &Code) -> Error {
    match code {
        Code::Refused(Refusal::NoMemory) => {
            let text = "the server has no memory for a value of this size";
            Error::new(ErrorKind::TooLarge, "memcached", text).with_hint("raise `-m`")
        }
        _ => too_large(),
    }
}

pub(super) fn too_large() -> Error {
    let text = "the value is larger than the server keeps";
    Error::new(ErrorKind::TooLarge, "memcached", text)
        .with_hint("raise `-I`, the largest size of an item: 1m unless told otherwise; no value may exceed 64 MiB")
}

/// Digits without the blanks that a server leaves behind them when it counts down.
fn without_padding(bytes: &Bytes) -> Bytes {
    let digits = bytes.first().is_some_and(u8::is_ascii_digit);
    let end = bytes
        .iter()
        .rposition(|byte| *byte != b' ')
        .map_or(0, |last| last + 1);
    if digits {
        bytes.slice(..end)
    } else {
        bytes.clone()
    }
}

/// Whether `entry` can be read back, and the server keeps an item as large; what it does not tell is found out by trying,
/// at the cost of the value that was there.
pub(super) fn fits(key: &Key, entry: &Entry, link: &Link) -> bool {
    let tags = entry.tags.as_ref().map_or(0, |tags| {
        tags.good_from.iter().map(|(tag, _)| tag.len() + 12).sum()
    });
    let body = entry.value.as_ref().map_or(0, Value::len);
    let room = ITEM_ROOM + HEADER + key.name().len() + key.whole().len() + tags + body;
    let largest = link.hello.largest.unwrap_or(u64::MAX);
    tags.max(body) as u64 <= MAX_DECODED && room as u64 <= largest
}

/// Whether `entry` is kept as bare digits, which the server and other languages can count.
fn is_bare(entry: &Entry, now: Moment, beside: Beside) -> bool {
    let Some(Value::Integer(number)) = entry.value else {
        return false;
    };
    // One that was marked keeps the mark's stamp, also when the mark is over.
    if !entry.is_plain() || number < 0 || entry.state_until != Moment::START {
        return false;
    }
    match entry.fresh_until.left(now) {
        None => true,
        Some(left) => beside.expires > 0 && left.as_millis() >= SHORTEST_PLAIN.into(),
    }
}

/// For how long the server is to keep `entry`: a second more than needed, since it may be at any point
/// of its own second; the frame decides.
fn life(entry: &Entry, now: Moment, server_time: u64) -> Life {
    let end = entry.gone_after();
    let Some(left) = end.left(now) else {
        return Life::Until(Beside::default());
    };
    if left.is_zero() {
        return Life::Gone;
    }
    let seconds = u64::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
    let seconds = seconds.saturating_add(1);
    let expires = if seconds <= LONGEST_SPAN {
        seconds
    } else {
        let date = server_time.saturating_add(seconds);
        // Past the end of the server's time there is only never.
        if date > LAST_SECOND { 0 } else { date }
    };
    let flags = low_half(end.as_millis());
    Life::Until(Beside { expires, flags })
}

/// The end of a bare integer's TTL: the moment of which its writer noted the lower half, if the
/// server's seconds agree with it.
fn deadline(now: Moment, left: i64, flags: u32) -> Moment {
    let Ok(left) = u64::try_from(left) else {
        return Moment::NEVER;
    };
    let about = now.as_millis().saturating_add(left * 1000);
    let ahead = u64::from(flags.wrapping_sub(low_half(about)));
    let behind = (1 << 32) - ahead;
    let noted = if ahead <= SLACK {
        about + ahead
    } else if behind <= SLACK {
        about.saturating_sub(behind)
    } else {
        about
    };
    Moment::from_millis(noted)
}

fn low_half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;

    fn expires(span: Duration, server_time: u64) -> Life {
        let clock = Clock::manual();
        let entry = Entry::new(&clock, Value::Integer(1)).fresh_until(clock.now().plus(span));
        match life(&entry, clock.now(), server_time) {
            Life::Gone => Life::Gone,
            Life::Until(beside) => Life::Until(Beside { flags: 0, ..beside }),
        }
    }

    #[test]
    fn seconds_are_rounded_up_and_long_spans_are_dates() {
        let until = |expires| Life::Until(Beside { expires, flags: 0 });
        let days = |days: u64| Duration::from_hours(days * 24);
        for (span, expected) in [
            (Duration::ZERO, Life::Gone),
            (Duration::from_millis(1), until(2)),
            (Duration::from_millis(60_001), until(62)),
            (Duration::from_secs(LONGEST_SPAN - 1), until(LONGEST_SPAN)),
            (days(30), until(1_000_000 + LONGEST_SPAN + 1)),
            (days(365), until(1_000_000 + 365 * 86_400 + 1)),
            (days(30_000), until(0)),
        ] {
            assert_eq!(expires(span, 1_000_000), expected, "{span:?}");
        }
    }

    #[test]
    fn a_noted_moment_is_found_again_by_the_servers_seconds() {
        let now = Moment::from_millis((7 << 32) - 1000);
        for ms in [60_000, 60_999, 4_000_000_000] {
            let end = now.plus(Duration::from_millis(ms));
            let flags = low_half(end.as_millis());
            let left = i64::try_from(ms / 1000).expect("small");
            for off in [-1, 0, 1, 2] {
                assert_eq!(deadline(now, left + off, flags), end, "{ms} {off}");
            }
        }
        assert_eq!(deadline(now, -1, 7), Moment::NEVER);
        assert_eq!(deadline(now, 60, 2), now.plus(Duration::from_mins(1)));
    }

    #[test]
    fn blanks_behind_digits_are_not_part_of_them() {
        for (bytes, expected) in [("99 ", "99"), ("9", "9"), ("\u{fb} ", "\u{fb} "), ("", "")] {
            assert_eq!(without_padding(&Bytes::from(bytes)), expected);
        }
    }
}
