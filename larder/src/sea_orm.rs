//! Models of `SeaORM` that say themselves which tags their rows invalidate.
//!
//! One line per model, in the place of its empty `ActiveModelBehavior`:
//!
//! ```
//! mod object {
//!     use sea_orm::entity::prelude::*;
//!
//!     #[derive(Clone, Debug, DeriveEntityModel)]
//!     #[sea_orm(table_name = "object")]
//!     pub struct Model {
//!         #[sea_orm(primary_key)]
//!         pub id: i32,
//!         pub name: String,
//!     }
//!
//!     #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
//!     pub enum Relation {}
//!
//!     larder::invalidates!(ActiveModel, "objects", "object:{pk}");
//! }
//!
//! use larder::{Cache, outbox::Outbox, store::Memory};
//! use sea_orm::{ActiveModelTrait, ActiveValue::Set, ConnectionTrait, Database, TransactionTrait};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::env::temp_dir().join(format!("larder-sea-orm-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let file = folder.join("shop.db");
//! # let file = file.display();
//! let cache = Cache::new(Memory::new());
//! let outbox = Outbox::lazy(format!("sqlite://{file}"))?;
//! outbox.create_table().await?;
//! let rows = Database::connect(format!("sqlite://{file}")).await?;
//! # rows.execute_unprepared("CREATE TABLE object (id INTEGER PRIMARY KEY, name TEXT NOT NULL)").await?;
//! cache.set("list", "none").tags(["objects"]).await?;
//!
//! let transaction = rows.begin().await?;
//! let lamp = object::ActiveModel { name: Set("lamp".into()), ..Default::default() };
//! lamp.insert(&transaction).await?; // the outbox as well, over the same connection
//! transaction.commit().await?;
//!
//! outbox.drain([&cache]).await?;
//! assert_eq!(cache.get::<String>("list").await?, None);
//! # let _ = std::fs::remove_dir_all(&folder);
//! # Ok(())
//! # }
//! ```
//!
//! *In a transaction*, please, as above: row and outbox are then one act. Without one they are two
//! statements, and a crash between them loses the invalidation. If the outbox cannot be written, saving
//! or deleting returns the error; in a transaction nothing has happened then, once it is rolled back.
//!
//! *After the commit* [`Outbox::drain`](crate::outbox::Outbox) shows the writer what it wrote on its next
//! page; a store with `outbox()` in the same database needs not even that.
//!
//! *What `SeaORM` runs no hooks for*: `insert_many`, `update_many`, `delete_many`, `delete_by_id`, and raw
//! SQL. Call [`invalidate`] beside them, or let PostgreSQL do it by triggers (`larder table watch`). A tag
//! with a column that an update changes is put there with the new value alone, since a hook does not see
//! the old one; triggers see both.
//!
//! *Hooks of your own* call [`after_save`] and [`after_delete`], which is all that the macro does.

use ::sea_orm::sea_query::{QueryBuilder as _, SqliteQueryBuilder};
use ::sea_orm::{
    ActiveModelTrait, ActiveValue, ConnectionTrait, DbBackend, DbErr, EntityTrait, IdenStatic as _,
    Iterable as _, ModelTrait, Statement, Value,
};

#[doc(hidden)]
pub use ::sea_orm as orm;

use crate::outbox::{Dialect, Insert, Part, Template};

/// The outbox that is meant where no other is named.
const OUTBOX: &str = "larder_outbox";

/// Lets the rows of a model invalidate tags whenever `SeaORM` saves or deletes one.
///
/// Stands for `impl ActiveModelBehavior for ActiveModel {}`. Tags name columns in braces, `{pk}` is the
/// primary key, the columns of one of several joined by commas. See [`sea_orm`](crate::sea_orm).
#[macro_export]
macro_rules! invalidates {
    ($model:ident, $($tag:literal),+ $(,)?) => {
        #[$crate::sea_orm::orm::prelude::async_trait::async_trait]
        impl $crate::sea_orm::orm::ActiveModelBehavior for $model {
            async fn after_save<C>(
                model: <<Self as $crate::sea_orm::orm::ActiveModelTrait>::Entity
                    as $crate::sea_orm::orm::EntityTrait>::Model,
                db: &C,
                _insert: bool,
            ) -> Result<
                <<Self as $crate::sea_orm::orm::ActiveModelTrait>::Entity
                    as $crate::sea_orm::orm::EntityTrait>::Model,
                $crate::sea_orm::orm::DbErr,
            >
            where
                C: $crate::sea_orm::orm::ConnectionTrait,
            {
                $crate::sea_orm::after_save(&model, db, &[$($tag),+]).await?;
                Ok(model)
            }

            async fn after_delete<C>(self, db: &C) -> Result<Self, $crate::sea_orm::orm::DbErr>
            where
                C: $crate::sea_orm::orm::ConnectionTrait,
            {
                $crate::sea_orm::after_delete(&self, db, &[$($tag),+]).await?;
                Ok(self)
            }
        }
    };
}

