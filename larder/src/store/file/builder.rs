//! Settings of the store.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::usage::Amount;
use super::{File, Inner, room};
use crate::{Clock, Error, ErrorKind, Result};

/// Settings of a [`File`].
///
/// ```
/// # let folder = std::env::temp_dir().join(format!("larder-builder-{}", std::process::id()));
/// use larder::store::File;
///
/// let file = File::builder(&folder).max_bytes(1 << 30).max_entries(100_000).open()?;
/// assert_eq!(file.to_string(), format!("file://{}", folder.display()));
/// # let _ = std::fs::remove_dir_all(folder);
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct FileBuilder {
    path: PathBuf,
    most: Amount,
    timeout: Duration,
    trust_restarts: bool,
    clock: Clock,
}

impl FileBuilder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            most: Amount {
                entries: u64::MAX,
                bytes: 1 << 30,
            },
            timeout: Duration::from_secs(5),
            trust_restarts: false,
            clock: Clock::system(),
        }
    }

    /// How many bytes to keep, each file in whole blocks of 4 KiB. Default: 1 GiB.
    ///
    /// What is past it leaves in the background, down to nine tenths; see [`File`].
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.most.bytes = bytes.max(1 << 16);
        self
    }

    /// How many entries to keep. Default: no limit but the bytes.
    ///
    /// What is past it leaves in the background, down to nine tenths; see [`File`].
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.most.entries = entries.max(1);
        self
    }

    /// How long an operation may wait for the disk and for other processes. Default: five seconds.
    ///
    /// A [`clear`](crate::Cache::clear) is many operations.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Serves what was kept from before the machine was restarted. Default: off.
    ///
    /// Right where machines are always shut down in order. After a crash or a power cut, a value
    /// deleted or invalidated shortly before may be served again.
    pub fn trust_restarts(mut self) -> Self {
        self.trust_restarts = true;
        self
    }

    /// Tells the time by `clock`. Default: the machine's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The store. Makes the folder, with all above it, if it is missing; blocks for that moment.
    ///
    /// A path that cannot be a folder of the cache's own is an error.
    pub fn open(self) -> Result<File> {
        let root = std::path::absolute(&self.path).map_err(|error| {
            let what = format!("the path `{}` cannot be used", self.path.display());
            Error::new(ErrorKind::Invalid, "file", what).with_source(error)
        })?;
        make_all(&root)?;
        check(&root)?;
        let incarnation = if self.trust_restarts { 0 } else { boot() };
        let inner = Inner::new(root, self.clock, self.timeout, incarnation, self.most);
        Ok(File(Arc::new(inner)))
    }
}

/// Makes `path` and what is missing above it, each folder for this user alone.
fn make_all(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_all(above)?;
    }
    room::make_folder(path).map_err(|error| {
        let what = format!("cannot make the folder `{}`", path.display());
        Error::new(ErrorKind::Unavailable, "file", what)
            .with_hint("may this user write in the folder above it?")
            .with_source(error)
    })
}

/// Refuses what anybody could write into: they could put values there, or look for a way around.
fn check(root: &Path) -> Result<()> {
    let about = fs::metadata(root).map_err(|error| {
        let what = format!("cannot look at the folder `{}`", root.display());
        Error::new(ErrorKind::Unavailable, "file", what).with_source(error)
    })?;
    if !about.is_dir() {
        let what = format!("`{}` is not a folder", root.display());
        return Err(Error::new(ErrorKind::Invalid, "file", what));
    }
    if about.permissions().mode() & 0o002 != 0 {
        let what = format!("everybody may write in `{}`", root.display());
        return Err(Error::new(ErrorKind::Invalid, "file", what)
            .with_hint("name a folder in it, which will be made, or `chmod o-w` it"));
    }
    Ok(())
}

/// Tells this start of the machine from every other; zero where it does not say.
fn boot() -> u64 {
    fs::read("/proc/sys/kernel/random/boot_id").map_or(0, |id| xxh3_64(&id).max(1))
}
