//! What a compressed body looks like from outside.

use bytes::Bytes;

#[cfg(any(feature = "lz4", feature = "zstd"))]
use super::compression::inflated;

/// The bits of an entry's codec that say how its body is compressed.
const BITS: u8 = 0b1100_0000;

/// Whether a body of this codec is compressed.
pub(super) const fn is_compressed(codec: u8) -> bool {
    codec & BITS != 0
}

/// The body without compression, and its codec; `None` if it is not what it says, or the feature
/// that reads it is missing.
pub(super) fn inflate(codec: u8, body: &Bytes) -> Option<(u8, Bytes)> {
    if !is_compressed(codec) {
        return Some((codec, body.clone()));
    }
    let inflated = inflated(codec & BITS, body)?;
    Some((codec & !BITS, inflated))
}

#[cfg(not(any(feature = "lz4", feature = "zstd")))]
const fn inflated(_: u8, _: &Bytes) -> Option<Bytes> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_feature_reads_is_unreadable() {
        let body = Bytes::from_static(b"\0\0\0\x01xx");

        assert_eq!(inflate(0b1100_0001, &body), None);
        assert_eq!(inflate(0b0000_0001, &body), Some((1, body.clone())));
    }
}
