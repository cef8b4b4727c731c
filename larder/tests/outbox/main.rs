//! Invalidation on writes: transactions, triggers and models over real databases.
//!
//! | file | what |
//! | --- | --- |
//! | `ground.rs` | databases, and programs that write them |
//! | `commits.rs` | a store in the same database: the commit is the invalidation |
//! | `drains.rs` | stores elsewhere: whoever drains |
//! | `models.rs` | models of `SeaORM` |
//! | `watches.rs` | triggers of PostgreSQL |

#![cfg(all(
    feature = "memory",
    feature = "mysql",
    feature = "postgres",
    feature = "redis",
    feature = "sea-orm",
    feature = "sqlite"
))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

#[path = "../support/faulty.rs"]
mod faulty;
#[path = "../support/mod.rs"]
mod support;

mod commits;
mod drains;
mod ground;
mod models;
mod watches;
