//! Django's own answers, as vectors: keys, TTLs and the verbs.
//!
//! Where Django's backends disagree, Larder takes the one behaviour that loses nothing. That, and what
//! differs on purpose, is said with its reason in `vectors/on_purpose.txt`; what is listed must differ.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod grounds;
#[path = "django/on_purpose.rs"]
mod on_purpose;

use std::collections::HashMap;
use std::time::Duration;

use larder::store::Null;
use larder::{Cache, Entry, Error, Key, Ttl, Version};
use serde::Deserialize;
use serde_json::{Value, json};

use grounds::Ground;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct File {
    vectors: Vec<Vector>,
}

#[derive(Deserialize, Clone)]
struct Vector {
    id: String,
    group: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    expected: Value,
}

impl Vector {
    /// What Django answers, in the column that Larder follows.
    fn column(&self) -> &Value {
        &self.expected[on_purpose::column(&self.id)]
    }
}

fn vectors(group: &str) -> Vec<Vector> {
    let mut all = file(include_str!("vectors/django-vectors.json"));
    all.retain(|vector| vector.group == group);
    assert!(!all.is_empty(), "no vectors in {group}");
    all
}

fn file(text: &str) -> Vec<Vector> {
    serde_json::from_str::<File>(text).unwrap().vectors
}

/// What Larder answered; `None` where its types do not let one ask.
type Answer = Option<Value>;

/// Compares answers with what Django says: those listed must differ, all others agree.
#[derive(Default)]
struct Verdict(Vec<String>);

impl Verdict {
    fn compare(&mut self, place: &str, id: &str, django: &Value, larder: &Answer) {
        let (django, listed) = (translated(django), on_purpose::reason(id, None).is_some());
        if (larder.as_ref() == Some(&django)) == listed {
            let complaint = if listed {
                "is listed, but agrees"
            } else {
                "differs"
            };
            let line = format!("{place}: {id} {complaint}: Django {django}, Larder {larder:?}");
            self.0.push(line);
        }
    }

    fn end(self) {
        assert!(self.0.is_empty(), "\n{}", self.0.join("\n"));
    }
}

/// Django's exceptions as kinds of [`Error`].
fn translated(django: &Value) -> Value {
    let kind = match django["raises"].as_str() {
        None => {
            return match django {
                Value::Array(items) => items.iter().map(translated).collect(),
                other => other.clone(),
            };
        }
        Some("ValueError") => "NoSuchKey",
        Some("TypeError" | "ResponseError") => "NotAnInteger",
        Some(other) => other,
    };
    raises(kind)
}

fn raises(kind: &str) -> Value {
    json!({ "raises": kind })
}

fn or_raises<T: Into<Value>>(answer: Result<T, Error>) -> Value {
    answer.map_or_else(|error| raises(&format!("{:?}", error.kind())), Into::into)
}

/// A TTL in Django's words: seconds, null for never; `None` if it cannot be said here.
fn ttl(timeout: &Value) -> Option<Ttl> {
    match timeout {
        Value::Null => Some(Ttl::Never),
        Value::String(word) if word == "DEFAULT_TIMEOUT" => Some(Ttl::Default),
        Value::Number(seconds) => Duration::try_from_secs_f64(seconds.as_f64()?)
            .ok()
            .map(Ttl::For),
        _ => None,
    }
}

/// What is left of a TTL in Django's words, or "gone".
fn seconds(left: Option<Ttl>) -> Value {
    match left {
        None => json!("gone"),
        Some(Ttl::For(span)) => json!(tenths(span.as_secs_f64())),
        Some(_) => Value::Null,
    }
}

fn number(expected: &Value) -> Value {
    expected.as_f64().map_or(Value::Null, Value::from)
}

async fn got(cache: &Cache, key: &str) -> Value {
    let value = cache.get::<Value>(key).await.unwrap();
    value.unwrap_or_else(|| json!("gone"))
}

#[test]
fn nothing_here_changed_in_django_6_1() {
    let changed = file(include_str!("vectors/django-vectors-6.1-diff.json"));

    let driven = on_purpose::driven(include_str!("django_values.rs"));
    let here = changed.iter().find(|vector| driven.contains(&vector.group));

    assert!(here.is_none_or(|vector| panic!("{}", vector.id)));
}

