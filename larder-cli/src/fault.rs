//! Why something could not be done, as the reader is told: what, the causes, a hint.

use std::error::Error;
use std::io;

use larder::ErrorKind;

use crate::out;

/// How the hint of a store begins that misses its table.
const MAKE_TABLE: &str = "run `larder table create";

/// Why a command could not be done.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Whoever read the output has gone, as `head` does.
    Gone,
    /// What the reader is told.
    Told(Told),
}

#[derive(Debug)]
pub(crate) struct Told {
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
    /// Whether a store did not answer in time.
    is_late: bool,
}

impl Fault {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self::Told(Told {
            what: what.into(),
            causes: Vec::new(),
            hint: None,
            is_late: false,
        })
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        self.map(|told| told.hint = Some(hint.into()))
    }

    /// That stdout could not be written.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Gone;
        }
        Self::new("cannot write to stdout").caused_by(error)
    }

    pub(crate) fn caused_by(self, error: &(dyn Error + 'static)) -> Self {
        self.map(|told| {
            let mut next = Some(error);
            while let Some(error) = next {
                told.add_cause(&error.to_string());
                next = error.source();
            }
        })
    }

    /// Names what was being done, where a store did not answer in time.
    pub(crate) fn during(self, act: &str) -> Self {
        self.map(|told| {
            if told.is_late {
                told.what = format!("{act}: {}", told.what);
                let wait =
                    "a longer `operation_timeout`, such as `?operation_timeout=5s`, waits longer";
                told.hint.get_or_insert_with(|| wait.to_owned());
            }
        })
    }

    /// Says by which command a missing table is made: what the store knows of it lacks the password.
    pub(crate) fn with_table_made_by(self, command: &str) -> Self {
        self.map(|told| {
            if told
                .hint
                .as_ref()
                .is_some_and(|it| it.starts_with(MAKE_TABLE))
            {
                told.hint = Some(command.to_owned());
            }
        })
    }

    /// Tells it on stderr, as something about `whom`.
    pub(crate) fn tell(&self, whom: &str) {
        let Self::Told(told) = self else {
            return;
        };
        let causes = told.causes.iter().map(|cause| format!("cause: {cause}\n"));
        let hint = told.hint.iter().map(|hint| format!("hint: {hint}\n"));
        let rest: String = causes.chain(hint).collect();
        let text = format!("{whom}: {}\n{rest}", told.what);
        out::talk(&text);
    }

    fn map(mut self, change: impl FnOnce(&mut Told)) -> Self {
        if let Self::Told(told) = &mut self {
            change(told);
        }
        self
    }
}

impl Told {
    /// Adds a cause in one line, unless it was told already.
    fn add_cause(&mut self, text: &str) {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = [&self.what];
        let is_new = !said
            .into_iter()
            .chain(&self.causes)
            .any(|it| it.contains(&text));
        if is_new && !text.is_empty() {
            self.causes.push(text);
        }
    }
}

impl From<larder::Error> for Fault {
    fn from(error: larder::Error) -> Self {
        let fault = Self::new(error.to_string()).map(|told| {
            told.hint = error.hint().map(str::to_owned);
            told.is_late = error.kind() == ErrorKind::Timeout;
        });
        match error.source() {
            Some(cause) => fault.caused_by(cause),
            None => fault,
        }
    }
}
