//! The command `larder`: looks into caches and changes them.
//!
//! Data goes to stdout, talk to stderr. It exits with 0 when it has done what was asked, with 1 when the
//! answer is no (no such key, or one that is there already), and with 2 on an error.
//!
//! | file | what |
//! | --- | --- |
//! | `flags.rs` | the command line |
//! | `open.rs` | the cache that it means |
//! | `acts.rs` | the subcommands that are one verb |
//! | `list.rs`, `clear.rs`, `check.rs`, `table.rs` | those that are more |
//! | `value.rs`, `shown.rs` | values for people: JSON in, JSON out |
//! | `fault.rs`, `out.rs`, `progress.rs` | what is said |

mod acts;
mod check;
mod clear;
mod fault;
mod flags;
mod list;
mod open;
mod out;
mod progress;
mod shown;
mod table;
mod value;

use std::process::ExitCode;

use clap::Parser;

use crate::fault::Fault;
use crate::flags::Larder;

/// What a command came to.
enum Answer {
    Done,
    No,
}

type Outcome = Result<Answer, Fault>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match Box::pin(acts::run(Larder::parse())).await {
        Ok(Answer::Done) | Err(Fault::Gone) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(fault) => {
            fault.tell("larder");
            ExitCode::from(2)
        }
    }
}
