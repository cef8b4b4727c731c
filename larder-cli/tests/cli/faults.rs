//! What is told of what is wrong: one line, why, and a hint; never a password.

use crate::ground::{Store, patient, run, run_in, says};
use crate::support::{self, Kind, MemcachedServer, RedisServer, SqlServer, SqliteFile};

#[test]
fn what_is_wrong_is_one_line_its_causes_and_a_hint() {
    let no_cache = "larder: no cache is named\nhint: add `--store redis://127.0.0.1:6379/1`, or `--settings larder.toml`\n";
    says(&["get", "k"], 2, "", no_cache);
    let (code, _, told) = run(&["--alias", "shop", "get", "k"], b"");
    assert!(
        code == 2 && told.starts_with("larder: no cache `shop` is named\n"),
        "{told}"
    );
    let scheme = "larder: settings: the URL of `default`: no store has the scheme `reds`\nhint: did you mean `redis`?\n";
    Store::at("reds://x").says(&["get", "k"], 2, "", scheme);
    let port = support::free_port();
    let down = format!(
        "larder: redis: cannot connect to `redis://127.0.0.1:{port}/0`\ncause: Connection refused (os error 111)\nhint: is the server running?\n"
    );
    let store = Store::at(format!("redis://:secret@127.0.0.1:{port}/0"));
    store.says(&["get", "k"], 2, "", &down);
    let no_table = "larder: settings: the URL of `default`: `memory` has no table\nhint: SQL stores have: `sqlite:`, `postgres:`, `mysql:`\n";
    Store::at("memory://").says(&["table", "create"], 2, "", no_table);
}

#[test]
fn what_is_late_is_told_with_what_was_asked() {
    let file = SqliteFile::new();
    let store = Store::at(format!("{}?operation_timeout=300ms", file.url()));
    store.says(&["set", "k", "v"], 0, "", "");
    let connection = rusqlite::Connection::open(file.path()).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();

    let (code, _, told) = store.run(&["set", "k", "v"], b"");

    let start = format!("larder: set: sqlite: `{}` ", file.url());
    assert!(code == 2 && told.starts_with(&start), "{told}");
    let hint =
        "hint: a longer `operation_timeout`, such as `?operation_timeout=5s`, waits longer\n";
    assert!(told.ends_with(hint), "{told}");
}

/// That a wrong password is told as such, and not which.
#[track_caller]
fn keeps_the_secret(url: &str) {
    assert!(url.contains("wr0ng"), "{url}");
    let url = &*patient(url);
    let exported = [("LARDER_SHOP_URL", url)];
    for (variables, flags) in [
        (&[][..], &["--store", url, "get", "k"][..]),
        (&exported, &["--alias", "shop", "set", "k", "v"]),
    ] {
        let (code, said, told) = run_in(variables, flags, b"");

        assert_eq!((code, said.as_str()), (2, ""), "{told}");
        assert!(told.contains("refuses the login\n"), "{told}");
        assert!(told.contains("\ncause: "), "{told}");
        assert!(!told.contains("wr0ng"), "{told}");
    }
}

#[test]
fn redis_keeps_the_secret() {
    let server = RedisServer::start_with(&["--requirepass", "right"]);
    let at = format!("127.0.0.1:{}", server.port());

    keeps_the_secret(&format!("redis://:wr0ng@{at}/0"));
    keeps_the_secret(&format!("redis://{at}/0?password=wr0ng"));
    keeps_the_secret(&format!("redis://me:wr0ng@{at}/0"));
}

#[test]
fn memcached_keeps_the_secret() {
    let folder = support::new_folder();
    std::fs::write(folder.join("users"), "me:right:x\n").unwrap();
    let server = MemcachedServer::start_in(folder, &["-Y", "{folder}/users"]);

    keeps_the_secret(&format!("memcached://me:wr0ng@127.0.0.1:{}", server.port()));
}

#[test]
fn postgres_keeps_the_secret() {
    let folder = support::new_folder();
    let rules = folder.join("rules");
    let text = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(&rules, text).unwrap();
    let setting = format!("hba_file={}", rules.display());
    let server = SqlServer::start_in(Kind::Postgres, folder, &[&setting]);

    let at = format!("127.0.0.1:{}", server.port());
    keeps_the_secret(&format!("postgres://me:wr0ng@{at}/postgres"));
}

#[test]
fn mariadb_keeps_the_secret() {
    let server = SqlServer::start_bare(Kind::Mariadb);

    let at = format!("127.0.0.1:{}", server.port());
    keeps_the_secret(&format!("mysql://larder:wr0ng@{at}/larder"));
}
