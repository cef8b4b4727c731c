//! Acts on one slot, while nobody else can change it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;

use super::errors::too_large;
use super::job::Caller;
use super::room::{self, Lock, Room};
use super::{Inner, clearing, slot};
use crate::entry::{Entry, Mark, Stamp, State, Value};
use crate::{Key, MAX_DECODED, Result};

/// A slot that is held.
pub(super) struct Slot<'a> {
    inner: &'a Arc<Inner>,
    key: &'a Key,
    room: &'a Room,
    name: String,
    lock: Lock<'a>,
}

impl Inner {
    /// What the slot of `key` holds; what cannot be read counts as unreadable.
    pub(super) fn read(&self, key: &Key) -> Option<Entry> {
        let (number, name) = slot::place(key.name());
        self.read_at(key, &self.rooms[number], &name)
            .unwrap_or_else(|_| Some(slot::unreadable()))
    }

    /// What the file `name` holds; an error where it may be a value that cannot be read just now.
    fn read_at(&self, key: &Key, room: &Room, name: &str) -> io::Result<Option<Entry>> {
        match room::read(&room.path().join(name), slot::LONGEST) {
            Ok(bytes) => Ok(slot::entry(bytes, key, self.incarnation)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if is_foreign(&error) => Ok(Some(slot::unreadable())),
            Err(error) => Err(error),
        }
    }

    /// Puts `mark` into the slot of `key` if its stamp is `seen`.
    pub(super) fn mark(
        self: &Arc<Self>,
        key: &Key,
        seen: Option<Stamp>,
        mark: Mark,
        caller: &Caller,
    ) -> Result<bool> {
        let slot = self.slot(key, caller)?;
        let found = slot.entry()?;
        let is_lease = mark.state == State::Loading;
        let may = found.as_ref().map(|found| found.stamp) == seen
            && !(is_lease && clearing::covers(&self.root, key.name()));
        if may {
            let marked = found.map_or_else(|| Entry::bare(mark), |found| found.marked(mark));
            slot.change(&marked)?;
        }
        Ok(may)
    }

    /// Holds the slot of `key`.
    pub(super) fn slot<'a>(self: &'a Arc<Self>, key: &'a Key, caller: &Caller) -> Result<Slot<'a>> {
        let (number, name) = slot::place(key.name());
        let room = &self.rooms[number];
        let lock = room
            .lock(caller)
            .map_err(|error| self.failed("lock", room.path(), error))?;
        Ok(Slot {
            inner: self,
            key,
            room,
            name,
            lock,
        })
    }
}

impl Slot<'_> {
    /// What the slot holds.
    pub(super) fn entry(&self) -> Result<Option<Entry>> {
        self.inner
            .read_at(self.key, self.room, &self.name)
            .map_err(|error| self.inner.failed("read", &self.path(), error))
    }

    /// What the verbs see.
    pub(super) fn live(&self) -> Result<Option<Entry>> {
        let now = self.inner.clock.now();
        Ok(self.entry()?.filter(|entry| entry.is_live(now)))
    }

    /// Puts `entry` in the place of what is there. Where that fails, what was there is gone.
    pub(super) fn put(&self, entry: &Entry) -> Result<()> {
        let Err(error) = self.change(entry) else {
            return Ok(());
        };
        // The second error would say more: then the old value is still there.
        self.remove()?;
        Err(error)
    }

    /// Puts `entry` in the place of what is there. Where that fails, what was there stays.
    pub(super) fn change(&self, entry: &Entry) -> Result<()> {
        let until = entry.gone_after();
        if until <= self.inner.clock.now() {
            return self.remove();
        }
        let frame = entry.to_full_frame(self.key, self.inner.incarnation);
        let head = slot::head(self.key, &frame);
        let length = (head.len() + frame.len()) as u64;
        let most = self.inner.usage.most().bytes.min(slot::LONGEST);
        let body = entry.value.as_ref().map_or(0, Value::len) as u64;
        if length > most || body > MAX_DECODED {
            return Err(too_large(length, most.min(MAX_DECODED)));
        }
        let before = self.length();
        let draw = self.inner.clock.random();
        self.lock
            .replace(&self.name, &[&head, &frame], Some(until), draw)
            .map_err(|error| self.inner.failed("write", &self.path(), error))?;
        self.inner.usage.changed(before, Some(length));
        self.inner.start_sweeping();
        Ok(())
    }

    /// Empties the slot.
    pub(super) fn remove(&self) -> Result<()> {
        let before = self.length();
        self.lock
            .remove(&self.name)
            .map_err(|error| self.inner.failed("remove", &self.path(), error))?;
        self.inner.usage.changed(before, None);
        Ok(())
    }

    fn length(&self) -> Option<u64> {
        fs::symlink_metadata(self.path())
            .ok()
            .map(|about| about.len())
    }

    fn path(&self) -> PathBuf {
        self.room.path().join(&self.name)
    }
}

/// Whether what is there is no file of this store, now and later: a folder, a socket, a link to itself,
/// another user's, or one that is too long.
fn is_foreign(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::FileTooLarge
        || matches!(
            Errno::from_io_error(error),
            Some(
                Errno::ACCESS
                    | Errno::ISDIR
                    | Errno::LOOP
                    | Errno::NODEV
                    | Errno::NXIO
                    | Errno::PERM
            )
        )
}
