//! Invalidation on writes: rows that a transaction leaves in a table, and who acts on them.
//!
//! An invalidation that is made before the commit is undone by any reader who loads the old row
//! meanwhile; one that is made after it is lost with the process. So a transaction that writes data also
//! inserts a row per tag into an *outbox*, over its own connection, and does nothing else: a rollback
//! takes the rows back, a commit keeps them until somebody has acted on them. No row is shared, so that
//! writers do not wait for each other.
//!
//! | who | how |
//! | --- | --- |
//! | puts rows there: any driver | [`Outbox::insert`]: a text and values |
//! | … `SeaORM` | `larder::sea_orm`, one line per model (feature `sea-orm`) |
//! | … the database itself | `Outbox::watch`: triggers on a table, raw SQL included |
//! | acts on them: a store in the same database | by itself, if its builder says `outbox()` |
//! | … every other | [`Outbox::run`] in the background, [`Outbox::drain`] after a commit |
//!
//! *In the same database* the commit is the invalidation: the store reads the outbox in the statement
//! that reads the numbers of tags, and gives new rows their number before it answers. Nobody has to run.
//!
//! *Elsewhere* the invalidation is acknowledged once the outbox is drained: [`Outbox::drain`] after the
//! commit, or the background task, which looks every second and is woken by PostgreSQL's `NOTIFY` and by
//! [`Outbox::wake`]. Rows are removed only after every cache has acted on them: at least once, in any
//! order, by any number of processes.
//!
//! *One outbox, one set of caches.* A row goes when it has been acted on, so each outbox is for the caches
//! that one call is given, all of them shared by all processes that drain it. A store with `outbox()` has
//! its own for itself. Memory that is private to a process cannot share one: put it as the near tier of a
//! shared store ([`wrap::Tiered`](crate::wrap::Tiered)), which asks that store for the numbers.
//!
//! ```
//! # #[cfg(feature = "sqlite")] {
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::env::temp_dir().join(format!("larder-outbox-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let path = folder.join("shop.db");
//! use larder::{Cache, outbox::Outbox, store::Memory};
//!
//! let cache = Cache::new(Memory::new());
//! let outbox = Outbox::lazy(format!("sqlite://{}", path.display()))?;
//! outbox.create_table().await?;
//! cache.set("list", "old").tags(["objects"]).await?;
//!
//! // Any driver: here rusqlite. The rows are part of the transaction.
//! let mut shop = rusqlite::Connection::open(&path)?;
//! let transaction = shop.transaction()?;
//! transaction.execute("CREATE TABLE object (id INTEGER)", [])?;
//! let insert = outbox.insert(["objects", "object:5"]);
//! transaction.execute(insert.sql(), rusqlite::params_from_iter(insert.values()))?;
//! transaction.commit()?;
//!
//! assert_eq!(outbox.drain([&cache]).await?, 2);
//! assert_eq!(cache.get::<String>("list").await?, None);
//! # drop(shop);
//! # let _ = std::fs::remove_dir_all(&folder);
//! # Ok(())
//! # }
//! # main().unwrap();
//! # }
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `insert.rs` | what a transaction puts there |
//! | `drain.rs` | who acts on it |
//! | `place.rs` | [`Outbox`]: where it is |
//! | `template.rs` | tags with places for columns |

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod drain;
mod insert;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod place;
#[cfg(any(feature = "postgres", feature = "sea-orm"))]
mod template;

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use self::drain::Draining;
#[cfg(feature = "postgres")]
pub(crate) use self::insert::quoted;
pub use self::insert::{Dialect, Insert};
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use self::place::Outbox;
#[cfg(any(feature = "postgres", feature = "sea-orm"))]
pub(crate) use self::template::{Part, Template};
