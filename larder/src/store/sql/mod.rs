//! Tables of SQLite, PostgreSQL, MySQL and MariaDB.
//!
//! *What is kept there.* A row of the table `larder` is a slot: its name, and the entry as columns, so
//! that a lease or a deadline changes without the value being sent again, and the engine itself counts
//! up an integer. `larder_numbers` holds the numbers of the tags: per space a row with the empty tag,
//! which has counter, floor and era, and a row per tag. A number below the floor counts as the floor.
//!
//! *Expiry.* The moments in the rows decide, by the clock of who reads; what is gone is removed in the
//! background, through an index and in batches. No write counts or scans.
//!
//! *Integers* are 64 bits wide; a sum that would not fit is told from the condition of the statement,
//! which then changes nothing.
//!
//! *A clear* removes batch by batch while others write. A load that had begun before it is not kept;
//! one that begins while it runs may be.
//!
//! | file | what |
//! | --- | --- |
//! | `sqlite/` | a file, read in place |
//! | `postgres/` | a server, over one pipelined connection |
//! | `mysql/` | a server of MySQL or MariaDB, over a few connections |
//! | `table.rs` | the tables: names, and the statements that make them |
//! | `statements.rs` | what is asked of them |
//! | `row.rs` | entries as columns |
//! | `found.rs` | rows as answers |
//! | `gate.rs` | one connection, made again when it breaks; failing fast |
//! | `outbox.rs` | the outbox, and who gives its rows their numbers |
//! | `cull.rs` | what takes rows away |
//! | `settings.rs` | what all builders have |
//! | `url.rs` | URLs |

#![cfg_attr(
    not(all(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, reason = "what the databases share is not all used by each")
)]

mod cull;
mod found;
mod gate;
#[cfg(feature = "mysql")]
mod mysql;
mod outbox;
#[cfg(feature = "postgres")]
mod postgres;
mod row;
mod settings;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statements;
mod table;
mod url;

pub(crate) use outbox::{BATCH, Outgoing};

#[cfg(feature = "mysql")]
pub use mysql::{Mysql, MysqlBuilder};
#[cfg(feature = "postgres")]
pub use postgres::{Postgres, PostgresBuilder};
#[cfg(feature = "sqlite")]
pub use sqlite::{Sqlite, SqliteBuilder};

/// The answer to a value that would not be read back.
fn too_large(place: &str) -> crate::Error {
    let text = "the value is larger than the 64 MiB that are read back";
    crate::Error::new(crate::ErrorKind::TooLarge, place, text)
}