#[test]
fn keys_are_made_as_django_makes_them() {
    let mut verdict = Verdict::default();
    for vector in vectors("make_key") {
        let made = key_of(&vector.input).map(|key| json!(key.whole()));
        verdict.compare("key", &vector.id, &vector.expected, &made);
    }
    verdict.end();
}

fn key_of(input: &Value) -> Option<Key> {
    let params = &input["params"];
    let mut builder = Cache::builder(Null::new());
    if let Some(prefix) = params["KEY_PREFIX"].as_str() {
        builder = builder.prefix(prefix);
    }
    if let Some(version) = version(&params["VERSION"]) {
        builder = builder.version(version);
    }
    let mut cache = builder.build().ok()?;
    if let Some(version) = version(&input["version"]) {
        cache = cache.version(version).ok()?;
    }
    match &input["key"] {
        Value::String(key) => Some(cache.key(key)),
        Value::Number(number) => Some(cache.key(number.to_string())),
        _ => None,
    }
}

fn version(version: &Value) -> Option<Version> {
    match version {
        Value::String(word) => Some(word.as_str().into()),
        other => other.as_i64().map(Version::from),
    }
}

#[test]
fn keys_that_django_warns_about_are_hashed() {
    let mut verdict = Verdict::default();
    for vector in vectors("key_warnings") {
        let key = Key::new(vector.input["final_key"].as_str().unwrap());
        let warns = json!(!vector.expected.as_array().unwrap().is_empty());
        verdict.compare("key", &vector.id, &warns, &Some(json!(key.is_hashed())));
    }
    verdict.end();
}

#[tokio::test]
async fn settings_of_a_cache_are_taken_as_django_takes_them() {
    let mut verdict = Verdict::default();
    for vector in vectors("params") {
        let expected = &vector.expected;
        let wanted = json!([
            number(&expected["default_timeout"]),
            expected["key_prefix"],
            expected["version"]
        ]);
        for ground in grounds::all() {
            let answer = settings(&ground, &vector.input).await;
            verdict.compare(ground.name, &vector.id, &wanted, &answer);
        }
    }
    verdict.end();
}

/// Default TTL, prefix and version of a cache made with Django's settings.
/// Rounded to tenths of a second: a server's clock does not stand still meanwhile.
fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

async fn settings(ground: &Ground, input: &Value) -> Answer {
    let mut builder = ground.builder("");
    if input.get("timeout").is_some() {
        return None;
    }
    if let Some(timeout) = input.get("TIMEOUT") {
        builder = builder.ttl(ttl(timeout)?);
    }
    let cache = builder.build().unwrap();
    cache.set("k", &1).await.unwrap();
    let left = match cache.ttl("k").await.unwrap() {
        None => json!(0.0),
        left => seconds(left),
    };
    let key = cache.key("").whole().to_owned();
    let (prefix, version) = key.trim_end_matches(':').rsplit_once(':')?;
    let bare = ground.cache().key("").whole().to_owned();
    let prefix = prefix.trim_start_matches(bare.split(':').next()?);
    Some(json!([left, prefix, version.parse::<i64>().ok()?]))
}

#[tokio::test]
async fn ttls_are_kept_as_django_keeps_them() {
    let mut verdict = Verdict::default();
    for vector in vectors("backend_timeout") {
        let base = &vector.expected["base"];
        // A moment of the past is "not kept".
        let wanted = match base.as_f64().map(|moment| moment - 1_700_000_000.0) {
            None => base.clone(),
            Some(left) if left < 0.0 => json!("gone"),
            Some(left) => json!(tenths(left)),
        };
        for ground in grounds::all() {
            let answer = kept_for(&ground, &vector.input).await;
            verdict.compare(ground.name, &vector.id, &wanted, &answer);
        }
    }
    verdict.end();
}

async fn kept_for(ground: &Ground, input: &Value) -> Answer {
    let mut builder = ground.builder("");
    if let Some(default) = input.get("TIMEOUT") {
        builder = builder.ttl(ttl(default)?);
    }
    let cache = builder.build().unwrap();
    let ttl = ttl(&input["timeout"])?;
    cache.set("k", "value").ttl(ttl).await.unwrap();
    Some(seconds(cache.ttl("k").await.unwrap()))
}

