//! What `larder` says: exit code, stdout and stderr, whole.
//!
//! | file | what |
//! | --- | --- |
//! | `ground.rs` | running it, also on a terminal |
//! | `flags.rs` | flags, help, the environment, completions |
//! | `values.rs` | values for people and for programs |
//! | `verbs.rs` | the verbs, over every store |
//! | `listing.rs`, `clearing.rs` | keys, stats, clear |
//! | `settings.rs` | files of settings, and `check` |
//! | `tables.rs` | tables of SQL stores |
//! | `outboxes.rs` | outboxes, watching and draining |
//! | `faults.rs` | what is told of what is wrong |

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

// A link to the library's, whose scripts are found beside it.
#[path = "../support/mod.rs"]
mod support;

mod clearing;
mod faults;
mod flags;
mod ground;
mod listing;
mod outboxes;
mod settings;
mod tables;
mod values;
mod verbs;
