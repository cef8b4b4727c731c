//! A cache's codec and compression together.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Codec;
#[cfg(any(feature = "lz4", feature = "zstd"))]
use super::Compression;
use super::inflate::{inflate, is_compressed};
use crate::Result;
use crate::entry::{Entry, Value};

/// How a cache's values become what a store keeps.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Coding {
    pub(crate) codec: Codec,
    /// How values longer than so many bytes are compressed.
    #[cfg(any(feature = "lz4", feature = "zstd"))]
    pub(crate) compression: Option<(Compression, usize)>,
}

/// A value as a store keeps it, and the number of what wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    pub(crate) value: Value,
    pub(crate) codec: u8,
}

impl Coding {
    pub(crate) fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Encoded> {
        let encoded = Encoded {
            value: self.codec.encode(value)?,
            codec: self.codec.number(),
        };
        Ok(self.compressed(encoded))
    }

    #[cfg(any(feature = "lz4", feature = "zstd"))]
    fn compressed(self, encoded: Encoded) -> Encoded {
        let (Some((compression, threshold)), Value::Bytes(bytes)) =
            (self.compression, &encoded.value)
        else {
            return encoded;
        };
        if bytes.len() <= threshold {
            return encoded;
        }
        match compression.compress(encoded.codec, bytes) {
            Some((codec, body)) => Encoded {
                value: Value::Bytes(body),
                codec,
            },
            None => encoded,
        }
    }

    #[cfg(not(any(feature = "lz4", feature = "zstd")))]
    #[expect(clippy::unused_self, reason = "the same with and without compression")]
    const fn compressed(self, encoded: Encoded) -> Encoded {
        encoded
    }

    /// The value of `entry`; `None` if it is not a `T`, or another codec wrote it.
    pub(crate) fn decode<T: DeserializeOwned>(self, entry: &Entry) -> Option<T> {
        match entry.value.as_ref()? {
            Value::Bytes(body) if is_compressed(entry.codec) => {
                let (codec, bytes) = inflate(entry.codec, body)?;
                self.codec.decode(codec, &Value::Bytes(bytes))
            }
            value => self.codec.decode(entry.codec, value),
        }
    }
}

/// The bytes of `entry` as its codec wrote them.
pub(crate) fn bytes(entry: &Entry) -> Option<Bytes> {
    match entry.value.as_ref()? {
        Value::Integer(number) => Some(Bytes::from(number.to_string())),
        Value::Bytes(body) => inflate(entry.codec, body).map(|(_, bytes)| bytes),
    }
}