#[tokio::test]
async fn the_verbs_answer_as_django_does() {
    let mut verdict = Verdict::default();
    for vector in vectors("matrix") {
        for ground in grounds::all() {
            let (cache, row) = (ground.cache(), vector.description.as_str());
            let mut answer = write_row(&cache, row).await;
            if answer.is_none() {
                answer = touch_row(&cache, row).await;
            }
            if answer.is_none() {
                answer = many_row(&cache, row).await;
            }
            if answer.is_none() {
                answer = count_row(&cache, row).await;
            }
            if answer.is_none() {
                answer = type_row(&cache, row).await;
            }
            verdict.compare(ground.name, &vector.id, vector.column(), &answer);
        }
    }
    verdict.end();
}

async fn write_row(cache: &Cache, row: &str) -> Answer {
    let old = || async { cache.set("k", &1).await.unwrap() };
    Some(match row {
        "set() returns" => json!(cache.set("k", &1).await.unwrap()),
        "set() with timeout 0 returns" => {
            json!(cache.set("k", &1).ttl(Duration::ZERO).await.unwrap())
        }
        "add() on a new key" => json!(cache.add("k", &1).await.unwrap()),
        "add() on an existing key" => {
            old().await;
            json!(cache.add("k", &2).await.unwrap())
        }
        "add() with timeout 0 on a new key" => {
            json!(cache.add("k", &1).ttl(Duration::ZERO).await.unwrap())
        }
        "get() after add(timeout=0)" => {
            cache.add("k", &1).ttl(Duration::ZERO).await.unwrap();
            got(cache, "k").await
        }
        "get() after set(timeout=0.5): fractions" => {
            cache.set("k", &1).ttl(SECOND / 2).await.unwrap();
            got(cache, "k").await
        }
        "get() after set over an existing key with timeout 0" => {
            old().await;
            cache.set("k", &2).ttl(Duration::ZERO).await.unwrap();
            got(cache, "k").await
        }
        "delete() existing" => {
            old().await;
            json!(cache.delete("k").await.unwrap())
        }
        "delete() missing" => json!(cache.delete("k").await.unwrap()),
        "clear() returns" => json!(cache.clear().await.unwrap()),
        "get() of a stored None with a default" => {
            cache.set("k", &None::<i64>).await.unwrap();
            json!(cache.get_or("k", Some(7)).await.unwrap())
        }
        "has_key() of a stored None" => {
            cache.set("k", &None::<i64>).await.unwrap();
            json!(cache.has("k").await.unwrap())
        }
        "get_or_set() new, None" => {
            json!(cache.get_or_set_value("k", None::<i64>).await.unwrap())
        }
        "get_or_set() with a callable that returns 5" => {
            json!(cache.get_or_set("k", || async { 5 }).await.unwrap())
        }
        "get_or_set() with a class as default calls it" => {
            let load = || async { HashMap::<String, i64>::default() };
            json!(cache.get_or_set("k", load).await.unwrap())
        }
        _ => return None,
    })
}

async fn touch_row(cache: &Cache, row: &str) -> Answer {
    cache.set("k", &1).await.unwrap();
    Some(match row {
        "touch() existing" => json!(cache.touch("k", Ttl::Default).await.unwrap()),
        "touch() missing" => json!(cache.touch("missing", Ttl::Default).await.unwrap()),
        "touch(None) existing" => json!(cache.touch("k", Ttl::Never).await.unwrap()),
        "touch(None) on a key that never expires" => {
            cache.set("k", &1).ttl(Ttl::Never).await.unwrap();
            json!(cache.touch("k", Ttl::Never).await.unwrap())
        }
        "touch(0) existing returns" => json!(cache.touch("k", Duration::ZERO).await.unwrap()),
        "get() after touch(0)" => {
            cache.touch("k", Duration::ZERO).await.unwrap();
            got(cache, "k").await
        }
        _ => {
            cache.delete("k").await.unwrap();
            return None;
        }
    })
}

async fn many_row(cache: &Cache, row: &str) -> Answer {
    let many = |keys: &'static [&'static str]| cache.get_many::<Value, _>(keys.iter().copied());
    let no_values = Vec::<(String, i64)>::new();
    Some(match row {
        "delete_many() returns" => {
            cache.set("a", &1).await.unwrap();
            json!(cache.delete_many(["a", "b"]).await.unwrap())
        }
        "set_many() returns" => json!(cache.set_many([("a", 1), ("b", 2)]).await.unwrap()),
        "set_many({}) returns" => json!(cache.set_many(no_values).await.unwrap()),
        "set_many(timeout=0) then get_many" => {
            let values = [("a", 1), ("b", 2)];
            cache.set_many(values).ttl(Duration::ZERO).await.unwrap();
            json!(many(&["a", "b"]).await.unwrap())
        }
        "get_many() with duplicates" => {
            cache.set("a", &1).await.unwrap();
            json!(many(&["a", "a", "b"]).await.unwrap())
        }
        "get_many([])" => json!(many(&[]).await.unwrap()),
        _ => return None,
    })
}