/// Puts `tags` into the outbox `larder_outbox`, over `db`: a connection or a transaction.
///
/// For what runs no hooks. Another outbox or tag space: [`insert`].
///
/// ```no_run
/// # async fn example(rows: sea_orm::DatabaseConnection) -> Result<(), sea_orm::DbErr> {
/// use sea_orm::{ConnectionTrait, TransactionTrait};
///
/// let transaction = rows.begin().await?;
/// transaction.execute_unprepared("UPDATE object SET price = price * 2").await?;
/// larder::sea_orm::invalidate(&transaction, ["objects"]).await?;
/// transaction.commit().await?;
/// # Ok(())
/// # }
/// ```
pub async fn invalidate<C, I>(db: &C, tags: I) -> Result<(), DbErr>
where
    C: ConnectionTrait,
    I: IntoIterator<Item: AsRef<str>>,
{
    let dialect = match db.get_database_backend() {
        DbBackend::MySql => Dialect::Mysql,
        DbBackend::Postgres => Dialect::Postgres,
        DbBackend::Sqlite => Dialect::Sqlite,
        other => {
            let what = format!("larder has no outbox on {other:?}");
            return Err(DbErr::Custom(what));
        }
    };
    insert(db, Insert::new(dialect, OUTBOX, "", tags)).await
}

/// Runs what [`Outbox::insert`](crate::outbox::Outbox) or [`Insert::new`] gave, over `db`.
pub async fn insert<C: ConnectionTrait>(db: &C, insert: Insert) -> Result<(), DbErr> {
    if insert.values().is_empty() {
        return Ok(());
    }
    let values = insert
        .values()
        .iter()
        .map(|value| Value::from(value.clone()));
    let backend = db.get_database_backend();
    let statement = Statement::from_sql_and_values(backend, insert.sql(), values);
    db.execute_raw(statement).await.map(drop)
}

/// Puts the tags of a row that was saved into the outbox `larder_outbox`.
///
/// For an `after_save` of your own; see [`invalidates!`](crate::invalidates) for `tags`.
pub async fn after_save<M, C>(model: &M, db: &C, tags: &[&str]) -> Result<(), DbErr>
where
    M: ModelTrait,
    C: ConnectionTrait,
{
    let tags = tags_of::<M::Entity>(tags, |column| Some(model.get(column)))?;
    invalidate(db, tags).await
}

/// Puts the tags of a row that was deleted into the outbox `larder_outbox`.
///
/// For an `after_delete` of your own. An error if a tag names a column that `model` does not have set:
/// what was deleted is not known then.
pub async fn after_delete<A, C>(model: &A, db: &C, tags: &[&str]) -> Result<(), DbErr>
where
    A: ActiveModelTrait,
    C: ConnectionTrait,
{
    let tags = tags_of::<A::Entity>(tags, |column| match model.get(column) {
        ActiveValue::Set(value) | ActiveValue::Unchanged(value) => Some(value),
        ActiveValue::NotSet => None,
    })?;
    invalidate(db, tags).await
}

fn tags_of<E: EntityTrait>(
    tags: &[&str],
    value: impl Fn(E::Column) -> Option<Value>,
) -> Result<Vec<String>, DbErr> {
    let custom = |error: crate::Error| DbErr::Custom(error.to_string());
    let text = |written: &str, column: E::Column| {
        value(column).map(text).ok_or_else(|| {
            let name = column.as_str();
            DbErr::Custom(format!(
                "the tag `{written}` needs `{name}`, which is not set"
            ))
        })
    };
    let tag = |written: &&str| {
        let mut tag = String::new();
        for part in Template::parse(written).map_err(custom)?.0 {
            match part {
                Part::Text(plain) => tag.push_str(&plain),
                Part::Key => {
                    let columns =
                        E::PrimaryKey::iter().map(::sea_orm::PrimaryKeyToColumn::into_column);
                    let values = columns.map(|column| text(written, column));
                    tag.push_str(&values.collect::<Result<Vec<_>, _>>()?.join(","));
                }
                Part::Column(name) => {
                    let mut columns = E::Column::iter();
                    let column = columns.find(|column| column.as_str() == name);
                    let column = column.ok_or_else(|| {
                        let what = format!("the tag `{written}` names no column of its model");
                        DbErr::Custom(what)
                    })?;
                    tag.push_str(&text(written, column)?);
                }
            }
        }
        Ok(tag)
    };
    tags.iter().map(tag).collect()
}

/// A value as text; nothing is the empty one, as in a trigger.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text.unwrap_or_default(),
        Value::Char(char) => char.map(String::from).unwrap_or_default(),
        Value::Bool(is) => is.map(|is| is.to_string()).unwrap_or_default(),
        other => match SqliteQueryBuilder.value_to_string(&other).as_str() {
            "NULL" => String::new(),
            literal => literal.trim_matches('\'').to_owned(),
        },
    }
}
