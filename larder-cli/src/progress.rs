//! What long work says of itself, on a line of the terminal, where there is one.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::out::talk;

/// How often a line changes. Work that is over sooner says nothing.
const TICK: Duration = Duration::from_millis(200);

/// A line that is gone when this is.
pub(crate) struct Progress {
    has_terminal: bool,
    is_shown: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            has_terminal: io::stderr().is_terminal(),
            is_shown: false,
        }
    }

    pub(crate) fn show(&mut self, text: &str) {
        if self.has_terminal {
            self.is_shown = true;
            talk(&format!("\r\x1b[K{text}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            talk("\r\x1b[K");
        }
    }
}

/// Waits for `work`, and shows how long that takes.
pub(crate) async fn watched<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut progress = Progress::new();
    let start = Instant::now();
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = sleep(TICK) => {
                let seconds = start.elapsed().as_secs_f64();
                progress.show(&format!("{what} {seconds:.1} s"));
            }
        }
    }
}
