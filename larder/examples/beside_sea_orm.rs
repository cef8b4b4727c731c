//! One program, one file of SQLite, three who use it: `SeaORM` and `sqlx` for the rows, Larder for what is
//! made from them. All three link the same SQLite.
//!
//! `cargo run -p larder --all-features --example beside_sea_orm`

use larder::{Cache, store::Sqlite};
use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, Database};
use sqlx::Connection as _;

#[expect(unreachable_pub, reason = "the derived code is")]
mod book {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "book")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub title: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The titles by `SeaORM`, kept by Larder until a book is written.
async fn titles(cache: &Cache, rows: &DatabaseConnection) -> Outcome<Vec<String>> {
    let rows = rows.clone();
    let load = move || async move {
        let books = book::Entity::find().all(&rows).await?;
        Ok::<_, DbErr>(books.into_iter().map(|book| book.title).collect::<Vec<_>>())
    };
    Ok(cache.fetch("titles", load).tags(["books"]).await?)
}

async fn run(file: &str) -> Outcome {
    let store = Sqlite::lazy(format!("sqlite://{file}?table=larder"))?;
    store.create_table().await?;
    let cache = Cache::new(store);

    let rows = Database::connect(format!("sqlite://{file}?mode=rwc")).await?;
    let table = "CREATE TABLE book (id INTEGER PRIMARY KEY, title TEXT NOT NULL)";
    rows.execute_unprepared(table).await?;
    let write = async |title: &str| {
        let title = Set(title.to_owned());
        let book = book::ActiveModel {
            title,
            ..Default::default()
        };
        book.insert(&rows).await
    };
    write("Emma").await?;
    assert_eq!(titles(&cache, &rows).await?, ["Emma"]);

    // Behind the cache's back, by `sqlx`: what is kept is served until somebody says that it is old.
    let mut plain = sqlx::SqliteConnection::connect(&format!("sqlite://{file}")).await?;
    let insert = sqlx::query("INSERT INTO book (title) VALUES ('Persuasion')");
    insert.execute(&mut plain).await?;
    assert_eq!(titles(&cache, &rows).await?, ["Emma"]);
    cache.invalidate(["books"]).await?;
    assert_eq!(titles(&cache, &rows).await?, ["Emma", "Persuasion"]);

    let version: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(&mut plain)
        .await?;
    println!(
        "SQLite {version}, linked once: {:?}",
        titles(&cache, &rows).await?
    );
    cache.close().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    let folder = std::env::temp_dir().join(format!("larder-example-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = run(&folder.join("shop.db").display().to_string()).await;
    let _ = std::fs::remove_dir_all(folder);
    outcome
}
