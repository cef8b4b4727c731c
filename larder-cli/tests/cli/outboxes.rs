//! Outboxes: made, watched and drained.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::ground::{BINARY, Store, clean, run, says};
use crate::support::{self, Kind, SqlServer};
use crate::tables::psql;

#[test]
fn an_outbox_is_made_once_and_its_statements_can_be_read_before() {
    let folder = support::new_folder();
    let file = folder.join("shop.db");
    let url = format!("sqlite://{}?table=shop", file.display());
    let statements = "\
CREATE TABLE IF NOT EXISTS \"shop_outbox\" (id INTEGER PRIMARY KEY AUTOINCREMENT, space TEXT NOT NULL, tag TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS \"shop_waiting\" ON \"shop_outbox\" (space, id);
";

    says(
        &["table", "outbox", "--url", &url, "--dry-run"],
        0,
        statements,
        "",
    );
    assert!(!file.exists());
    says(
        &["table", "outbox", "--url", &url],
        0,
        "",
        "the outbox is made\n",
    );
    says(
        &["table", "outbox", "--url", &url],
        0,
        "",
        "the outbox is there already\n",
    );
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_store_that_reads_its_outbox_has_it_made_along_with_its_table() {
    let folder = support::new_folder();
    let file = folder.join("shop.db");
    let plain = Store::at(format!("sqlite://{}", file.display()));
    let store = Store::at(format!("sqlite://{}?outbox=true", file.display()));

    plain.says(&["table", "create"], 0, "", "the table is made\n");
    // The outbox was missing.
    store.says(&["table", "create"], 0, "", "the table is made\n");
    store.says(&["table", "create"], 0, "", "the table is there already\n");
    store.says(&["set", "k", "old", "--tag", "t"], 0, "", "");
    store.says(&["set", "l", "old", "--tag", "u"], 0, "", "");
    let shop = rusqlite::Connection::open(&file).unwrap();
    let insert = "INSERT INTO larder_outbox (space, tag) VALUES ('', 't')";
    shop.execute(insert, []).unwrap();
    store.says(&["get", "k"], 1, "", "");
    store.says(&["get", "l"], 0, "\"old\"\n", "");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_drain_invalidates_what_waits_and_says_how_much() {
    let folder = support::new_folder();
    let file = folder.join("shop.db");
    let url = format!("sqlite://{}", file.display());
    let store = Store::new("drained");
    store.says(&["set", "k", "old", "--tag", "t"], 0, "", "");

    let missing = store.run(&["table", "drain", "--url", &url], b"");
    let told = format!(
        "larder: sqlite: `{url}` has no table `larder_outbox` that Larder made\n\
         hint: run `larder table outbox --url {url}`\n"
    );
    assert_eq!(missing, (2, String::new(), told));
    says(
        &["table", "outbox", "--url", &url],
        0,
        "",
        "the outbox is made\n",
    );
    let shop = rusqlite::Connection::open(&file).unwrap();
    let insert = "INSERT INTO larder_outbox (space, tag) VALUES ('', 't'), ('', 'u')";
    shop.execute(insert, []).unwrap();
    store.says(&["table", "drain", "--url", &url], 0, "2\n", "");
    store.says(&["table", "drain", "--url", &url], 0, "0\n", "");
    store.says(&["get", "k"], 1, "", "");
    std::fs::remove_dir_all(folder).unwrap();
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_table_of_postgres_is_watched_and_the_drain_follows() {
    let server = SqlServer::start_bare(Kind::Postgres);
    let url = server.url();
    let store = Store::new("followed");
    psql(
        &server,
        "CREATE TABLE object (id int PRIMARY KEY, kind text)",
    );
    let watch = |more: &[&str]| {
        let flags = ["table", "watch", "object", "--url", &url];
        run(&[&flags[..], more].concat(), b"")
    };
    let done = |told: &str| (0, String::new(), told.to_owned());

    let told = "whoever writes `object` now invalidates `object` and `object:{pk}`\n";
    assert_eq!(watch(&[]), done(told));
    let told = "whoever writes `object` now invalidates `objects` and `kind:{kind}`\n";
    assert_eq!(
        watch(&["--tag", "objects", "--tag", "kind:{kind}"]),
        done(told)
    );

    store.says(&["set", "k", "old", "--tag", "kind:lamp"], 0, "", "");
    psql(&server, "INSERT INTO object VALUES (1, 'lamp')");
    store.says(&["table", "drain", "--url", &url], 0, "2\n", "");
    store.says(&["get", "k"], 1, "", "");

    store.says(&["set", "k", "old", "--tag", "objects"], 0, "", "");
    let flags = store.flags(&["table", "drain", "--follow", "--url", &url]);
    let following = clean(BINARY).args(flags).stdin(Stdio::null()).spawn();
    let following = Ended(following.unwrap());
    psql(&server, "TRUNCATE object");
    let is_gone = || store.run(&["get", "k"], b"").0 == 1;
    let is_gone = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        is_gone()
    });
    assert!(is_gone);
    drop(following);

    let unwatch = ["table", "unwatch", "object", "--url", &url];
    says(&unwatch, 0, "", "`object` is no longer watched\n");
    says(&unwatch, 1, "", "`object` was not watched\n");
    psql(&server, "INSERT INTO object VALUES (2, 'lamp')");
    store.says(&["table", "drain", "--url", &url], 0, "0\n", "");
}

#[test]
fn what_cannot_be_watched_is_told() {
    let server = SqlServer::start_bare(Kind::Postgres);
    let url = server.url();
    let shown = url.replace("postgres@", "");
    psql(&server, "CREATE TABLE object (id int)");
    psql(&server, "CREATE ROLE guest LOGIN");
    psql(&server, "GRANT CREATE ON SCHEMA public TO guest");
    let made = "the outbox is made\n";
    says(&["table", "outbox", "--url", &url], 0, "", made);
    let guest = url.replace("postgres@", "guest@");
    let file = "sqlite:///nowhere/shop.db";
    let watch = |table, url, tag| {
        let (code, stdout, told) = run(&["table", "watch", table, "--url", url, "--tag", tag], b"");
        assert_eq!((code, stdout.as_str()), (2, ""), "{told}");
        told
    };

    assert_eq!(
        watch("objects", &url, "{id}"),
        format!(
            "larder: postgres: `{shown}` has no table `objects`\n\
             hint: name it as in SQL: `shop.object`, in quotes where it needs them\n"
        )
    );
    assert_eq!(
        watch("object", &url, "{pk}"),
        format!(
            "larder: postgres: `{shown}` has no primary key on the table `object`\n\
             hint: name a column: `--tag 'object:{{id}}'`\n"
        )
    );
    assert_eq!(
        watch("object", &url, "{key}"),
        format!(
            "larder: postgres: `{shown}` has no column `key` in the table `object`\n\
             hint: there are id\n"
        )
    );
    assert_eq!(
        watch("object", &url, "{id"),
        "larder: outbox: the tag `{id` cannot be used: a `{` in it is not closed\n\
         hint: write it as `objects`, `object:{pk}` or `object:{column}`\n"
    );
    assert_eq!(
        watch("object", &guest, "{id}"),
        format!(
            "larder: postgres: `{shown}` does not permit writing the outbox \"larder_outbox\"\n\
             hint: grant `INSERT` on it to the owner of the table\n"
        )
    );
    psql(&server, "GRANT INSERT ON larder_outbox TO guest");
    assert_eq!(
        watch("object", &guest, "{id}"),
        format!(
            "larder: postgres: `{shown}` does not permit triggers on `object`\n\
             cause: db error: ERROR: permission denied for table object\n\
             hint: let the owner of the table do it, who also needs `CREATE` on the schema of the outbox\n"
        )
    );
    assert_eq!(
        watch("object", file, "{id}"),
        format!(
            "larder: outbox: `{file}` has no triggers of Larder's to watch `object` by\n\
             hint: PostgreSQL has; elsewhere let the program that writes insert the rows, see \
             `Outbox::insert`\n"
        )
    );
    assert_eq!(
        watch("object", "redis://cache", "{id}"),
        "larder: outbox: the URL cannot be used: an outbox is a table of a database of this build\n\
         hint: write it as `postgres://…`, `mysql://…` or `sqlite://…`\n"
    );
}
