//! Errors at a line of a template.

use std::fmt;
use std::sync::Arc;

use minijinja::{Environment, Error, ErrorKind, Value};

/// The error of a rendering, as those who waited for it learn it.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Told>);

#[derive(Debug)]
struct Told {
    kind: ErrorKind,
    detail: String,
    place: Option<(String, usize)>,
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl Shared {
    pub(super) fn of(error: &Error) -> Self {
        let place = error.name().map(str::to_owned).zip(error.line());
        Self(Arc::new(Told {
            kind: error.kind(),
            detail: error.detail().unwrap_or_default().to_owned(),
            place,
        }))
    }

    pub(super) fn error(&self) -> Error {
        let Told {
            kind,
            detail,
            place,
        } = &*self.0;
        match place {
            Some((name, line)) => at(name, *line, *kind, detail),
            None => Error::new(*kind, detail.clone()),
        }
    }
}

/// An error at a line of the template `name`.
///
/// Only the engine of the templates can say where an error was: it is let meet one there.
pub(super) fn at(name: &str, line: usize, kind: ErrorKind, detail: &str) -> Error {
    let fail = {
        let detail = detail.to_owned();
        move || -> Result<Value, Error> { Err(Error::new(kind, detail.clone())) }
    };
    let mut env = Environment::empty();
    env.set_debug(false);
    env.add_function("fail", fail);
    let source = "\n".repeat(line.saturating_sub(1)) + "{{ fail() }}";
    match env.render_named_str(name, &source, Value::UNDEFINED) {
        Err(error) => error,
        Ok(_) => Error::new(kind, detail.to_owned()),
    }
}

/// A cache's error as one of a template.
pub(super) fn of_cache(error: crate::Error) -> Error {
    let hint = error.hint().map(|hint| format!(" ({hint})"));
    let what = format!("{error}{}", hint.unwrap_or_default());
    Error::new(ErrorKind::InvalidOperation, what).with_source(error)
}
