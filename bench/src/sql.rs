//! Values of 100 bytes in tables: SQLite read in place, and PostgreSQL asked by 16 callers at once.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder::store::{Postgres, Sqlite, Store};
use larder::{Entry, Key, Value};
use rusqlite::Connection;
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

use crate::pairs::compare;
use crate::servers::{self, Outcome, Place};

const KEYS: usize = 10_000;
const CALLERS: usize = 16;
const MINUTES: Duration = Duration::from_mins(5);

fn keys() -> Vec<Key> {
    (0..KEYS)
        .map(|number| Key::new(format!(":1:user:{number:08}:profile")))
        .collect()
}

async fn fill(store: &dyn Store, keys: &[Key]) -> Outcome {
    let until = store.clock().now().plus(MINUTES);
    for part in keys.chunks(1000) {
        let entry = |key: &Key| {
            let value = Value::Bytes(vec![b'x'; 100].into());
            (
                key.clone(),
                Entry::new(store.clock(), value).fresh_until(until),
            )
        };
        store.put_many(part.iter().map(entry).collect()).await?;
    }
    Ok(())
}

async fn get(store: &dyn Store, key: &Key) {
    let found = store.get(std::slice::from_ref(key), None).await;
    assert!(found.expect("the store answers").entries[0].is_some());
}

/// Thousands a second, of what has been done `count` times since `began`.
fn rate(count: usize, began: Instant) -> f64 {
    let count = u32::try_from(count).expect("a few thousands");
    f64::from(count) / began.elapsed().as_secs_f64() / 1e3
}

/// `Sqlite::get` against a plain table by `rusqlite`, both in the caller's thread on a WAL.
pub(crate) fn get_against_rusqlite() -> Outcome {
    let place = Place::new("sqlite")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let keys = keys();
    let store = Sqlite::lazy(format!("sqlite://{}/ours.db", place.folder.display()))?;
    runtime.block_on(async {
        store.create_table().await?;
        fill(&store, &keys).await
    })?;
    let peer = plain_table(&place.folder.join("theirs.db"), &keys)?;
    let order = || (0..KEYS * 5).map(|number| &keys[number * 7919 % KEYS]);
    compare(
        "sqlite get / rusqlite on WAL, 1 caller",
        "k/s",
        || {
            let began = Instant::now();
            runtime.block_on(async {
                for key in order() {
                    get(&store, key).await;
                }
            });
            rate(KEYS * 5, began)
        },
        || {
            let began = Instant::now();
            for key in order() {
                let value = plain_get(&peer, key).expect("the file answers");
                assert!(value.len() == 100);
            }
            rate(KEYS * 5, began)
        },
    );
    Ok(())
}

fn plain_table(path: &Path, keys: &[Key]) -> rusqlite::Result<Connection> {
    let mut peer = Connection::open(path)?;
    peer.pragma_update(None, "journal_mode", "wal")?;
    peer.pragma_update(None, "synchronous", "normal")?;
    peer.execute_batch("CREATE TABLE peer (key TEXT PRIMARY KEY, value BLOB, expires INTEGER)")?;
    let transaction = peer.transaction()?;
    for key in keys {
        let row = (key.name(), vec![b'x'; 100], i64::MAX);
        transaction.execute("INSERT INTO peer VALUES (?1, ?2, ?3)", row)?;
    }
    transaction.commit()?;
    Ok(peer)
}

fn plain_get(peer: &Connection, key: &Key) -> rusqlite::Result<Vec<u8>> {
    let text = "SELECT value FROM peer WHERE key = ?1 AND expires > ?2";
    let mut statement = peer.prepare_cached(text)?;
    statement.query_row((key.name(), 1_700_000_000_000_i64), |row| row.get(0))
}

/// `Postgres::get` against statements pipelined on one connection of `tokio-postgres`, 16 callers.
pub(crate) fn get_against_tokio_postgres() -> Outcome {
    let (_place, url) = servers::postgres()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let keys: Arc<[Key]> = keys().into();
    let store = Postgres::lazy(url.as_str())?;
    let peer = runtime.block_on(async {
        until_made(&store).await?;
        fill(&store, &keys).await?;
        let (peer, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        let table = "CREATE TABLE peer (key text PRIMARY KEY, value bytea, expires bigint)";
        peer.batch_execute(table).await?;
        let names: Vec<&str> = keys.iter().map(Key::name).collect();
        let row = "INSERT INTO peer SELECT key, $2, $3 FROM unnest($1::text[]) AS key";
        peer.execute(row, &[&names, &vec![b'x'; 100], &i64::MAX])
            .await?;
        peer.batch_execute("VACUUM ANALYZE").await?;
        let get = "SELECT value FROM peer WHERE key = $1 AND expires > $2";
        let statement = peer.prepare(get).await?;
        Outcome::Ok(Arc::new((peer, statement)))
    })?;
    compare(
        "postgres get / tokio-postgres pipelined, 16 callers",
        "k/s",
        || {
            of_callers(&runtime, &keys, |key| {
                let store = store.clone();
                async move { get(&store, &key).await }
            })
        },
        || {
            of_callers(&runtime, &keys, |key| {
                let peer = Arc::clone(&peer);
                async move {
                    let (peer, statement) = &*peer;
                    let asked = (key.name(), 1_700_000_000_000_i64);
                    let row = peer.query_one(statement, &[&asked.0, &asked.1]).await;
                    let value: Vec<u8> = row.expect("the server answers").get(0);
                    assert!(value.len() == 100);
                }
            })
        },
    );
    Ok(())
}

/// Gets every key once, by 16 callers.
fn of_callers<F>(runtime: &Runtime, keys: &Arc<[Key]>, get: impl Fn(Key) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let work: Vec<Vec<F>> = (0..CALLERS)
        .map(|caller| {
            let own = keys.iter().skip(caller).step_by(CALLERS);
            own.map(|key| get(key.clone())).collect()
        })
        .collect();
    runtime.block_on(async {
        let began = Instant::now();
        let one_by_one = |gets: Vec<F>| {
            tokio::spawn(async move {
                for get in gets {
                    get.await;
                }
            })
        };
        for caller in work.into_iter().map(one_by_one).collect::<Vec<_>>() {
            caller.await.expect("no caller panics");
        }
        rate(KEYS, began)
    })
}

async fn until_made(store: &Postgres) -> Outcome {
    for _ in 0..300 {
        if store.create_table().await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("PostgreSQL does not start; hint: `apt-get install postgresql`".into())
}
