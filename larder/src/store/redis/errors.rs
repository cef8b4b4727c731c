//! What callers are told when something fails.

use redis::{ErrorKind as Fault, RedisError};

use super::connection::Connector;
use super::hello::NO_RUN_ID;
use crate::{Error, ErrorKind};

impl Connector {
    pub(super) fn connect_error(&self, error: &RedisError) -> Error {
        let refused = error.kind() == Fault::AuthenticationFailed
            || matches!(error.code(), Some("WRONGPASS" | "NOAUTH"));
        if refused {
            return self
                .error(ErrorKind::Unavailable, "refuses the login", error)
                .with_hint("check the user and the password in the URL");
        }
        match (error.code(), error.detail()) {
            (Some("LOADING"), _) => self.server_error(error),
            (_, Some(NO_RUN_ID)) => self
                .error(ErrorKind::Unavailable, "does not say its `run_id`", error)
                .with_hint("let the user run `INFO`, or set `trust_restarts`"),
            _ => self.cannot_connect(&error.to_string()),
        }
    }

    pub(super) fn cannot_connect(&self, cause: &str) -> Error {
        let text = format!("cannot connect to `{}`", self.address);
        Error::new(ErrorKind::Unavailable, "redis", text)
            .with_hint("is the server running?")
            .with_source(self.address.without_password(cause))
    }

    /// An error whose text is "the server `address` does such and such".
    fn error(&self, kind: ErrorKind, does: &str, cause: &RedisError) -> Error {
        self.complaint(kind, does)
            .with_source(self.address.without_password(&cause.to_string()))
    }

    pub(super) fn complaint(&self, kind: ErrorKind, does: &str) -> Error {
        Error::new(kind, "redis", format!("`{}` {does}", self.address))
    }

    /// What a caller is told about an answer that is an error, or about a broken connection.
    pub(super) fn server_error(&self, error: &RedisError) -> Error {
        let (does, hint) = match error.code() {
            _ if error.is_timeout() => {
                return self.error(ErrorKind::Timeout, "did not answer in time", error);
            }
            _ if error.is_io_error() => ("broke the connection", None),
            Some("LOADING") => ("is still loading its data", Some("try again in a moment")),
            Some("READONLY") => (
                "is a replica and takes no writes",
                Some("give the address of the primary"),
            ),
            Some("MASTERDOWN") => ("is a replica without its primary", None),
            Some("OOM") => (
                "has no memory left",
                Some("raise `maxmemory`, or set `maxmemory-policy allkeys-lfu`"),
            ),
            Some("MISCONF") => (
                "takes no writes since it cannot save them",
                Some("look into the server's log"),
            ),
            Some("NOAUTH" | "WRONGPASS") => (
                "refuses the login",
                Some("check the user and the password in the URL"),
            ),
            Some("NOPERM") => (
                "does not permit a command that Larder needs",
                Some("look at the user's rules: `ACL GETUSER`"),
            ),
            Some("CLUSTERDOWN") if self.is_node() => (
                "says that its cluster is down",
                Some("a majority of the primaries has to be up, and each slot be somebody's"),
            ),
            Some("MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN") => (
                "is a node of a cluster",
                Some("write the address as `redis+cluster://host:6379`"),
            ),
            Some("BUSY") => ("is busy with somebody's script", None),
            _ => ("gave an unexpected reply", None),
        };
        let error = self.error(ErrorKind::Unavailable, does, error);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}
