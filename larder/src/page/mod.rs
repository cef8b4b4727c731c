//! Whole responses: per site and per view.
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::{Router, routing::get};
//! use larder::page::{CacheLayer, cache_page};
//! use larder::{Cache, store::Memory};
//!
//! # fn main() {
//! let cache = Cache::new(Memory::new());
//! let app: Router = Router::new()
//!     .route("/slow", get(|| async { "slow" }).layer(cache_page(&cache, Duration::from_secs(300))))
//!     .route("/other", get(|| async { "other" }))
//!     .layer(CacheLayer::new(cache));
//! # }
//! ```
//!
//! Only GET fills the cache, and only with status 200; HEAD is answered from what GET left there.
//! A response that is somebody's is nobody else's: what sets a cookie, or says `private`,
//! `no-store` or `Vary: *`, is not kept, and a request with `Cookie` or `Authorization` neither
//! reads nor fills a shared page unless the response, or the program, says that it may. The header
//! `Cache-Status` (RFC 9211) says what happened and why.
//!
//! What the cache cannot see, it cannot keep apart: a page that depends on the client's address or
//! certificate must say `Cache-Control: private`, and one that depends on a request header must name
//! it in `Vary`.
//!
//! | file | what |
//! | --- | --- |
//! | `layer.rs` | [`CacheLayer`] and [`cache_page`]: the settings |
//! | `service.rs` | the answer to one request: serve, wait, or run the handler |
//! | `sight.rs` | what the store has for a request, and whether it may be served |
//! | `make.rs` | the page through the engine: wait for whoever makes it, or make it |
//! | `give.rs` | the response as its client gets it |
//! | `load.rs` | running the handler under the engine, and collecting its body while it is sent |
//! | `keep.rs` | what is kept of a response: its page and its place in the URL's list |
//! | `body.rs` | the body of an answer |
//! | `stored.rs` | what a page and a header list look like in a slot |
//! | `route.rs` | ready keys for the URLs asked lately |
//! | `tags.rs` | [`PageTags`]: what a page depends on besides |
//! | `status.rs` | `Cache-Status` |
//! | `keys.rs` | Django's names of pages |
//! | `rules/` | what HTTP says about keeping a response, as pure functions |

mod body;
mod give;
mod keep;
pub mod keys;
mod layer;
mod load;
mod make;
mod route;
pub mod rules;
mod service;
mod sight;
mod status;
mod stored;
mod tags;

pub use body::PageBody;
pub use layer::{CacheLayer, cache_page};
pub use service::CacheService;
pub use tags::PageTags;
