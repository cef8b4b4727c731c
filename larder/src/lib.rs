//! Larder.
mod cache;
mod clock;
mod codec;
mod entry;
mod error;
mod event;
mod flight;
mod key;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod store;
mod ttl;

#[cfg(feature = "simulation")]
pub use cache::Rule;
pub use cache::{
    Add, Cache, CacheBuilder, Counts, Fetch, FetchError, FetchHere, Loading, Policy, Set, SetMany,
    SetTicket, Ticket,
};
pub use clock::{Clock, Moment};
pub use codec::Codec;
pub use entry::{Entry, FORMAT, HEADER, Head, MAX_DECODED, Mark, Stamp, State, Tag, Tagged, Value};
pub use error::{Error, ErrorKind, Result};
pub use event::{Bypass, Listener, Miss, Outcome, Stale};
pub use key::{Key, MAX_NAME, Version};
pub use ttl::Ttl;
