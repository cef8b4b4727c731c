//! A store around a store.
//!
//! Each wrapper is a [`Store`](crate::store::Store) itself, so that they stack in any order, and a
//! stack names itself:
//!
//! ```
//! use larder::store::Memory;
//! use larder::wrap::{Forgiving, Instrumented, Tiered};
//!
//! let tiers = Tiered::new(Memory::new(), Memory::new());
//! let stack = Instrumented::new(Forgiving::new(tiers));
//! assert_eq!(stack.to_string(), "instrumented forgiving memory over memory");
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `tiered/` | a near store before a far one |
//! | `forgiving/` | a store that may fail: reads are misses, writes are repeated |
//! | `instrumented.rs` | a store whose calls are traced and counted |
//! | `recorder.rs` | counts what came of every key |
//! | `signed.rs` | a store that others can write to (feature `sign`) |

mod forgiving;
mod instrumented;
mod recorder;
#[cfg(feature = "sign")]
mod signed;
mod tiered;

pub use forgiving::{Forgiven, Forgiving};
pub use instrumented::Instrumented;
pub use recorder::Recorder;
#[cfg(feature = "sign")]
pub use signed::Signed;
#[cfg(feature = "simulation")]
pub use tiered::NearRule;
pub use tiered::Tiered;
