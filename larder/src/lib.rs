//! The caching framework for web apps: values and whole pages, over memory, files, SQL, Memcached and
//! Redis, that never serve what was invalidated and never give one user's page to another.
//!
//! # Four hello worlds
//!
//! *A value.* One load however many ask at once; no old value after `delete` or `invalidate`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use larder::{Cache, store::Memory};
//!
//! let cache = Cache::new(Memory::new());
//! let load = || async { Ok::<_, std::io::Error>("slow".to_owned()) };
//! let report: String = cache.fetch("report", load).tags(["sales"]).await?;
//! cache.invalidate(["sales"]).await?;
//! # assert_eq!(report, "slow");
//! # Ok(())
//! # }
//! ```
//!
//! *A site.* Every page that is for everybody is kept; see [`page`].
//!
//! ```
//! # #[cfg(feature = "page")] {
//! use axum::{Router, routing::get};
//! use larder::{Cache, page::CacheLayer, store::Memory};
//!
//! let cache = Cache::new(Memory::new());
//! let app: Router = Router::new()
//!     .route("/", get(|| async { "slow" }))
//!     .layer(CacheLayer::new(cache));
//! # }
//! ```
//!
//! *One view*, for five minutes.
//!
//! ```
//! # #[cfg(feature = "page")] {
//! use std::time::Duration;
//! use axum::{Router, routing::get};
//! use larder::{Cache, page::cache_page, store::Memory};
//!
//! let cache = Cache::new(Memory::new());
//! let view = get(|| async { "slow" }).layer(cache_page(&cache, Duration::from_mins(5)));
//! let app: Router = Router::new().route("/slow", view);
//! # }
//! ```
//!
//! *A part of a page*, for each user by itself; see `fragment`, which has a tag for `MiniJinja` too.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # #[cfg(feature = "fragment")] {
//! use larder::{Cache, store::Memory};
//!
//! let (cache, user) = (Cache::new(Memory::new()), 7);
//! let sidebar = cache.fragment("sidebar").vary(user).tags(["products"]);
//! let text = sidebar.render(|| async { Ok::<_, std::io::Error>("slow".to_owned()) }).await?;
//! # assert_eq!(text, "slow");
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! # Stores
//!
//! | store | kept | shared by processes |
//! | --- | --- | --- |
//! | [`store::Memory`] | in this process, bounded by bytes and entries | no |
//! | `store::File` | in a folder of this machine, bounded by bytes and entries | yes |
//! | `store::Memcached` | on memcached servers | yes |
//! | `store::Redis` | on a Redis or Valkey server, a cluster, or what sentinels watch | yes |
//! | `store::Sqlite` | in a file | yes, of one machine |
//! | `store::Postgres` | in a table of PostgreSQL | yes |
//! | `store::Mysql` | in a table of MySQL or MariaDB | yes |
//! | [`store::Null`] | nowhere | – |
//! | [`wrap::Tiered`] | in a near store before a far one | by the far one |
//! | your own | [`store::Store`] is the contract, `conformance` its test suite | as you like |
//!
//! # Features
//!
//! | feature | gives | default |
//! | --- | --- | --- |
//! | `memcached` | `store::Memcached` | no |
//! | `memory` | [`store::Memory`] | yes |
//! | `file` | `store::File`, on Unix | no |
//! | `redis` | `store::Redis` | no |
//! | `sqlite` | `store::Sqlite`; brings SQLite itself along | no |
//! | `postgres` | `store::Postgres` | no |
//! | `mysql` | `store::Mysql` | no |
//! | `sqlite`, `postgres`, `mysql` | `outbox`: transactions that invalidate at their commit | no |
//! | `sea-orm` | `sea_orm`: models of `SeaORM` that invalidate tags, and `outbox` | no |
//! | `zstd`, `lz4` | `Compression` of values past a threshold | no |
//! | `fragment` | `fragment`: parts of a page, by a call | no |
//! | `minijinja` | `fragment::install`: the tag `{% cache %}` for `MiniJinja` | no |
//! | `page` | [`page`]: layers for tower and axum | yes |
//! | `axum` | pages of nested axum routers are told apart by the URL that the client asked for | yes |
//! | `settings` | [`Settings`]: caches from a TOML file, the environment or URLs | no |
//! | `metrics` | [`wrap::Instrumented`] and [`wrap::Recorder`] count for the `metrics` facade | no |
//! | `sign` | `CacheBuilder::sign`, for stores that others can write to | no |
//! | `conformance` | the contract of a store, as tests to run over your own | no |
//! | `simulation` | a store with faults on a seeded clock, and thousands of courses over it, for engine and wrappers | no |
//!
//! # What is promised
//!
//! A value whose load began before an invalidation of its key, or of one of its tags, was
//! acknowledged is not served from the cache afterwards, in any process that shares the store. That
//! holds for [`Cache::fetch`], [`Cache::get_or_set`], [`Cache::ticket`], fragments and pages. A plain
//! [`Cache::set`] replaces what is there and promises nothing about when its value was read.

mod cache;
mod clock;
mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(any(feature = "fragment", feature = "page"))]
pub mod django_keys;
mod entry;
mod error;
mod event;
mod flight;
#[cfg(feature = "fragment")]
pub mod fragment;
mod key;
#[cfg(any(
    feature = "mysql",
    feature = "postgres",
    feature = "sea-orm",
    feature = "sqlite"
))]
pub mod outbox;
#[cfg(feature = "page")]
pub mod page;
#[cfg(any(
    feature = "memcached",
    feature = "mysql",
    feature = "postgres",
    feature = "redis",
    feature = "sqlite"
))]
mod percent;
#[cfg(feature = "sea-orm")]
pub mod sea_orm;
#[cfg(feature = "settings")]
pub mod settings;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod store;
mod ttl;
pub mod wrap;

#[cfg(feature = "simulation")]
pub use cache::Rule;
pub use cache::{
    Add, Cache, CacheBuilder, Caches, Counts, Fetch, FetchError, FetchHere, FetchMany, Invalidate,
    Keys, Loading, Policy, Set, SetMany, SetTicket, Ticket, spawn, spawn_blocking,
};
pub use clock::{Clock, Moment};
pub use codec::Codec;
#[cfg(any(feature = "lz4", feature = "zstd"))]
pub use codec::Compression;
pub use entry::{Entry, FORMAT, HEADER, Head, MAX_DECODED, Mark, Stamp, State, Tag, Tagged, Value};
pub use error::{Error, ErrorKind, Result};
pub use event::{Bypass, Listener, Miss, Outcome, Reason, Stale};
pub use key::{Key, MAX_NAME, Version};
#[cfg(feature = "settings")]
pub use settings::{Backends, Settings};
pub use ttl::Ttl;

/// The README's code, which has to compile.
#[cfg(all(doctest, feature = "minijinja", feature = "page"))]
#[doc = include_str!("../../README.md")]
struct Readme;