async fn count_row(cache: &Cache, row: &str) -> Answer {
    let (start, delta) = match row {
        "incr() missing" => (None, 1),
        "incr() int" => (Some(json!(41)), 1),
        "incr() by a negative delta" => (Some(json!(10)), -3),
        "incr() by 0" => (Some(json!(10)), 0),
        "decr() below zero" => {
            cache.set("k", &1).await.unwrap();
            return Some(or_raises(cache.decr("k", 5).await));
        }
        "incr() of a negative value" => (Some(json!(-5)), 1),
        "incr() of a float value" => (Some(json!(1.5)), 1),
        "incr() of a str value" => (Some(json!("text")), 1),
        "incr() of a digit str value" => (Some(json!("41")), 1),
        "incr() of a bool value" => (Some(json!(true)), 1),
        "incr() of None" => (Some(Value::Null), 1),
        "incr() of 2**63-1" => (Some(json!(i64::MAX)), 1),
        "incr() of 2**64-1" => (Some(json!(u64::MAX)), 1),
        "incr() of 2**70" => {
            cache.set("k", &(1_u128 << 70)).await.unwrap();
            return Some(or_raises(cache.incr("k", 1).await));
        }
        "type after incr" => {
            cache.set("k", &1).await.unwrap();
            cache.incr("k", 1).await.unwrap();
            let number = cache.get::<i64>("k").await.unwrap();
            return number.map(|_| json!("int"));
        }
        _ => return None,
    };
    if let Some(start) = start {
        cache.set("k", &start).await.unwrap();
    }
    Some(or_raises(cache.incr("k", delta).await))
}

async fn type_row(cache: &Cache, row: &str) -> Answer {
    let large = "x".repeat((1 << 20) + 1);
    let at = |version: i64| cache.version(version).unwrap();
    Some(match row {
        "incr_version() missing" => or_raises(cache.incr_version("k", 1).await),
        "incr_version() of a stored None" => {
            cache.set("k", &None::<i64>).await.unwrap();
            or_raises(cache.incr_version("k", 1).await)
        }
        "incr_version() returns" => {
            cache.set("k", &1).await.unwrap();
            or_raises(cache.incr_version("k", 1).await)
        }
        "decr_version() to 0" => {
            cache.set("k", &1).await.unwrap();
            or_raises(cache.decr_version("k", 1).await)
        }
        "decr_version() overwrites what is at the lower version" => {
            cache.set("k", "one").await.unwrap();
            at(2).set("k", "two").await.unwrap();
            at(2).decr_version("k", 1).await.unwrap();
            got(cache, "k").await
        }
        "key with a space: set" => json!(cache.set("a b", &1).await.unwrap()),
        "key of 300 characters: set then get" => {
            let key = "k".repeat(300);
            cache.set(&key, &1).await.unwrap();
            got(cache, &key).await
        }
        "bytes round trip" => {
            cache.set("k", &[0_u8, 0xff]).await.unwrap();
            let bytes = cache.get::<[u8; 2]>("k").await.unwrap();
            json!({ "hex": hex(&bytes?) })
        }
        "bool round trip type" => {
            cache.set("k", &true).await.unwrap();
            let value = cache.get::<bool>("k").await.unwrap();
            value.map(|_| json!("bool"))?
        }
        "tuple round trip type" => {
            cache.set("k", &(1, "a")).await.unwrap();
            let value = cache.get::<(i64, String)>("k").await.unwrap();
            value.map(|_| json!("tuple"))?
        }
        "1 MiB + 1 str: set returns" => json!(cache.set("k", &large).await.unwrap()),
        "1 MiB + 1 str over a small value: get" => {
            cache.set("k", "small").await.unwrap();
            cache.set("k", &large).await.unwrap();
            json!(cache.get::<String>("k").await.unwrap()?.len())
        }
        _ => return None,
    })
}

fn hex(bytes: &[u8]) -> String {
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    nibbles
        .filter_map(|nibble| char::from_digit(nibble.into(), 16))
        .collect()
}

