//! Larder.
mod clock;
mod entry;
mod error;
mod key;
pub mod store;
mod ttl;

pub use clock::{Clock, Moment};
pub use entry::{Entry, FORMAT, HEADER, Head, MAX_DECODED, Mark, Stamp, State, Tag, Tagged, Value};
pub use error::{Error, ErrorKind, Result};
pub use key::{Key, MAX_NAME, Version};
pub use ttl::Ttl;
