//! Files of settings, and `check`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ground::{BINARY, clean, patient, run, run_in, says, server};
use crate::support::{self, RedisServer};

/// A folder with a `larder.toml`.
fn folder_with(text: &str) -> (PathBuf, String) {
    let folder = support::new_folder();
    let file = folder.join("larder.toml");
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn a_file_is_checked_cache_by_cache() {
    let server = server();
    let (url, port) = (server.url(), support::free_port());
    let patient = patient(&url);
    let (folder, path) = folder_with(&format!(
        "[caches.broken]\nbackend = 'memory'\ntimeout = 'x'\n\
         [caches.default]\nurl = '{patient}'\n\
         [caches.down]\nurl = 'redis://127.0.0.1:{port}/0'\n\
         [caches.local]\nbackend = 'memory'\n\
         [caches.off]\nbackend = 'null'\n"
    ));

    let answers = format!("default: {url} answers\nlocal: memory answers\noff: null answers\n");
    let told = format!(
        "broken: settings: {path}:3: `timeout` cannot be `x`\n\
         hint: give seconds, like `300` or `0.5`, a span, like `\"5m\"`, or `\"never\"`\n\
         down: redis: cannot connect to `redis://127.0.0.1:{port}/0`\n\
         cause: Connection refused (os error 111)\n\
         hint: is the server running?\n"
    );
    says(&["check", &path], 1, &answers, &told);
    let one = format!("default: {url} answers\n");
    says(&["check", &path, "--alias", "default"], 0, &one, "");
    assert_eq!(run(&["check", &path, "--alias", "down"], b"").0, 1);
    let unknown = "larder: settings: there is no cache `defualt`\nhint: did you mean `default`?\n";
    says(&["check", &path, "--alias", "defualt"], 2, "", unknown);
    let store =
        "larder: `check` takes no `--store`\nhint: give it a file: `larder check larder.toml`\n";
    says(&["check", &path, "--store", &url], 2, "", store);

    let exported = [
        ("LARDER_BROKEN_URL", "memory://"),
        ("LARDER_DOWN_URL", patient.as_str()),
    ];
    let mended = format!(
        "broken: memory answers\ndefault: {url} answers\ndown: {url} answers\nlocal: memory answers\noff: null answers\n"
    );
    let said = run_in(&exported, &["check", &path], b"");
    assert_eq!(said, (0, mended, String::new()));
    let (_, left, _) = run(&["--store", &patient, "keys", "larder-check"], b"");
    assert_eq!(left, "");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_check_writes() {
    // Nobody is there to be a replica of, so that it never loads what the other has.
    let port = support::free_port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
    let (folder, path) = folder_with(&format!("[caches.a]\nurl = '{}'", patient(&replica.url())));

    let (code, said, told) = run(&["check", &path], b"");

    assert_eq!((code, said.as_str()), (1, ""), "{told}");
    let url = replica.url();
    let expected = format!("a: redis: `{url}` is a replica and takes no writes\n");
    assert!(told.starts_with(&expected), "{told}");
    assert!(
        told.ends_with("hint: give the address of the primary\n"),
        "{told}"
    );
    std::fs::remove_dir_all(folder).unwrap();
}

/// The command as somebody who is not root, who may read and write everything.
fn as_nobody() -> Command {
    let is_root = clean("id").arg("-u").output().unwrap().stdout == b"0\n";
    if !is_root {
        return clean(BINARY);
    }
    let mut command = clean("setpriv");
    command.args(["--reuid=65534", "--clear-groups", BINARY]);
    command
}

fn set_mode(path: &str, mode: &str) {
    let status = clean("chmod").args([mode, path]).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_folder_that_cannot_be_written_is_found_by_a_check() {
    let (folder, path) = folder_with("");
    let place = folder.join("cache");
    std::fs::create_dir(&place).unwrap();
    let place = place.to_str().unwrap();
    let text = format!("[caches.a]\nbackend = 'file'\nlocation = '{place}'");
    std::fs::write(&path, text).unwrap();
    set_mode(place, "555");

    let output = as_nobody().args(["check", &path]).output().unwrap();

    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(output.stdout, b"", "{told}");
    let cause = "\ncause: Permission denied (os error 13)\n";
    assert!(told.starts_with("a: ") && told.contains(cause), "{told}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn one_cache_is_opened_whatever_is_wrong_with_others() {
    let (folder, path) = folder_with(
        "[caches.a]\nurl = 'reds://cache'\n[caches.b]\nurl = 'memory://'\n[caches.c]\nversion = true",
    );
    let exported = [("LARDER_HOMEPAGE_URL", "example.com")];

    let said = run_in(
        &exported,
        &["--settings", &path, "--alias", "b", "get", "k"],
        b"",
    );
    assert_eq!(said, (1, String::new(), String::new()));
    let told = format!(
        "larder: settings: {path}:2: no store has the scheme `reds`\nhint: did you mean `redis`?\n"
    );
    says(
        &["--settings", &path, "--alias", "a", "get", "k"],
        2,
        "",
        &told,
    );
    let unknown = "larder: settings: there is no cache `shop`\nhint: there are a, b, c\n";
    says(
        &["--settings", &path, "--alias", "shop", "get", "k"],
        2,
        "",
        unknown,
    );
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_told_why() {
    let (folder, empty) = folder_with("[caches]\n");
    let text = folder.join("latin");
    std::fs::write(&text, b"title = 'caf\xe9'").unwrap();
    let shown = |path: &Path| path.to_str().unwrap().to_owned();
    let hint = "hint: give the path of a TOML file with `[caches.default]` in it\n";

    for (path, cause) in [
        (
            shown(&folder.join("missing")),
            "No such file or directory (os error 2)",
        ),
        (shown(&folder), "Is a directory (os error 21)"),
        (shown(&text), "stream did not contain valid UTF-8"),
    ] {
        let told = format!("larder: settings: cannot read `{path}`\ncause: {cause}\n{hint}");
        says(&["--settings", &path, "get", "k"], 2, "", &told);
        says(&["check", &path], 2, "", &told);
    }
    let told = format!(
        "larder: settings: {empty}:1: `[caches]` names no cache\nhint: begin with `[caches.default]`\n"
    );
    says(&["check", &empty], 2, "", &told);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_file_without_permission_is_told_so() {
    let (folder, path) = folder_with("[caches.a]\nurl = 'memory://'");
    set_mode(&path, "000");

    let output = as_nobody().args(["check", &path]).output().unwrap();

    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("cause: Permission denied (os error 13)\n"),
        "{told}"
    );
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn clusters_and_sentinels_are_checked_and_listed() {
    let cluster = support::RedisCluster::start(0);
    let watched = support::Watched::start();
    let (nodes, sentinels) = (cluster.url(), watched.url());
    let (folder, path) = folder_with(&format!(
        "[caches.nodes]\nurl = '{}'\noptions = {{ read_replicas = true }}\n\
         [caches.watched]\nurl = '{}'\n\
         [caches.wrong]\nbackend = 'redis+sentinel'\nlocation = '127.0.0.1'\n",
        patient(&nodes),
        patient(&sentinels),
    ));

    let answers = format!("nodes: {nodes} answers\nwatched: {sentinels} answers\n");
    let told = format!(
        "wrong: settings: {path}:8: redis: the URL cannot be used: it does not name the primary\n\
         hint: write it as `redis+sentinel://:password@host:26379,host:26379/mymaster/0`\n"
    );
    says(&["check", &path], 1, &answers, &told);

    let store = patient(&nodes);
    for key in ["user:1", "user:2", "user:3", "other"] {
        let set = run(&["--store", &store, "set", key, "1"], b"");
        assert_eq!((set.0, set.2), (0, String::new()));
    }
    let (code, keys, _) = run(&["--store", &store, "keys", "user:"], b"");
    let mut keys: Vec<&str> = keys.lines().collect();
    keys.sort_unstable();
    assert_eq!((code, keys), (0, vec!["user:1", "user:2", "user:3"]));
    std::fs::remove_dir_all(folder).unwrap();
}
