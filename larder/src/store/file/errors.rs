//! What callers are told when something fails.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use tokio::task::JoinError;

use super::Inner;
use crate::{Error, ErrorKind};

impl Inner {
    /// An error of the file system, met while doing `what` to `path`.
    pub(super) fn failed(&self, what: &str, path: &Path, error: io::Error) -> Error {
        use io::ErrorKind as Fault;
        let path = path.display();
        let (kind, hint) = match error.kind() {
            Fault::TimedOut => return self.too_slow(),
            Fault::FileTooLarge => (
                ErrorKind::TooLarge,
                "the file system or a limit of the process takes no file of that size",
            ),
            Fault::StorageFull | Fault::QuotaExceeded => (
                ErrorKind::Unavailable,
                "the disk is full: make room, or lower `max_bytes`",
            ),
            Fault::PermissionDenied => (
                ErrorKind::Unavailable,
                "does the folder belong to the user that runs this?",
            ),
            Fault::ReadOnlyFilesystem => (
                ErrorKind::Unavailable,
                "the file system is mounted read-only",
            ),
            Fault::NotFound => (
                ErrorKind::Unavailable,
                "the folder is gone: make it again, or mount what it was on",
            ),
            _ if is_short_of_files(&error) => (
                ErrorKind::Unavailable,
                "too many files are open: raise the limit (`ulimit -n`)",
            ),
            _ => (ErrorKind::Unavailable, "look at the disk and at its mount"),
        };
        Error::new(kind, "file", format!("cannot {what} `{path}`"))
            .with_hint(hint)
            .with_source(error)
    }

    pub(super) fn too_slow(&self) -> Error {
        let text = format!(
            "`{}` did not answer within {:?}",
            self.root.display(),
            self.timeout
        );
        Error::new(ErrorKind::Timeout, "file", text).with_hint(
            "is the disk overloaded, or does another process of this folder stand still? \
             or raise `timeout`",
        )
    }

    pub(super) fn broken(&self, cause: JoinError) -> Error {
        let text = format!("an act on `{}` broke off", self.root.display());
        Error::new(ErrorKind::Unavailable, "file", text).with_source(cause)
    }
}

pub(super) fn too_large(length: u64, most: u64) -> Error {
    let text = format!("an entry of {length} bytes is larger than the {most} that one may have");
    Error::new(ErrorKind::TooLarge, "file", text)
        .with_hint("raise `max_bytes`, or keep the value in parts")
}

fn is_short_of_files(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}
