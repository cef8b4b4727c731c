//! Whole responses: which of them are kept, for whom, for how long and under which key.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `keys.rs` | the names under which pages are kept |
//! | `rules/` | what HTTP says about keeping a response, as pure functions |

pub mod keys;
pub mod rules;
