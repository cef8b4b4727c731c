//! Entity tags and conditional requests.

use std::time::SystemTime;

use http::{HeaderMap, Method, StatusCode};
use larder::page::rules::dates;
use larder::page::rules::validators::{self, Validators, Verdict};
use serde_json::{Value, json};

use crate::django::{Vector, check, text};
use crate::{NOW, all_shown, at, header, headers, shown, with};

#[test]
fn etag() {
    check("etag", |vector| {
        let body = &vector.input["body"];
        let body = match body["hex"].as_str() {
            Some(hex) => bytes(hex),
            None => text(&body["repeat"]).repeat(1000).into_bytes(),
        };

        validators::etag(&body).into()
    });
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("the vector is hexadecimal");
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[test]
fn quote_etag() {
    check("quote_etag", |vector| {
        validators::quote_etag(&text(&vector.input["etag"])).into()
    });
}

#[test]
fn parse_etags() {
    check("parse_etags", |vector| {
        validators::parse_etags(&text(&vector.input["header"])).into()
    });
}

#[test]
fn conditional() {
    check("conditional", |vector| {
        match conditional_verdict(&vector.input) {
            Verdict::Continue => "continue".into(),
            Verdict::NotModified => 304.into(),
            Verdict::PreconditionFailed => 412.into(),
        }
    });
}

#[test]
fn conditional_matrix() {
    check("conditional_matrix", |vector| {
        let dimensions = vector.input["dimensions"].as_array().expect("it is a list");
        let mut inputs = vec![json!({})];
        for dimension in dimensions {
            let (name, choices) = (
                text(&dimension[0]),
                dimension[1].as_array().expect("it is a list"),
            );
            let with_choices = |input: &Value| {
                let with = |choice: &Value| {
                    let mut input = input.clone();
                    input[&name] = choice.clone();
                    input
                };
                choices.iter().map(with).collect::<Vec<_>>()
            };
            inputs = inputs.iter().flat_map(with_choices).collect();
        }
        assert_eq!(inputs.len(), 8640);

        let letter = |input: &Value| match conditional_verdict(input) {
            Verdict::Continue => '-',
            Verdict::NotModified => '3',
            Verdict::PreconditionFailed => '4',
        };
        inputs.iter().map(letter).collect::<String>().into()
    });
}

fn conditional_verdict(input: &Value) -> Verdict {
    let method = text(&input["method"]).parse().expect("it is a method");
    let page = Validators {
        etag: input["etag"].as_str(),
        last_modified: input["last_modified"].as_u64().map(at),
    };
    let conditions = [
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
    ];
    let sent = |name: &'static str| match &input[name.replace('-', "_")] {
        Value::Number(number) => with(
            name,
            &dates::http_date(at(number.as_u64().expect("it is a time"))).into(),
        ),
        value => with(name, value),
    };
    let mut request = HeaderMap::new();
    for name in conditions {
        request.extend(sent(name));
    }
    validators::evaluate(&method, &request, page, StatusCode::OK, at(NOW))
}

#[test]
fn conditional_middleware() {
    check("conditional_middleware", |vector| {
        let method: Method = text(&vector.input["method"])
            .parse()
            .expect("it is a method");
        let (mut status, mut headers, mut body) = answered(&vector.id);
        let streams = vector.id.ends_with("009");
        if method == Method::GET {
            let etag =
                validators::etag(body).filter(|_| !streams && validators::wants_etag(&headers));
            headers.extend(etag.map(|etag| (http::header::ETAG, header(&etag))));
            let sent = self::headers(&vector.input["request_headers"]);
            let page = Validators::of(&headers, at(NOW));
            match validators::evaluate(&method, &sent, page, status, at(NOW)) {
                Verdict::Continue => {}
                Verdict::NotModified => {
                    (status, body) = (StatusCode::NOT_MODIFIED, b"");
                    headers = validators::not_modified_headers(&headers);
                }
                Verdict::PreconditionFailed => {
                    (status, body) = (StatusCode::PRECONDITION_FAILED, b"");
                    headers = self::headers(&json!({"content-type": HTML}));
                }
            }
        }
        let cookies: Vec<&str> = headers
            .remove("set-cookie")
            .map(|_| "k")
            .into_iter()
            .collect();
        let length = if streams {
            Value::Null
        } else {
            body.len().into()
        };
        json!({"status": status.as_u16(), "headers": all_shown(&headers), "set_cookie": cookies, "body_length": length})
    });
}

const HTML: &str = "text/html; charset=utf-8";

/// What the view answers; the vectors give only what became of it.
fn answered(id: &str) -> (StatusCode, HeaderMap, &'static [u8]) {
    let number = &id[id.len() - 3..];
    let more = match number {
        "002" | "003" | "004" | "005" => json!({
            "Cache-Control": "max-age=5", "Content-Language": "en", "Content-Location": "/alt", "Expires": "x",
            "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT", "Vary": "Cookie", "X-Other": "1", "Set-Cookie": "k=v",
        }),
        "006" => json!({"Cache-Control": "No-Store"}),
        "007" => json!({"Cache-Control": "x=\"no-store\""}),
        "014" => json!({"ETag": "spam"}),
        _ => json!({}),
    };
    let status = match number {
        "010" | "011" => StatusCode::NOT_FOUND,
        "012" => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let mut headers = headers(&more);
    headers.insert("content-type", header(HTML));
    (
        status,
        headers,
        if number == "008" { b"" } else { b"hello" },
    )
}

#[test]
fn condition_decorator() {
    check("condition_decorator", |vector: &Vector| {
        let input = &vector.input;
        let method: Method = text(&input["method"]).parse().expect("it is a method");
        let etag = input["etag_func"]
            .as_str()
            .filter(|&text| text != "absent")
            .map(validators::quote_etag);
        let changed = input["last_modified"]
            .as_str()
            .filter(|&text| text != "None")
            .map(python_time);
        let page = Validators {
            etag: etag.as_deref(),
            last_modified: changed,
        };
        let sent = headers(&input["request_headers"]);

        let verdict = validators::evaluate(&method, &sent, page, StatusCode::OK, at(NOW));
        let mut headers = HeaderMap::new();
        validators::add_validators(&method, &mut headers, page);

        let status = match verdict {
            Verdict::Continue => 200,
            Verdict::NotModified => 304,
            Verdict::PreconditionFailed => 412,
        };
        let (etag, changed) = (shown(&headers, "etag"), shown(&headers, "last-modified"));
        json!({"status": status, "view_called": status == 200, "etag": etag, "last_modified": changed})
    });
}

/// Reads `2007-10-21 23:21:47`, with or without its `+00:00`.
fn python_time(text: &str) -> SystemTime {
    assert!(
        text.starts_with("2007-10-21 23:21:47"),
        "the vectors have this one time"
    );
    dates::parse_http_date("Sun, 21 Oct 2007 23:21:47 GMT", at(NOW)).expect("it is a date")
}
