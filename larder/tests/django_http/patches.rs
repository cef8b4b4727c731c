//! What is read from headers and what is written into them.

use std::time::{Duration, UNIX_EPOCH};

use larder::page::rules::{cache_control, dates, vary};
use serde_json::Value;

use crate::django::{check, text};
use crate::{NOW, all_shown, at, headers, python_str, seconds, shown, with};

#[test]
fn patch_cache_control() {
    check("patch_cache_control", |vector| {
        let mut headers = with("cache-control", &vector.input["cache_control"]);
        let given: Vec<(String, Option<String>)> = vector.kwargs.iter().map(directive).collect();
        let given: Vec<_> = given
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();

        cache_control::patch_cache_control(&mut headers, &given);

        let text = shown(&headers, "cache-control");
        let several = vector
            .kwargs
            .iter()
            .any(|(name, value)| name == "no_cache" && value.is_string());
        if several {
            text.as_str()
                .map(|text| text.split(", ").collect())
                .unwrap_or_default()
        } else {
            text
        }
    });
}

fn directive((name, value): &(String, Value)) -> (String, Option<String>) {
    let value = if *value == true {
        None
    } else {
        Some(python_str(value))
    };
    (name.replace('_', "-"), value)
}

#[test]
fn patch_vary() {
    check("patch_vary", |vector| {
        let mut headers = with("vary", &vector.input["vary"]);
        let new: Vec<&str> = vector.input["new"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();

        vary::patch_vary_headers(&mut headers, &new);

        shown(&headers, "vary")
    });
}

#[test]
fn has_vary() {
    check("has_vary", |vector| {
        vary::has_vary_header(
            &with("vary", &vector.input["vary"]),
            &text(&vector.input["query"]),
        )
        .into()
    });
}

#[test]
fn get_max_age() {
    check("get_max_age", |vector| {
        let headers = with("cache-control", &vector.input["cache_control"]);

        cache_control::max_age(&headers)
            .map(|age| age.as_secs())
            .into()
    });
}

#[test]
fn patch_response_headers() {
    check("patch_response_headers", |vector| {
        let mut headers = headers(&vector.input["headers"]);
        // The site's default stands for none, zero for what a Duration cannot say.
        let ttl = match &vector.input["cache_timeout"] {
            Value::Null => 600.0,
            Value::String(text) => text.parse().expect("the vector has a number in quotes"),
            number => number.as_f64().expect("it is a number").max(0.0),
        };

        cache_control::patch_response_headers(&mut headers, Duration::from_secs_f64(ttl), at(NOW));

        all_shown(&headers)
    });
}

#[test]
fn never_cache() {
    check("never_cache", |vector| {
        let mut headers = headers(&vector.input["headers"]);

        cache_control::add_never_cache_headers(&mut headers, at(NOW));

        all_shown(&headers)
    });
}

#[test]
fn http_date() {
    check("http_date", |vector| {
        let epoch = vector.input["epoch"].as_f64().expect("it is a number");

        dates::http_date(UNIX_EPOCH + Duration::from_secs_f64(epoch)).into()
    });
}

#[test]
fn parse_http_date() {
    check("parse_http_date", |vector| {
        dates::parse_http_date(&text(&vector.input["date"]), at(NOW))
            .map(seconds)
            .into()
    });
}
