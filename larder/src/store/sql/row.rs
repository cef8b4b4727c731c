//! Entries as columns, and back.

use bytes::Bytes;

use crate::entry::{Entry, Mark, Stamp, State, Value};
use crate::{Key, MAX_DECODED, Moment};

/// What a table keeps of an entry, beside its name; moments and stamps as the table has them.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// An integer, which the server itself can count up.
    pub(super) number: Option<i64>,
    pub(super) codec: i16,
    /// The length that `body` has to have.
    pub(super) size: Option<i64>,
    /// Tags and whole key, in the bytes of `entry.rs`.
    pub(super) meta: Option<Bytes>,
    pub(super) body: Option<Bytes>,
    pub(super) stamp: i64,
    pub(super) state: i16,
    pub(super) state_until: i64,
    pub(super) fresh_until: i64,
    pub(super) stale_until: i64,
    /// When nothing in the row matters any more.
    pub(super) gone_after: i64,
}

impl Row {
    pub(super) fn of(entry: &Entry, key: &Key) -> Self {
        let (number, body) = match &entry.value {
            None => (None, None),
            Some(Value::Integer(number)) => (Some(*number), None),
            Some(Value::Bytes(bytes)) => (None, Some(bytes.clone())),
        };
        Self {
            number,
            codec: entry.codec.into(),
            size: body.as_ref().and_then(|body| body.len().try_into().ok()),
            meta: entry.to_meta(key),
            body,
            stamp: stamp(entry.stamp),
            state: entry.state.number().into(),
            state_until: ms(entry.state_until),
            fresh_until: ms(entry.fresh_until),
            stale_until: ms(entry.stale_until),
            gone_after: ms(entry.gone_after()),
        }
    }

    /// A row that says nothing, to write over what was there; it is gone at once.
    pub(super) fn nothing(stamp: Stamp, key: &Key) -> Self {
        let nothing = Mark {
            stamp,
            state: State::Idle,
            until: Moment::START,
        };
        Self::of(&Entry::bare(nothing), key)
    }

    /// About what it takes to send it.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(super) fn bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        length(&self.meta) + length(&self.body) + 128
    }

    /// The entry of `key` in this row; a row that cannot be read gives one without value.
    pub(super) fn into_entry(self, key: &Key) -> Entry {
        let state = u8::try_from(self.state).ok().and_then(State::from_number);
        let mut entry = Entry::bare(Mark {
            stamp: Stamp::from_number(self.stamp.cast_unsigned()),
            state: state.unwrap_or_default(),
            until: moment(self.state_until),
        });
        let value = match (self.number, self.body) {
            (Some(number), _) => Value::Integer(number),
            (None, Some(body)) => Value::Bytes(body),
            (None, None) => return entry,
        };
        entry.codec = u8::try_from(self.codec).unwrap_or_default();
        let mut entry = entry.with_body(value, self.meta.as_deref(), key);
        if !entry.unreadable {
            entry.fresh_until = moment(self.fresh_until);
            entry.stale_until = moment(self.stale_until);
        }
        entry
    }
}

/// Rows for a batch: the last of each name, in the order of the names; and which positions were
/// refused, since their values are too large.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) fn rows_of(
    entries: &[(Key, Entry)],
    clock: &crate::Clock,
    fits: impl Fn(&Entry) -> bool,
) -> (Vec<(String, Row)>, Vec<usize>) {
    let mut rows = std::collections::BTreeMap::new();
    let mut refused = Vec::new();
    for (at, (key, entry)) in entries.iter().enumerate() {
        let row = if fits(entry) {
            Row::of(entry, key)
        } else {
            refused.push(at);
            Row::nothing(Stamp::draw(clock), key)
        };
        rows.insert(key.name().to_owned(), row);
    }
    (rows.into_iter().collect(), refused)
}

/// Parts of a batch that are small enough to be sent in one go.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) fn parts(
    rows: Vec<(String, Row)>,
    most_rows: usize,
    most_bytes: usize,
) -> Vec<Vec<(String, Row)>> {
    let mut parts: Vec<Vec<(String, Row)>> = Vec::new();
    let mut bytes = 0;
    for (name, row) in rows {
        let size = row.bytes() + name.len();
        match parts.last_mut() {
            Some(part) if part.len() < most_rows && bytes + size <= most_bytes => {
                bytes += size;
                part.push((name, row));
            }
            _ => {
                bytes = size;
                parts.push(vec![(name, row)]);
            }
        }
    }
    parts
}

