//! Rows of the server to values, and back.

use bytes::Bytes;
use mysql_async::{Row as Answer, Value};

use crate::store::sql::found::{Live, Numbered};
use crate::store::sql::outbox::Waiting;
use crate::store::sql::row::Row;

/// The columns of a row, in the order in which they are written.
pub(super) fn bound(name: &str, row: &Row) -> Vec<Value> {
    let bytes = |bytes: &Option<Bytes>| Value::from(bytes.as_deref());
    vec![
        name.into(),
        row.number.into(),
        row.codec.into(),
        row.size.into(),
        row.stamp.into(),
        row.state.into(),
        row.state_until.into(),
        row.fresh_until.into(),
        row.stale_until.into(),
        row.gone_after.into(),
        bytes(&row.meta),
        bytes(&row.body),
    ]
}

/// Entries by name, and the rows of the numbers.
pub(super) type Found = (Vec<(String, Row)>, Vec<Numbered>);

/// Reads a name and the columns of `READ`; a row of the numbers has the codec -1.
pub(super) fn read(rows: Vec<Answer>) -> Option<Found> {
    let mut found = Found::default();
    for row in rows {
        let mut values = row.unwrap_raw().into_iter();
        let mut next = || values.next().flatten();
        let (name, number) = (text(next()?)?, integer(&next()?));
        let codec = integer(&next()?)?;
        let (third, state, fifth) = (integer(&next()?), next()?, integer(&next()?));
        if codec == -1 {
            found.1.push(Numbered {
                tag: name,
                number: number?,
                floor: third,
                era: fifth,
            });
            continue;
        }
        let row = Row {
            number,
            codec: codec.try_into().ok()?,
            size: None,
            stamp: third?,
            state: integer(&state)?.try_into().ok()?,
            state_until: fifth?,
            fresh_until: integer(&next()?)?,
            stale_until: integer(&next()?)?,
            gone_after: 0,
            meta: blob(next()?),
            body: blob(next()?),
        };
        found.0.push((name, row));
    }
    Some(found)
}

/// Name, deadline and meta.
pub(super) fn live(row: Answer) -> Option<(String, Live)> {
    let mut values = row.unwrap_raw().into_iter().flatten();
    let name = text(values.next()?)?;
    let live = Live {
        fresh_until: integer(&values.next()?)?,
        meta: blob(values.next()?),
    };
    Some((name, live))
}

/// A row of the outbox. Whoever writes with another program may have put there what is no text.
pub(super) fn waiting(row: Answer) -> Option<Waiting> {
    let mut values = row.unwrap_raw().into_iter().flatten();
    let id = integer(&values.next()?)?;
    let tag = String::from_utf8_lossy(&blob(values.next()?)?).into_owned();
    Some(Waiting { id, tag })
}

/// Name and meta.
pub(super) fn named(row: Answer) -> Option<(String, Option<Bytes>)> {
    let mut values = row.unwrap_raw().into_iter().flatten();
    let name = text(values.next()?)?;
    Some((name, values.next().and_then(blob)))
}

/// Deadline, end of the grace, meta and stamp.
pub(super) fn seen(row: Answer) -> Option<(Live, i64, i64)> {
    let mut values = row.unwrap_raw().into_iter().flatten();
    let (fresh_until, stale_until) = (integer(&values.next()?)?, integer(&values.next()?)?);
    let meta = blob(values.next()?);
    let live = Live { fresh_until, meta };
    Some((live, stale_until, integer(&values.next()?)?))
}

/// The number of a live row, if it is a plain one.
pub(super) fn plain(row: Answer) -> Option<i64> {
    let mut values = row.unwrap_raw().into_iter().flatten();
    let number = integer(&values.next()?);
    number.filter(|_| values.next().and_then(|it| integer(&it)) == Some(1))
}

/// Whether the column at `at` says yes.
pub(super) fn flag(row: &Answer, at: usize) -> bool {
    row.as_ref(at).and_then(integer) == Some(1)
}

/// The first column.
pub(super) fn name(row: Answer) -> Option<String> {
    text(row.unwrap_raw().into_iter().next()??)
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::UInt(number) => i64::try_from(*number).ok(),
        Value::Bytes(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Bytes(bytes) => String::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn blob(value: Value) -> Option<Bytes> {
    match value {
        Value::Bytes(bytes) => Some(bytes.into()),
        _ => None,
    }
}
