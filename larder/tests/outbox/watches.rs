//! Triggers of PostgreSQL: whoever writes, and however.

use larder::outbox::Outbox;
use larder::store::{Memory, Redis};
use larder::wrap::Tiered;
use larder::{Cache, ErrorKind};

use crate::ground::{Database, HOUR, LONG, Writer, until};
use crate::support::{Kind, RedisServer, SqlServer};

const NO_TAGS: [&str; 0] = [];

/// A table `{name}_object` with two rows, and a program that writes it.
async fn objects(database: &Database) -> (String, Writer) {
    let table = format!("{}_object", database.name);
    let mut writer = database.writer().await;
    writer
        .run(&format!(
            "CREATE TABLE {table} (id bigint PRIMARY KEY, kind text)"
        ))
        .await;
    writer
        .run(&format!("INSERT INTO {table} VALUES (1, 'a'), (2, 'b')"))
        .await;
    (table, writer)
}

/// What waits, in the order of the alphabet; it is removed.
async fn noted(database: &Database, writer: &mut Writer) -> Vec<String> {
    let mut tags = database.waiting().await;
    writer
        .run(&format!("DELETE FROM {}_outbox", database.name))
        .await;
    tags.sort_unstable();
    tags
}

#[tokio::test]
async fn every_way_to_write_a_row_notes_its_tags() {
    let database = Database::postgres();
    let outbox = Outbox::lazy(database.url()).unwrap();
    let (table, mut writer) = objects(&database).await;

    let tags = outbox
        .watch(&table, ["all", "one:{id}", "kind:{kind}"])
        .await;

    assert_eq!(tags.unwrap(), ["all", "one:{id}", "kind:{kind}"]);
    for (sql, tags) in [
        (
            "INSERT INTO {} VALUES (3, 'c')",
            vec!["all", "kind:c", "one:3"],
        ),
        (
            "INSERT INTO {} VALUES (4, NULL), (5, 'c')",
            vec!["all", "kind:", "kind:c", "one:4", "one:5"],
        ),
        (
            "UPDATE {} SET kind = 'd' WHERE id = 3",
            vec!["all", "kind:c", "kind:d", "one:3", "one:3"],
        ),
        (
            "UPDATE {} SET id = 9 WHERE id = 3",
            vec!["all", "kind:d", "kind:d", "one:3", "one:9"],
        ),
        ("UPDATE {} SET id = 7 WHERE id = 70", vec![]),
        (
            "DELETE FROM {} WHERE id = 9",
            vec!["all", "kind:d", "one:9"],
        ),
        (
            "INSERT INTO {} VALUES (1, 'z') ON CONFLICT (id) DO UPDATE SET kind = 'z'",
            vec!["all", "kind:a", "kind:z", "one:1", "one:1"],
        ),
        (
            "COPY {} FROM PROGRAM 'printf ''8\\th\\n'''",
            vec!["all", "kind:h", "one:8"],
        ),
        (
            "TRUNCATE {}",
            vec![
                "all", "kind:", "kind:b", "kind:c", "kind:h", "kind:z", "one:1", "one:2", "one:4",
                "one:5", "one:8",
            ],
        ),
    ] {
        let sql = sql.replace("{}", &table);
        writer.run(&sql).await;
        assert_eq!(noted(&database, &mut writer).await, tags, "{sql}");
    }
}

#[tokio::test]
async fn what_is_rolled_back_is_noted_by_nobody() {
    let database = Database::postgres();
    let outbox = Outbox::lazy(database.url()).unwrap();
    let (table, mut writer) = objects(&database).await;
    outbox.watch(&table, ["all", "{pk}"]).await.unwrap();

    writer
        .run(&format!("BEGIN; DELETE FROM {table}; ROLLBACK"))
        .await;
    assert!(noted(&database, &mut writer).await.is_empty());

    // The tag of all is put there once, and once more where that was taken back.
    let parts = format!(
        "BEGIN; SAVEPOINT a; UPDATE {table} SET kind = 'x' WHERE id = 1; ROLLBACK TO a; \
         UPDATE {table} SET kind = 'x' WHERE id = 2; UPDATE {table} SET kind = 'y' WHERE id = 2; COMMIT"
    );
    writer.run(&parts).await;
    assert_eq!(
        noted(&database, &mut writer).await,
        ["2", "2", "2", "2", "all"]
    );
    // And in the next transaction of the session again.
    writer
        .run(&format!("UPDATE {table} SET kind = 'x' WHERE id = 2"))
        .await;
    assert_eq!(noted(&database, &mut writer).await, ["2", "2", "all"]);
}

