//! An outbox: where it is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Dialect, Insert};
#[cfg(feature = "mysql")]
use crate::store::Mysql;
use crate::store::Outgoing;
#[cfg(feature = "postgres")]
use crate::store::Postgres;
#[cfg(feature = "sqlite")]
use crate::store::Sqlite;
use crate::{Error, ErrorKind, Result};

/// How long an act may take: nobody's page waits for it.
const LIMIT: Duration = Duration::from_secs(10);
/// How often a background task looks.
const EVERY: Duration = Duration::from_secs(1);

/// A table of tags that transactions have put there; a clone shares its connection.
///
/// ```
/// use larder::outbox::Outbox;
///
/// # #[cfg(feature = "postgres")] {
/// let outbox = Outbox::lazy("postgres://me:secret@db/shop")?;
/// assert_eq!(outbox.to_string(), "postgres://db:5432/shop");
/// let insert = outbox.insert(["objects"]);
/// assert!(insert.sql().starts_with("INSERT INTO \"larder_outbox\""));
/// # }
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone)]
pub struct Outbox {
    pub(super) place: Place,
    pub(super) space: Arc<str>,
    pub(super) every: Duration,
    pub(super) woken: Arc<watch::Sender<()>>,
}

#[derive(Clone)]
pub(super) enum Place {
    #[cfg(feature = "sqlite")]
    Sqlite(Sqlite),
    #[cfg(feature = "postgres")]
    Postgres(Postgres),
    #[cfg(feature = "mysql")]
    Mysql(Mysql),
}

impl Place {
    pub(super) fn outgoing(&self) -> &dyn Outgoing {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(store) => store,
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store,
            #[cfg(feature = "mysql")]
            Self::Mysql(store) => store,
        }
    }
}

impl Outbox {
    /// The outbox at `url`, which connects when it is first used.
    ///
    /// `postgres://…`, `mysql://…` or `sqlite://…`, as the stores have them; `?table=pages` means the
    /// outbox `pages_outbox`. The table has to be [there](Self::create_table). An error of kind
    /// `Invalid` if the URL cannot be used, or this build lacks the feature. Connecting, and each act, may
    /// take ten seconds.
    pub fn lazy(url: impl Into<String>) -> Result<Self> {
        Ok(Self {
            place: place(url.into())?,
            space: "".into(),
            every: EVERY,
            woken: Arc::new(watch::Sender::new(())),
        })
    }

    /// Puts tags of this tag space there. Default: that of all caches that name none.
    #[must_use]
    pub fn space(mut self, space: impl Into<Arc<str>>) -> Self {
        self.space = space.into();
        self
    }

    /// Lets background tasks look this often. Default: every second. They are [woken](Self::wake)
    /// besides, and on PostgreSQL by `NOTIFY`.
    #[must_use]
    pub fn poll_every(mut self, span: Duration) -> Self {
        self.every = span.max(Duration::from_millis(1));
        self
    }

    /// Makes the table; whether it was not there.
    pub async fn create_table(&self) -> Result<bool> {
        match &self.place {
            #[cfg(feature = "sqlite")]
            Place::Sqlite(store) => store.create_table().await,
            #[cfg(feature = "postgres")]
            Place::Postgres(store) => store.create_table().await,
            #[cfg(feature = "mysql")]
            Place::Mysql(store) => store.create_table().await,
        }
    }

    /// The statements that make the table, without running them.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// let outbox = larder::outbox::Outbox::lazy("sqlite:///var/lib/shop.db")?;
    /// let start = "CREATE TABLE IF NOT EXISTS \"larder_outbox\"";
    /// assert!(outbox.table_sql()[0].starts_with(start));
    /// # }
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn table_sql(&self) -> Vec<String> {
        match &self.place {
            #[cfg(feature = "sqlite")]
            Place::Sqlite(store) => store.table_sql(),
            #[cfg(feature = "postgres")]
            Place::Postgres(store) => store.table_sql(),
            #[cfg(feature = "mysql")]
            Place::Mysql(store) => store.table_sql(),
        }
    }

