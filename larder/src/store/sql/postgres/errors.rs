//! What callers are told when something fails.

use tokio_postgres::error::SqlState;

use super::server::Server;
use crate::{Error, ErrorKind};

/// Whether another try of the same act can succeed, since nothing of it was done.
pub(super) fn is_clash(error: &tokio_postgres::Error) -> bool {
    let code = error.code();
    code == Some(&SqlState::T_R_DEADLOCK_DETECTED)
        || code == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}

/// Whether the connection can no longer be used.
pub(super) fn is_broken(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        None => true,
        // The server shuts down, is a replica, or has forgotten or outlived a prepared statement.
        Some(code) => ["57P", "25006", "26000", "0A000", "42P01", "42703"]
            .iter()
            .any(|start| code.code().starts_with(start)),
    }
}

impl Server {
    pub(super) fn connect_error(&self, error: &tokio_postgres::Error) -> Error {
        match error.code().map(SqlState::code) {
            Some("28000" | "28P01") => self
                .error(ErrorKind::Unavailable, "refuses the login", error)
                .with_hint("check the user and the password in the URL"),
            Some("3D000") => self
                .error(ErrorKind::Unavailable, "has no such database", error)
                .with_hint("check the database in the URL"),
            Some("57P03") => self.error(ErrorKind::Unavailable, "is still starting", error),
            Some("53300") => self.error(ErrorKind::Unavailable, "takes no more connections", error),
            _ => self.cannot_connect(&causes(error)),
        }
    }

    pub(super) fn cannot_connect(&self, cause: &str) -> Error {
        let text = format!("cannot connect to `{self}`");
        Error::new(ErrorKind::Unavailable, "postgres", text)
            .with_hint("is the server running?")
            .with_source(self.address.without_password(cause))
    }

    /// What a caller is told about an answer that is an error, or about a broken connection.
    pub(super) fn tell(&self, error: &tokio_postgres::Error) -> Error {
        let Some(code) = error.code() else {
            return self.error(ErrorKind::Unavailable, "broke the connection", error);
        };
        match code.code() {
            "42P01" => self.no_table().with_source(causes(error)),
            "42703" => self.foreign_table().with_source(causes(error)),
            "3F000" => self
                .error(ErrorKind::Invalid, "has no such schema", error)
                .with_hint("make the schema, or choose another by `?table=` in the URL"),
            "57014" => self.error(ErrorKind::Timeout, "did not answer in time", error),
            // Of a table that is there, the table is named.
            "42501" if causes(error).contains(" for schema ") => self
                .error(ErrorKind::Unavailable, "does not permit making a table", error)
                .with_hint("grant the user `CREATE` on the schema, or let another run what `larder table create --dry-run` prints"),
            "42501" => self
                .error(
                    ErrorKind::Unavailable,
                    "does not permit what Larder needs",
                    error,
                )
                .with_hint("grant the user select, insert, update and delete on both tables"),
            "25006" => self
                .error(ErrorKind::Unavailable, "takes no writes", error)
                .with_hint("give the address of the primary"),
            "53100" => self.error(ErrorKind::Unavailable, "has a full disk", error),
            "54000" => self.error(
                ErrorKind::TooLarge,
                "takes no value as large as this",
                error,
            ),
            code if code.starts_with("57P") => {
                self.error(ErrorKind::Unavailable, "is shutting down", error)
            }
            _ => self.error(ErrorKind::Unavailable, "gave an unexpected answer", error),
        }
    }

    fn no_table(&self) -> Error {
        let name = self.address.table.missed();
        let does = format!("has no table `{name}` that Larder made");
        self.complaint(ErrorKind::Invalid, &does)
            .with_hint(self.address.table.made_by(self))
    }

    fn foreign_table(&self) -> Error {
        let name = self.address.table.missed();
        let does = format!("has a table `{name}` that Larder did not make");
        self.complaint(ErrorKind::Invalid, &does)
            .with_hint("choose another name by `?table=` in the URL")
    }

    pub(super) fn late(&self) -> Error {
        let does = format!("did not answer within {:?}", self.timeout);
        self.complaint(ErrorKind::Timeout, &does)
    }

    pub(super) fn odd(&self) -> Error {
        self.complaint(ErrorKind::Unavailable, "gave an unexpected answer")
    }

    fn error(&self, kind: ErrorKind, does: &str, cause: &tokio_postgres::Error) -> Error {
        self.complaint(kind, does)
            .with_source(self.address.without_password(&causes(cause)))
    }

    /// An error whose text is "the server does such and such".
    pub(super) fn complaint(&self, kind: ErrorKind, does: &str) -> Error {
        Error::new(kind, "postgres", format!("`{self}` {does}"))
    }
}

/// An error and what is behind it, in one line.
pub(super) fn causes(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
