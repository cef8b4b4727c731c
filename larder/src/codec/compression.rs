//! Compressing what a codec wrote, and inflating it within bounds.
//!
//! A compressed body is the inflated size, 4 bytes big-endian, and the compressed bytes. Nothing is
//! inflated past that size, and no size past [`MAX_DECODED`] is believed.

use bytes::Bytes;

use crate::MAX_DECODED;

#[cfg(feature = "zstd")]
const ZSTD: u8 = 0b0100_0000;
#[cfg(feature = "lz4")]
const LZ4: u8 = 0b1000_0000;

/// The length of the inflated size.
const SIZE: usize = 4;

/// How values past a threshold are compressed; see
/// [`CacheBuilder::compression`](crate::CacheBuilder::compression).
///
/// What the one has written, caches that are set to another, or to none, read as well, as long as the
/// feature is there.
///
/// ```
/// # #[cfg(feature = "lz4")] {
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::{Cache, Compression, store::Memory};
///
/// let memory = Memory::new();
/// let cache = Cache::builder(memory.clone()).compression(Compression::Lz4, 1024).build()?;
/// cache.set("report", &"long ".repeat(10_000)).await?;
/// assert!(memory.bytes() < 5_000);
/// assert_eq!(cache.get("report").await?, Some("long ".repeat(10_000)));
/// # Ok(())
/// # }
/// # main().unwrap();
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Zstandard at level 3: the smaller result.
    #[cfg(feature = "zstd")]
    Zstd,
    /// LZ4: the faster one.
    #[cfg(feature = "lz4")]
    Lz4,
}

impl Compression {
    const fn bits(self) -> u8 {
        match self {
            #[cfg(feature = "zstd")]
            Self::Zstd => ZSTD,
            #[cfg(feature = "lz4")]
            Self::Lz4 => LZ4,
        }
    }

    /// The compressed body of `bytes`, and `codec` with the bits that say so; `None` where that would
    /// not be smaller.
    pub(super) fn compress(self, codec: u8, bytes: &[u8]) -> Option<(u8, Bytes)> {
        let size = u32::try_from(bytes.len()).ok()?;
        if u64::from(size) > MAX_DECODED {
            return None;
        }
        let compressed = match self {
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::bulk::compress(bytes, 3).ok()?,
            #[cfg(feature = "lz4")]
            Self::Lz4 => lz4_flex::block::compress(bytes),
        };
        if SIZE + compressed.len() >= bytes.len() {
            return None;
        }
        let body = [&size.to_be_bytes()[..], &compressed].concat();
        Some((codec | self.bits(), body.into()))
    }
}

/// Inflates `body` to exactly the size that it states.
pub(super) fn inflated(bits: u8, body: &Bytes) -> Option<Bytes> {
    let (size, compressed) = body.split_first_chunk::<SIZE>()?;
    let size = u32::from_be_bytes(*size);
    if u64::from(size) > MAX_DECODED {
        return None;
    }
    // Zeroed by the allocator: of a size that is a lie, no page is ever touched.
    let mut inflated = vec![0; size as usize];
    let written = match bits {
        #[cfg(feature = "zstd")]
        ZSTD => zstd::bulk::decompress_to_buffer(compressed, &mut inflated[..]).ok()?,
        #[cfg(feature = "lz4")]
        LZ4 => lz4_flex::block::decompress_into(compressed, &mut inflated).ok()?,
        _ => return None,
    };
    (written == inflated.len()).then(|| inflated.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::inflate::inflate;

    fn all() -> Vec<Compression> {
        vec![
            #[cfg(feature = "zstd")]
            Compression::Zstd,
            #[cfg(feature = "lz4")]
            Compression::Lz4,
        ]
    }

    fn body(compression: Compression, text: &[u8]) -> (u8, Bytes) {
        compression.compress(1, text).expect("it gets smaller")
    }

    #[test]
    fn what_is_compressed_is_inflated_again() {
        for compression in all() {
            let text = b"compress me ".repeat(1000);

            let (codec, body) = body(compression, &text);

            assert!(body.len() < text.len() / 10, "{compression:?}");
            assert_eq!(inflate(codec, &body), Some((1, text.into())));
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_left_as_it_is() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
            .take(5000)
            .collect();

        for compression in all() {
            for bytes in [&noise[..], b"", b"x"] {
                assert_eq!(compression.compress(1, bytes), None, "{compression:?}");
            }
        }
    }

    #[test]
    fn a_size_that_lies_is_unreadable() {
        for compression in all() {
            let (codec, honest) = body(compression, &vec![0; 100_000]);

            for size in [0, 99_999, 100_001, 67_108_864, 67_108_865, u32::MAX] {
                let lie = [&size.to_be_bytes()[..], &honest[SIZE..]].concat();
                assert_eq!(inflate(codec, &lie.into()), None, "{compression:?} {size}");
            }
        }
    }

    #[test]
    fn a_bomb_is_not_inflated_past_its_stated_size() {
        for compression in all() {
            // Sixty million zeroes that say they are a thousand.
            let (codec, bomb) = body(compression, &vec![0; 60_000_000]);
            let bomb = [&1000u32.to_be_bytes()[..], &bomb[SIZE..]].concat();

            assert_eq!(inflate(codec, &bomb.into()), None, "{compression:?}");
        }
    }

    #[test]
    fn no_cut_and_no_flipped_bit_makes_it_panic_or_grow() {
        for compression in all() {
            let text = b"0123456789".repeat(50);
            let (codec, body) = body(compression, &text);

            for end in 0..body.len() {
                assert_eq!(inflate(codec, &body.slice(..end)), None, "{compression:?}");
            }
            for bit in 0..body.len() * 8 {
                let mut flipped = body.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                if let Some((_, inflated)) = inflate(codec, &flipped.into()) {
                    assert_eq!(inflated.len(), text.len(), "{compression:?}");
                }
            }
        }
    }
}
