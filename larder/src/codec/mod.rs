//! Values to bytes and back.

mod depth;
mod raw;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::entry::Value;
use crate::{Error, ErrorKind, Result};

/// How values become bytes. Integers become their digits with every codec.
///
/// A value may nest 127 deep: what is deeper is refused when it is written, and bytes that are deeper
/// are not read, since they could use up the stack.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::{Cache, Codec, store::Memory};
///
/// let cache = Cache::builder(Memory::new()).codec(Codec::Json).build()?;
/// cache.set("point", &(3, 4)).await?;
/// assert_eq!(cache.get::<(i32, i32)>("point").await?, Some((3, 4)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Codec {
    /// `MessagePack` with field names: compact, and a struct that has changed is a miss or reads
    /// what it still has, never another field's value.
    #[default]
    MessagePack,
    /// JSON, to share values with other languages and to read them by eye.
    Json,
    /// The bytes of a byte string or a text as they are; other types are refused.
    Raw,
}

impl Codec {
    /// The number by which an entry names its codec.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::MessagePack => 0,
            Self::Json => 1,
            Self::Raw => 2,
        }
    }

    /// Turns `value` into what a store keeps.
    pub(crate) fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Value> {
        let encoded = match self {
            Self::MessagePack => rmp_serde::to_vec_named(value)
                .map_err(Into::into)
                .and_then(|bytes| bounded(bytes, depth::is_bounded_pack))
                .map(packed),
            Self::Json => serde_json::to_vec(value)
                .map_err(Into::into)
                .and_then(|text| bounded(text, depth::is_bounded_json))
                .map(written),
            Self::Raw => value.serialize(raw::Writer).map_err(Into::into),
        };
        encoded.map_err(|source: Failure| {
            let what = format!(
                "a value of `{}` cannot be encoded",
                std::any::type_name::<T>()
            );
            Error::new(ErrorKind::Codec, "cache", what).with_source(source)
        })
    }

    /// Turns what `codec` wrote back into a value; `None` if this codec is another, or the bytes
    /// are not a `T`.
    pub(crate) fn decode<T: DeserializeOwned>(self, codec: u8, value: &Value) -> Option<T> {
        let bytes = match value {
            Value::Integer(number) => return self.decode_integer(*number),
            Value::Bytes(bytes) if codec == self.number() => bytes,
            Value::Bytes(_) => return None,
        };
        match self {
            Self::MessagePack => unpack(bytes),
            Self::Json => serde_json::from_slice(bytes).ok(),
            Self::Raw => T::deserialize(raw::Reader(bytes)).ok(),
        }
    }

    /// Reads an integer, whatever codec wrote it.
    fn decode_integer<T: DeserializeOwned>(self, number: i64) -> Option<T> {
        // Some types are numbers to MessagePack and words to JSON, which is for people.
        let packed = || {
            let mut bytes = [0xd3; 9];
            bytes[1..].copy_from_slice(&number.to_be_bytes());
            unpack(&bytes)
        };
        let own = (self == Self::MessagePack).then(packed).flatten();
        own.or_else(|| serde_json::from_str(&number.to_string()).ok())
    }
}

fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    if !depth::is_bounded_pack(bytes) {
        return None;
    }
    rmp_serde::from_slice(bytes).ok()
}

