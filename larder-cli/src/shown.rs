//! A value of any format, as JSON shows it.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_bytes::ByteBuf;
use serde_json::{Map, Number, Value};

/// What is no JSON stands as a text: keys that are numbers, bytes, `NaN`.
///
/// Bytes that are no text are described where they are a part, and refused where they are all.
pub(crate) struct Shown(pub(crate) Value);

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reader { is_part: false }
            .deserialize(deserializer)
            .map(Self)
    }
}

#[derive(Clone, Copy)]
struct Reader {
    is_part: bool,
}

const PART: Reader = Reader { is_part: true };

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Value, E> {
        Ok(yes.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        let infinity = if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        };
        let word = if number.is_nan() { "NaN" } else { infinity };
        Ok(Number::from_f64(number).map_or_else(|| word.into(), Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Value, E> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) if self.is_part => Ok(format!("<{} bytes>", bytes.len()).into()),
            Err(_) => Err(E::custom("it is bytes alone")),
        }
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        self.deserialize(inner)
    }

    /// An extension of `MessagePack`: a number and bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        let (kind, bytes) = <(i8, ByteBuf)>::deserialize(inner)?;
        Ok(format!("<extension {kind}, {} bytes>", bytes.len()).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(PART)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key_seed(PART)? {
            let key = match key {
                Value::String(text) => text,
                Value::Array(_) | Value::Object(_) => {
                    return Err(A::Error::custom("a key is no text"));
                }
                plain => plain.to_string(),
            };
            let value = map.next_value_seed(PART)?;
            if values.insert(key, value).is_some() {
                return Err(A::Error::custom("two keys are the same text"));
            }
        }
        Ok(values.into())
    }
}
