//! Settings of the store.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Sqlite;
use super::file::File;
use crate::Result;
use crate::store::sql::settings::{Settings, common_setters};
use crate::store::sql::table::{self, Dialect, Parts, Table};
use crate::store::sql::url::{Form, Url};

pub(super) const FORM: Form = Form {
    place: "sqlite",
    example: "sqlite:///path/to/file.db?table=larder",
};

/// Settings of a [`Sqlite`].
///
/// ```
/// use std::time::Duration;
/// use larder::store::Sqlite;
///
/// let sqlite = Sqlite::builder("sqlite:///tmp/cache.db").timeout(Duration::from_secs(1)).lazy()?;
/// assert_eq!(sqlite.to_string(), "sqlite:///tmp/cache.db");
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct SqliteBuilder {
    url: String,
    settings: Settings,
    trust_restarts: bool,
    sync_commits: bool,
}

impl SqliteBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            settings: Settings::new(Duration::from_secs(5)),
            trust_restarts: false,
            sync_commits: false,
        }
    }

    common_setters!("five seconds");

    /// Serves what the file kept from before the machine was restarted. Default: off.
    ///
    /// A power cut can take back the last commits, invalidations among them: so a file that was
    /// last opened before a restart is emptied. Set this where that is no matter.
    pub fn trust_restarts(mut self) -> Self {
        self.trust_restarts = true;
        self
    }

    /// Lets each commit wait for the disk, so that a power cut takes nothing back. Default: off.
    ///
    /// The file then outlives restarts. Costs a wait for the disk for each group of writes.
    pub fn sync_commits(mut self) -> Self {
        self.sync_commits = true;
        self
    }

    /// The store, connected; an error says so if its table is missing.
    pub async fn connect(self) -> Result<Sqlite> {
        let sqlite = self.lazy()?;
        sqlite.0.gate.link().await?;
        Ok(sqlite)
    }

    /// The store, which opens its file when it is first used.
    pub fn lazy(self) -> Result<Sqlite> {
        let (path, table) = parse(&self.url, self.settings.parts)?;
        let file = File {
            path,
            table,
            timeout: self.settings.timeout,
            connect_timeout: self.settings.connect_timeout,
            clock: self.settings.clock.clone(),
            trust_restarts: self.trust_restarts,
            sync_commits: self.sync_commits,
        };
        Ok(Sqlite::new(file, self.settings))
    }
}

fn parse(url: &str, parts: Parts) -> Result<(PathBuf, Table)> {
    let mut url = Url::parse(url, FORM)?;
    if url.scheme != "sqlite" {
        return Err(FORM.bad("it does not begin with `sqlite://`"));
    }
    // `sqlite://cache.db` is a file of the current folder.
    let path = format!("{}{}", url.host, url.path);
    if path.is_empty() || path.ends_with('/') || url.user.is_some() || url.port.is_some() {
        return Err(FORM.bad("it names no file"));
    }
    let table = url.take("table").unwrap_or_else(|| table::DEFAULT.into());
    let parts = url.parts(parts, FORM)?;
    url.all_taken(FORM, "`table` and `outbox`")?;
    let table = Table::parse(Dialect::Sqlite, FORM.place, &table)?.with(parts);
    Ok((path.into(), table))
}

impl fmt::Debug for SqliteBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteBuilder")
            .field(
                "file",
                &parse(&self.url, self.settings.parts)
                    .ok()
                    .map(|(path, _)| path),
            )
            .field("settings", &self.settings)
            .field("trust_restarts", &self.trust_restarts)
            .field("sync_commits", &self.sync_commits)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_url_names_a_file_and_a_table() {
        for (url, path, table) in [
            ("sqlite:///tmp/a.db", "/tmp/a.db", "larder"),
            ("sqlite://a.db?table=pages", "a.db", "pages"),
            ("sqlite:///tmp/a%20b.db", "/tmp/a b.db", "larder"),
        ] {
            let (found, found_table) = parse(url, Parts::Entries).expect(url);

            assert_eq!((found, found_table.name()), (path.into(), table.to_owned()));
        }
        for url in [
            "sqlite://",
            "sqlite:///tmp/",
            "sqlite://me@a.db",
            "sqlite:///a?mode=ro",
            "sqlite:///a?table=a%20b",
            "postgres:///a",
        ] {
            let error = parse(url, Parts::Entries).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
        }
    }
}
