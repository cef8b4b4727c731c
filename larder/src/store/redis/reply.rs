//! Reads the server's replies; what does not fit is told, never a panic.

use bytes::Bytes;
use redis::Value;

use crate::entry::Head;
use crate::store::Numbers;
use crate::{Key, Moment};

/// A reply that does not fit.
pub(super) struct Odd;

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

pub(super) fn number<N: std::str::FromStr>(value: &Value) -> Option<N> {
    match value {
        Value::Int(number) => number.to_string().parse().ok(),
        other => text(other)?.parse().ok(),
    }
}

pub(super) fn list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

/// What a slot holds, physically.
pub(super) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        _ => None,
    }
}

/// The head in what `head()` of the scripts gave; an error is a reply that does not fit.
pub(super) fn head(value: &Value, key: &Key, now: Moment) -> Result<Option<Head>, Odd> {
    match value {
        Value::Nil => Ok(None),
        Value::Int(left) => {
            let fresh_until = u64::try_from(*left).map_or(Moment::NEVER, |left| {
                Moment::from_millis(now.as_millis().saturating_add(left))
            });
            Ok(Some(Head {
                fresh_until,
                tags: None,
            }))
        }
        Value::BulkString(bytes) => Ok(Head::from_frame(bytes, key)),
        _ => Err(Odd),
    }
}

/// Numbers in the order seq, era, floor, tags; `None` where there is no era.
pub(super) fn numbers(values: &[Value], incarnation: u64) -> Option<Numbers> {
    let [seq, era, floor, of @ ..] = values else {
        return None;
    };
    Some(Numbers {
        // What was counted before a restart may have been lost: another incarnation, another era.
        era: number::<u64>(era)? ^ incarnation,
        seq: number(seq).unwrap_or(0),
        floor: number(floor).unwrap_or(0),
        of: of.iter().map(number).collect(),
    })
}
