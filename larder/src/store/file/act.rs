//! Acts on one slot, while nobody else can change it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::errors::too_large;
use super::job::Caller;
use super::room::{self, Lock, Room};
use super::{Inner, slot};
use crate::entry::{Entry, Value};
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
    }

    fn read_at(&self, key: &Key, room: &Room, name: &str) -> Option<Entry> {
        match room::read(&room.path().join(name), slot::LONGEST) {
            Ok(bytes) => slot::entry(bytes, key, self.incarnation),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some(slot::unreadable()),
        }
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
    pub(super) fn entry(&self) -> Option<Entry> {
        self.inner.read_at(self.key, self.room, &self.name)
    }

    /// What the verbs see.
    pub(super) fn live(&self) -> Option<Entry> {
        self.entry()
            .filter(|entry| entry.is_live(self.inner.clock.now()))
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
