//! What callers are told when something fails.

use mysql_async::{DriverError, Error as Fault};

use super::server::Server;
use crate::{Error, ErrorKind};

/// The server's number for an error, if it is one of the server's.
fn code(error: &Fault) -> Option<u16> {
    match error {
        Fault::Server(error) => Some(error.code),
        _ => None,
    }
}

/// Whether another try of the same act can succeed, since nothing of it was done: a deadlock, or a row
/// that changed meanwhile.
pub(super) fn is_clash(error: &Fault) -> bool {
    matches!(code(error), Some(1213 | 1020))
}

/// Whether the server shuts down, or takes no writes.
pub(super) fn is_broken(error: &Fault) -> bool {
    matches!(code(error), None | Some(1053 | 1290 | 1146 | 1836 | 1927))
}

impl Server {
    pub(super) fn connect_error(&self, error: &Fault) -> Error {
        match code(error) {
            Some(1045 | 1044 | 1698) => self
                .error(ErrorKind::Unavailable, "refuses the login", error)
                .with_hint("check the user, the password and the database in the URL"),
            Some(1049) => self
                .error(ErrorKind::Unavailable, "has no such database", error)
                .with_hint("check the database in the URL"),
            Some(1040) => self.error(ErrorKind::Unavailable, "takes no more connections", error),
            _ => self.cannot_connect(&error.to_string()),
        }
    }

    pub(super) fn cannot_connect(&self, cause: &str) -> Error {
        let text = format!("cannot connect to `{self}`");
        Error::new(ErrorKind::Unavailable, "mysql", text)
            .with_hint("is the server running?")
            .with_source(self.address.without_password(cause))
    }

    /// What a caller is told about an answer that is an error, or about a broken connection.
    pub(super) fn tell(&self, error: &Fault) -> Error {
        let too_large = matches!(error, Fault::Driver(DriverError::PacketTooLarge));
        match code(error) {
            _ if too_large => self.too_large(),
            None => self.error(ErrorKind::Unavailable, "broke the connection", error),
            Some(1146) => self.no_table().with_source(error.to_string()),
            Some(1054 | 1072 | 1136) => self.foreign_table().with_source(error.to_string()),
            Some(1153) => self.too_large(),
            Some(1205 | 1969 | 3024) => {
                self.error(ErrorKind::Timeout, "did not answer in time", error)
            }
            Some(1142) if error.to_string().contains("CREATE command denied") => self
                .error(ErrorKind::Unavailable, "does not permit making a table", error)
                .with_hint("grant the user `CREATE` on the database, or let another run what `larder table create --dry-run` prints"),
            Some(1142 | 1143) => self
                .error(
                    ErrorKind::Unavailable,
                    "does not permit what Larder needs",
                    error,
                )
                .with_hint("grant the user select, insert, update and delete on both tables"),
            Some(1290 | 1836) => self
                .error(ErrorKind::Unavailable, "takes no writes", error)
                .with_hint("give the address of the primary"),
            Some(1021 | 1114) => self.error(ErrorKind::Unavailable, "has a full disk", error),
            Some(1406) => self
                .error(ErrorKind::Invalid, "takes no name as long as this", error)
                .with_hint("a tag space may have 500 bytes"),
            Some(1053 | 1927) => self.error(ErrorKind::Unavailable, "is shutting down", error),
            Some(_) => self.error(ErrorKind::Unavailable, "gave an unexpected answer", error),
        }
    }

    pub(super) fn too_large(&self) -> Error {
        let does = "takes no value as large as this";
        self.complaint(ErrorKind::TooLarge, does).with_hint(
            "raise `max_allowed_packet` on the server; no value may have more than 64 MiB",
        )
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

    fn error(&self, kind: ErrorKind, does: &str, cause: &Fault) -> Error {
        self.complaint(kind, does)
            .with_source(self.address.without_password(&cause.to_string()))
    }

    /// An error whose text is "the server does such and such".
    pub(super) fn complaint(&self, kind: ErrorKind, does: &str) -> Error {
        Error::new(kind, "mysql", format!("`{self}` {does}"))
    }
}
