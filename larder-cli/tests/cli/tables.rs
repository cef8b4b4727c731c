//! Tables of SQL stores.

use crate::ground::{Said, Store, clean, patient, run};
use crate::support::{self, Kind, SqlServer};

fn done(told: &str) -> Said {
    (0, String::new(), told.to_owned())
}

#[test]
fn a_table_is_made_once_and_its_statements_can_be_read_before() {
    let folder = support::new_folder();
    let file = folder.join("cache.db");
    let store = Store::at(format!("sqlite://{}?table=pages", file.display()));

    let (code, _, told) = store.run(&["get", "k"], b"");
    assert_eq!(code, 2);
    let hint = "hint: run `larder table create` with the same flags\n";
    assert!(told.ends_with(hint), "{told}");
    let (code, statements, told) = store.run(&["table", "create", "--dry-run"], b"");
    assert_eq!((code, told.as_str()), (0, ""));
    let start = "CREATE TABLE IF NOT EXISTS \"pages\"";
    assert!(statements.starts_with(start), "{statements}");
    assert!(!file.exists());
    let create = || store.run(&["table", "create"], b"");
    assert_eq!(create(), done("the table is made\n"));
    assert_eq!(create(), done("the table is there already\n"));
    store.says(&["set", "k", "[1]"], 0, "", "");
    store.says(&["get", "k"], 0, "[1]\n", "");
    store.says(&["keys"], 0, "k\n", "");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_check_names_the_whole_command_for_a_missing_table() {
    let folder = support::new_folder();
    let file = folder.join("larder.toml");
    let db = folder.join("cache.db");
    let text = format!("[caches.a]\nurl = 'sqlite://{}'", db.display());
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();

    let (code, _, told) = run(&["check", path], b"");
    let hint = format!("hint: run `larder table create --settings {path} --alias a`\n");
    assert!(code == 1 && told.ends_with(&hint), "{told}");
    let create = ["table", "create", "--settings", path, "--alias", "a"];
    assert_eq!(run(&create, b""), done("the table is made\n"));
    assert_eq!(run(&["check", path], b"").0, 0);
    std::fs::remove_dir_all(folder).unwrap();
}

/// That a table of that name which is not Larder's is told, and no command that cannot help.
#[track_caller]
fn is_told_foreign(store: &Store) {
    for flags in [&["table", "create"][..], &["get", "k"]] {
        let (code, _, told) = store.run(flags, b"");

        assert_eq!(code, 2, "{flags:?}: {told}");
        assert!(
            told.contains("has a table `pages` that Larder did not make\n"),
            "{flags:?}: {told}"
        );
        let hint = "hint: choose another name by `?table=` in the URL\n";
        assert!(told.ends_with(hint), "{flags:?}: {told}");
    }
}

#[test]
fn a_foreign_table_is_told_by_sqlite() {
    let folder = support::new_folder();
    let file = folder.join("cache.db");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute("CREATE TABLE pages (x)", []).unwrap();

    is_told_foreign(&Store::at(format!(
        "sqlite://{}?table=pages",
        file.display()
    )));

    std::fs::remove_dir_all(folder).unwrap();
}

pub(crate) fn psql(server: &SqlServer, statement: &str) {
    let port = server.port().to_string();
    let output = clean("psql")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-c",
            statement,
        ])
        .output();
    let output = output.expect("`psql` comes with the server");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_foreign_table_and_a_missing_right_are_told_by_postgres() {
    let server = SqlServer::start_bare(Kind::Postgres);
    psql(&server, "CREATE TABLE pages (x int)");
    psql(&server, "CREATE ROLE guest LOGIN");
    psql(&server, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");

    let pages = format!("{}?table=pages", server.url());
    is_told_foreign(&Store::at(patient(&pages)));
    let guest = Store::at(patient(&server.url().replace("postgres@", "guest@")));
    let (code, _, told) = guest.run(&["table", "create"], b"");
    assert_eq!(code, 2);
    assert!(told.contains("does not permit making a table\n"), "{told}");
    assert!(
        told.contains("hint: grant the user `CREATE` on the schema"),
        "{told}"
    );
    let nowhere = Store::at(patient(&format!("{}?table=nowhere.pages", server.url())));
    let (_, _, told) = nowhere.run(&["table", "create"], b"");
    assert!(told.contains("has no such schema\n"), "{told}");
}

fn mariadb(server: &SqlServer, statement: &str) {
    let socket = server.folder().join("sock");
    let output = clean("mariadb")
        .arg("--no-defaults")
        .arg(format!("--socket={}", socket.display()))
        .args(["-u", "root", "larder", "-e", statement])
        .output();
    let output = output.expect("`mariadb` comes with the server");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_foreign_table_and_a_missing_right_are_told_by_mariadb() {
    let server = SqlServer::start_bare(Kind::Mariadb);
    mariadb(&server, "CREATE TABLE pages (x int)");
    mariadb(&server, "CREATE USER guest@'%' IDENTIFIED BY 'secret'");
    mariadb(&server, "GRANT SELECT ON larder.* TO guest@'%'");

    let pages = format!("{}?table=pages", server.url());
    is_told_foreign(&Store::at(patient(&pages)));
    let guest = Store::at(patient(&server.url().replace("larder:", "guest:")));
    let (code, _, told) = guest.run(&["table", "create"], b"");
    assert_eq!(code, 2);
    assert!(told.contains("does not permit making a table\n"), "{told}");
    assert!(
        told.contains("hint: grant the user `CREATE` on the database"),
        "{told}"
    );
}
