//! Rows as the answers of a store, in the order in which they were asked for.

use std::collections::HashMap;
use std::fmt::Write as _;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::row::{Row, moment};
use super::statements::WAITING;
use crate::Key;
use crate::entry::{Entry, Head, Tag, whole_key_of_meta};
use crate::store::{Numbers, Scanned};

/// A row of `…_numbers`.
pub(super) struct Numbered {
    pub(super) tag: String,
    pub(super) number: i64,
    pub(super) floor: Option<i64>,
    pub(super) era: Option<i64>,
}

/// Whether something waits in the outbox.
pub(super) fn is_waiting(rows: &[Numbered]) -> bool {
    rows.iter().any(|row| row.tag == WAITING)
}

/// The numbers of `names`; `None` where the space has no row of its own yet.
pub(super) fn numbers(rows: &[Numbered], names: &[Tag]) -> Option<Numbers> {
    let own = rows.iter().find(|row| row.tag.is_empty())?;
    let (seq, floor, era) = (own.number, own.floor?, own.era?);
    let of: HashMap<&str, i64> = (rows.iter())
        .map(|row| (row.tag.as_str(), row.number))
        .collect();
    let number = |name: &Tag| {
        let number = of.get(tag(name).as_str())?;
        // One that was being written while the floor was raised over it stayed behind.
        Some(natural((*number).max(floor)))
    };
    Some(Numbers {
        era: era.cast_unsigned(),
        seq: natural(seq),
        floor: natural(floor),
        of: names.iter().map(number).collect(),
    })
}

/// A tag as its row has it; a space's own row has the empty one. What is too long for an index, or holds
/// what not every database takes, is hashed.
pub(super) fn tag(name: &str) -> String {
    if name.len() <= LONGEST_TAG && !name.contains('\0') {
        return format!("t:{name}");
    }
    let mut hashed = "h:".to_owned();
    for byte in Sha256::digest(name.as_bytes()) {
        // Writing into a String cannot fail.
        let _ = write!(hashed, "{byte:02x}");
    }
    hashed
}

const LONGEST_TAG: usize = 200;

pub(super) fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// What a row says of a live entry besides its value.
pub(super) struct Live {
    pub(super) fresh_until: i64,
    pub(super) meta: Option<Bytes>,
}

impl Live {
    pub(super) fn head(&self, key: &Key) -> Option<Head> {
        Head::from_meta(moment(self.fresh_until), self.meta.as_deref(), key)
    }
}

/// The entries of `keys`.
pub(super) fn entries(keys: &[Key], rows: Vec<(String, Row)>) -> Vec<Option<Entry>> {
    if let ([key], [_] | []) = (keys, rows.as_slice()) {
        let row = rows.into_iter().next();
        return vec![row.map(|(_, row)| row.into_entry(key))];
    }
    let rows: HashMap<String, Row> = rows.into_iter().collect();
    let entry = |key: &Key| Some(rows.get(key.name())?.clone().into_entry(key));
    keys.iter().map(entry).collect()
}

/// Where a page of names begins: behind `from`, or with `scope` itself.
pub(super) fn first_name(scope: &str, from: Option<&str>) -> String {
    // No name holds a character before the blank, so that none lies between.
    from.map_or_else(|| scope.to_owned(), |from| format!("{from}\u{1}"))
}

/// A page of at most `limit` keys, from rows of name and meta.
pub(super) fn page(rows: &[(String, Option<Bytes>)], limit: usize) -> Scanned {
    let key = |(name, meta): &(String, Option<Bytes>)| {
        let whole = meta.as_deref().and_then(whole_key_of_meta);
        let key = Key::new(whole.filter(|whole| !whole.is_empty()).unwrap_or(name));
        (key.name() == name).then_some(key)
    };
    let next = rows.last().filter(|_| rows.len() >= limit);
    Scanned {
        keys: rows.iter().filter_map(key).collect(),
        next: next.map(|(name, _)| name.clone()),
    }
}
