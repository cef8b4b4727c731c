//! Data to stdout, talk to stderr.

use std::fmt::Display;
use std::io::{self, Write as _};

use crate::fault::Fault;
use crate::{Answer, Outcome};

/// Writes data, and waits until it has arrived.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Fault> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|error| Fault::stdout(&error))
}

/// Writes a line of data.
pub(crate) fn say(what: impl Display) -> Outcome {
    write(format!("{what}\n").as_bytes())?;
    Ok(Answer::Done)
}

/// Says something to the reader.
pub(crate) fn talk(text: &str) {
    // There is nobody left to tell that telling failed.
    let _ = io::stderr().write_all(text.as_bytes());
}
