//! The bytes of a slot's file.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `larder`, 0, and the format: 1 |
//! | 8 | XXH3 of all that follows |
//! | 2 | length of the name |
//! | … | name of the slot |
//! | rest | frame of the entry |
//!
//! Numbers are big-endian. The frame of a slot whose name is hashed holds its whole key.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::entry::{Entry, MAX_DECODED, Mark, Stamp, State, whole_key};
use crate::{Key, MAX_NAME, Moment};

const MAGIC: &[u8; 8] = b"larder\x00\x01";
const SUM: usize = MAGIC.len() + 8;
const NAME: usize = SUM + 2;

/// How much of a file [`name`] needs.
pub(super) const HEAD: u64 = (NAME + MAX_NAME) as u64;
/// The longest file that is read: room for tags and a key besides the longest value.
pub(super) const LONGEST: u64 = MAX_DECODED + (1 << 20);

/// Where the file of a slot is: number of the folder, and name in it.
pub(super) fn place(name: &str) -> (usize, String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let hash = Sha256::digest(name.as_bytes());
    let mut rest = String::with_capacity(62);
    for byte in &hash[1..] {
        rest.push(char::from(DIGITS[usize::from(byte >> 4)]));
        rest.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    (usize::from(hash[0]), rest)
}

/// Whether a file of this name can be a slot's.
pub(super) fn is_place(name: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.len() == 62 && name.bytes().all(is_digit)
}

/// What stands before the frame.
pub(super) fn head(key: &Key, frame: &[u8]) -> Vec<u8> {
    let name = key.name().as_bytes();
    let length = u16::try_from(name.len()).expect("a name is at most 250 bytes");
    let mut sum = Xxh3::new();
    for part in [&length.to_be_bytes()[..], name, frame] {
        sum.update(part);
    }
    let mut head = Vec::with_capacity(NAME + name.len());
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&sum.digest().to_be_bytes());
    head.extend_from_slice(&length.to_be_bytes());
    head.extend_from_slice(name);
    head
}

/// The entry in the file `bytes`, if it is one of `key`; what is none counts as unreadable, so that
/// it can be written over.
pub(super) fn entry(bytes: Vec<u8>, key: &Key, incarnation: u64) -> Option<Entry> {
    let bytes = Bytes::from(bytes);
    let is_whole = bytes.starts_with(MAGIC)
        && bytes.len() > NAME
        && bytes[MAGIC.len()..SUM] == xxh3_64(&bytes[SUM..]).to_be_bytes();
    match name(&bytes) {
        Some(name) if is_whole && name == key.name() => {
            Entry::from_frame(&bytes.slice(NAME + name.len()..), key, incarnation)
        }
        _ => Some(unreadable()),
    }
}

/// What a file that cannot be read counts as.
pub(super) fn unreadable() -> Entry {
    let nothing = Mark {
        stamp: Stamp::PLAIN,
        state: State::Idle,
        until: Moment::START,
    };
    Entry {
        unreadable: true,
        ..Entry::bare(nothing)
    }
}

/// The name of the slot whose file begins with `bytes`. Unless the file's place agrees, it says
/// nothing.
pub(super) fn name(bytes: &[u8]) -> Option<&str> {
    if !is_ours(bytes) {
        return None;
    }
    let length = bytes.get(SUM..NAME)?.try_into().ok()?;
    let length = usize::from(u16::from_be_bytes(length));
    std::str::from_utf8(bytes.get(NAME..NAME + length)?).ok()
}

/// The key whose slot the file `bytes` is.
pub(super) fn key(bytes: &[u8]) -> Option<Key> {
    let name = name(bytes)?;
    let frame = &bytes[NAME + name.len()..];
    let whole = whole_key(frame).filter(|whole| !whole.is_empty());
    let key = Key::new(whole.unwrap_or(name));
    (key.name() == name).then_some(key)
}

/// Whether a file that begins with `bytes` was written by this store.
pub(super) fn is_ours(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}
