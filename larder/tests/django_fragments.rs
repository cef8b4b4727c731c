//! Django's fragments, outcome by outcome: the keys that its tag writes, what it renders and refuses.
//!
//! The words of an error are Larder's own; that there is one is Django's.

#[expect(dead_code, reason = "the order of arguments matters to headers alone")]
#[path = "django/mod.rs"]
mod django;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder::django_keys::KeyFormat;
use larder::fragment::{self, Fragments, VaryOn, make_template_fragment_key};
use larder::store::Memory;
use larder::{Cache, Clock, Ttl};
use minijinja::{Environment, Value as Text};
use serde_json::{Value, json};

use django::{Vector, Version, check, text};

fn run<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(work)
}

fn cache() -> Cache {
    Cache::new(Memory::builder().clock(Clock::manual()).build())
}

fn format_of(version: Version) -> KeyFormat {
    if version == Version::V52 {
        KeyFormat::Django52
    } else {
        KeyFormat::Django61
    }
}

/// The keys of the call that knows no engine, and of the helper.
#[test]
fn keys() {
    check("fragment_key", |vector| {
        let name = text(&vector.input["fragment_name"]);
        let vary: Vec<VaryOn> = match &vector.input["vary_on"] {
            Value::Array(values) => values.iter().map(vary_on).collect(),
            // Python takes a string for the list of its characters.
            Value::String(text) => text.chars().map(|char| char.to_string().into()).collect(),
            Value::Object(_) => vec!["x".repeat(10_000).into()],
            _ => Vec::new(),
        };
        let cache = cache();
        let fragment = vary.iter().fold(
            cache.fragment(&name).key_format(format_of(vector.version)),
            |fragment, value| fragment.vary(value.clone()),
        );
        if vector.version == Version::V61 {
            assert_eq!(fragment.key(), make_template_fragment_key(&name, &vary));
        }
        fragment.key().into()
    });
}

fn vary_on(value: &Value) -> VaryOn {
    match value {
        Value::Null => None::<i64>.into(),
        Value::Bool(yes) => (*yes).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().into(),
        },
        Value::String(text) => text.into(),
        // What is no text, number or truth value is given as its text.
        Value::Array(list) => {
            let quoted = list.iter().map(|member| format!("'{}'", text(member)));
            format!("[{}]", quoted.collect::<Vec<_>>().join(", ")).into()
        }
        Value::Object(_) => panic!("no vector has one"),
    }
}

/// The same keys by the tag of a template.
#[test]
fn keys_of_the_tag() {
    check("fragment_key", |vector| {
        let input = &vector.input;
        // Python takes a string for the list of its characters; a template gives values one by one.
        let vary: Vec<Value> = match &input["vary_on"] {
            Value::Array(values) => values.clone(),
            Value::String(text) => text.chars().map(|char| json!(char.to_string())).collect(),
            Value::Object(_) => vec![json!("x".repeat(10_000))],
            _ => Vec::new(),
        };
        let names: Vec<String> = (0..vary.len()).map(|at| format!("v{at}")).collect();
        let source = format!(
            "{{% cache 5 (name) {} %}}x{{% endcache %}}",
            names.join(" ")
        );
        let values = names.iter().map(String::as_str).zip(vary.iter().map(value));
        let name = ("name", Text::from(text(&input["fragment_name"])));
        let context: BTreeMap<&str, Text> = values.chain([name]).collect();
        let seen = seen(&source, context.into(), vector.version);
        let expected = text(&vector.expected);
        // Asked for, since a key with blanks is not listed.
        if run(seen.cache.has(&expected)).expect("memory does not fail") {
            expected.into()
        } else {
            json!(seen.keys)
        }
    });
}

/// A JSON value as one of a template.
fn value(json: &Value) -> Text {
    match json {
        Value::Null => Text::from(()),
        Value::Bool(yes) => (*yes).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().expect("it is a number").into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(list) => list.iter().map(value).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(name, json)| (name.clone(), value(json)))
            .collect::<BTreeMap<String, Text>>()
            .into(),
    }
}

/// What comes of one rendering.
struct Seen {
    output: Result<String, minijinja::Error>,
    cache: Cache,
    keys: Vec<String>,
}

fn seen(source: &str, context: Text, version: Version) -> Seen {
    let cache = cache();
    let mut env = Environment::new();
    let fragments = Fragments::from(cache.clone()).key_format(format_of(version));
    fragment::install(&mut env, fragments);
    let output = run(async {
        fragment::add_template(&mut env, "t.html", source)?;
        env.get_template("t.html")?.render(context)
    });
    let listed = run(async {
        let mut keys = Vec::new();
        let mut listing = cache.keys("");
        while let Some(page) = listing.next_page().await.expect("memory lists its keys") {
            keys.extend(page.into_iter().map(|key| format!(":1:{key}")));
        }
        keys
    });
    Seen {
        output,
        cache,
        keys: listed,
    }
}

#[test]
fn tags() {
    check("fragment_tag", |vector| match vector.id.as_str() {
        "fragment_tag-022" | "fragment_tag-023" | "fragment_tag-024" => run(lazily(vector)),
        _ => outcome(vector),
    });
}

fn outcome(vector: &Vector) -> Value {
    let source = text(&vector.input["template"]);
    // A program loads the tag, not the template.
    let source = source.replace("{% load cache %}", "");
    let seen = seen(&source, value(&vector.input["context"]), vector.version);
    match seen.output {
        Err(_) => json!({
            "raises": "TemplateSyntaxError",
            "message": vector.expected["message"],
        }),
        Ok(output) => {
            let ttl = |key: &String| {
                let key = key.trim_start_matches(":1:");
                match run(seen.cache.ttl(key)).expect("memory does not fail") {
                    Some(Ttl::For(span)) => json!(span.as_secs()),
                    _ => Value::Null,
                }
            };
            let stored: serde_json::Map<String, Value> = seen
                .keys
                .iter()
                .map(|key| (key.clone(), ttl(key)))
                .collect();
            json!({ "output": output, "stored_keys_and_ttl": stored })
        }
    }
}

/// The rows about how often the body is rendered.
async fn lazily(vector: &Vector) -> Value {
    let (cache, calls) = (cache(), Arc::new(AtomicUsize::new(0)));
    let is_empty = vector.id == "fragment_tag-024";
    let mut env = Environment::new();
    fragment::install(&mut env, cache.clone());
    let counted = calls.clone();
    env.add_function("f", move || {
        let call = counted.fetch_add(1, Ordering::SeqCst) + 1;
        if is_empty {
            String::new()
        } else {
            format!("v{call}")
        }
    });
    let source = "{% cache 500 lazy %}{{ f() }}{% endcache %}";
    fragment::add_template(&mut env, "t.html", source).expect("it parses");
    let render = || {
        let template = env.get_template("t.html").expect("it is there");
        template.render(Text::UNDEFINED).expect("nothing fails")
    };
    let outputs = [render(), render()];
    let calls = calls.load(Ordering::SeqCst);
    match vector.id.as_str() {
        "fragment_tag-022" => json!({ "outputs": outputs, "calls": calls }),
        "fragment_tag-023" => {
            let deleted = cache.delete(text(&vector.input["delete"])).await;
            json!({ "delete_returns": deleted.expect("memory does not fail"), "output": render() })
        }
        _ => json!({ "calls": calls }),
    }
}