#[tokio::test]
async fn the_verbs_keep_or_renew_a_ttl_as_django_does() {
    let mut verdict = Verdict::default();
    for vector in vectors("matrix_ttl") {
        for ground in grounds::all() {
            let cache = ground.cache();
            cache.set("k", &1).ttl(SECOND).await.unwrap();
            let mut kept = cache.clone();
            match vector.description.split(" on a key").next().unwrap() {
                "incr()" => drop(cache.incr("k", 1).await.unwrap()),
                "set() again without a timeout" => cache.set("k", &2).await.unwrap(),
                "incr_version() (read at version 2)" => {
                    let version = cache.incr_version("k", 1).await.unwrap();
                    kept = cache.version(version).unwrap();
                }
                "add() on the existing key" => drop(cache.add("k", &2).await.unwrap()),
                "get_or_set() on the existing key" => {
                    cache.get_or_set_value("k", 2).await.unwrap();
                }
                "touch()" => drop(cache.touch("k", Ttl::Default).await.unwrap()),
                other => panic!("no such row: {other}"),
            }

            ground.pass(2200 * SECOND / 1000).await;

            let answer = if kept.has("k").await.unwrap() {
                "new TTL (default 300)"
            } else {
                "keeps the old TTL"
            };
            verdict.compare(
                ground.name,
                &vector.id,
                vector.column(),
                &Some(json!(answer)),
            );
        }
    }
    verdict.end();
}

#[tokio::test]
async fn what_has_expired_is_to_the_verbs_what_it_is_in_django() {
    let mut verdict = Verdict::default();
    for vector in vectors("matrix_expired") {
        for ground in grounds::all() {
            let cache = ground.cache();
            cache.set("k", &1).ttl(SECOND).await.unwrap();
            ground.pass(2300 * SECOND / 1000).await;

            let row = vector.description.split(" on a key").next().unwrap();
            let answer = expired_row(&cache, row).await;

            verdict.compare(ground.name, &vector.id, vector.column(), &answer);
        }
    }
    verdict.end();
}

async fn expired_row(cache: &Cache, row: &str) -> Answer {
    Some(match row {
        "get" => got(cache, "k").await,
        "has_key" => json!(cache.has("k").await.unwrap()),
        "get_many" => json!(cache.get_many::<i64, _>(["k"]).await.unwrap()),
        "add then get" => {
            let added = cache.add("k", &2).await.unwrap();
            json!([added, got(cache, "k").await])
        }
        "delete" => json!(cache.delete("k").await.unwrap()),
        "touch(100) then get" => {
            let touched = cache.touch("k", 100 * SECOND).await.unwrap();
            json!([touched, got(cache, "k").await])
        }
        "touch(None) then get" => {
            let touched = cache.touch("k", Ttl::Never).await.unwrap();
            json!([touched, got(cache, "k").await])
        }
        "incr" => or_raises(cache.incr("k", 1).await),
        "incr_version" => or_raises(cache.incr_version("k", 1).await),
        "get_or_set" => {
            let value = cache.get_or_set_value("k", "new".to_owned()).await;
            json!(value.unwrap())
        }
        _ => return None,
    })
}

#[tokio::test]
async fn scripts_of_verbs_go_as_on_djangos_local_memory() {
    let mut verdict = Verdict::default();
    for vector in vectors("locmem") {
        for ground in grounds::all() {
            let script = vector.input["script"].as_array().unwrap();
            let slept = script.iter().filter(|step| step[0] == "sleep");
            let longest: f64 = slept.filter_map(|step| step[1].as_f64()).sum();
            if !ground.manual && longest > 5.0 {
                continue;
            }
            let answer = play(&ground, &vector.input).await;
            verdict.compare(
                ground.name,
                &vector.id,
                &vector.expected["results"],
                &answer,
            );
        }
    }
    verdict.end();
}

/// Runs a script; which entries leave a full store, and in which order, is not promised.
async fn play(ground: &Ground, input: &Value) -> Answer {
    let mut builder = ground.builder("");
    if let Some(timeout) = input["params"].get("TIMEOUT") {
        builder = builder.ttl(ttl(timeout)?);
    }
    let cache = builder.build().unwrap();
    let mut results = Vec::new();
    for step in input["script"].as_array()? {
        results.push(play_step(ground, &cache, step.as_array()?).await?);
    }
    Some(results.into())
}

