//! The stores of SQL against real files and servers: what the conformance suite cannot see.

#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use larder::store::{Mysql, Postgres, Sqlite, Store, Sum, Tags, When};
use larder::{Clock, Entry, Error, ErrorKind, Key, Moment, Tag, Value};
use mysql_async::prelude::Queryable as _;
use support::{Kind, SqlServer, SqliteFile};
use tokio_postgres::NoTls;

const LONG: Duration = Duration::from_mins(10);

type Stores = Vec<Arc<dyn Store>>;

/// A table of each kind, of this test alone; the servers end with the last test that holds them.
struct Tables {
    file: SqliteFile,
    postgres: Arc<SqlServer>,
    mariadb: Arc<SqlServer>,
    name: String,
}

impl Tables {
    async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tables = Self {
            file: SqliteFile::new(),
            postgres: shared(Kind::Postgres),
            mariadb: shared(Kind::Mariadb),
            name: format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed)),
        };
        let [file, postgres, mariadb] = tables.urls();
        assert!(Sqlite::lazy(file).unwrap().create_table().await.unwrap());
        let postgres = Postgres::builder(postgres).timeout(LONG).lazy().unwrap();
        assert!(postgres.create_table().await.unwrap());
        let mariadb = Mysql::builder(mariadb).timeout(LONG).lazy().unwrap();
        assert!(mariadb.create_table().await.unwrap());
        tables
    }

    fn urls(&self) -> [String; 3] {
        [self.file.url(), self.postgres.url(), self.mariadb.url()]
            .map(|url| format!("{url}?table={}", self.name))
    }

    /// Four handles, as four processes have them, over each table.
    async fn handles(&self) -> Vec<Stores> {
        let mut handles: Vec<Stores> = vec![vec![], vec![], vec![]];
        let [file, postgres, mariadb] = self.urls();
        for _ in 0..4 {
            let store = Sqlite::builder(&file).timeout(LONG).connect().await;
            handles[0].push(Arc::new(store.unwrap()));
            let store = Postgres::builder(&postgres).timeout(LONG).connect().await;
            handles[1].push(Arc::new(store.unwrap()));
            let store = Mysql::builder(&mariadb).timeout(LONG).connect().await;
            handles[2].push(Arc::new(store.unwrap()));
        }
        handles
    }

    /// Runs `sql` behind the back of the stores, on the database of `store`.
    async fn run(&self, store: &dyn Store, sql: &str) {
        let store = store.to_string();
        if store.starts_with("sqlite") {
            let file = rusqlite::Connection::open(self.file.path()).unwrap();
            file.execute(sql, []).unwrap();
        } else if store.starts_with("postgres") {
            raw(&self.postgres).await.batch_execute(sql).await.unwrap();
        } else {
            let mut server = mysql_async::Conn::from_url(self.mariadb.url())
                .await
                .unwrap();
            server.query_drop(sql).await.unwrap();
        }
    }
}

fn shared(kind: Kind) -> Arc<SqlServer> {
    static SERVERS: Mutex<[Weak<SqlServer>; 2]> = Mutex::new([Weak::new(), Weak::new()]);
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    let place = &mut servers[usize::from(kind == Kind::Mariadb)];
    let server = place.upgrade();
    let server = server.unwrap_or_else(|| Arc::new(SqlServer::start_bare(kind)));
    *place = Arc::downgrade(&server);
    server
}

fn text(clock: &Clock, text: &'static str) -> Entry {
    Entry::new(clock, Value::Bytes(text.into())).fresh_until(clock.now().plus(LONG))
}

fn integer(clock: &Clock, number: i64) -> Entry {
    Entry::new(clock, Value::Integer(number)).fresh_until(clock.now().plus(LONG))
}

async fn value(store: &dyn Store, key: &Key) -> Option<Value> {
    let found = store.get(std::slice::from_ref(key), None).await.unwrap();
    found.entries.into_iter().next().unwrap()?.value
}

async fn put(store: &dyn Store, key: &Key, entry: Entry) {
    assert!(
        store.put(key, entry, When::Always).await.unwrap(),
        "{store}"
    );
}

async fn numbers(store: &dyn Store, tags: Tags<'_>) -> larder::store::Numbers {
    store.get(&[], Some(tags)).await.unwrap().numbers.unwrap()
}

async fn era(store: &dyn Store) -> u64 {
    let tags = Tags {
        space: "space",
        names: &[],
    };
    store
        .get(&[], Some(tags))
        .await
        .unwrap()
        .numbers
        .unwrap()
        .era
}

