//! What each store costs beside its bare driver: a value of 100 bytes read and written, and a hundred of
//! them read at once, by one caller through `Cache`, typed and with a TTL.
//!
//! The rows are those of the README's table.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use larder::Cache;
use larder::store::{File, Memcached, Memory, Mysql, Postgres, Redis, Sqlite};
use mysql_async::prelude::Queryable as _;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

use crate::pairs::{Pair, measure};
use crate::servers::{self, Outcome, Place};

const KEYS: usize = 1000;
const MANY: usize = 100;

/// How to use a cache, or a driver without one.
trait Subject {
    async fn get(&mut self, key: &str) -> bool;
    async fn set(&mut self, key: &str, value: &str);
    /// How many of `keys` are there.
    async fn get_many(&mut self, keys: &[String]) -> usize;
}

impl Subject for Cache {
    async fn get(&mut self, key: &str) -> bool {
        let found = Self::get::<String>(self, key).await;
        black_box(found).expect("the store answers").is_some()
    }

    async fn set(&mut self, key: &str, value: &str) {
        let set = Self::set(self, key, value).await;
        set.expect("the store answers");
    }

    async fn get_many(&mut self, keys: &[String]) -> usize {
        let found = Self::get_many::<String, _>(self, keys).await;
        black_box(found).expect("the store answers").len()
    }
}

/// Prints a row for each store.
pub(crate) fn beside_drivers() -> Outcome {
    println!("| store | beside | get | set | get_many of {MANY} |");
    println!("| --- | --- | --- | --- | --- |");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let row = |name: &str, driver: &str, cache: Cache, peer: &mut dyn FnMut(&mut Race<'_>)| {
        let mut race = Race {
            runtime: &runtime,
            cache,
            cells: Vec::new(),
        };
        peer(&mut race);
        println!("| `{name}` | {driver} | {} |", race.cells.join(" | "));
    };
    row(
        "Memory",
        "`quick_cache`",
        Cache::new(Memory::new()),
        &mut |race| {
            race.against(Quick(quick_cache::sync::Cache::new(KEYS * 2)), 20_000);
        },
    );
    let place = Place::new("stores")?;
    let folder = place.folder.join("file");
    let store = File::builder(&folder).open()?;
    row("File", "`std::fs`", Cache::new(store), &mut |race| {
        race.against(Files(&place.folder), 2000);
    });
    let store = Sqlite::lazy(format!("sqlite://{}/ours.db", place.folder.display()))?;
    runtime.block_on(store.create_table())?;
    row(
        "Sqlite",
        "`rusqlite`, WAL",
        Cache::new(store),
        &mut |race| {
            let table = sqlite(&place.folder.join("theirs.db"));
            race.against(table.expect("a file that can be made"), 2000);
        },
    );
    on_servers(&runtime, &row)
}

