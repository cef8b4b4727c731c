//! A store around a store.
//!
//! Each wrapper is a [`Store`](crate::store::Store) itself, so that they stack in any order, and a
//! stack names itself:
//!
//! ```
//! use larder::{store::Memory, wrap::Tiered};
//!
//! let tiers = Tiered::new(Memory::new(), Memory::new());
//! assert_eq!(tiers.to_string(), "memory over memory");
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `tiered/` | a near store before a far one |

mod tiered;

#[cfg(feature = "simulation")]
pub use tiered::NearRule;
pub use tiered::Tiered;
