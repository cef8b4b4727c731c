//! The rows behind `/objects`: SQLite through `SeaORM`, with an outbox beside them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder::Cache;
use larder::outbox::{Draining, Outbox};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ConnectionTrait, Database, DatabaseConnection, DbErr,
    EntityTrait, ModelTrait, PaginatorTrait, QueryOrder, TransactionTrait,
};

use crate::object;

/// What the shop begins with.
const FIRST: [&str; 3] = ["a lamp", "a chair", "a table"];

/// The rows; a clone shares them.
#[derive(Clone)]
pub(crate) struct Shop {
    rows: DatabaseConnection,
    outbox: Outbox,
    cache: Cache,
    queries: Arc<AtomicUsize>,
}

/// A file of this process's own, which goes with it.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    pub(crate) fn new() -> std::io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("larder-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("shop.db")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What is left is in the folder for what is left.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Shop {
    /// The shop in `file`, made if it is not there.
    pub(crate) async fn open(file: &Path, cache: &Cache) -> Result<Self, String> {
        let file = file.display();
        let cannot =
            |error: &dyn std::fmt::Display| format!("cannot open the shop `{file}`: {error}");
        let outbox = Outbox::lazy(format!("sqlite://{file}")).map_err(|error| cannot(&error))?;
        outbox
            .create_table()
            .await
            .map_err(|error| cannot(&error))?;
        let rows = Database::connect(format!("sqlite://{file}?mode=rwc"));
        let shop = Self {
            rows: rows.await.map_err(|error| cannot(&error))?,
            outbox,
            cache: cache.clone(),
            queries: Arc::default(),
        };
        shop.begin().await.map_err(|error| cannot(&error))?;
        Ok(shop)
    }

    async fn begin(&self) -> Result<(), DbErr> {
        let table = "CREATE TABLE IF NOT EXISTS object \
                     (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL)";
        self.rows.execute_unprepared(table).await?;
        if object::Entity::find().count(&self.rows).await? == 0 {
            for name in FIRST {
                self.save(None, name).await?;
            }
        }
        Ok(())
    }

    /// Acts on what other writers of the same file have left in the outbox, until the value is dropped.
    pub(crate) fn follow(&self) -> Draining {
        self.outbox.run([self.cache.clone()])
    }

    /// How many times the rows were read.
    pub(crate) fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }

    pub(crate) async fn all(&self) -> Result<Vec<object::Model>, DbErr> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let objects = object::Entity::find().order_by_asc(object::Column::Id);
        objects.all(&self.rows).await
    }

    pub(crate) async fn one(&self, id: i32) -> Result<Option<object::Model>, DbErr> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        object::Entity::find_by_id(id).one(&self.rows).await
    }

    /// Makes an object, or renames the one that is there; whether it is.
    pub(crate) async fn save(&self, id: Option<i32>, name: &str) -> Result<bool, DbErr> {
        let transaction = self.rows.begin().await?;
        let mut row = object::ActiveModel {
            name: Set(name.to_owned()),
            ..Default::default()
        };
        if let Some(id) = id {
            if object::Entity::find_by_id(id)
                .one(&transaction)
                .await?
                .is_none()
            {
                return Ok(false);
            }
            row.id = sea_orm::ActiveValue::Unchanged(id);
        }
        row.save(&transaction).await?;
        transaction.commit().await?;
        self.tell().await;
        Ok(true)
    }

    pub(crate) async fn delete(&self, id: i32) -> Result<(), DbErr> {
        let transaction = self.rows.begin().await?;
        if let Some(object) = object::Entity::find_by_id(id).one(&transaction).await? {
            object.delete(&transaction).await?;
        }
        transaction.commit().await?;
        self.tell().await;
        Ok(())
    }

    /// Invalidates what the transaction has left in the outbox, so that the next page is new. Should
    /// that fail, the background task does it later: nothing is lost.
    async fn tell(&self) {
        if let Err(error) = self.outbox.drain([&self.cache]).await {
            tracing::warn!(%error, "outbox_not_drained");
        }
    }

    pub(crate) async fn close(self) -> Result<(), DbErr> {
        self.rows.close().await
    }
}
