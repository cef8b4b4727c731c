//! The verbs, over every store.

use crate::ground::{Store, patient};
use crate::support::{self, Kind, MemcachedServer, RedisServer, SqlServer, SqliteFile};

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

    let (code, left, _) = store.run(&["ttl", "k"], b"");

    let left: f64 = left.trim().parse().unwrap();
    assert!(code == 0 && left > 80.0 && left <= 90.1, "{left}");
    let told = "error: invalid value 'soon' for '--ttl <TTL>': give seconds, like `300`, a span, like `5m`, or `never`\n\nFor more information, try '--help'.\n";
    store.says(&["set", "--ttl", "soon", "k", "v"], 2, "", told);
}

/// Every verb on the store at `url`.
#[track_caller]
fn does_all(url: &str) {
    let separator = if url.contains('?') { '&' } else { '?' };
    let prefixed = |prefix: &str| Store::at(format!("{url}{separator}key_prefix={prefix}"));
    let (store, other) = (prefixed("shop"), prefixed("other"));

    other.says(&["set", "k", "other"], 0, "", "");
    store.says(&["get", "k"], 1, "", "");
    store.says(&["set", "k", "{\"a\": [1, null]}", "--tag", "t"], 0, "", "");
    store.says(&["get", "k"], 0, "{\"a\":[1,null]}\n", "");
    store.says(&["add", "k", "2"], 1, "", "");
    store.says(&["add", "n", "2", "--ttl", "1h"], 0, "", "");
    store.says(&["incr", "n", "40"], 0, "42\n", "");
    store.says(&["get", "n"], 0, "42\n", "");
    let (code, left, told) = store.run(&["ttl", "n"], b"");
    let left: f64 = left.trim().parse().unwrap();
    assert!(code == 0 && left > 3500.0 && left < 3601.5, "{left} {told}");
    store.says(&["touch", "n", "never"], 0, "", "");
    store.says(&["ttl", "n"], 0, "never\n", "");
    store.says(&["delete", "n", "missing"], 0, "1\n", "");
    store.says(&["get", "n"], 1, "", "");
    store.says(&["clear", "--yes"], 0, "", "");
    store.says(&["get", "k"], 1, "", "");
    other.says(&["get", "k"], 0, "\"other\"\n", "");
}

#[test]
fn a_redis_does_all() {
    let server = RedisServer::start();
    does_all(&patient(&server.url()));
}

#[test]
fn a_memcached_does_all() {
    let server = MemcachedServer::start();
    does_all(&patient(&server.url()));
}

#[test]
fn a_file_of_sqlite_does_all() {
    let file = SqliteFile::new();
    does_all(&patient(&file.url()));
}

#[test]
fn a_postgres_does_all() {
    let server = SqlServer::start(Kind::Postgres);
    does_all(&patient(&server.url()));
}

#[test]
fn a_mariadb_does_all() {
    let server = SqlServer::start(Kind::Mariadb);
    does_all(&patient(&server.url()));
}

#[test]
fn a_folder_does_all() {
    let folder = support::new_folder();
    let url = format!("file://{}/cache", folder.display());
    does_all(&format!("{url}?operation_timeout=20s"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_database_can_be_named_in_the_query() {
    let server = RedisServer::start();
    let at = format!("redis://127.0.0.1:{}", server.port());
    let (path, query) = (format!("{at}/5"), format!("{at}?db=5"));

    Store::at(patient(&query)).says(&["set", "k", "five"], 0, "", "");

    Store::at(patient(&path)).says(&["get", "k"], 0, "\"five\"\n", "");
    Store::at(patient(&at)).says(&["get", "k"], 1, "", "");
}

#[test]
fn a_password_can_be_given_in_the_query() {
    let server = RedisServer::start_with(&["--requirepass", "s+cret &%"]);
    let at = format!("redis://127.0.0.1:{}", server.port());

    for word in ["pass", "password"] {
        let store = Store::at(patient(&format!("{at}?{word}=s%2Bcret%20%26%25")));
        store.says(&["set", "k", "v"], 0, "", "");
    }
}

#[test]
fn database_and_password_in_the_query_count_with_tls_too() {
    let folder = support::new_folder();
    support::make_certificates(&folder);
    let port = support::free_port().to_string();
    let authority = folder.join("ca.crt").display().to_string();
    let arguments = ["--requirepass", "right", "--tls-port", &port]
        .into_iter()
        .chain([
            "--tls-cert-file",
            "server.crt",
            "--tls-key-file",
            "server.key",
        ])
        .chain(["--tls-ca-cert-file", "ca.crt", "--tls-auth-clients", "no"]);
    let arguments = arguments.map(str::to_owned).collect();
    // The server's folder is where it looks for files.
    let server = RedisServer::start_in(folder, arguments);

    let url = format!("rediss://localhost:{port}?ca_certificate={authority}&pass=right&db=5");
    Store::at(patient(&url)).says(&["set", "k", "five"], 0, "", "");

    let plain = format!("redis://:right@127.0.0.1:{}/5", server.port());
    Store::at(patient(&plain)).says(&["get", "k"], 0, "\"five\"\n", "");
}