type Row<'a> = &'a dyn Fn(&str, &str, Cache, &mut dyn FnMut(&mut Race<'_>));

fn on_servers(runtime: &Runtime, row: Row<'_>) -> Outcome {
    let (_postgres, url) = servers::postgres()?;
    let store = Postgres::lazy(url.as_str())?;
    until_made(runtime, async || store.create_table().await)?;
    let mut peer = Some(runtime.block_on(postgres(&url))?);
    row(
        "Postgres",
        "`tokio-postgres`",
        Cache::new(store),
        &mut |race| {
            race.against(peer.take().expect("once"), 1000);
        },
    );
    let (_mariadb, url) = servers::mariadb()?;
    let store = Mysql::lazy(url.as_str())?;
    until_made(runtime, async || store.create_table().await)?;
    let mut peer = Some(runtime.block_on(mysql(&url))?);
    row("Mysql", "`mysql_async`", Cache::new(store), &mut |race| {
        race.against(peer.take().expect("once"), 1000);
    });
    let (_memcached, url) = servers::memcached()?;
    let address = url.trim_start_matches("memcached://").to_owned();
    let stream = runtime.block_on(TcpStream::connect(address))?;
    stream.set_nodelay(true)?;
    let mut peer = Some(memcache_async::ascii::Protocol::new(stream));
    let store = Memcached::lazy(url)?;
    row(
        "Memcached",
        "`memcache-async`",
        Cache::new(store),
        &mut |race| {
            race.against(peer.take().expect("once"), 2000);
        },
    );
    let (_redis, url) = servers::redis()?;
    let client = redis::Client::open(url.as_str())?;
    let mut peer = Some(runtime.block_on(client.get_multiplexed_async_connection())?);
    row(
        "Redis",
        "`redis`",
        Cache::new(Redis::lazy(url)?),
        &mut |race| {
            race.against(peer.take().expect("once"), 2000);
        },
    );
    Ok(())
}

/// A cache, and what was measured of it.
struct Race<'a> {
    runtime: &'a Runtime,
    cache: Cache,
    cells: Vec<String>,
}

impl Race<'_> {
    /// Measures all three acts, each `count` times a turn.
    fn against(&mut self, mut peer: impl Subject, count: usize) {
        let keys: Vec<String> = (0..KEYS)
            .map(|number| format!("user:{number:08}:profile"))
            .collect();
        let value = "x".repeat(100);
        let (runtime, mut cache) = (self.runtime, self.cache.clone());
        runtime.block_on(async {
            for key in &keys {
                Subject::set(&mut cache, key, &value).await;
                peer.set(key, &value).await;
            }
        });
        let pair = measure(
            || runtime.block_on(gets(&mut cache, &keys, count)),
            || runtime.block_on(gets(&mut peer, &keys, count)),
        );
        self.cells.push(cell(&pair));
        let pair = measure(
            || runtime.block_on(sets(&mut cache, &keys, &value, count / 2)),
            || runtime.block_on(sets(&mut peer, &keys, &value, count / 2)),
        );
        self.cells.push(cell(&pair));
        let pair = measure(
            || runtime.block_on(batches(&mut cache, &keys, count / 20)),
            || runtime.block_on(batches(&mut peer, &keys, count / 20)),
        );
        self.cells.push(cell(&pair));
    }
}

fn order(count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(|turn| turn * 7919 % KEYS)
}

async fn gets(subject: &mut impl Subject, keys: &[String], count: usize) -> f64 {
    let began = Instant::now();
    for at in order(count) {
        assert!(subject.get(&keys[at]).await);
    }
    rate(count, began)
}

async fn sets(subject: &mut impl Subject, keys: &[String], value: &str, count: usize) -> f64 {
    let began = Instant::now();
    for at in order(count) {
        subject.set(&keys[at], value).await;
    }
    rate(count, began)
}

async fn batches(subject: &mut impl Subject, keys: &[String], count: usize) -> f64 {
    let began = Instant::now();
    for at in order(count) {
        let first = at.min(KEYS - MANY);
        assert_eq!(subject.get_many(&keys[first..first + MANY]).await, MANY);
    }
    rate(count, began)
}

/// How many a second, in millions, of what has been done `count` times since `began`.
fn rate(count: usize, began: Instant) -> f64 {
    let count = u32::try_from(count).expect("a few thousands");
    f64::from(count) / began.elapsed().as_secs_f64() / 1e6
}

/// What one costs in microseconds, ours and theirs, and the ratio of the rates.
fn cell(pair: &Pair) -> String {
    let micros = |rate: f64| {
        let micros = 1.0 / rate;
        if micros < 10.0 {
            format!("{micros:.2}")
        } else {
            format!("{micros:.0}")
        }
    };
    let (ours, theirs) = (micros(pair.ours), micros(pair.theirs));
    format!("{ours} / {theirs} µs ({:.2})", pair.ratio)
}

fn until_made(runtime: &Runtime, make: impl AsyncFn() -> larder::Result<bool>) -> Outcome {
    runtime.block_on(async {
        let mut outcome = make().await;
        for _ in 0..300 {
            if outcome.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            outcome = make().await;
        }
        outcome?;
        Ok(())
    })
}

