//! The names under which entries are kept.

use std::fmt;
use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};

use crate::{Error, ErrorKind, Result};

/// The longest name a slot may have, in bytes: memcached's limit, so that every store can follow.
pub const MAX_NAME: usize = 250;

/// Stands before a hashed tail. A key that contains it is hashed too, so nobody can write a name
/// that belongs to another key.
pub(crate) const MARKER: &str = "~sha256~";

/// The name of a slot, and the whole key that it stands for.
///
/// Made by a [`Cache`](crate::Cache) from prefix, version and the user's key, in Django's form
/// `prefix:version:key`. A whole key that is too long for a store, holds blanks or control
/// characters, or holds our own marker, gets a name whose tail is its SHA-256; the entry then
/// carries the whole key, and a store compares it.
///
/// ```
/// use larder::Key;
///
/// let key = Key::new(":1:user 7");
/// assert_eq!(key.whole(), ":1:user 7");
/// assert!(key.is_hashed() && key.name().starts_with(":1:~sha256~"));
/// assert_eq!(Key::new(":1:user:7").name(), ":1:user:7");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    name: Box<str>,
    whole: Option<Box<str>>,
}

impl Key {
    /// The key `whole`, which begins with `prefix:version:`.
    pub fn new(whole: impl Into<String>) -> Self {
        let whole = whole.into();
        if fits(&whole) {
            return Self {
                name: whole.into_boxed_str(),
                whole: None,
            };
        }
        let scope = scope(&whole);
        let name = format!(
            "{scope}{MARKER}{:x}",
            Hex(&Sha256::digest(whole.as_bytes()))
        );
        Self {
            name: name.into_boxed_str(),
            whole: Some(whole.into_boxed_str()),
        }
    }

    /// The slot of this name itself, whatever key it is for: for who has heard no more than the name.
    pub(crate) fn of_slot(name: impl Into<Box<str>>) -> Self {
        Self {
            name: name.into(),
            whole: None,
        }
    }

    /// The slot's name: at most 250 bytes, no blanks, no control characters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key in full.
    pub fn whole(&self) -> &str {
        self.whole.as_deref().unwrap_or(&self.name)
    }

    /// How many bytes the key keeps in memory, both names counted.
    #[cfg(feature = "memory")]
    pub(crate) fn kept_len(&self) -> usize {
        self.name.len() + self.whole.as_ref().map_or(0, |whole| whole.len())
    }

    /// Whether the name is a hash, so that the entry must state its whole key.
    pub fn is_hashed(&self) -> bool {
        self.whole.is_some()
    }
}

/// Whether `key` can be a slot's name as it stands.
fn fits(key: &str) -> bool {
    let plain = key.len() <= MAX_NAME && key.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    // The marker holds a byte that is rare in keys: looked for first, since it costs less.
    plain && (!key.as_bytes().contains(&b'~') || !key.contains(MARKER))
}

/// The start of `whole` that stays readable before a hash: `prefix:version:`, or at least `prefix:`, by
/// which a store finds the keys of a prefix.
fn scope(whole: &str) -> &str {
    let mut colons = whole.match_indices(':').map(|(colon, _)| colon + 1);
    let prefix = &whole[..colons.next().unwrap_or(0)];
    let version = &whole[..colons.next().unwrap_or(0)];
    let fits = |scope: &&str| !scope.is_empty() && fits_scope(scope);
    [version, prefix].into_iter().find(fits).unwrap_or("")
}

/// Whether `scope` leaves room for a hash behind it and can stand in a name.
pub(crate) fn fits_scope(scope: &str) -> bool {
    scope.len() <= MAX_NAME - MARKER.len() - 64 && fits(scope)
}

struct Hex<'a>(&'a [u8]);

impl fmt::LowerHex for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Hash for Key {
    // The name tells almost all keys apart, and equality looks at the rest.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.whole())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.whole())
    }
}

/// A version of all keys of a cache: a number, or a word.
///
/// ```
/// use larder::Version;
///
/// assert_eq!(Version::from(2).to_string(), "2");
/// assert_eq!(Version::from("v2").to_string(), "v2");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    /// A number, which `incr_version` can raise.
    Number(i64),
    /// A word.
    Word(Box<str>),
}

impl Version {
    /// Reports a version that would break the form of a key, or is kept for our own records.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Word(word) if word.contains(':') || &**word == "@" => Err(Error::new(
                ErrorKind::Invalid,
                "cache",
                format!("the version `{word}` cannot be used: it holds `:` or is `@`"),
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => word.fmt(f),
        }
    }
}

impl From<i64> for Version {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Version {
    fn from(word: &str) -> Self {
        Self::Word(word.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_250_bytes_is_kept_and_one_of_251_is_hashed() {
        let fits = format!(":1:{}", "k".repeat(247));
        let too_long = format!(":1:{}", "k".repeat(248));

        assert_eq!(Key::new(fits.as_str()).name(), fits);
        assert!(Key::new(too_long).name().len() <= MAX_NAME);
    }

    #[test]
    fn nobody_can_write_the_name_of_a_hashed_key() {
        let hashed = Key::new(":1:a b");

        let forged = Key::new(hashed.name());

        assert_ne!(forged.name(), hashed.name());
    }

    #[test]
    fn a_hashed_name_stays_within_the_scope_of_its_prefix() {
        for (key, start) in [
            ("shop:2:a b", "shop:2:~sha256~"),
            ("shop:a b:k", "shop:~sha256~"),
            ("shop:a b", "shop:~sha256~"),
            ("a b:2:k", "~sha256~"),
        ] {
            assert!(Key::new(key).name().starts_with(start), "{key}");
        }
    }

    #[test]
    fn a_prefix_that_leaves_no_room_is_hashed_with_the_rest() {
        let key = Key::new(format!("{}:1:k", "p".repeat(300)));

        assert!(key.name().len() <= MAX_NAME);
    }
}
