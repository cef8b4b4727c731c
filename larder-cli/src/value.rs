//! Values for people: JSON in, JSON out, whatever codec the cache has.

use std::io::{self, Read};

use larder::{Cache, Codec};
use serde_json::Value;

/// A text as a value: JSON, or else the text itself; `-` is what stdin has.
pub(crate) fn read(text: &str) -> io::Result<Value> {
    let text = bytes(text)?;
    Ok(serde_json::from_slice(&text)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&text).into_owned())))
}

/// A text as bytes; `-` is what stdin has.
pub(crate) fn bytes(text: &str) -> io::Result<Vec<u8>> {
    if text != "-" {
        return Ok(text.as_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The value at `key`, read by the codec of the cache or, where it was written by another, by that.
pub(crate) async fn find(cache: &Cache, key: &str) -> larder::Result<Option<Value>> {
    if let Some(value) = cache.get(key).await? {
        return Ok(Some(value));
    }
    for codec in [Codec::MessagePack, Codec::Json, Codec::Raw] {
        let cache = cache.with_codec(codec);
        let value = match codec {
            // Bytes are a text, or numbers where they are none.
            Codec::Raw => cache.get::<String>(key).await?.map(Value::String),
            _ => cache.get(key).await?,
        };
        if value.is_some() {
            return Ok(value);
        }
    }
    Ok(None)
}
