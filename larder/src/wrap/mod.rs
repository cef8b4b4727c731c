//! A store around a store.
//!
//! Each wrapper is a [`Store`](crate::store::Store) itself, so that they stack in any order, and a
//! stack names itself:
//!
//! ```
//! use larder::store::Memory;
//! use larder::wrap::{Forgiving, Tiered};
//!
//! let stack = Forgiving::new(Tiered::new(Memory::new(), Memory::new()));
//! assert_eq!(stack.to_string(), "forgiving memory over memory");
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `tiered/` | a near store before a far one |
//! | `forgiving/` | a store that may fail: reads are misses, writes are repeated |

mod forgiving;
mod tiered;

pub use forgiving::{Forgiven, Forgiving};
#[cfg(feature = "simulation")]
pub use tiered::NearRule;
pub use tiered::Tiered;