async fn play_step(ground: &Ground, cache: &Cache, step: &[Value]) -> Answer {
    let verb = step[0].as_str()?;
    let key = step.get(1).and_then(Value::as_str).unwrap_or_default();
    let third = step.get(2);
    let ttl_at = |at: usize| step.get(at).map_or(Some(Ttl::Default), ttl);
    let keys = || {
        step[1]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    };
    let delta = third.map_or(Some(1), Value::as_i64);
    Some(match verb {
        "set" => json!(cache.set(key, third?).ttl(ttl_at(3)?).await.unwrap()),
        "add" => json!(cache.add(key, third?).ttl(ttl_at(3)?).await.unwrap()),
        "get" => {
            let cache = cache.version(version(step.get(3).unwrap_or(&json!(1)))?);
            let value = cache.unwrap().get::<Value>(key).await.unwrap();
            value.or(third.cloned()).unwrap_or_default()
        }
        "has_key" => json!(cache.has(key).await.unwrap()),
        "touch" => json!(cache.touch(key, ttl_at(2)?).await.unwrap()),
        "delete" => json!(cache.delete(key).await.unwrap()),
        "incr" => or_raises(cache.incr(key, delta?).await),
        "decr" => or_raises(cache.decr(key, delta?).await),
        "incr_version" => or_raises(cache.incr_version(key, delta?).await),
        "decr_version" => or_raises(cache.decr_version(key, delta?).await),
        "get_or_set" => cache.get_or_set_value(key, third?.clone()).await.unwrap(),
        "get_many" => json!(cache.get_many::<Value, _>(keys()).await.unwrap()),
        "set_many" => {
            let values = step[1].as_object()?.clone();
            json!(cache.set_many(values).await.unwrap())
        }
        "delete_many" => {
            // Django's says nothing; how many there were is looked at in `matrix`.
            cache.delete_many(keys()).await.unwrap();
            Value::Null
        }
        "sleep" => {
            let span = Duration::from_secs_f64(step[1].as_f64()?);
            ground.pass(span).await;
            Value::Null
        }
        other => panic!("no such verb: {other}"),
    })
}

/// One cache, the vectors in order: each stands on what those before it wrote.
#[tokio::test]
async fn the_verbs_answer_as_djangos_redis_does() {
    let mut verdict = Verdict::default();
    for ground in grounds::all() {
        let cache = ground.cache();
        for vector in vectors("redis_commands") {
            let row = vector.description.split_once(": ").unwrap().1;
            let mut answer = redis_write(&cache, row).await;
            if answer.is_none() {
                answer = redis_read(&cache, row).await;
            }
            let wanted = json!([
                translated(&vector.expected["returns"]),
                sent(&vector.expected)
            ]);
            verdict.compare(ground.name, &vector.id, &wanted, &answer);
        }
    }
    verdict.end();
}

/// The TTL that Django sends, "gone" where it deletes, "same" where neither.
fn sent(expected: &Value) -> Value {
    let commands = expected["commands"].as_array().into_iter().flatten();
    for command in commands.filter_map(Value::as_str) {
        let words: Vec<&str> = command.split(' ').collect();
        match words[..] {
            ["SET", _, _, "EX", span] | ["SET", _, _, "NX", "EX", span] => {
                return json!(span.parse::<f64>().unwrap());
            }
            ["SET", _, _] | ["PERSIST", _] => return Value::Null,
            _ => {}
        }
    }
    json!("same")
}

async fn left(cache: &Cache, key: &str, answer: impl Into<Value>) -> Value {
    json!([answer.into(), seconds(cache.ttl(key).await.unwrap())])
}

