//! Django's HTTP rules and keys, outcome by outcome: what Larder takes over, in two versions of Django.

#[path = "../django/mod.rs"]
mod django;

mod conditional;
mod keys;
mod patches;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use django::text;

const NOW: u64 = 1_700_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .expect("the vectors are from after 1970")
        .as_secs()
}

/// Headers travel as bytes, one for each character of what Python sees.
fn header(text: &str) -> HeaderValue {
    let bytes: Vec<u8> = text
        .chars()
        .map(|char| u8::try_from(u32::from(char)).expect("it is latin-1"))
        .collect();
    HeaderValue::from_bytes(&bytes).expect("it can be sent")
}

fn headers(object: &Value) -> HeaderMap {
    let members = object.as_object().into_iter().flatten();
    members
        .map(|(name, value)| {
            (
                name.parse::<HeaderName>().expect("a name"),
                header(&text(value)),
            )
        })
        .collect()
}

fn with(name: &'static str, value: &Value) -> HeaderMap {
    let value = value.as_str().map(header);
    value
        .map(|value| (HeaderName::from_static(name), value))
        .into_iter()
        .collect()
}

fn shown(headers: &HeaderMap, name: &str) -> Value {
    headers.get(name).map_or(Value::Null, |value| {
        value.to_str().expect("it is ASCII").into()
    })
}

/// Names headers as the vectors do.
fn all_shown(headers: &HeaderMap) -> Value {
    let capital = |part: &str| part[..1].to_uppercase() + &part[1..];
    let spelled = |name: &HeaderName| {
        name.as_str()
            .split('-')
            .map(capital)
            .collect::<Vec<_>>()
            .join("-")
    };
    headers
        .keys()
        .map(|name| {
            (
                spelled(name).replace("Etag", "ETag"),
                shown(headers, name.as_str()),
            )
        })
        .collect()
}

fn python_str(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(yes) => if *yes { "True" } else { "False" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let quoted: Vec<String> = values
                .iter()
                .map(|value| format!("'{}'", python_str(value)))
                .collect();
            format!("[{}]", quoted.join(", "))
        }
        other => other.to_string(),
    }
}
