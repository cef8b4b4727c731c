//! The keys of pages and of fragments.

use http::{HeaderMap, HeaderName, Request, Uri, request};
use larder::django_keys::{KeyFormat, fragment_key};
use larder::page::keys::{self, KeyOptions, Origin};
use larder::page::rules::{Vary, vary};
use serde_json::{Value, json};

use crate::django::{Version, check, text};
use crate::{header, headers, python_str, with};

#[test]
fn http_key() {
    check("http_key", |vector| {
        let input = &vector.input;
        let (uri, sent) = asked(input);
        let options = key_options(input, vector.version);
        let Vary::Names(names) = Vary::of(&with("vary", &input["vary"])) else {
            panic!("no vector says `*`")
        };
        let list = keys::header_list(&names, &options);
        let values = vary::values(&list, &sent);
        let page_key = |method: &str| keys::page_key(method, &uri, &values, &options);
        let learned = page_key(input["method"].as_str().unwrap_or("GET"));
        let header_list_key = keys::header_list_key(&uri, &options);
        json!({
            "absolute_uri": uri,
            "url_md5": header_list_key.split('.').nth(5).expect("the URL is the sixth part"),
            "header_list_key": header_list_key,
            "stored_header_list": list.iter().map(|name| keys::cgi_name(name)).collect::<Vec<_>>(),
            "get_lookup_key": page_key("GET"),
            "head_lookup_key": page_key("HEAD"),
            "final_backend_key_default_cache": format!(":1:{learned}"),
            "learned_page_key": learned,
        })
    });
}

fn asked(input: &Value) -> (String, HeaderMap) {
    let target = text(&input["path"]);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let set = |name: &str| input["environ"][name].as_str();
    let mount = set("SCRIPT_NAME").unwrap_or_default();
    let path = mount.to_owned() + set("PATH_INFO").unwrap_or(path);
    let https = input["scheme"] == "https";
    let host = text(&input["host"]);
    let mut request_headers = headers(&input["headers"]);
    request_headers.insert("host", header(&host));
    let Some(request) = request_for(&format!("{path}?{query}"), &request_headers) else {
        // What no client can send, Django's own test client can.
        return (
            keys::absolute_uri(https, &host, &path, query),
            request_headers,
        );
    };
    (origin(input, https).uri_of(&request), request_headers)
}

fn request_for(target: &str, headers: &HeaderMap) -> Option<request::Parts> {
    let uri = Uri::builder().path_and_query(target).build().ok()?;
    let (mut parts, ()) = Request::get(uri).body(()).ok()?.into_parts();
    parts.headers = headers.clone();
    Some(parts)
}

fn origin(input: &Value, https: bool) -> Origin {
    let mut origin = Origin::default();
    origin.https = https;
    origin.trust_forwarded_host = input["settings"]["USE_X_FORWARDED_HOST"] == true;
    if input["settings"]["SECURE_PROXY_SSL_HEADER"].is_array() {
        origin.secure_header = Some(HeaderName::from_static("x-forwarded-proto"));
    }
    origin
}

fn key_options(input: &Value, version: Version) -> KeyOptions {
    let active = input
        .get("language")
        .map(|language| language.as_str().unwrap_or("None"));
    let language = input["LANGUAGE_CODE"]
        .as_str()
        .or(active)
        .unwrap_or("en-us");
    let offset = input["timezone_offset_minutes"].as_u64();
    let offset = offset.map(|minutes| format!("UTC+{:02}:{:02}", minutes / 60, minutes % 60));
    let zone = input["timezone"]
        .as_str()
        .map(str::to_owned)
        .or(offset)
        .unwrap_or_else(|| "UTC".to_owned());
    let mut options = KeyOptions::default();
    options.prefix = input["key_prefix"].as_str().unwrap_or_default().into();
    options.language = (input["USE_I18N"] != false).then(|| language.to_owned());
    options.time_zone = (input["USE_TZ"] != false).then_some(zone);
    options.format = format_of(version);
    options
}

fn format_of(version: Version) -> KeyFormat {
    if version == Version::V52 {
        KeyFormat::Django52
    } else {
        KeyFormat::Django61
    }
}

#[test]
fn fragment_keys() {
    check("fragment_key", |vector| {
        let name = text(&vector.input["fragment_name"]);
        fragment_key(
            &name,
            &vary_on(&vector.input["vary_on"]),
            format_of(vector.version),
        )
        .into()
    });
}

fn vary_on(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().map(python_str).collect(),
        // Python takes a string for the list of its characters.
        Value::String(text) => text.chars().map(String::from).collect(),
        Value::Object(_) => vec!["x".repeat(10_000)],
        _ => Vec::new(),
    }
}
