//! Databases, and programs that write them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use larder::Cache;
use larder::outbox::{Insert, Outbox};
use larder::store::{Mysql, Postgres, Sqlite};
use mysql_async::prelude::Queryable as _;
use tokio_postgres::NoTls;

use crate::support::{Kind, SqlServer, SqliteFile};

pub(crate) const LONG: Duration = Duration::from_mins(10);
pub(crate) const HOUR: Duration = Duration::from_hours(1);

/// A database with tables of this test alone.
pub(crate) struct Database {
    pub(crate) name: String,
    place: Place,
}

enum Place {
    File(SqliteFile),
    Server(Kind, Arc<SqlServer>),
}

impl Database {
    /// One of each kind.
    pub(crate) fn all() -> [Self; 3] {
        [Self::file(), Self::postgres(), Self::mariadb()]
    }

    pub(crate) fn file() -> Self {
        Self::at(Place::File(SqliteFile::new()))
    }

    pub(crate) fn postgres() -> Self {
        Self::at(Place::Server(Kind::Postgres, shared(Kind::Postgres)))
    }

    pub(crate) fn mariadb() -> Self {
        Self::at(Place::Server(Kind::Mariadb, shared(Kind::Mariadb)))
    }

    fn at(place: Place) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self { name, place }
    }

    /// More tables of the same kind of database.
    pub(crate) fn another(&self) -> Self {
        match &self.place {
            Place::File(_) => Self::file(),
            Place::Server(Kind::Postgres, _) => Self::postgres(),
            Place::Server(Kind::Mariadb, _) => Self::mariadb(),
        }
    }

    fn bare_url(&self) -> String {
        match &self.place {
            Place::File(file) => file.url(),
            Place::Server(_, server) => server.url(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}?table={}", self.bare_url(), self.name)
    }

    /// A cache in this database, which reads its outbox.
    pub(crate) async fn cache(&self) -> Cache {
        let url = self.url();
        match &self.place {
            Place::File(_) => {
                let store = Sqlite::builder(url).outbox().timeout(LONG).lazy().unwrap();
                store.create_table().await.unwrap();
                Cache::new(store)
            }
            Place::Server(Kind::Postgres, _) => {
                let store = Postgres::builder(url).outbox().timeout(LONG);
                let store = store.lazy().unwrap();
                store.create_table().await.unwrap();
                Cache::new(store)
            }
            Place::Server(Kind::Mariadb, _) => {
                let store = Mysql::builder(url).outbox().timeout(LONG).lazy().unwrap();
                store.create_table().await.unwrap();
                Cache::new(store)
            }
        }
    }

    /// The outbox, for caches elsewhere.
    pub(crate) async fn outbox(&self) -> Outbox {
        let outbox = Outbox::lazy(self.url()).unwrap().poll_every(HOUR);
        outbox.create_table().await.unwrap();
        outbox
    }

    /// A program that writes, over a driver of its own.
    pub(crate) async fn writer(&self) -> Writer {
        match &self.place {
            Place::File(file) => {
                let file = rusqlite::Connection::open(file.path()).unwrap();
                file.busy_timeout(LONG).unwrap();
                Writer::Sqlite(file)
            }
            Place::Server(Kind::Postgres, server) => {
                let (client, connection) =
                    tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
                tokio::spawn(connection);
                Writer::Postgres(client)
            }
            Place::Server(Kind::Mariadb, server) => {
                Writer::Mysql(mysql_async::Conn::from_url(server.url()).await.unwrap())
            }
        }
    }

    /// Tags that wait, in order.
    pub(crate) async fn waiting(&self) -> Vec<String> {
        let mut writer = self.writer().await;
        let outbox = format!("{}_outbox", self.name);
        writer
            .texts(&format!("SELECT tag FROM {outbox} ORDER BY id"))
            .await
    }
}

/// A program that writes.
pub(crate) enum Writer {
    Sqlite(rusqlite::Connection),
    Postgres(tokio_postgres::Client),
    Mysql(mysql_async::Conn),
}

impl Writer {
    pub(crate) async fn run(&mut self, sql: &str) {
        match self {
            Self::Sqlite(file) => file.execute_batch(sql).unwrap(),
            Self::Postgres(client) => client.batch_execute(sql).await.unwrap(),
            Self::Mysql(connection) => connection.query_drop(sql).await.unwrap(),
        }
    }

    /// Puts tags there, by the text and the values that the library gives.
    pub(crate) async fn insert(&mut self, insert: &Insert) {
        let values = insert.values();
        match self {
            Self::Sqlite(file) => {
                let bound = rusqlite::params_from_iter(values);
                file.execute(insert.sql(), bound).unwrap();
            }
            Self::Postgres(client) => {
                let bound = values
                    .iter()
                    .map(|it| it as &(dyn tokio_postgres::types::ToSql + Sync));
                let bound: Vec<_> = bound.collect();
                client.execute(insert.sql(), &bound).await.unwrap();
            }
            Self::Mysql(connection) => {
                let bound: Vec<mysql_async::Value> = values.iter().map(Into::into).collect();
                let bound = if bound.is_empty() {
                    mysql_async::Params::Empty
                } else {
                    bound.into()
                };
                connection.exec_drop(insert.sql(), bound).await.unwrap();
            }
        }
    }

    /// The first column of all rows.
    pub(crate) async fn texts(&mut self, sql: &str) -> Vec<String> {
        match self {
            Self::Sqlite(file) => {
                let mut statement = file.prepare(sql).unwrap();
                let rows = statement.query_map([], |row| row.get(0)).unwrap();
                rows.map(Result::unwrap).collect()
            }
            Self::Postgres(client) => {
                let rows = client.query(sql, &[]).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
            Self::Mysql(connection) => connection.query(sql).await.unwrap(),
        }
    }

    /// The one row of a table `{name}_shop`.
    pub(crate) async fn shop(&mut self, name: &str) -> String {
        self.texts(&format!("SELECT name FROM {name}_shop"))
            .await
            .remove(0)
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

/// Waits until `is` says so.
pub(crate) async fn until(what: &str, is: impl AsyncFn() -> bool) {
    for _ in 0..3000 {
        if is().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}
