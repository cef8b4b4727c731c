//! What `larder` says: exit code, stdout and stderr, whole.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

#[path = "../../larder/tests/support/mod.rs"]
mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use support::RedisServer;

/// Runs `larder` with `flags` and `input`; exit code, stdout and stderr.
fn run(flags: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(flags)
        .env_remove("LARDER_STORE")
        .env_remove("LARDER_DEFAULT_URL")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may be gone before it is told.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn says(flags: &[&str], code: i32, stdout: &str, stderr: &str) {
    let expected = (code, stdout.to_owned(), stderr.to_owned());
    assert_eq!(run(flags, ""), expected, "{flags:?}");
}

/// A server for this file's tests; each has a prefix of its own. It ends with the last that holds it.
fn server() -> Arc<RedisServer> {
    static SERVER: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    let running = (server.upgrade()).unwrap_or_else(|| Arc::new(RedisServer::start()));
    *server = Arc::downgrade(&running);
    running
}

/// The flags of one cache, and the acts on it.
struct Store {
    url: String,
    server: Arc<RedisServer>,
}

impl Store {
    fn new(prefix: &str) -> Self {
        let server = server();
        let url = format!("{}?key_prefix={prefix}", server.url());
        Self { url, server }
    }

    #[track_caller]
    fn says(&self, flags: &[&str], code: i32, stdout: &str, stderr: &str) {
        let flags: Vec<&str> = ["--store", &self.url]
            .into_iter()
            .chain(flags.iter().copied())
            .collect();
        says(&flags, code, stdout, stderr);
    }
}

#[test]
fn version_is_the_crates() {
    let version = concat!("larder ", env!("CARGO_PKG_VERSION"), "\n");

    says(&["--version"], 0, version, "");
    says(&["-V"], 0, version, "");
}

#[test]
fn help_goes_to_stdout_and_lists_the_commands() {
    let (code, stdout, stderr) = run(&["--help"], "");

    assert_eq!((code, stderr.as_str()), (0, ""));
    for command in [
        "get", "set", "add", "delete", "touch", "ttl", "incr", "keys", "stats", "clear", "table",
        "check",
    ] {
        assert!(
            stdout.contains(&format!("\n  {command}  ")),
            "{command}: {stdout}"
        );
    }
}

#[test]
fn unknown_flag_is_an_error() {
    let told = "\
error: unexpected argument '--versions' found

  tip: a similar argument exists: '--version'

Usage: larder --version <COMMAND>

For more information, try '--help'.
";

    says(&["--versions"], 2, "", told);
}

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
    let flags = ["--store", &store.url, "set", "k", "-"];
    assert_eq!(run(&flags, "[1]").0, 0);
    store.says(&["get", "k"], 0, "[1]\n", "");
}

#[test]
fn an_answer_of_no_is_exit_code_1() {
    let store = Store::new("answers");

    store.says(&["add", "k", "1"], 0, "", "");
    store.says(&["add", "k", "2"], 1, "", "");
    store.says(&["incr", "k"], 0, "2\n", "");
    store.says(&["incr", "k", "-5"], 0, "-3\n", "");
    store.says(&["incr", "missing"], 1, "", "");
    store.says(&["ttl", "missing"], 1, "", "");
    store.says(&["touch", "missing", "5m"], 1, "", "");
    store.says(&["touch", "k", "never"], 0, "", "");
    store.says(&["ttl", "k"], 0, "never\n", "");
    store.says(&["delete", "k", "missing"], 0, "1\n", "");
    store.says(&["delete", "k"], 1, "0\n", "");
}

#[test]
fn a_ttl_is_seconds_and_counts_down() {
    let store = Store::new("ttls");
    store.says(&["set", "--ttl", "90s", "k", "v"], 0, "", "");

    let (code, left, _) = run(&["--store", &store.url, "ttl", "k"], "");

    let left: f64 = left.trim().parse().unwrap();
    assert!(code == 0 && left > 80.0 && left <= 90.1, "{left}");
    let told = "error: invalid value 'soon' for '--ttl <TTL>': give seconds, like `300`, a span, like `5m`, or `never`\n\nFor more information, try '--help'.\n";
    store.says(&["set", "--ttl", "soon", "k", "v"], 2, "", told);
}

#[test]
fn keys_are_listed_and_cleared_within_their_prefix() {
    let (store, other) = (Store::new("listed"), Store::new("other"));
    other.says(&["set", "k", "v"], 0, "", "");
    for key in ["user:1", "user 2", "page"] {
        store.says(&["set", key, "v"], 0, "", "");
    }

    let (code, keys, _) = run(&["--store", &store.url, "keys", "user"], "");
    let mut keys: Vec<&str> = keys.lines().collect();
    keys.sort_unstable();
    assert_eq!((code, keys), (0, vec!["user 2", "user:1"]));
    assert_eq!(
        run(&["--store", &store.url, "keys", "--limit", "2"], "")
            .1
            .lines()
            .count(),
        2
    );
    let stats = format!("store: {}\nkeys: 3\n", store.server.url());
    store.says(&["stats"], 0, &stats, "");

    let told = "larder: clear: `clear` removes every key of the cache's prefix\nhint: add `--yes` to do so without being asked\n";
    store.says(&["clear"], 2, "", told);
    store.says(&["clear", "--yes"], 0, "", "");
    store.says(&["keys"], 0, "", "");
    other.says(&["get", "k"], 0, "\"v\"\n", "");
}

