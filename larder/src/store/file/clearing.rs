//! Clears that are under way.
//!
//! A clear walks the folders one after the other while others write: a lease that is taken where it
//! has been already would outlive it, and what was loaded before with it. So a file says that it is
//! under way, and until it is gone no lease is taken within its scope, and nothing is written under
//! one. The clear holds a lock on that file; one without a lock is a dead process's: it counts for
//! nothing, and a sweep removes it.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::room::{create, make_folder};

/// The folder of these files; there is none while nobody clears.
const FOLDER: &str = "clearing";
/// Begins the names of files that are being written.
const DRAFT: &str = ".tmp-";
/// How often a folder is made that another clear removes at its end, or a draft that a sweep took for
/// a dead process's.
const MOST_TRIES: usize = 100;

/// A clear of this process, until it is dropped.
#[derive(Debug)]
pub(super) struct Clearing {
    path: PathBuf,
    // Closing it unlocks it.
    _file: fs::File,
}

impl Clearing {
    /// Says that `scope` is being cleared; `draw` makes the file's name.
    pub(super) fn begin(root: &Path, scope: &str, draw: u64) -> io::Result<Self> {
        let folder = root.join(FOLDER);
        let draft = folder.join(format!("{DRAFT}{draw:016x}"));
        let path = folder.join(format!("{draw:016x}"));
        let mut tries = 0;
        loop {
            match announce(&folder, &draft, &path, scope) {
                Ok(file) => return Ok(Self { path, _file: file }),
                Err(error) if error.kind() == ErrorKind::NotFound && tries < MOST_TRIES => {
                    tries += 1;
                }
                Err(error) => {
                    let _ = fs::remove_file(&draft);
                    return Err(error);
                }
            }
        }
    }
}

impl Drop for Clearing {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        // Fails while others clear.
        let _ = self.path.parent().map(fs::remove_dir);
    }
}

/// Makes the file `path`, locked and whole before it has its name.
fn announce(folder: &Path, draft: &Path, path: &Path, scope: &str) -> io::Result<fs::File> {
    make_folder(folder)?;
    let mut file = create(draft)?;
    file.lock()?;
    file.write_all(scope.as_bytes())?;
    fs::rename(draft, path)?;
    Ok(file)
}

/// Removes what dead processes have left: nobody has it locked.
pub(super) fn sweep(root: &Path) {
    let folder = root.join(FOLDER);
    let Ok(entries) = fs::read_dir(&folder) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if let Ok(file) = fs::File::open(&path)
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(&path);
        }
    }
    // Fails while others clear.
    let _ = fs::remove_dir(&folder);
}

/// Whether the slot `name` is within a clear that is under way. What cannot be told counts as yes.
pub(super) fn covers(root: &Path, name: &str) -> bool {
    let entries = match fs::read_dir(root.join(FOLDER)) {
        Err(error) => return error.kind() != ErrorKind::NotFound,
        Ok(entries) => entries,
    };
    for entry in entries {
        let Ok(entry) = entry else { return true };
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(DRAFT.as_bytes())
        {
            continue;
        }
        match is_under_way(&entry.path(), name) {
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(true) | Err(_) => return true,
        }
    }
    false
}

fn is_under_way(path: &Path, name: &str) -> io::Result<bool> {
    let file = fs::File::open(path)?;
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => {}
        Err(fs::TryLockError::Error(error)) => return Err(error),
        Ok(()) => {
            // Its process has died.
            let _ = fs::remove_file(path);
            return Ok(false);
        }
    }
    let scope = fs::read_to_string(path)?;
    Ok(name.starts_with(&scope))
}
