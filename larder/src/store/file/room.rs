//! A folder whose files are changed by one at a time, and each of them whole or not at all.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use rustix::fs::OFlags;

use super::job::Caller;
use crate::Moment;

/// Begins the names of files that are being written.
const DRAFT: &str = ".tmp-";
/// The name of the file that is locked.
const LOCK: &str = ".lock";
/// The last moment that every file system can write down: the year 2100.
const LAST: Moment = Moment::from_millis(4_102_444_800_000);

/// A folder of which one thread of one process at a time changes the files.
#[derive(Debug)]
pub(super) struct Room {
    path: PathBuf,
    here: Mutex<()>,
}

/// The right to change the files of a room.
///
/// Who reads needs none: a file is replaced by a rename, so that it is the old one or the new.
pub(super) struct Lock<'a> {
    room: &'a Room,
    _here: MutexGuard<'a, ()>,
    // Closing the file unlocks it.
    _everywhere: fs::File,
}

impl Room {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            here: Mutex::new(()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the right to change files, for as long as `caller` does.
    pub(super) fn lock(&self, caller: &Caller) -> io::Result<Lock<'_>> {
        let here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pause = Duration::from_micros(20);
        loop {
            // Asked before anything is changed: an act that was given up must not happen later.
            if caller.is_gone() {
                return Err(ErrorKind::TimedOut.into());
            }
            if let Some(everywhere) = self.try_lock_everywhere()? {
                return Ok(Lock {
                    room: self,
                    _here: here,
                    _everywhere: everywhere,
                });
            }
            // Not `File::lock`, which would wait for a process that stands still, and for ever.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
        }
    }

    /// The right to change files, if nobody else has it.
    pub(super) fn try_lock(&self) -> Option<Lock<'_>> {
        let here = match self.here.try_lock() {
            Ok(here) => here,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let everywhere = self.try_lock_everywhere().ok().flatten()?;
        Some(Lock {
            room: self,
            _here: here,
            _everywhere: everywhere,
        })
    }

    fn try_lock_everywhere(&self) -> io::Result<Option<fs::File>> {
        let path = self.path.join(LOCK);
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => self.make(&path)?,
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        // A lock on a file that was removed meanwhile keeps nobody out.
        Ok((file.metadata()?.nlink() > 0).then_some(file))
    }

    /// Makes the folder if it is missing, but none above it, and the file to lock.
    fn make(&self, lock: &Path) -> io::Result<fs::File> {
        make_folder(&self.path)?;
        match create(lock) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => fs::File::open(lock),
            file => file,
        }
    }

    /// The names of what is in the folder; nothing where there is none.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }
}

impl Lock<'_> {
    /// Puts a file made of `parts` in the place of `name`, with `until` as its modification time.
    ///
    /// `draw` makes the name of the file that is written first.
    pub(super) fn replace(
        &self,
        name: &str,
        parts: &[&[u8]],
        until: Option<Moment>,
        draw: u64,
    ) -> io::Result<()> {
        let draft = format!("{DRAFT}{}-{draw:016x}", std::process::id());
        let draft = self.room.path.join(draft);
        let written = write(&draft, parts, until)
            .and_then(|()| fs::rename(&draft, self.room.path.join(name)));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }

    /// Removes what a writer left that did not come to its end: none but who holds the lock writes.
    pub(super) fn remove_strays(&self) {
        let names = self.room.names().unwrap_or_default();
        for name in names.iter().filter(|name| is_draft(name)) {
            let _ = self.remove(name);
        }
    }

    /// Removes the file `name`; one that is not there is no error.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.room.path.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

fn write(path: &Path, parts: &[&[u8]], until: Option<Moment>) -> io::Result<()> {
    let mut file = create(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    match until {
        Some(until) => file.set_modified(until.min(LAST).to_system_time()),
        None => Ok(()),
    }
}

/// Whether a file of this name is one that is being written, or was.
pub(super) fn is_draft(name: &str) -> bool {
    name.starts_with(DRAFT)
}

/// Makes a file for this user alone, whatever the umask.
pub(super) fn create(path: &Path) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Makes a folder for this user alone, whatever the umask, unless it is there.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o700)),
    }
}

/// The whole of a file, unless it is longer than `most`.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    if length > most {
        return Err(ErrorKind::FileTooLarge.into());
    }
    // One byte more, so that the end is met without another allocation.
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first bytes of a file, at most `most`.
pub(super) fn read_start(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file for reading, without waiting for the other end of a pipe that somebody put there,
/// and without writing down that it was read.
fn open(path: &Path) -> io::Result<fs::File> {
    let open = |flags: OFlags| {
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    };
    #[cfg(any(target_os = "linux", target_os = "android"))]
    match open(OFlags::NONBLOCK | OFlags::NOATIME) {
        // Only the owner may leave the time of reading as it is.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
        file => return file,
    }
    open(OFlags::NONBLOCK)
}
