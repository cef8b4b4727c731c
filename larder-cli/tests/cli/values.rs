//! Values for people and for programs.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::time::Duration;

use larder::store::{Redis, Store as _, When};
use larder::{Codec, Entry, Key, Value};
use serde_bytes::ByteBuf;

use crate::ground::{BINARY, Store, clean, with_cache};

#[test]
fn values_are_json_for_people_and_bytes_for_programs() {
    let store = Store::new("values");

    store.says(&["get", "k"], 1, "", "");
    store.says(&["set", "k", "{\"a\": [1, 2.5, null]}"], 0, "", "");
    store.says(&["get", "k"], 0, "{\"a\":[1,2.5,null]}\n", "");
    store.says(&["set", "k", "plain text"], 0, "", "");
    store.says(&["get", "k"], 0, "\"plain text\"\n", "");
    store.says(&["set", "--raw", "k", "<p>"], 0, "", "");
    store.says(&["get", "--raw", "k"], 0, "<p>", "");
    store.says(&["get", "k"], 0, "\"<p>\"\n", "");
    assert_eq!(store.run(&["set", "k", "-"], b"[1]").0, 0);
    store.says(&["get", "k"], 0, "[1]\n", "");
}

#[test]
fn negative_numbers_are_values() {
    let store = Store::new("negative");

    store.says(&["set", "k", "-5"], 0, "", "");
    store.says(&["get", "k"], 0, "-5\n", "");
    store.says(&["set", "k", "-1.5e3", "--ttl", "5m"], 0, "", "");
    store.says(&["get", "k"], 0, "-1500.0\n", "");
    store.says(&["add", "new", "-7"], 0, "", "");
    store.says(&["incr", "new", "-1"], 0, "-8\n", "");
}

#[test]
fn what_would_not_come_back_the_same_is_refused() {
    let store = Store::new("same");
    let told = "larder: the value is no text in UTF-8\nhint: `--raw` takes bytes as they are\n";
    let expected = (2, String::new(), told.to_owned());

    let image = b"\x89PNG\xff";
    assert_eq!(store.run(&["set", "k", "-"], image), expected);
    assert_eq!(store.run(&["add", "k", "-"], image), expected);
    store.says(&["get", "k"], 1, "", "");
    assert_eq!(store.run(&["set", "--raw", "k", "-"], image).0, 0);
    let output = clean(BINARY)
        .args(store.flags(&["get", "--raw", "k"]))
        .output();
    assert_eq!(output.unwrap().stdout, image);

    let told = "larder: the integer 18446744073709551616 is past 64 bits, and would lose digits\nhint: write it as a text, `\"18446744073709551616\"`, or with a fraction, `18446744073709551616.0`\n";
    store.says(&["set", "k", "[18446744073709551616]"], 2, "", told);
    store.says(&["set", "k", "18446744073709551615"], 0, "", "");
    store.says(&["get", "k"], 0, "18446744073709551615\n", "");
}

#[test]
fn output_that_does_not_arrive_is_an_error() {
    let store = Store::new("full");
    store.says(&["set", "k", "v"], 0, "", "");

    for flags in [
        &["get", "--raw", "k"][..],
        &["get", "k"],
        &["keys"],
        &["stats"],
        &["completions", "bash"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = clean(BINARY)
            .args(store.flags(flags))
            .stdout(full)
            .output()
            .unwrap();

        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        let expected =
            "larder: cannot write to stdout\ncause: No space left on device (os error 28)\n";
        assert_eq!(told, expected, "{flags:?}");
    }
}

#[test]
fn what_json_lacks_is_shown_as_text() {
    let store = Store::new("shown");
    with_cache(&store.url, async |cache| {
        let map = BTreeMap::from([(1, "one"), (-2, "minus two")]);
        cache.set("map", &map).await.unwrap();
        let floats = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.5];
        cache.set("floats", &floats).await.unwrap();
        let bytes = [ByteBuf::from("text"), ByteBuf::from([0xff, 0, 1])];
        cache.set("bytes", &bytes).await.unwrap();
        cache.set("text", &ByteBuf::from("all text")).await.unwrap();
        cache
            .set("image", &ByteBuf::from([0x89, 0xff]))
            .await
            .unwrap();
        let pair = BTreeMap::from([((1, 2), "pair")]);
        cache.set("pair", &pair).await.unwrap();
        let json = cache.with_codec(Codec::Json);
        json.set("json", &map).await.unwrap();
        let raw = cache.with_codec(Codec::Raw);
        raw.set("raw", &ByteBuf::from([0xff])).await.unwrap();
    });

    store.says(
        &["get", "map"],
        0,
        "{\"-2\":\"minus two\",\"1\":\"one\"}\n",
        "",
    );
    store.says(
        &["get", "json"],
        0,
        "{\"-2\":\"minus two\",\"1\":\"one\"}\n",
        "",
    );
    let floats = "[\"NaN\",\"Infinity\",\"-Infinity\",0.5]\n";
    store.says(&["get", "floats"], 0, floats, "");
    store.says(&["get", "bytes"], 0, "[\"text\",\"<3 bytes>\"]\n", "");
    store.says(&["get", "text"], 0, "\"all text\"\n", "");
    for key in ["image", "pair", "raw"] {
        let told = format!(
            "larder: the value at `{key}` is none that JSON can show\nhint: `--raw` prints its bytes\n"
        );
        store.says(&["get", key], 2, "", &told);
    }
}

#[test]
fn a_longer_integer_of_another_program_is_not_rounded() {
    let store = Store::new("longer");
    let json = Store::at(format!("{}&codec=json", store.url));
    json.says(
        &["set", "float", "[1e30, 99999999999999999999.0]"],
        0,
        "",
        "",
    );
    write(&store, "longer:1:long", 1, b"[18446744073709551616]");

    json.says(&["get", "float"], 0, "[1e+30,1e+20]\n", "");
    let told = "larder: the value at `long` holds an integer past 64 bits, which would lose digits\nhint: `--raw` prints it whole\n";
    for store in [&store, &json] {
        store.says(&["get", "long"], 2, "", told);
        store.says(&["get", "--raw", "long"], 0, "[18446744073709551616]", "");
    }
}

/// The length of a head, an empty one, and a body.
const PAGE: &[u8] = b"\0\0\0\x01\x80<p>";

/// Writes an entry as another program would: what `codec` wrote at the whole `key`.
fn write(store: &Store, key: &str, codec: u8, bytes: &'static [u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let redis = Redis::builder(store.server.as_ref().unwrap().url());
        let patience = Duration::from_secs(20);
        let redis = redis.timeout(patience).connect_timeout(patience);
        let redis = redis.connect().await.unwrap();
        let mut entry = Entry::new(redis.clock(), Value::Bytes(bytes.into()));
        entry.codec = codec;
        let key = Key::new(key);
        assert!(redis.put(&key, entry, When::Always).await.unwrap());
    });
}

#[test]
fn a_whole_page_is_said_to_be_no_json() {
    let store = Store::new("page");
    // The page layer's own codec.
    write(&store, "page:1:k", 16, PAGE);

    let told =
        "larder: the value at `k` is none that JSON can show\nhint: `--raw` prints its bytes\n";
    store.says(&["get", "k"], 2, "", told);
    let output = clean(BINARY)
        .args(store.flags(&["get", "--raw", "k"]))
        .output();
    assert_eq!(output.unwrap().stdout, PAGE);
}
