//! Values for people: JSON in, JSON out, whatever codec the cache has.

use std::io::{self, Read};

use larder::{Cache, Codec};
use serde_json::Value;

use crate::fault::Fault;
use crate::shown::Shown;

/// A text as a value: JSON, or else the text itself; `-` is what stdin has.
pub(crate) fn read(text: &str) -> Result<Value, Fault> {
    let text = String::from_utf8(bytes(text)?).map_err(|_| {
        Fault::new("the value is no text in UTF-8").with_hint("`--raw` takes bytes as they are")
    })?;
    let Ok(value) = serde_json::from_str(&text) else {
        return Ok(Value::String(text));
    };
    match numbers(&text).find(|number| is_too_large(number)) {
        None => Ok(value),
        Some(number) => {
            let what = format!("the integer {number} is past 64 bits, and would lose digits");
            let hint =
                format!("write it as a text, `\"{number}\"`, or with a fraction, `{number}.0`");
            Err(Fault::new(what).with_hint(hint))
        }
    }
}

/// The numbers in a JSON text.
fn numbers(json: &str) -> impl Iterator<Item = &str> {
    let (mut is_within, mut is_escaped) = (false, false);
    let is_outside_number = move |char: char| {
        let was_escaped = is_escaped;
        is_escaped = is_within && char == '\\' && !was_escaped;
        if char == '"' && !was_escaped {
            is_within = !is_within;
        }
        is_within || !(char.is_ascii_digit() || "+-.eE".contains(char))
    };
    json.split(is_outside_number)
        .filter(|part| !part.is_empty())
}

fn is_too_large(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_integer && number.parse::<i64>().is_err() && number.parse::<u64>().is_err()
}

/// A text as bytes; `-` is what stdin has.
pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, Fault> {
    if text != "-" {
        return Ok(text.as_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    let read = io::stdin().read_to_end(&mut bytes);
    read.map_err(|error| Fault::new("cannot read stdin").caused_by(&error))?;
    Ok(bytes)
}

/// Whether a float in `value` may have been an integer.
fn has_huge(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            number.is_f64() && number.as_f64().is_some_and(|it| it.abs() >= 9e18)
        }
        Value::Array(list) => list.iter().any(has_huge),
        Value::Object(map) => map.values().any(has_huge),
        _ => false,
    }
}

/// The value at `key` as JSON; nothing if there is none, or none that JSON can show.
pub(crate) async fn shown(cache: &Cache, key: &str) -> Result<Option<Value>, Fault> {
    let value = find(cache, key).await?;
    // JSON of other programs may hold longer integers than are read here.
    if value.as_ref().is_some_and(has_huge)
        && let Some(bytes) = cache.get_bytes(key).await?
        && let Ok(text) = std::str::from_utf8(&bytes)
        && numbers(text).any(is_too_large)
    {
        let what =
            format!("the value at `{key}` holds an integer past 64 bits, which would lose digits");
        return Err(Fault::new(what).with_hint("`--raw` prints it whole"));
    }
    Ok(value)
}

/// The value at `key`, read by the codec of the cache or, where it was written by another, by that.
async fn find(cache: &Cache, key: &str) -> larder::Result<Option<Value>> {
    if let Some(Shown(value)) = cache.get(key).await? {
        return Ok(Some(value));
    }
    for codec in [Codec::MessagePack, Codec::Json, Codec::Raw] {
        let cache = cache.with_codec(codec);
        let value = match codec {
            // Bytes are a text, or nothing that JSON has.
            Codec::Raw => cache.get::<String>(key).await?.map(Value::String),
            _ => cache.get(key).await?.map(|Shown(value)| value),
        };
        if value.is_some() {
            return Ok(value);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_integers_outside_of_texts_are_measured() {
        for (text, is_taken) in [
            ("18446744073709551615", true),
            ("-9223372036854775808", true),
            ("18446744073709551616", false),
            ("-9223372036854775809", false),
            ("[1, {\"a\": 99999999999999999999}]", false),
            ("99999999999999999999.0", true),
            ("1e30", true),
            ("\"99999999999999999999\"", true),
            (r#"["\"", "\\", "99999999999999999999"]"#, true),
            (r#"["\\", 99999999999999999999]"#, false),
            ("call 99999999999999999999", true),
        ] {
            assert_eq!(read(text).is_ok(), is_taken, "{text}");
        }
    }
}