async fn redis_write(cache: &Cache, row: &str) -> Answer {
    let span = match row.rsplit(' ').next()? {
        "default" => Ttl::Default,
        "None" => Ttl::Never,
        word => Ttl::For(Duration::try_from_secs_f64(word.parse().unwrap_or(30.0)).ok()?),
    };
    let same = |answer: Value| json!([answer, "same"]);
    Some(match row {
        "set 0" => {
            cache.set("k", &1).ttl(span).await.unwrap();
            same(Value::Null)
        }
        "set 30" | "set None" | "set 1.9" | "set default" => {
            cache.set("k", &1).ttl(span).await.unwrap();
            left(cache, "k", Value::Null).await
        }
        "add new 30" | "add existing" => {
            let added = cache.add("n", &1).ttl(span).await.unwrap();
            left(cache, "n", added).await
        }
        "add new 0" => {
            let added = cache.add("z", &1).ttl(span).await.unwrap();
            assert!(!cache.has("z").await.unwrap());
            same(json!(added))
        }
        "set_many 30" => {
            let failed = cache.set_many([("a", 1), ("b", 2)]).ttl(span).await;
            same(json!(failed.unwrap()))
        }
        "set_many None" | "set_many 0" => {
            let failed = cache.set_many([("a", 1)]).ttl(span).await;
            same(json!(failed.unwrap()))
        }
        "touch 9" | "touch 0" => same(json!(cache.touch("k", span).await.unwrap())),
        "touch None" | "touch None again: already persistent" => {
            let touched = cache.touch("k", Ttl::Never).await.unwrap();
            left(cache, "k", touched).await
        }
        "touch missing" => same(json!(cache.touch("missing", Ttl::Default).await.unwrap())),
        "get_or_set" => {
            let value = cache.get_or_set("g", || async { 5 }).ttl(span).await;
            left(cache, "g", value.unwrap()).await
        }
        _ => return None,
    })
}

async fn redis_read(cache: &Cache, row: &str) -> Answer {
    let answer = match row {
        "get" => got(cache, "k").await,
        "get missing" => json!(cache.get_or("missing", "d".to_owned()).await.unwrap()),
        "get_many" => json!(cache.get_many::<i64, _>(["k", "n", "q"]).await.unwrap()),
        "incr" => or_raises(cache.incr("n", 1).await),
        "decr" => or_raises(cache.decr("n", 5).await),
        "incr missing" => or_raises(cache.incr("missing", 1).await),
        "has_key" => json!(cache.has("n").await.unwrap()),
        "delete" | "delete missing" => json!(cache.delete("n").await.unwrap()),
        "delete_many" => json!(cache.delete_many(["a", "b"]).await.unwrap()),
        "incr_version" => {
            let moved = or_raises(cache.incr_version("g", 1).await);
            return Some(left(&cache.version(2).unwrap(), "g", moved).await);
        }
        "clear" => json!(cache.clear().await.unwrap()),
        _ => return None,
    };
    Some(json!([answer, "same"]))
}

#[tokio::test]
async fn integers_are_kept_as_the_digits_that_django_keeps() {
    let mut verdict = Verdict::default();
    for vector in vectors("redis_raw") {
        for ground in grounds::all() {
            let (wanted, answer) = match vector.input.get("stored") {
                Some(stored) => (vector.expected.clone(), read_foreign(&unhex(stored))),
                None => (
                    json!([
                        digits(unhex(&vector.expected["data"])),
                        vector.expected["read_back"]
                    ]),
                    Some(kept(&ground, &vector.input["value"]).await),
                ),
            };
            verdict.compare(ground.name, &vector.id, &wanted, &answer);
        }
    }
    verdict.end();
}

/// Bytes that are a number, as text; others are pickles in Django and frames in Larder.
fn digits(bytes: Vec<u8>) -> Option<String> {
    let is_number = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    bytes
        .iter()
        .all(is_number)
        .then(|| String::from_utf8(bytes).unwrap())
}

fn unhex(value: &Value) -> Vec<u8> {
    let digits = value["hex"].as_str().unwrap_or_default().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// The digits as which a server would keep `value`, and the value read back.
async fn kept(ground: &Ground, value: &Value) -> Value {
    let cache = ground.cache();
    let is_bytes = value.get("hex").is_some();
    if is_bytes {
        cache.set("k", &unhex(value)).await.unwrap();
    } else {
        cache.set("k", value).await.unwrap();
    }
    let key = cache.key("k");
    let found = ground.store.get(std::slice::from_ref(&key), None).await;
    let entry = found.unwrap().entries.pop().flatten().unwrap();
    let frame = entry.to_frame(&key, 1);
    let read = if is_bytes {
        let bytes = cache.get::<Vec<u8>>("k").await.unwrap();
        bytes.map(|bytes| json!({ "hex": hex(&bytes) }))
    } else {
        cache.get::<Value>("k").await.unwrap()
    };
    json!([digits(frame.to_vec()), read])
}

/// What Larder makes of bytes that somebody else put under one of its keys.
fn read_foreign(bytes: &[u8]) -> Answer {
    let bytes = bytes.to_vec().into();
    match Entry::from_frame(&bytes, &Key::new(":1:s"), 1)?.value? {
        larder::Value::Integer(number) => Some(json!(number)),
        larder::Value::Bytes(_) => None,
    }
}