#[tokio::test]
async fn by_default_the_tags_are_the_table_and_the_row() {
    let database = Database::postgres();
    let outbox = Outbox::lazy(database.url()).unwrap().space("shop");
    let mut writer = database.writer().await;
    let name = &database.name;
    let evil = format!("{name} O''Brien\"; {{x}} \\ $$");
    let quoted = format!("\"{}\"", evil.replace('"', "\"\""));
    writer.run(&format!("CREATE SCHEMA {name}_s")).await;
    let columns = "(\"B \"\"q\" int, a text, c int, PRIMARY KEY (c, \"B \"\"q\"))";
    writer
        .run(&format!("CREATE TABLE {name}_s.{quoted} {columns}"))
        .await;

    let tags = outbox.watch(&format!("{name}_s.{quoted}"), NO_TAGS).await;

    let escaped = evil.replace('{', "{{").replace('}', "}}");
    assert_eq!(
        tags.unwrap(),
        [escaped.clone(), format!("{escaped}:{{pk}}")]
    );
    writer
        .run(&format!("INSERT INTO {name}_s.{quoted} VALUES (1, 'x', 2)"))
        .await;
    let mut tags = writer
        .texts(&format!("SELECT space || '/' || tag FROM {name}_outbox"))
        .await;
    tags.sort_unstable();
    assert_eq!(tags, [format!("shop/{evil}"), format!("shop/{evil}:2,1")]);
}

#[tokio::test]
async fn partitions_and_who_writes_them_are_seen() {
    let database = Database::postgres();
    let outbox = Outbox::lazy(database.url()).unwrap();
    let mut writer = database.writer().await;
    let name = &database.name;
    writer
        .run(&format!(
            "CREATE TABLE {name}_p (id int PRIMARY KEY) PARTITION BY RANGE (id)"
        ))
        .await;
    writer
        .run(&format!(
            "CREATE TABLE {name}_p1 PARTITION OF {name}_p FOR VALUES FROM (0) TO (9)"
        ))
        .await;

    outbox
        .watch(&format!("{name}_p"), ["all", "{id}"])
        .await
        .unwrap();

    writer
        .run(&format!("INSERT INTO {name}_p VALUES (1)"))
        .await;
    assert_eq!(noted(&database, &mut writer).await, ["1", "all"]);
    writer
        .run(&format!("INSERT INTO {name}_p1 VALUES (2)"))
        .await;
    assert_eq!(noted(&database, &mut writer).await, ["2", "all"]);
    writer.run(&format!("TRUNCATE {name}_p")).await;
    assert_eq!(noted(&database, &mut writer).await, ["1", "2", "all"]);
}