/// What was encoded, if it can be read back.
fn bounded(bytes: Vec<u8>, is_bounded: fn(&[u8]) -> bool) -> Result<Vec<u8>, Failure> {
    if is_bounded(&bytes) {
        return Ok(bytes);
    }
    Err(format!(
        "it nests deeper than {}, which is not read back",
        depth::MOST
    )
    .into())
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An integer if the `MessagePack` bytes are one, else the bytes.
fn packed(bytes: Vec<u8>) -> Value {
    let is_integer = matches!(bytes.first(), Some(0x00..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff));
    match rmp_serde::from_slice(&bytes) {
        Ok(number) if is_integer => Value::Integer(number),
        _ => Value::Bytes(bytes.into()),
    }
}

/// An integer if the JSON text is one, else the text.
fn written(bytes: Vec<u8>) -> Value {
    let is_integer = matches!(bytes.first(), Some(b'-' | b'0'..=b'9'));
    match serde_json::from_slice(&bytes) {
        Ok(number) if is_integer => Value::Integer(number),
        _ => Value::Bytes(bytes.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use serde::Deserialize;

    use super::*;

    const ALL: [Codec; 3] = [Codec::MessagePack, Codec::Json, Codec::Raw];

    fn round<T: Serialize + DeserializeOwned>(codec: Codec, value: &T) -> Option<T> {
        codec.decode(codec.number(), &codec.encode(value).ok()?)
    }

    #[test]
    fn integers_become_integers_with_every_codec() {
        for codec in ALL {
            assert_eq!(codec.encode(&5u8).unwrap(), Value::Integer(5), "{codec:?}");
            assert_eq!(
                codec.encode(&-5i64).unwrap(),
                Value::Integer(-5),
                "{codec:?}"
            );
            assert_eq!(
                codec.encode(&Some(5)).unwrap(),
                Value::Integer(5),
                "{codec:?}"
            );
            assert_eq!(round(codec, &i64::MIN), Some(i64::MIN), "{codec:?}");
            assert_eq!(round(codec, &Some(7u16)), Some(Some(7)), "{codec:?}");
        }
    }

    #[test]
    fn what_only_looks_like_an_integer_stays_what_it_is() {
        for codec in [Codec::MessagePack, Codec::Json] {
            assert!(
                matches!(codec.encode("5").unwrap(), Value::Bytes(_)),
                "{codec:?}"
            );
            assert!(
                matches!(codec.encode(&5.0).unwrap(), Value::Bytes(_)),
                "{codec:?}"
            );
            assert!(
                matches!(codec.encode(&true).unwrap(), Value::Bytes(_)),
                "{codec:?}"
            );
            assert_eq!(round(codec, &u64::MAX), Some(u64::MAX), "{codec:?}");
            assert_eq!(round(codec, &5.0), Some(5.0), "{codec:?}");
        }
        assert!(matches!(Codec::Raw.encode("5").unwrap(), Value::Bytes(_)));
    }

    #[test]
    fn raw_keeps_bytes_and_text_as_they_are() {
        assert_eq!(
            Codec::Raw.encode("page").unwrap(),
            Value::Bytes(Bytes::from_static(b"page"))
        );
        assert_eq!(round(Codec::Raw, &vec![1u8, 2, 255]), Some(vec![1, 2, 255]));
        assert_eq!(
            round(Codec::Raw, &"page".to_owned()),
            Some("page".to_owned())
        );
        assert_eq!(round(Codec::Raw, &[7u8; 4]), Some([7; 4]));
        assert!(Codec::Raw.encode(&BTreeMap::from([("a", 1)])).is_err());
    }

    #[test]
    fn a_changed_struct_is_a_miss_or_reads_what_it_still_has() {
        #[derive(Serialize)]
        struct Old {
            width: u32,
            height: u32,
        }
        #[derive(Deserialize, PartialEq, Debug)]
        struct Swapped {
            height: u32,
            width: u32,
        }
        #[derive(Deserialize, PartialEq, Debug)]
        struct More {
            width: u32,
            depth: u32,
        }

        for codec in [Codec::MessagePack, Codec::Json] {
            let bytes = codec
                .encode(&Old {
                    width: 1,
                    height: 2,
                })
                .unwrap();
            let swapped = codec.decode(codec.number(), &bytes);
            assert_eq!(
                swapped,
                Some(Swapped {
                    height: 2,
                    width: 1
                }),
                "{codec:?}"
            );
            assert_eq!(
                codec.decode::<More>(codec.number(), &bytes),
                None,
                "{codec:?}"
            );
        }
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    enum Tree {
        Leaf,
        Node(Box<Self>),
    }

    #[test]
    fn crafted_bytes_cannot_use_up_the_stack() {
        let crafted = b"\x81\xa4Node".repeat(100_000);
        let crafted = Value::Bytes(crafted.into());

        assert_eq!(Codec::MessagePack.decode::<Tree>(0, &crafted), None);

        let text = "{\"Node\":".repeat(100_000).into();
        let number = Codec::Json.number();
        assert_eq!(
            Codec::Json.decode::<Tree>(number, &Value::Bytes(text)),
            None
        );
    }

    #[test]
    fn what_nests_too_deep_to_be_read_back_is_refused() {
        let tree = |depth| (0..depth).fold(Tree::Leaf, |inner, _| Tree::Node(Box::new(inner)));
        for codec in [Codec::MessagePack, Codec::Json] {
            let deepest = tree(depth::MOST);
            assert_eq!(round(codec, &deepest), Some(deepest), "{codec:?}");

            let refused = codec.encode(&tree(depth::MOST + 1)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Codec, "{codec:?}");
        }
    }

    #[test]
    fn another_codecs_bytes_are_not_read() {
        let bytes = Codec::Json.encode("text").unwrap();

        assert_eq!(
            Codec::MessagePack.decode::<String>(Codec::Json.number(), &bytes),
            None
        );
    }

    #[test]
    fn a_cached_nothing_is_not_a_miss() {
        for codec in [Codec::MessagePack, Codec::Json] {
            assert_eq!(round(codec, &None::<String>), Some(None), "{codec:?}");
        }
    }
}