#[test]
fn what_is_wrong_is_one_line_and_a_hint() {
    says(
        &["get", "k"],
        2,
        "",
        "larder: larder: no cache is named\nhint: add `--store redis://127.0.0.1:6379/1`, or `--settings larder.toml`\n",
    );
    says(
        &["--store", "reds://x", "get", "k"],
        2,
        "",
        "larder: settings: the URL of `default`: no store has the scheme `reds`\nhint: did you mean `redis`?\n",
    );
    let port = support::free_port();
    says(
        &[
            "--store",
            &format!("redis://:secret@127.0.0.1:{port}/0"),
            "get",
            "k",
        ],
        2,
        "",
        &format!(
            "larder: redis: cannot connect to `redis://127.0.0.1:{port}/0`\nhint: is the server running?\n"
        ),
    );
    let missing = "larder: settings: cannot read `missing.toml`\nhint: give the path of a TOML file with `[caches.default]` in it\n";
    says(&["--settings", "missing.toml", "get", "k"], 2, "", missing);
    let no_table = "larder: settings: the URL of `default`: `memory` has no table\nhint: SQL stores have: `sqlite:`, `postgres:`, `mysql:`\n";
    says(
        &["--store", "memory://", "table", "create"],
        2,
        "",
        no_table,
    );
}

#[test]
fn a_file_is_checked_cache_by_cache() {
    let folder = support::new_folder();
    let file = folder.join("larder.toml");
    let path = file.to_str().unwrap();
    let server = server();
    let (url, port) = (server.url(), support::free_port());
    let text = format!(
        "[caches.default]\nurl = '{url}'\n[caches.down]\nurl = 'redis://127.0.0.1:{port}/0'\n[caches.local]\nbackend = 'memory'\n"
    );
    std::fs::write(&file, text).unwrap();

    let answers = format!("default: {url} answers\nlocal: memory answers\n");
    let down = format!(
        "down: redis: cannot connect to `redis://127.0.0.1:{port}/0`\nhint: is the server running?\n"
    );
    says(&["check", path], 1, &answers, &down);
    says(
        &["--settings", path, "--alias", "local", "get", "k"],
        1,
        "",
        "",
    );
    let unknown =
        "larder: caches: there is no cache `shop`\nhint: there are default, down, local\n";
    says(
        &["--settings", path, "--alias", "shop", "get", "k"],
        2,
        "",
        unknown,
    );

    std::fs::write(
        &file,
        "[caches.default]\nbackend = 'memory'\ntimeout = 'x'\n",
    )
    .unwrap();
    let told = format!(
        "larder: settings: {path}:3: `timeout` cannot be `x`\nhint: give seconds, like `300` or `0.5`, a span, like `\"5m\"`, or `\"never\"`\n"
    );
    says(&["check", path], 2, "", &told);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn shells_are_told_how_to_complete() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, stderr) = run(&["completions", shell], "");
        assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
        assert!(
            script.contains("larder") && script.contains("incr"),
            "{shell}"
        );
    }
}

#[test]
fn a_table_is_made_once_and_its_statements_can_be_read_before() {
    let folder = support::new_folder();
    let url = format!("sqlite://{}/cache.db?table=pages", folder.display());
    let store = ["--store", &url];
    let on = |flags: &[&'static str]| run(&[&store[..], flags].concat(), "");

    let (code, _, told) = on(&["get", "k"]);
    assert_eq!(code, 2);
    assert!(told.contains("larder table create --store"), "{told}");
    let (code, statements, told) = on(&["table", "create", "--dry-run"]);
    assert_eq!((code, told.as_str()), (0, ""));
    assert!(
        statements.starts_with("CREATE TABLE IF NOT EXISTS \"pages\""),
        "{statements}"
    );
    assert!(!folder.join("cache.db").exists());
    assert_eq!(
        on(&["table", "create"]),
        (0, String::new(), "the table is made\n".into())
    );
    assert_eq!(
        on(&["table", "create"]),
        (0, String::new(), "the table is there already\n".into())
    );
    assert_eq!(on(&["set", "k", "[1]"]).0, 0);
    assert_eq!(on(&["get", "k"]), (0, "[1]\n".into(), String::new()));
    assert_eq!(on(&["keys"]), (0, "k\n".into(), String::new()));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_folder_is_a_store_too() {
    let folder = support::new_folder();
    let url = format!("file://{}/cache?key_prefix=shop", folder.display());
    let on = |flags: &[&'static str]| run(&[&["--store", &url], flags].concat(), "");

    assert_eq!(on(&["set", "--ttl", "1h", "a key", "5"]).0, 0);
    assert_eq!(on(&["incr", "a key"]), (0, "6\n".into(), String::new()));
    assert_eq!(on(&["keys"]), (0, "a key\n".into(), String::new()));
    std::fs::remove_dir_all(folder).unwrap();
}