#[tokio::test]
async fn watching_again_replaces_and_unwatching_leaves_nothing() {
    let database = Database::postgres();
    let outbox = Outbox::lazy(database.url()).unwrap();
    let (table, mut writer) = objects(&database).await;
    let functions = format!(
        "SELECT proname::text FROM pg_proc WHERE proname LIKE 'larder_watch_{}object%'",
        database.name
    );

    outbox.watch(&table, ["first"]).await.unwrap();
    outbox.watch(&table, ["second"]).await.unwrap();
    writer
        .run(&format!("DELETE FROM {table} WHERE id = 1"))
        .await;
    assert_eq!(noted(&database, &mut writer).await, ["second"]);
    assert_eq!(writer.texts(&functions).await.len(), 1);

    assert!(outbox.unwatch(&table).await.unwrap());
    assert!(!outbox.unwatch(&table).await.unwrap());
    writer.run(&format!("DELETE FROM {table}")).await;
    assert!(noted(&database, &mut writer).await.is_empty());
    assert!(writer.texts(&functions).await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_watched_is_told() {
    let database = Database::postgres();
    let outbox = Outbox::lazy(database.url()).unwrap();
    let (table, mut writer) = objects(&database).await;
    let name = &database.name;
    writer
        .run(&format!("CREATE TABLE {name}_bare (id int)"))
        .await;
    writer
        .run(&format!("CREATE VIEW {name}_view AS SELECT * FROM {table}"))
        .await;

    for (table, tag, told) in [
        ("nowhere", "", "has no table `nowhere`".to_owned()),
        ("a b; --", "", "has no table `a b; --`".to_owned()),
        (
            &*format!("{name}_bare"),
            "",
            format!("has no primary key on the table `{name}_bare`"),
        ),
        (
            &*table,
            "{x}",
            format!("has no column `x` in the table `{table}`"),
        ),
        (
            &*table,
            "{x",
            "the tag `{x` cannot be used: a `{` in it is not closed".to_owned(),
        ),
        (
            &*format!("{name}_view"),
            "",
            format!("has no table `{name}_view`: what is called so is a view or the like"),
        ),
    ] {
        let tags: Vec<&str> = Some(tag)
            .filter(|tag| !tag.is_empty())
            .into_iter()
            .collect();
        let error = outbox.watch(table, tags).await.unwrap_err();

        assert_eq!(error.kind(), ErrorKind::Invalid, "{table}");
        assert!(error.to_string().ends_with(&told), "{error}");
    }
    for other in [Database::file(), Database::mariadb()] {
        let outbox = Outbox::lazy(other.url()).unwrap();
        let error = outbox.watch("object", NO_TAGS).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}

#[tokio::test]
async fn who_may_write_the_table_need_not_know_of_the_outbox() {
    let server = SqlServer::start_bare(Kind::Postgres);
    let outbox = Outbox::lazy(server.url()).unwrap();
    let (owner, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    owner
        .batch_execute(
            "CREATE TABLE object (id int PRIMARY KEY); CREATE ROLE app LOGIN; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON object TO app",
        )
        .await
        .unwrap();
    outbox.watch("object", NO_TAGS).await.unwrap();

    let url = server.url().replace("postgres@", "app@");
    let (app, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    app.batch_execute("SET search_path = pg_temp; INSERT INTO public.object VALUES (5)")
        .await
        .unwrap();

    let tags = owner
        .query("SELECT tag FROM larder_outbox ORDER BY tag", &[])
        .await
        .unwrap();
    let tags: Vec<String> = tags.iter().map(|row| row.get(0)).collect();
    assert_eq!(tags, ["object", "object:5"]);
    let error = Outbox::lazy(url)
        .unwrap()
        .watch("object", NO_TAGS)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("does not permit"), "{error}");
}

#[tokio::test]
async fn a_notice_wakes_and_a_listener_that_was_away_catches_up() {
    let server = SqlServer::start_bare(Kind::Postgres);
    // It does not look by itself within this test.
    let url = server.url().replace("postgres@", "drainer@");
    let outbox = Outbox::lazy(url).unwrap().poll_every(crate::ground::HOUR);
    let (writer, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let run = async |sql: &str| writer.batch_execute(sql).await.unwrap();
    run("CREATE TABLE object (id int PRIMARY KEY)").await;
    run("CREATE ROLE drainer SUPERUSER LOGIN").await;
    outbox.watch("object", NO_TAGS).await.unwrap();
    let cache = Cache::new(Memory::new());
    let keep = async || cache.set("k", "old").tags(["object"]).await.unwrap();
    let is_gone = async || cache.get::<String>("k").await.unwrap().is_none();
    let listeners = async || {
        let listeners = "SELECT count(*) FROM pg_stat_activity \
                         WHERE application_name = 'larder-listen' AND query LIKE 'LISTEN%'";
        writer
            .query_one(listeners, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
    };

    let draining = outbox.run([cache.clone()]);
    until("listening", async || listeners().await == 1).await;
    for id in 0..3 {
        keep().await;
        run(&format!("INSERT INTO object VALUES ({id})")).await;
        until("a notice", is_gone).await;
    }

    // What is committed while nobody can listen is found when somebody can.
    keep().await;
    run("ALTER ROLE drainer NOLOGIN").await;
    run(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
         WHERE application_name LIKE 'larder-%'",
    )
    .await;
    assert_eq!(listeners().await, 0);
    run("DELETE FROM object").await;
    assert!(!is_gone().await);
    run("ALTER ROLE drainer LOGIN").await;
    until("catching up", is_gone).await;
    draining.close().await;
}

#[tokio::test]
async fn a_near_tier_elsewhere_hears_of_a_row_that_raw_sql_has_written() {
    // The whole way: a trigger, the outbox, `NOTIFY`, whoever drains, Redis, and a watched near tier in
    // another process, whose copy would live for an hour.
    let (database, redis) = (Database::postgres(), RedisServer::start());
    let (table, mut writer) = objects(&database).await;
    let process = || {
        let tiers = Tiered::new(Memory::new(), Redis::lazy(redis.url()).unwrap());
        Cache::new(tiers.near_for(LONG).watched())
    };
    let (drains, holds) = (process(), process());
    // Woken by `NOTIFY`, not by the hour.
    let outbox = Outbox::lazy(database.url()).unwrap().poll_every(HOUR);
    outbox
        .watch(&table, ["objects", "object:{id}"])
        .await
        .unwrap();
    let draining = outbox.run([drains]);

    let fetch = async |text: &'static str| {
        let load = move || async move { Ok::<_, std::convert::Infallible>(text.to_owned()) };
        let fetch = holds.fetch("object 1", load).tags(["object:1"]).ttl(HOUR);
        fetch.await.unwrap()
    };
    assert_eq!(fetch("a").await, "a");
    // Served near from now on.
    until("a copy that is served near", async || {
        let before = redis.reads();
        assert_eq!(fetch("not loaded").await, "a");
        redis.reads() == before
    })
    .await;

    writer
        .run(&format!("UPDATE {table} SET kind = 'z' WHERE id = 1"))
        .await;
    until("the near tier has heard", async || fetch("z").await == "z").await;
    draining.close().await;
}
