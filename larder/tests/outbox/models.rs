//! Models of `SeaORM`.

use larder::Cache;
use larder::store::Memory;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait as _, ConnectionTrait, DatabaseConnection,
    EntityTrait, IntoActiveModel as _, ModelTrait as _, QueryFilter as _, TransactionTrait as _,
};

use crate::support::SqliteFile;

#[expect(unreachable_pub, reason = "the derived code is")]
mod object {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "object")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub kind: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    larder::invalidates!(ActiveModel, "objects", "object:{pk}", "kind:{kind}");
}

/// A model with two columns as its key, and hooks of its own.
#[expect(unreachable_pub, reason = "the derived code is")]
mod part {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "part")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub object: i32,
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    #[async_trait::async_trait]
    impl ActiveModelBehavior for ActiveModel {
        async fn after_save<C: ConnectionTrait>(
            model: Model,
            db: &C,
            _: bool,
        ) -> Result<Model, DbErr> {
            larder::sea_orm::after_save(&model, db, &["part:{pk}", "object:{object}"]).await?;
            Ok(model)
        }
    }
}

struct Shop {
    file: SqliteFile,
    rows: DatabaseConnection,
    outbox: larder::outbox::Outbox,
}

impl Shop {
    async fn new() -> Self {
        let file = SqliteFile::new();
        let outbox = larder::outbox::Outbox::lazy(file.url()).unwrap();
        outbox.create_table().await.unwrap();
        let rows = sea_orm::Database::connect(file.url()).await.unwrap();
        for table in [
            "object (id INTEGER PRIMARY KEY, kind TEXT)",
            "part (object INTEGER, name TEXT, PRIMARY KEY (object, name))",
        ] {
            let text = format!("CREATE TABLE {table}");
            rows.execute_unprepared(&text).await.unwrap();
        }
        Self { file, rows, outbox }
    }

    /// What was put into the outbox since this was last asked.
    fn noted(&self) -> Vec<String> {
        let file = rusqlite::Connection::open(self.file.path()).unwrap();
        let mut take = file
            .prepare("DELETE FROM larder_outbox RETURNING tag")
            .unwrap();
        let tags = take.query_map([], |row| row.get(0)).unwrap();
        tags.map(Result::unwrap).collect()
    }
}

fn lamp() -> object::ActiveModel {
    object::ActiveModel {
        kind: Set(Some("lamp".into())),
        ..Default::default()
    }
}

#[tokio::test]
async fn saving_and_deleting_a_model_notes_its_tags() {
    let shop = Shop::new().await;

    let saved = lamp().insert(&shop.rows).await.unwrap();
    assert_eq!(shop.noted(), ["objects", "object:1", "kind:lamp"]);

    let mut changed = saved.into_active_model();
    changed.kind = Set(None);
    let changed = changed.update(&shop.rows).await.unwrap();
    assert_eq!(shop.noted(), ["objects", "object:1", "kind:"]);

    changed.delete(&shop.rows).await.unwrap();
    assert_eq!(shop.noted(), ["objects", "object:1", "kind:"]);
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_invalidates_nothing() {
    let shop = Shop::new().await;
    let cache = Cache::new(Memory::new());
    let kept = async || cache.set("list", "old").tags(["objects"]).await.unwrap();
    let is_there = async || cache.get::<String>("list").await.unwrap().is_some();

    kept().await;
    let transaction = shop.rows.begin().await.unwrap();
    lamp().insert(&transaction).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(shop.outbox.drain([&cache]).await.unwrap(), 0);
    assert!(is_there().await);

    let transaction = shop.rows.begin().await.unwrap();
    lamp().insert(&transaction).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(shop.outbox.drain([&cache]).await.unwrap(), 3);
    assert!(!is_there().await);
}

#[tokio::test]
async fn hooks_of_ones_own_note_tags_and_a_key_of_two_columns_is_joined() {
    let shop = Shop::new().await;
    let bulb = part::ActiveModel {
        object: Set(7),
        name: Set("bulb '60'".into()),
    };

    bulb.insert(&shop.rows).await.unwrap();

    assert_eq!(shop.noted(), ["part:7,bulb '60'", "object:7"]);
}

#[tokio::test]
async fn what_runs_no_hooks_is_noted_by_hand() {
    let shop = Shop::new().await;
    let transaction = shop.rows.begin().await.unwrap();
    object::Entity::insert_many([lamp(), lamp()])
        .exec(&transaction)
        .await
        .unwrap();
    object::Entity::delete_many()
        .filter(object::Column::Id.eq(1))
        .exec(&transaction)
        .await
        .unwrap();
    larder::sea_orm::invalidate(&transaction, ["objects"])
        .await
        .unwrap();
    larder::sea_orm::invalidate(&transaction, NONE)
        .await
        .unwrap();
    transaction.commit().await.unwrap();

    assert_eq!(shop.noted(), ["objects"]);
}

const NONE: [&str; 0] = [];

#[tokio::test]
async fn a_tag_that_cannot_be_told_and_a_missing_outbox_are_errors() {
    let shop = Shop::new().await;
    lamp().insert(&shop.rows).await.unwrap();

    let nameless = object::ActiveModel {
        id: Set(1),
        ..Default::default()
    };
    let error = nameless.delete(&shop.rows).await.unwrap_err();
    let told = "the tag `kind:{kind}` needs `kind`, which is not set";
    assert!(error.to_string().ends_with(told), "{error}");

    shop.rows
        .execute_unprepared("DROP TABLE larder_outbox")
        .await
        .unwrap();
    let transaction = shop.rows.begin().await.unwrap();
    let error = lamp().insert(&transaction).await.unwrap_err();
    assert!(error.to_string().contains("larder_outbox"), "{error}");
}