/// Whether the value is no longer than what is read back.
pub(super) fn fits(entry: &Entry) -> bool {
    entry.value.as_ref().map_or(0, Value::len) as u64 <= MAX_DECODED
}

/// Milliseconds, as a signed column holds them; its largest number is never.
pub(super) fn ms(moment: Moment) -> i64 {
    i64::try_from(moment.as_millis()).unwrap_or(NEVER)
}

pub(super) fn moment(ms: i64) -> Moment {
    match u64::try_from(ms) {
        Ok(_) if ms == NEVER => Moment::NEVER,
        Ok(ms) => Moment::from_millis(ms),
        Err(_) => Moment::START,
    }
}

pub(super) const NEVER: i64 = i64::MAX;

/// The bits of a stamp in a signed column.
pub(super) fn stamp(stamp: Stamp) -> i64 {
    stamp.number().cast_signed()
}

/// The numbers to which `delta` can be added within 64 bits.
pub(super) fn room_for(delta: i64) -> (i64, i64) {
    if delta >= 0 {
        (i64::MIN, i64::MAX - delta)
    } else {
        (i64::MIN - delta, i64::MAX)
    }
}

/// The first text after all that start with `start`; `None` where there is none.
pub(super) fn after_all(start: &str) -> Option<String> {
    let mut end: Vec<char> = start.chars().collect();
    while let Some(last) = end.pop() {
        let mut later = (u32::from(last) + 1..=u32::from(char::MAX)).filter_map(char::from_u32);
        if let Some(next) = later.next() {
            end.push(next);
            return Some(end.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Clock;
    use crate::entry::Tagged;

    fn tagged(clock: &Clock, value: Value) -> Entry {
        Entry::new(clock, value)
            .fresh_until(clock.now().plus(Duration::from_secs(1)))
            .with_grace(Duration::from_secs(9))
            .with_tags(Tagged {
                era: u64::MAX,
                good_from: vec![("a".into(), 3)],
            })
    }

    #[test]
    fn what_is_put_into_columns_is_read_back() {
        let clock = Clock::manual();
        let mark = Mark {
            stamp: Stamp::from_number(u64::MAX),
            state: State::Failed,
            until: clock.now(),
        };
        for entry in [
            tagged(&clock, Value::Bytes("page".into())),
            tagged(&clock, Value::Integer(-5)),
            Entry::new(&clock, Value::Bytes(Bytes::new())),
            Entry::new(&clock, Value::Integer(i64::MIN)),
            Entry::bare(mark),
            tagged(&clock, Value::Bytes("page".into())).marked(mark),
        ] {
            for key in [Key::new(":1:k"), Key::new(":1:a b")] {
                assert_eq!(Row::of(&entry, &key).into_entry(&key), entry);
            }
        }
    }

    #[test]
    fn a_row_with_a_cut_body_or_of_another_key_is_unreadable() {
        let clock = Clock::manual();
        let key = Key::new(":1:a b");
        let row = Row::of(&tagged(&clock, Value::Bytes("page".into())), &key);

        let cut = Row {
            body: Some("pag".into()),
            ..row.clone()
        };
        let bare = Row {
            meta: None,
            ..row.clone()
        };
        for (row, key) in [(cut, &key), (bare, &key), (row, &Key::new(":1:b c"))] {
            let entry = row.into_entry(key);

            assert!(entry.unreadable && !entry.is_live(clock.now()), "{entry:?}");
        }
    }

    #[test]
    fn a_scope_ends_before_the_next_text_that_does_not_start_with_it() {
        for (start, end) in [
            ("shop:", Some("shop;")),
            ("", None),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("\u{d7ff}", Some("\u{e000}")),
        ] {
            assert_eq!(after_all(start).as_deref(), end, "{start:?}");
        }
    }

    #[test]
    fn what_cannot_overflow_has_room() {
        for delta in [0, 1, -1, i64::MAX, i64::MIN] {
            let (least, most) = room_for(delta);

            assert!(least.checked_add(delta).is_some() && most.checked_add(delta).is_some());
            assert!(least == i64::MIN || (least - 1).checked_add(delta).is_none());
            assert!(most == i64::MAX || (most + 1).checked_add(delta).is_none());
        }
    }
}
