//! What callers are told when something fails.

use rusqlite::ErrorCode;

use super::file::File;
use crate::{Error, ErrorKind};

impl File {
    /// What a caller is told about an error of SQLite.
    pub(super) fn tell(&self, error: &rusqlite::Error) -> Error {
        let text = error.to_string();
        if text.contains("no such table") {
            return self.no_table();
        }
        if text.contains("no such column") || text.contains("has no column named") {
            return self.foreign_table().with_source(text);
        }
        let (kind, does, hint) = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
                ErrorKind::Timeout,
                format!("was locked by another process for {:?}", self.timeout),
                None,
            ),
            Some(ErrorCode::DiskFull) => (
                ErrorKind::Unavailable,
                "cannot grow: the disk is full".to_owned(),
                Some("set `max_entries`, or make room"),
            ),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => (
                ErrorKind::Unavailable,
                "cannot be written".to_owned(),
                Some("look at the permissions of the file and its folder"),
            ),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
                ErrorKind::Unavailable,
                "is no database, or a damaged one".to_owned(),
                (self.table.has_entries())
                    .then_some("delete the file and make the table anew: it is a cache"),
            ),
            Some(ErrorCode::TooBig) => {
                let text = "the value is larger than SQLite keeps";
                return Error::new(ErrorKind::TooLarge, "sqlite", text);
            }
            _ => (
                ErrorKind::Unavailable,
                "gave an unexpected answer".to_owned(),
                None,
            ),
        };
        let error = self.complaint(kind, &does).with_source(text);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }

    pub(super) fn no_table(&self) -> Error {
        let name = self.table.missed();
        self.complaint(
            ErrorKind::Invalid,
            &format!("has no table `{name}` that Larder made"),
        )
        .with_hint(self.table.made_by(self))
    }

    fn foreign_table(&self) -> Error {
        let does = format!(
            "has a table `{}` that Larder did not make",
            self.table.missed()
        );
        self.complaint(ErrorKind::Invalid, &does)
            .with_hint("choose another name by `?table=` in the URL")
    }

    pub(super) fn late(&self) -> Error {
        let does = format!("did not answer within {:?}", self.timeout);
        self.complaint(ErrorKind::Timeout, &does)
    }

    /// An error whose text is "the file does such and such".
    pub(super) fn complaint(&self, kind: ErrorKind, does: &str) -> Error {
        Error::new(kind, "sqlite", format!("`{self}` {does}"))
    }
}