    /// The statement that puts `tags` there, for the transaction that writes what they stand for.
    ///
    /// See [`Insert`]; nothing is sent.
    pub fn insert<I>(&self, tags: I) -> Insert
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let (dialect, table) = match &self.place {
            #[cfg(feature = "sqlite")]
            Place::Sqlite(store) => (Dialect::Sqlite, store.outbox_name()),
            #[cfg(feature = "postgres")]
            Place::Postgres(store) => (Dialect::Postgres, store.outbox_name()),
            #[cfg(feature = "mysql")]
            Place::Mysql(store) => (Dialect::Mysql, store.outbox_name()),
        };
        Insert::new(dialect, &table, &self.space, tags)
    }

    /// Tells the background tasks of this outbox in this process that something may wait. Costs
    /// nothing; call it after a commit whose outcome nobody waits for.
    pub fn wake(&self) {
        self.woken.send_replace(());
    }

    /// Lets the database put a row there for each row of `table` that is written, whoever writes it
    /// and how: inserts, updates (by the row as it was and as it is), deletes, `TRUNCATE` and `COPY`.
    ///
    /// `tags` name columns in braces: `objects`, `object:{id}`; `{pk}` is the primary key, the columns
    /// of one of several joined by commas. With none they are the table's name, and that with `:{pk}`.
    /// Returns the tags. What an earlier call has installed on the table is replaced.
    ///
    /// Makes the outbox if it is missing. Triggers are rights of their own: whoever may write the table
    /// need not be allowed to write the outbox. Each row written costs a look and an insert, a tag
    /// that the transaction has put there already only the look; a `TRUNCATE` reads the table once.
    ///
    /// Not seen are writes with triggers turned off (`session_replication_role = replica`, which is how
    /// a replica of logical replication applies them), and a `TRUNCATE` of one partition alone.
    ///
    /// An error of kind `Invalid` if there is no such table, primary key or column, `Unsupported` on
    /// other databases than PostgreSQL.
    ///
    /// ```no_run
    /// # async fn example() -> larder::Result<()> {
    /// use larder::outbox::Outbox;
    ///
    /// let outbox = Outbox::lazy("postgres://me:secret@db/shop")?;
    /// let tags = outbox.watch("object", ["objects", "object:{pk}"]).await?;
    /// assert_eq!(tags, ["objects", "object:{pk}"]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn watch<I>(&self, table: &str, tags: I) -> Result<Vec<String>>
    where
        I: IntoIterator<Item: Into<String>>,
    {
        let tags: Vec<String> = tags.into_iter().map(Into::into).collect();
        match &self.place {
            #[cfg(feature = "postgres")]
            Place::Postgres(store) => store.watch(table, tags, &self.space).await,
            #[cfg(any(feature = "sqlite", feature = "mysql"))]
            _ => Err(self.without_triggers(table, tags.len())),
        }
    }

    /// Removes what [`watch`](Self::watch) has installed on `table`; whether there was anything.
    pub async fn unwatch(&self, table: &str) -> Result<bool> {
        match &self.place {
            #[cfg(feature = "postgres")]
            Place::Postgres(store) => store.unwatch(table).await,
            #[cfg(any(feature = "sqlite", feature = "mysql"))]
            _ => Err(self.without_triggers(table, 0)),
        }
    }

    #[cfg(any(feature = "sqlite", feature = "mysql"))]
    fn without_triggers(&self, table: &str, _: usize) -> Error {
        let what = format!("`{self}` has no triggers of Larder's to watch `{table}` by");
        Error::new(ErrorKind::Unsupported, "outbox", what).with_hint(
            "PostgreSQL has; elsewhere let the program that writes insert the rows, see `Outbox::insert`",
        )
    }

    /// Lets go of the connection.
    pub async fn close(&self) -> Result<()> {
        self.place.outgoing().close().await
    }
}

fn place(url: String) -> Result<Place> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme.to_ascii_lowercase().as_str() {
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let store = Sqlite::builder(url)
                .only_outbox()
                .timeout(LIMIT)
                .connect_timeout(LIMIT)
                .lazy()?;
            Ok(Place::Sqlite(store))
        }
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => {
            let store = Postgres::builder(url)
                .only_outbox()
                .timeout(LIMIT)
                .connect_timeout(LIMIT)
                .lazy()?;
            Ok(Place::Postgres(store))
        }
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => {
            let store = Mysql::builder(url)
                .only_outbox()
                .timeout(LIMIT)
                .connect_timeout(LIMIT)
                .lazy()?;
            Ok(Place::Mysql(store))
        }
        _ => {
            let what = "the URL cannot be used: an outbox is a table of a database of this build";
            Err(Error::new(ErrorKind::Invalid, "outbox", what)
                .with_hint("write it as `postgres://…`, `mysql://…` or `sqlite://…`"))
        }
    }
}

impl fmt::Display for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.place.outgoing(), f)
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("place", &format_args!("{self}"))
            .field("space", &self.space)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}