const FAR: i64 = 1 << 52;
const NOW: i64 = 1_700_000_000_000;

/// Memory, with the deadline beside the value.
struct Quick(quick_cache::sync::Cache<String, (String, Instant)>);

impl Subject for Quick {
    async fn get(&mut self, key: &str) -> bool {
        let found = self.0.get(key);
        black_box(found).is_some_and(|(_, deadline)| deadline > Instant::now())
    }

    async fn set(&mut self, key: &str, value: &str) {
        let deadline = Instant::now() + Duration::from_mins(5);
        self.0.insert(key.to_owned(), (value.to_owned(), deadline));
    }

    async fn get_many(&mut self, keys: &[String]) -> usize {
        let mut found = Vec::new();
        for key in keys {
            found.extend(self.0.get(key));
        }
        black_box(found).len()
    }
}

/// Files of one folder, written beside and renamed.
struct Files<'a>(&'a Path);

impl Subject for Files<'_> {
    async fn get(&mut self, key: &str) -> bool {
        black_box(std::fs::read(self.0.join(key))).is_ok()
    }

    async fn set(&mut self, key: &str, value: &str) {
        let draft = self.0.join("draft");
        std::fs::write(&draft, value).expect("the disk has room");
        std::fs::rename(draft, self.0.join(key)).expect("the disk has room");
    }

    async fn get_many(&mut self, keys: &[String]) -> usize {
        let read = |key: &String| std::fs::read(self.0.join(key)).ok();
        black_box(keys.iter().filter_map(read).collect::<Vec<_>>()).len()
    }
}

fn sqlite(path: &Path) -> rusqlite::Result<rusqlite::Connection> {
    let table = rusqlite::Connection::open(path)?;
    table.pragma_update(None, "journal_mode", "wal")?;
    table.pragma_update(None, "synchronous", "normal")?;
    table.execute_batch("CREATE TABLE peer (key TEXT PRIMARY KEY, value TEXT, expires INTEGER)")?;
    Ok(table)
}

impl Subject for rusqlite::Connection {
    async fn get(&mut self, key: &str) -> bool {
        let text = "SELECT value FROM peer WHERE key = ?1 AND expires > ?2";
        let mut get = self.prepare_cached(text).expect("good SQL");
        let found = get.query_row((key, NOW), |row| row.get::<_, String>(0));
        black_box(found).is_ok()
    }

    async fn set(&mut self, key: &str, value: &str) {
        let text = "INSERT INTO peer VALUES (?1, ?2, ?3) ON CONFLICT (key) \
                    DO UPDATE SET value = excluded.value, expires = excluded.expires";
        let mut set = self.prepare_cached(text).expect("good SQL");
        set.execute((key, value, FAR)).expect("the disk has room");
    }

    async fn get_many(&mut self, keys: &[String]) -> usize {
        let reading = self.transaction().expect("it reads");
        let text = "SELECT value FROM peer WHERE key = ?1 AND expires > ?2";
        let mut get = reading.prepare_cached(text).expect("good SQL");
        let mut one = |key: &String| {
            get.query_row((key, NOW), |row| row.get::<_, String>(0))
                .ok()
        };
        black_box(keys.iter().filter_map(&mut one).collect::<Vec<_>>()).len()
    }
}

/// A client, and its statements: get, set, get many.
struct Prepared(tokio_postgres::Client, [tokio_postgres::Statement; 3]);

async fn postgres(url: &str) -> Outcome<Prepared> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let table = "CREATE TABLE peer (key text PRIMARY KEY, value text, expires bigint)";
    client.batch_execute(table).await?;
    let get = client.prepare("SELECT value FROM peer WHERE key = $1 AND expires > $2");
    let set = "INSERT INTO peer VALUES ($1, $2, $3) ON CONFLICT (key) \
               DO UPDATE SET value = excluded.value, expires = excluded.expires";
    let many = "SELECT key, value FROM peer WHERE key = ANY($1) AND expires > $2";
    let statements = [
        get.await?,
        client.prepare(set).await?,
        client.prepare(many).await?,
    ];
    Ok(Prepared(client, statements))
}

