//! The command `larder`: looks into caches and changes them.
//!
//! Data goes to stdout, talk to stderr. It exits with 0 when it has done what was asked, with 1 when the
//! answer is no (no such key, or one that is there already), and with 2 on an error.

mod acts;
mod flags;
mod open;
mod value;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::flags::Larder;

/// What a command came to.
enum Answer {
    Done,
    No,
}

type Outcome = Result<Answer, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match acts::run(Larder::parse()).await {
        Ok(Answer::Done) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        // Whoever read the output has gone, as `head` does.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&*error);
            ExitCode::from(2)
        }
    }
}

fn tell(error: &(dyn std::error::Error + 'static)) {
    let mut text = format!("larder: {error}\n");
    if let Some(hint) = error
        .downcast_ref::<larder::Error>()
        .and_then(larder::Error::hint)
    {
        text.push_str("hint: ");
        text.push_str(hint);
        text.push('\n');
    }
    // There is nobody left to tell that telling failed.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