/// Waits until `store` answers again after its server came back.
async fn back(store: &dyn Store) {
    for _ in 0..500 {
        if store.get(&[Key::new(":1:k")], None).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{store} did not come back");
}

/// A plain connection, to see and do what is behind the store's back.
async fn raw(server: &SqlServer) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A store on a server.
async fn connect(kind: Kind, server: &SqlServer, timeout: Duration) -> Arc<dyn Store> {
    match kind {
        Kind::Postgres => {
            let store = Postgres::builder(server.url()).timeout(timeout).connect();
            Arc::new(store.await.unwrap())
        }
        Kind::Mariadb => {
            let store = Mysql::builder(server.url()).timeout(timeout).connect();
            Arc::new(store.await.unwrap())
        }
    }
}

// Several processes.

#[tokio::test(flavor = "multi_thread")]
async fn sums_of_four_handles_all_count() {
    let tables = Tables::new().await;
    for stores in tables.handles().await {
        let key = Key::new(":1:n");
        put(&*stores[0], &key, integer(stores[0].clock(), 0)).await;

        let add = |store: &Arc<dyn Store>| {
            let (store, key) = (Arc::clone(store), key.clone());
            tokio::spawn(async move {
                for _ in 0..250 {
                    let sum = store.add_to(&key, 1).await.unwrap();
                    assert!(matches!(sum, Sum::Is(_)), "{store}: {sum:?}");
                }
            })
        };
        for adding in stores.iter().map(add).collect::<Vec<_>>() {
            adding.await.unwrap();
        }

        let sum = value(&*stores[0], &key).await;
        assert_eq!(sum, Some(Value::Integer(1000)), "{}", stores[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_four_handles_that_add_a_key_one_wins() {
    let tables = Tables::new().await;
    for stores in tables.handles().await {
        let add = |store: &Arc<dyn Store>| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let mut won = Vec::new();
                for number in 0..1500 {
                    let key = Key::new(format!(":1:{number}"));
                    let entry = integer(store.clock(), number);
                    if store.put(&key, entry, When::IfAbsent).await.unwrap() {
                        won.push(number);
                    }
                }
                won
            })
        };
        let mut won = Vec::new();
        for adding in stores.iter().map(add).collect::<Vec<_>>() {
            won.extend(adding.await.unwrap());
        }

        won.sort_unstable();
        assert_eq!(won, (0..1500).collect::<Vec<_>>(), "{}", stores[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_cross_each_other_are_all_written() {
    let tables = Tables::new().await;
    for stores in tables.handles().await {
        let keys: Vec<Key> = (0..50).map(|it| Key::new(format!(":1:{it}"))).collect();
        let cross = |(turn, store): (usize, &Arc<dyn Store>)| {
            let (store, mut keys) = (Arc::clone(store), keys.clone());
            tokio::spawn(async move {
                if turn % 2 == 1 {
                    keys.reverse();
                }
                for _ in 0..20 {
                    let entry = |key: &Key| (key.clone(), text(store.clock(), "v"));
                    let refused = store.put_many(keys.iter().map(entry).collect()).await;
                    assert!(refused.unwrap().is_empty(), "{store}");
                    store.delete(&keys[..25]).await.unwrap();
                }
            })
        };
        for crossing in stores.iter().enumerate().map(cross).collect::<Vec<_>>() {
            crossing.await.unwrap();
        }
    }
    // Rows are locked in one order, so that nobody had to be sent back.
    let log = std::fs::read_to_string(tables.postgres.folder().join("log")).unwrap();
    assert!(!log.contains("deadlock detected"), "{log}");
}

#[tokio::test]
async fn a_number_given_while_another_clears_is_not_dropped() {
    let server = SqlServer::start(Kind::Postgres);
    let store = Postgres::builder(server.url()).timeout(LONG);
    let store = store.connect().await.unwrap();
    let names: [Tag; 2] = ["held".into(), "t".into()];
    let both = Tags {
        space: "space",
        names: &names,
    };
    let one = Tags {
        names: &names[1..],
        ..both
    };
    store.raise(both).await.unwrap();
    let before = numbers(&store, one).await.seq;
    // Holds the clear up when it has raised the floor, and drops what lies under it.
    let other = raw(&server).await;
    let hold = "BEGIN; SELECT 1 FROM larder_numbers WHERE tag = 't:held' FOR UPDATE";
    other.batch_execute(hold).await.unwrap();
    let clearing = store.clone();
    let clear = tokio::spawn(async move { clearing.clear("nothing", "space").await });
    let another = Postgres::connect(server.url()).await.unwrap();
    while numbers(&another, one).await.seq == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // It is at the dropping.
    tokio::time::sleep(Duration::from_millis(50)).await;

    let noted = numbers(&another, one).await;
    another.raise(one).await.unwrap();
    other.batch_execute("ROLLBACK").await.unwrap();
    clear.await.unwrap().unwrap();

    let entry = larder::Tagged {
        era: noted.era,
        good_from: vec![("t".into(), noted.seq)],
    };
    let found = numbers(&another, one).await;
    assert!(found.moved(&names[1..], &entry).is_some());
}

#[tokio::test]
async fn who_clears_his_prefix_in_a_file_leaves_others_also_when_it_is_opened_again() {
    let file = SqliteFile::new();
    let key = Key::new("other:1:k");
    let store = Sqlite::connect(file.url()).await.unwrap();
    put(&store, &key, text(store.clock(), "v")).await;
    let numbers_of = ["boot".into(), "".into()];
    let tags = Tags {
        space: "",
        names: &numbers_of,
    };
    store.raise(tags).await.unwrap();

    store.clear("shop:", "").await.unwrap();
    store.close().await.unwrap();

    let again = Sqlite::connect(file.url()).await.unwrap();
    assert!(value(&again, &key).await.is_some(), "not restarted");
}

#[tokio::test]
async fn what_one_handle_writes_the_other_reads() {
    let tables = Tables::new().await;
    for stores in tables.handles().await {
        let key = Key::new(":1:k");
        let tags = ["t".into()];
        let names: &[Tag] = &tags;
        let tags = Tags {
            space: "space",
            names,
        };

        put(&*stores[0], &key, text(stores[0].clock(), "v")).await;
        let number = stores[1].raise(tags).await.unwrap();

        let found = stores[2].get(&[key], Some(tags)).await.unwrap();
        let entry = found.entries[0].as_ref().unwrap();
        assert_eq!(entry.value, Some(Value::Bytes("v".into())));
        assert_eq!(found.numbers.unwrap().of, [Some(number)]);
    }
}

// Tables.

fn names_the_command(error: &Error, url: &str) {
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(
        error.to_string().contains("has no table `larder`"),
        "{error}"
    );
    let hint = format!("run `larder table create --store {url}`");
    assert_eq!(error.hint(), Some(hint.as_str()));
}

#[tokio::test]
async fn a_missing_table_is_told_with_the_command_that_makes_it() {
    let folder = support::new_folder();
    let url = format!("sqlite://{}/cache.db", folder.display());
    let error = Sqlite::connect(url.as_str()).await.unwrap_err();
    names_the_command(&error, &url);
    // A file that somebody else made, without our table.
    rusqlite::Connection::open(folder.join("cache.db"))
        .unwrap()
        .execute("CREATE TABLE t (a)", [])
        .unwrap();
    let error = Sqlite::connect(url.as_str()).await.unwrap_err();
    names_the_command(&error, &url);
    let sqlite = Sqlite::lazy(url.as_str()).unwrap();
    assert!(sqlite.get(&[Key::new(":1:k")], None).await.is_err());
    assert!(sqlite.create_table().await.unwrap());
    assert!(!sqlite.create_table().await.unwrap(), "it was there");
    assert!(sqlite.get(&[Key::new(":1:k")], None).await.is_ok());
    let _ = std::fs::remove_dir_all(folder);

    let server = SqlServer::start_bare(Kind::Postgres);
    let error = Postgres::connect(server.url()).await.unwrap_err();
    let shown = format!("postgres://127.0.0.1:{}/postgres", server.port());
    names_the_command(&error, &shown);
    let postgres = Postgres::lazy(server.url()).unwrap();
    assert!(postgres.get(&[Key::new(":1:k")], None).await.is_err());
    assert!(postgres.create_table().await.unwrap());
    assert!(!postgres.create_table().await.unwrap(), "it was there");
    assert!(postgres.get(&[Key::new(":1:k")], None).await.is_ok());

    let server = SqlServer::start_bare(Kind::Mariadb);
    let error = Mysql::connect(server.url()).await.unwrap_err();
    let shown = format!("mysql://127.0.0.1:{}/larder", server.port());
    names_the_command(&error, &shown);
    let mysql = Mysql::lazy(server.url()).unwrap();
    assert!(mysql.get(&[Key::new(":1:k")], None).await.is_err());
    assert!(mysql.create_table().await.unwrap());
    assert!(!mysql.create_table().await.unwrap(), "it was there");
    assert!(mysql.get(&[Key::new(":1:k")], None).await.is_ok());
}

#[tokio::test]
async fn a_table_that_is_dropped_meanwhile_is_told() {
    let server = SqlServer::start(Kind::Postgres);
    let store = Postgres::connect(server.url()).await.unwrap();
    put(&store, &Key::new(":1:k"), text(store.clock(), "v")).await;

    raw(&server)
        .await
        .batch_execute("DROP TABLE larder")
        .await
        .unwrap();

    let error = store.get(&[Key::new(":1:k")], None).await.unwrap_err();
    assert!(
        error.to_string().contains("has no table `larder`"),
        "{error}"
    );
}

#[tokio::test]
async fn names_of_tables_are_looked_at_and_can_be_words_of_sql() {
    let (file, server) = (SqliteFile::new(), SqlServer::start_bare(Kind::Postgres));
    for name in ["", "a;b", "a b", "1", "a\"b", "larder--"] {
        let name = name.replace('"', "%22").replace(' ', "%20");
        let sqlite = Sqlite::lazy(format!("{}?table={name}", file.url()));
        assert_eq!(sqlite.unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        let postgres = Postgres::lazy(format!("{}?table={name}", server.url()));
        assert_eq!(postgres.unwrap_err().kind(), ErrorKind::Invalid, "{name}");
    }

    raw(&server)
        .await
        .batch_execute("CREATE SCHEMA web")
        .await
        .unwrap();
    let sqlite = Sqlite::lazy(format!("{}?table=order", file.url())).unwrap();
    let postgres = Postgres::lazy(format!("{}?table=web.Order", server.url())).unwrap();
    assert!(sqlite.create_table().await.unwrap());
    assert!(postgres.create_table().await.unwrap());
    let stores: [&dyn Store; 2] = [&sqlite, &postgres];
    for store in stores {
        put(store, &Key::new(":1:k"), text(store.clock(), "v")).await;
        assert!(value(store, &Key::new(":1:k")).await.is_some(), "{store}");
    }
}

// Rows that leave, and rows that are broken.

async fn fill(store: &dyn Store, names: std::ops::Range<u64>, until: impl Fn(u64) -> Moment) {
    let entry = |number: u64| {
        let value = Value::Integer(i64::try_from(number).unwrap());
        let entry = Entry::new(store.clock(), value).fresh_until(until(number));
        (Key::new(format!(":1:{number}")), entry)
    };
    assert!(
        store
            .put_many(names.map(entry).collect())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn what_is_gone_is_removed_in_batches_and_then_what_is_too_much() {
    let tables = Tables::new().await;
    let [file, postgres, mariadb] = tables.urls();
    let clock = Clock::manual();
    let builder = Sqlite::builder(file).clock(clock.clone()).max_entries(100);
    let sqlite = builder.connect().await.unwrap();
    let builder = Postgres::builder(postgres).clock(clock.clone());
    let builder = builder.max_entries(100).timeout(LONG);
    let postgres = builder.connect().await.unwrap();
    let builder = Mysql::builder(mariadb).clock(clock.clone());
    let builder = builder.max_entries(100).timeout(LONG);
    let mysql = builder.connect().await.unwrap();
    let stores: [&dyn Store; 3] = [&sqlite, &postgres, &mysql];
    let later = clock.now().plus(Duration::from_secs(1));
    for store in stores {
        fill(store, 0..2500, |_| later).await;
        fill(store, 3000..3400, |number| {
            later.plus(Duration::from_secs(number))
        })
        .await;
    }
    clock.advance(Duration::from_secs(1));
    let cull = async || {
        let (file, mysql) = (sqlite.cull().await.unwrap(), mysql.cull().await.unwrap());
        [file, postgres.cull().await.unwrap(), mysql]
    };

    assert_eq!(cull().await, [2500 + 300; 3]);

    for store in stores {
        for (number, there) in [(2499, false), (3299, false), (3300, true), (3399, true)] {
            let key = Key::new(format!(":1:{number}"));
            assert_eq!(
                value(store, &key).await.is_some(),
                there,
                "{store}: {number}"
            );
        }
    }
    assert_eq!(cull().await, [0; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_under_the_floor_are_dropped_in_batches_and_others_kept() {
    let tables = Tables::new().await;
    let [file, postgres, mariadb] = tables.urls();
    let sqlite = Sqlite::connect(file).await.unwrap();
    let postgres = Postgres::builder(postgres).timeout(LONG);
    let postgres = postgres.connect().await.unwrap();
    let mysql = Mysql::builder(mariadb)
        .timeout(LONG)
        .connect()
        .await
        .unwrap();
    let stores: [&dyn Store; 3] = [&sqlite, &postgres, &mysql];
    let name = format!("{}_numbers", tables.name);
    let old: Vec<Tag> = (0..2500)
        .map(|it| format!("old{it}").as_str().into())
        .collect();
    let new: [Tag; 1] = ["new".into()];
    let [old, new] = [&old[..], &new].map(|names| Tags {
        space: "space",
        names,
    });
    let mut given = Vec::new();
    for store in stores {
        store.raise(old).await.unwrap();
        // As if the space had given very many.
        let many = format!("UPDATE {name} SET number = 3000000 WHERE space = 'space' AND tag = ''");
        tables.run(store, &many).await;
        given.push(store.raise(new).await.unwrap());
    }

    for culled in [
        sqlite.cull().await,
        postgres.cull().await,
        mysql.cull().await,
    ] {
        assert_eq!(culled.unwrap(), 0, "no entry");
    }

    for (store, given) in stores.into_iter().zip(given) {
        let found = numbers(store, new).await;
        assert_eq!(found.of, [Some(given)], "{store}");
        assert!(found.floor > 1_000_000, "{store}: {}", found.floor);
        let found = numbers(store, old).await;
        assert_eq!(found.of, vec![None; 2500], "{store}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_keys_and_tags_as_anybody_has_are_one_call() {
    let tables = Tables::new().await;
    for stores in tables.handles().await {
        let store = &*stores[0];
        let many: Vec<Key> = (0..70_000).map(|it| Key::new(format!(":1:{it}"))).collect();
        let tags: Vec<Tag> = (0..1500)
            .map(|it| format!("t{it}").as_str().into())
            .collect();
        let tags = Tags {
            space: "space",
            names: &tags,
        };
        put(store, &many[69_999], text(store.clock(), "v")).await;
        let number = store.raise(tags).await.unwrap();

        let found = store.get(&many, Some(tags)).await.unwrap();

        assert!(found.entries[69_999].is_some(), "{store}");
        assert_eq!(found.entries.iter().flatten().count(), 1, "{store}");
        assert_eq!(
            found.numbers.unwrap().of,
            vec![Some(number); 1500],
            "{store}"
        );
        let heads = store.heads(&many).await.unwrap();
        assert_eq!(heads.iter().flatten().count(), 1, "{store}");
        let deleted = store.delete(&many).await.unwrap();
        assert!(deleted[69_999].is_some(), "{store}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_cold_keys_are_one_fetch() {
    let tables = Tables::new().await;
    let [file, postgres, mariadb] = tables.urls();
    let patience = Duration::from_secs(5);
    let stores: Stores = vec![
        Arc::new(Sqlite::builder(file).timeout(patience).lazy().unwrap()),
        Arc::new(
            Postgres::builder(postgres)
                .timeout(patience)
                .lazy()
                .unwrap(),
        ),
        Arc::new(Mysql::builder(mariadb).timeout(patience).lazy().unwrap()),
    ];
    for store in stores {
        let cache = larder::Cache::new(Arc::clone(&store));
        let keys: Vec<String> = (0..1000).map(|it| format!("k{it}")).collect();
        let load = |keys: Vec<String>| async move {
            let value = |key: String| (key.clone(), key);
            Ok::<_, std::convert::Infallible>(keys.into_iter().map(value).collect())
        };
        let found = cache.fetch_many(keys.clone(), load).await.unwrap();
        assert_eq!(found.len(), 1000, "{store}");
        let kept = cache.get_many::<String, _>(&keys).await.unwrap();
        assert_eq!(kept.len(), 1000, "{store}");
    }
}

#[tokio::test]
async fn whatever_postgres_is_asked_it_finds_by_an_index_and_once() {
    let settings = [
        "session_preload_libraries=auto_explain",
        "auto_explain.log_min_duration=0",
    ];
    let server = SqlServer::start_in(Kind::Postgres, support::new_folder(), &settings);
    let store = Postgres::builder(server.url())
        .timeout(LONG)
        .max_entries(50_000);
    let store = store.lazy().unwrap();
    store.create_table().await.unwrap();
    let raw = raw(&server).await;
    // As the server sees it, nothing is gone and nothing is small.
    let fill = |from: u32, to: u32, until: &str| {
        format!(
            "INSERT INTO larder (name, codec, size, stamp, state, state_until, fresh_until, \
             stale_until, gone_after, body) SELECT 'k:' || n, 0, 1, n, 0, 0, {until}, {until}, \
             {until}, 'v' FROM generate_series({from}, {to}) AS n"
        )
    };
    let far = fill(1, 60_000, "9000000000000000000");
    raw.batch_execute(&format!("{far}; ANALYZE larder"))
        .await
        .unwrap();
    raw.batch_execute(&fill(100_001, 103_000, "1"))
        .await
        .unwrap();
    let log = || std::fs::read_to_string(server.folder().join("log")).unwrap();
    let before = log().len();

    let keys: Vec<Key> = (1..=1000).map(|it| Key::new(format!("k:{it}"))).collect();
    let entries = keys
        .iter()
        .map(|key| (key.clone(), text(store.clock(), "v")));
    let entries: Vec<_> = entries.collect();
    let names: [Tag; 1] = ["t".into()];
    let tags = Tags {
        space: "",
        names: &names,
    };
    // More often than the server plans for each time anew.
    for _ in 0..7 {
        store.get(&keys, Some(tags)).await.unwrap();
        store.put_many(entries.clone()).await.unwrap();
        store.delete(&keys).await.unwrap();
        store.raise(tags).await.unwrap();
        store.scan().unwrap().page("k:", None, 10).await.unwrap();
    }
    assert_eq!(store.cull().await.unwrap(), 3000 + 59_000 - 50_000);
    store.clear("k:59", "").await.unwrap();

    let plans = log().split_off(before);
    assert!(plans.contains("Tid Scan on larder"), "{plans}");
    // By that index only what is gone is looked for, and what is gone first.
    let by_name = plans
        .split("Query Text:")
        .filter(|plan| plan.contains("name = ANY"));
    for plan in by_name {
        assert!(!plan.contains("using larder_gone"), "{plan}");
    }
    for slow in ["Seq Scan on larder", "Nested Loop Semi Join"] {
        let at = plans.find(slow);
        assert!(
            at.is_none(),
            "{slow}: {}",
            &plans[at.unwrap_or(0).saturating_sub(2000)..]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_makes_a_table_at_the_same_time_succeeds() {
    let server = SqlServer::start_bare(Kind::Postgres);
    let making = (0..6).map(|_| {
        let url = server.url();
        tokio::spawn(async move {
            let store = Postgres::builder(url).timeout(LONG).lazy()?;
            store.create_table().await
        })
    });
    for made in making.collect::<Vec<_>>() {
        made.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_background_task_removes_what_is_gone() {
    let file = SqliteFile::new();
    let store = Sqlite::builder(file.url()).cull_every(Duration::from_millis(5));
    let store = store.connect().await.unwrap();
    let raw = rusqlite::Connection::open(file.path()).unwrap();
    let rows = || raw.query_row("SELECT count(*) FROM larder", [], |row| row.get(0));

    fill(&store, 0..50, |_| {
        store.clock().now().plus(Duration::from_millis(1))
    })
    .await;

    let end = Instant::now() + Duration::from_secs(20);
    while rows() != Ok(0) {
        assert!(Instant::now() < end, "rows are still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_broken_row_is_a_miss_and_is_written_over() {
    let tables = Tables::new().await;
    let key = Key::new(":1:k");
    for (breaks, is_cut) in [
        ("body = substr(body, 1, 1)", true),
        ("body = NULL", true),
        ("state = 77, codec = -5", false),
        ("stale_until = -1, fresh_until = -1", true),
    ] {
        for stores in tables.handles().await {
            let store = &*stores[0];
            put(store, &key, text(store.clock(), "whole")).await;

            let sql = format!("UPDATE {} SET {breaks}", tables.name);
            tables.run(store, &sql).await;

            let found = store.get(std::slice::from_ref(&key), None).await.unwrap();
            let live = found.entries[0]
                .as_ref()
                .is_some_and(|it| it.is_live(store.clock().now()));
            assert_eq!(live, !is_cut, "{store}: {breaks}");
            if is_cut {
                let heads = store.heads(std::slice::from_ref(&key)).await.unwrap();
                assert_eq!(heads, [None], "{store}: {breaks}");
                let added = store
                    .put(&key, text(store.clock(), "new"), When::IfAbsent)
                    .await;
                assert!(added.unwrap(), "{store}: {breaks}");
                assert_eq!(value(store, &key).await, Some(Value::Bytes("new".into())));
            }
        }
    }
}

// A file.

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_does_not_wait_for_a_slow_writer() {
    let file = SqliteFile::new();
    let store = Sqlite::builder(file.url()).timeout(Duration::from_millis(200));
    let store = store.connect().await.unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v")).await;

    let mut slow = rusqlite::Connection::open(file.path()).unwrap();
    let writing = slow.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
    let writing = writing.unwrap();

    assert_eq!(value(&store, &key).await, Some(Value::Bytes("v".into())));
    let error = store
        .put(&key, text(store.clock(), "w"), When::Always)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    writing.commit().unwrap();
    put(&store, &key, text(store.clock(), "x")).await;
    assert_eq!(value(&store, &key).await, Some(Value::Bytes("x".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_writers_than_a_locked_file_can_serve_are_told_at_once() {
    let file = SqliteFile::new();
    let store = Sqlite::builder(file.url()).timeout(LONG);
    let store = store.connect().await.unwrap();
    put(&store, &Key::new(":1:k"), text(store.clock(), "v")).await;
    let mut slow = rusqlite::Connection::open(file.path()).unwrap();
    let writing = slow.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
    let writing = writing.unwrap();

    let write = |number: u32| {
        let store = store.clone();
        tokio::spawn(async move {
            let key = Key::new(format!(":1:{number}"));
            let entry = text(store.clock(), "w");
            store.put(&key, entry, When::Always).await
        })
    };
    let mut writers: Vec<_> = (0..5000).map(write).collect();
    let refused = loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if let Some(at) = writers
            .iter()
            .position(tokio::task::JoinHandle::is_finished)
        {
            break writers.swap_remove(at).await.unwrap().unwrap_err();
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains("too many writes"), "{refused}");

    writing.commit().unwrap();
    let mut written = 0;
    for writer in writers {
        written += usize::from(writer.await.unwrap().is_ok());
    }
    assert!(written >= 4096, "those that wait are served: {written}");
}

#[tokio::test]
async fn a_file_from_before_a_restart_of_the_machine_is_emptied() {
    let file = SqliteFile::new();
    let key = Key::new(":1:k");
    let raw = rusqlite::Connection::open(file.path()).unwrap();
    let open = |trusted: bool, synced: bool| {
        let mut builder = Sqlite::builder(file.url());
        if trusted {
            builder = builder.trust_restarts();
        }
        if synced {
            builder = builder.sync_commits();
        }
        builder.connect()
    };
    let restart = || {
        let moved = "UPDATE larder_numbers SET number = number + 1 WHERE tag = 'boot'";
        raw.execute(moved, []).unwrap()
    };

    let store = open(false, false).await.unwrap();
    put(&store, &key, text(store.clock(), "v")).await;
    let before = era(&store).await;
    drop(store);
    let store = open(false, false).await.unwrap();
    assert!(
        value(&store, &key).await.is_some(),
        "the machine was not restarted"
    );
    drop(store);

    assert_eq!(restart(), 1);
    let store = open(true, false).await.unwrap();
    assert!(value(&store, &key).await.is_some(), "restarts are trusted");
    drop(store);
    let store = open(false, true).await.unwrap();
    assert!(
        value(&store, &key).await.is_none(),
        "not all of it was synced"
    );
    assert_ne!(era(&store).await, before);
    put(&store, &key, text(store.clock(), "v")).await;
    drop(store);

    assert_eq!(
        restart(),
        0,
        "what is synced belongs to no run of the machine"
    );
    let store = open(false, true).await.unwrap();
    assert!(value(&store, &key).await.is_some());
    drop(store);
    let store = open(false, false).await.unwrap();
    assert!(
        value(&store, &key).await.is_some(),
        "what was synced is good for who does not sync"
    );
    put(&store, &key, text(store.clock(), "v")).await;
    drop(store);
    assert_eq!(restart(), 1);
    let store = open(false, false).await.unwrap();
    assert!(value(&store, &key).await.is_none());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told_and_not_touched() {
    let folder = support::new_folder();
    let path = folder.join("cache.db");
    std::fs::write(&path, "a letter to somebody".repeat(500)).unwrap();
    let url = format!("sqlite://{}", path.display());

    let error = Sqlite::connect(url).await.unwrap_err();

    assert!(error.to_string().contains("is no database"), "{error}");
    assert!(
        std::fs::read_to_string(&path)
            .unwrap()
            .starts_with("a letter")
    );
    let _ = std::fs::remove_dir_all(folder);
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_reads_the_file() {
    use std::os::unix::fs::PermissionsExt as _;

    let file = SqliteFile::new();
    let store = Sqlite::connect(file.url()).await.unwrap();
    put(&store, &Key::new(":1:k"), text(store.clock(), "v")).await;

    for ending in ["", "-wal", "-shm"] {
        let path = format!("{}{ending}", file.path().display());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
}

#[tokio::test]
async fn a_closed_store_has_written_all_and_opens_again() {
    let file = SqliteFile::new();
    let store = Sqlite::connect(file.url()).await.unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v")).await;

    store.close().await.unwrap();

    assert_eq!(value(&store, &key).await, Some(Value::Bytes("v".into())));
}

#[tokio::test]
async fn a_value_past_the_limit_is_refused_and_takes_away_what_was_there() {
    let file = SqliteFile::new();
    let store = Sqlite::connect(file.url()).await.unwrap();
    let key = Key::new(":1:k");
    let large = Value::Bytes(vec![0; 64 * 1024 * 1024 + 1].into());
    let large = Entry::new(store.clock(), large);
    put(&store, &key, text(store.clock(), "v")).await;

    let refused = store.put(&key, large.clone(), When::IfPresent).await;

    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(value(&store, &key).await, None);
    assert!(
        !store
            .put(&key, large.clone(), When::IfPresent)
            .await
            .unwrap()
    );
    let many = vec![(Key::new(":1:a"), text(store.clock(), "v")), (key, large)];
    assert_eq!(store.put_many(many).await.unwrap(), [1]);
}

// A server.

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_is_killed_under_load_loses_nothing_acknowledged() {
    kill_under_load(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mariadb_that_is_killed_under_load_loses_nothing_acknowledged() {
    kill_under_load(Kind::Mariadb).await;
}

async fn kill_under_load(kind: Kind) {
    let mut server = SqlServer::start(kind);
    let store = connect(kind, &server, Duration::from_secs(1)).await;
    let key = Key::new(":1:n");
    put(&*store, &key, integer(store.clock(), 0)).await;
    let (acknowledged, asked) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let is_over = Arc::new(AtomicBool::new(false));
    let mut adding = Vec::new();
    for _ in 0..8 {
        let (store, key) = (Arc::clone(&store), key.clone());
        let (acknowledged, asked, is_over) = (acknowledged.clone(), asked.clone(), is_over.clone());
        adding.push(tokio::spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                asked.fetch_add(1, Ordering::SeqCst);
                match store.add_to(&key, 1).await {
                    Ok(_) => drop(acknowledged.fetch_add(1, Ordering::SeqCst)),
                    Err(error) => {
                        let expected = [ErrorKind::Unavailable, ErrorKind::Timeout];
                        assert!(expected.contains(&error.kind()), "{error:?}");
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
        }));
    }

    for _ in 0..2 {
        let before = acknowledged.load(Ordering::SeqCst);
        while acknowledged.load(Ordering::SeqCst) < before + 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.kill();
        let began = Instant::now();
        while store.get(std::slice::from_ref(&key), None).await.is_ok() {}
        for _ in 0..100 {
            assert!(store.get(std::slice::from_ref(&key), None).await.is_err());
        }
        assert!(began.elapsed() < Duration::from_secs(10), "it fails fast");
        server.start_again();
        back(&*store).await;
    }
    is_over.store(true, Ordering::SeqCst);
    for adding in adding {
        adding.await.unwrap();
    }

    let Some(Value::Integer(sum)) = value(&*store, &key).await else {
        panic!("the sum is gone");
    };
    let bounds = acknowledged.load(Ordering::SeqCst)..=asked.load(Ordering::SeqCst);
    assert!(bounds.contains(&sum), "{sum} is not within {bounds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_postgres_times_out_and_what_was_late_undoes_nothing() {
    freeze(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_mariadb_times_out_and_what_was_late_undoes_nothing() {
    freeze(Kind::Mariadb).await;
}

async fn freeze(kind: Kind) {
    let server = SqlServer::start(kind);
    let store = connect(kind, &server, Duration::from_millis(300)).await;
    let store = &*store;
    let key = Key::new(":1:k");
    put(store, &key, text(store.clock(), "first")).await;

    server.freeze();
    let late = store
        .put(&key, text(store.clock(), "late"), When::Always)
        .await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
    let error = store
        .get(std::slice::from_ref(&key), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    server.thaw();
    back(store).await;

    put(store, &key, text(store.clock(), "last")).await;
    for _ in 0..20 {
        assert_eq!(value(store, &key).await, Some(Value::Bytes("last".into())));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_row_that_somebody_locks_is_a_timeout() {
    let server = SqlServer::start(Kind::Postgres);
    let store = Postgres::builder(server.url()).timeout(Duration::from_millis(300));
    let store = store.connect().await.unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v")).await;
    let other = raw(&server).await;
    other
        .batch_execute("BEGIN; SELECT 1 FROM larder FOR UPDATE")
        .await
        .unwrap();

    let blocked = store
        .put(&key, text(store.clock(), "late"), When::Always)
        .await;

    assert_eq!(blocked.unwrap_err().kind(), ErrorKind::Timeout);
    // The server gives up by itself, as told.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    while raw(&server)
        .await
        .query_one(waiting, &[])
        .await
        .unwrap()
        .get::<_, i64>(0)
        > 0
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    other.batch_execute("ROLLBACK").await.unwrap();
    back(&store).await;
    assert_eq!(value(&store, &key).await, Some(Value::Bytes("v".into())));
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_the_connection_in_order() {
    let server = SqlServer::start(Kind::Postgres);
    let store = Postgres::connect(server.url()).await.unwrap();
    for name in ["a", "b"] {
        put(&store, &Key::new(name), text(store.clock(), name)).await;
    }

    for _ in 0..100 {
        let key = Key::new("a");
        let gone = store.get(std::slice::from_ref(&key), None);
        // Polled once, so that the question is sent.
        tokio::select! {
            biased;
            _ = gone => panic!("the answer takes a trip"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(
            value(&store, &Key::new("b")).await,
            Some(Value::Bytes("b".into()))
        );
    }
}

#[tokio::test]
async fn unlogged_tables_are_emptied_by_a_crash_numbers_and_all() {
    let mut server = SqlServer::start_bare(Kind::Postgres);
    let store = Postgres::builder(server.url()).unlogged().lazy().unwrap();
    assert!(store.table_sql()[0].starts_with("CREATE UNLOGGED TABLE"));
    store.create_table().await.unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v")).await;
    let before = era(&store).await;

    server.start_again();
    back(&store).await;

    assert_eq!(value(&store, &key).await, None);
    assert_ne!(era(&store).await, before);
}

#[tokio::test]
async fn with_tls_the_certificate_is_checked() {
    let folder = support::new_folder();
    support::make_certificates(&folder);
    let authority = std::fs::read(folder.join("ca.crt")).unwrap();
    let file = |name: &str| folder.join(name).display().to_string();
    let key = format!("ssl_key_file={}", file("server.key"));
    let certificate = format!("ssl_cert_file={}", file("server.crt"));
    let settings = ["ssl=on", &key, &certificate];
    let server = SqlServer::start_in(Kind::Postgres, folder.clone(), &settings);
    let url = |host: &str| {
        let port = server.port();
        format!("postgres://postgres@{host}:{port}/postgres?sslmode=require")
    };

    let store = Postgres::builder(url("localhost")).ca_certificate_pem(authority.clone());
    let store = store.lazy().unwrap();
    assert!(store.create_table().await.unwrap());
    put(&store, &Key::new(":1:k"), text(store.clock(), "v")).await;
    let other = raw(&server).await;
    let used = other
        .query_one("SELECT count(*) FROM pg_stat_ssl WHERE ssl", &[])
        .await;
    assert!(used.unwrap().get::<_, i64>(0) > 0, "it is encrypted");

    let unknown = Postgres::connect(url("localhost")).await.unwrap_err();
    let other_name = Postgres::builder(url("127.0.0.1")).ca_certificate_pem(authority);
    let other_name = other_name.connect().await.unwrap_err();
    for error in [unknown, other_name] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(format!("{error:?}").contains("certificate"), "{error:?}");
    }
}

#[tokio::test]
async fn a_tag_of_any_length_and_letters_is_kept() {
    let tables = Tables::new().await;
    let (long, longer) = ("t".repeat(5000), "t".repeat(5001));
    for stores in tables.handles().await {
        let names: Vec<Tag> = [
            long.as_str(),
            &longer,
            "with\0null",
            "ends in blanks  ",
            "ends in blanks",
        ]
        .map(Tag::from)
        .to_vec();
        for name in &names {
            let tags = Tags {
                space: "long",
                names: std::slice::from_ref(name),
            };
            stores[0].raise(tags).await.unwrap();
        }

        let tags = Tags {
            space: "long",
            names: &names,
        };
        let found = stores[1].get(&[], Some(tags)).await.unwrap();

        let of = found.numbers.unwrap().of;
        assert!(
            of.is_sorted() && of.iter().all(Option::is_some),
            "{}: {of:?}",
            stores[0]
        );
        assert!(
            of.windows(2).all(|pair| pair[0] != pair[1]),
            "{}: {of:?}",
            stores[0]
        );
    }
}

#[tokio::test]
async fn errors_hold_no_password() {
    let server = SqlServer::start_bare(Kind::Mariadb);
    let (closed, open) = (support::free_port(), server.port());
    let postgres = Postgres::builder(format!("postgres://me:hidden@127.0.0.1:{closed}/shop"));
    let closed = Mysql::builder(format!("mysql://me:hidden@127.0.0.1:{closed}/shop"));
    let refused = Mysql::builder(format!("mysql://larder:hidden@127.0.0.1:{open}/larder"));
    let shown = format!("{postgres:?} {closed:?} {refused:?}");
    assert!(!shown.contains("hidden"), "{shown}");

    let errors = [
        (
            postgres.connect().await.unwrap_err(),
            "is the server running?",
        ),
        (
            closed.connect().await.unwrap_err(),
            "is the server running?",
        ),
        (
            refused.connect().await.unwrap_err(),
            "check the user, the password and the database in the URL",
        ),
    ];

    for (error, hint) in errors {
        assert_eq!(
            (error.kind(), error.hint()),
            (ErrorKind::Unavailable, Some(hint))
        );
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hidden"), "{shown}");
    }
}

#[tokio::test]
async fn a_value_past_what_the_server_takes_is_refused_and_takes_away_what_was_there() {
    let tables = Tables::new().await;
    let [_, _, mariadb] = tables.urls();
    let store = Mysql::builder(mariadb)
        .timeout(LONG)
        .connect()
        .await
        .unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, text(store.clock(), "v")).await;
    // 16 MiB is what a MariaDB takes, unless it is told otherwise.
    let large = Value::Bytes(vec![0; 16 * 1024 * 1024].into());
    let large = Entry::new(store.clock(), large);

    let refused = store.put(&key, large.clone(), When::Always).await;

    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(value(&store, &key).await, None);
    let many = vec![(Key::new(":1:a"), text(store.clock(), "v")), (key, large)];
    assert_eq!(store.put_many(many).await.unwrap(), [1]);
    assert!(value(&store, &Key::new(":1:a")).await.is_some());
}