impl Subject for Prepared {
    async fn get(&mut self, key: &str) -> bool {
        let row = self.0.query_opt(&self.1[0], &[&key, &NOW]).await;
        let found = row.expect("it answers").map(|row| row.get::<_, String>(0));
        black_box(found).is_some()
    }

    async fn set(&mut self, key: &str, value: &str) {
        let set = self.0.execute(&self.1[1], &[&key, &value, &FAR]).await;
        set.expect("it answers");
    }

    async fn get_many(&mut self, keys: &[String]) -> usize {
        let rows = self.0.query(&self.1[2], &[&keys, &NOW]).await;
        let row = |row: &tokio_postgres::Row| (row.get::<_, String>(0), row.get::<_, String>(1));
        black_box(
            rows.expect("it answers")
                .iter()
                .map(row)
                .collect::<Vec<_>>(),
        )
        .len()
    }
}

async fn mysql(url: &str) -> Outcome<mysql_async::Conn> {
    let mut connection = mysql_async::Conn::from_url(&format!("{url}?prefer_socket=false")).await?;
    let table =
        "CREATE TABLE peer (name VARBINARY(250) PRIMARY KEY, value LONGBLOB, expires BIGINT)";
    connection.query_drop(table).await?;
    Ok(connection)
}

impl Subject for mysql_async::Conn {
    async fn get(&mut self, key: &str) -> bool {
        let text = "SELECT value FROM peer WHERE name = ? AND expires > ?";
        let found: Option<String> = self.exec_first(text, (key, NOW)).await.expect("it answers");
        black_box(found).is_some()
    }

    async fn set(&mut self, key: &str, value: &str) {
        let text = "INSERT INTO peer VALUES (?, ?, ?) \
                    ON DUPLICATE KEY UPDATE value = VALUES(value), expires = VALUES(expires)";
        let set = self.exec_drop(text, (key, value, FAR)).await;
        set.expect("it answers");
    }

    async fn get_many(&mut self, keys: &[String]) -> usize {
        let places = vec!["?"; keys.len()].join(", ");
        let text = format!("SELECT name, value FROM peer WHERE name IN ({places}) AND expires > ?");
        let bound: Vec<mysql_async::Value> = (keys.iter().map(|key| key.as_str().into()))
            .chain([NOW.into()])
            .collect();
        let found: Vec<(String, String)> = self.exec(text, bound).await.expect("it answers");
        black_box(found).len()
    }
}

impl Subject for memcache_async::ascii::Protocol<TcpStream> {
    async fn get(&mut self, key: &str) -> bool {
        black_box(Self::get(self, key).await).is_ok()
    }

    async fn set(&mut self, key: &str, value: &str) {
        let set = Self::set(self, key, value.as_bytes(), 300).await;
        set.expect("it answers");
    }

    async fn get_many(&mut self, keys: &[String]) -> usize {
        let found = self.get_multi(keys).await.expect("it answers");
        black_box(found).len()
    }
}

impl Subject for redis::aio::MultiplexedConnection {
    async fn get(&mut self, key: &str) -> bool {
        let mut get = redis::cmd("GET");
        let found = get.arg(key).query_async::<Option<String>>(self).await;
        black_box(found.expect("it answers")).is_some()
    }

    async fn set(&mut self, key: &str, value: &str) {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(value).arg("PX").arg(300_000);
        set.query_async::<()>(self).await.expect("it answers");
    }

    async fn get_many(&mut self, keys: &[String]) -> usize {
        let mut get = redis::cmd("MGET");
        let found = get.arg(keys).query_async::<Vec<Option<String>>>(self).await;
        let found = black_box(found.expect("it answers"));
        found.iter().flatten().count()
    }
}
