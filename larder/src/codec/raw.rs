//! Bytes and text as they are, for serde.

use std::fmt;

use serde::de::value::SeqDeserializer;
use serde::de::{self, Visitor};
use serde::ser::{self, Impossible, Serialize, SerializeSeq, SerializeTuple};
use serde::{Deserializer, Serializer, forward_to_deserialize_any};

use crate::entry::Value;

/// A value that is neither bytes nor text nor an integer, or bytes that are not the text asked for.
#[derive(Debug)]
pub(super) struct NotRaw(String);

impl fmt::Display for NotRaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotRaw {}

impl ser::Error for NotRaw {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl de::Error for NotRaw {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

type Written<T = Value> = Result<T, NotRaw>;

fn refused<T>() -> Written<T> {
    Err(NotRaw(
        "the raw codec keeps bytes, text and integers only".into(),
    ))
}

/// Writes byte strings, texts and integers.
pub(super) struct Writer;

macro_rules! integers {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, number: $type) -> Written {
            i64::try_from(number).map_or_else(|_| refused(), |number| Ok(Value::Integer(number)))
        })*
    };
}

impl Serializer for Writer {
    type Ok = Value;
    type Error = NotRaw;
    type SerializeSeq = Octets;
    type SerializeTuple = Octets;
    type SerializeTupleStruct = Impossible<Value, NotRaw>;
    type SerializeTupleVariant = Impossible<Value, NotRaw>;
    type SerializeMap = Impossible<Value, NotRaw>;
    type SerializeStruct = Impossible<Value, NotRaw>;
    type SerializeStructVariant = Impossible<Value, NotRaw>;

    integers!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64);
    integers!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);

    fn serialize_bytes(self, bytes: &[u8]) -> Written {
        Ok(Value::Bytes(bytes.to_vec().into()))
    }

    fn serialize_str(self, text: &str) -> Written {
        self.serialize_bytes(text.as_bytes())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Written {
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Written<Octets> {
        Ok(Octets(Vec::with_capacity(length.unwrap_or(0))))
    }

    fn serialize_tuple(self, length: usize) -> Written<Octets> {
        self.serialize_seq(Some(length))
    }

    fn serialize_bool(self, _: bool) -> Written {
        refused()
    }

    fn serialize_f32(self, _: f32) -> Written {
        refused()
    }

    fn serialize_f64(self, _: f64) -> Written {
        refused()
    }

    fn serialize_char(self, _: char) -> Written {
        refused()
    }

    fn serialize_none(self) -> Written {
        refused()
    }

    fn serialize_unit(self) -> Written {
        refused()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        refused()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Written {
        refused()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Written {
        refused()
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Written<Self::SerializeTupleStruct> {
        refused()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Written<Self::SerializeTupleVariant> {
        refused()
    }

    fn serialize_map(self, _: Option<usize>) -> Written<Self::SerializeMap> {
        refused()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Written<Self::SerializeStruct> {
        refused()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Written<Self::SerializeStructVariant> {
        refused()
    }
}

/// Gathers a sequence of octets, which is how serde sees a `Vec<u8>`.
pub(super) struct Octets(Vec<u8>);

impl Octets {
    fn push<T: Serialize + ?Sized>(&mut self, element: &T) -> Written<()> {
        match element.serialize(Writer)? {
            Value::Integer(number) => {
                self.0.push(u8::try_from(number).or_else(|_| refused())?);
                Ok(())
            }
            Value::Bytes(_) => refused(),
        }
    }
}

impl SerializeSeq for Octets {
    type Ok = Value;
    type Error = NotRaw;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, element: &T) -> Written<()> {
        self.push(element)
    }

    fn end(self) -> Written {
        Ok(Value::Bytes(self.0.into()))
    }
}

impl SerializeTuple for Octets {
    type Ok = Value;
    type Error = NotRaw;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, element: &T) -> Written<()> {
        self.push(element)
    }

    fn end(self) -> Written {
        SerializeSeq::end(self)
    }
}

/// Reads byte strings and texts.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = NotRaw;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotRaw> {
        visitor.visit_bytes(self.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotRaw> {
        let text = std::str::from_utf8(self.0).map_err(de::Error::custom)?;
        visitor.visit_str(text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotRaw> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotRaw> {
        let mut octets = SeqDeserializer::new(self.0.iter().copied());
        let value = visitor.visit_seq(&mut octets)?;
        // An array is read from as many octets as it has, not from the first few of more.
        octets.end()?;
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, NotRaw> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotRaw> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, NotRaw> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        tuple_struct map struct enum identifier ignored_any
    }
}
