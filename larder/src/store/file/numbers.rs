//! The numbers of tag spaces, a file for each.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `larder`, 0, and the format: 2 |
//! | 8 | generation: drawn at random with every write |
//! | 8 | XXH3 of all that follows |
//! | 3 × 8 | era, counter, floor |
//! | 4 + … | name of the space |
//! | 4 | how many tags |
//! | … | for each tag: 4 + its name, 8 its number |
//!
//! A file is replaced as a whole, so that its first sixteen bytes tell it from every other there
//! ever was: while they are those of the file that was parsed last, what was parsed is true. Time
//! and number of a file could not tell that, since both come again.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use super::job::Caller;
use super::room::{self, Lock, Room};
use super::slot;
use crate::store::numbers::Space;
use crate::store::{Numbers, Tags};
use crate::{Clock, Tag};

const MAGIC: &[u8; 8] = b"larder\x00\x02";
/// Magic and generation.
const START: usize = 16;
/// Bytes of a space's numbers before the oldest half is dropped: every act writes them all.
const MOST: u64 = 1 << 20;
/// The longest file that is read.
const LONGEST: u64 = 1 << 28;
/// Spaces kept parsed; past that, all are read anew.
const MOST_PARSED: usize = 256;

/// The numbers of every space, in the folder `numbers`.
#[derive(Debug)]
pub(super) struct NumberFiles {
    room: Room,
    parsed: Mutex<HashMap<Box<str>, Parsed>>,
}

#[derive(Debug, Clone)]
struct Parsed {
    start: [u8; START],
    space: Arc<Space>,
}

/// What is in the place of a space's file.
enum Kept {
    Numbers(Parsed),
    /// Nothing, or what can never be read.
    Nothing,
}

impl NumberFiles {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            room: Room::new(path),
            parsed: Mutex::default(),
        }
    }

    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    /// The numbers of `tags`; a space that has none gets its era now. Those that cannot be read have
    /// an era of their own, so that whatever is judged by them is a miss.
    pub(super) fn read(&self, tags: Tags<'_>, clock: &Clock, caller: &Caller) -> Numbers {
        let file = file_name(tags.space);
        let space = match self.kept(tags.space, &file) {
            Ok(Kept::Numbers(parsed)) => parsed.space,
            Ok(Kept::Nothing) => match self.change(tags.space, clock, caller, |_| ()) {
                Ok((space, ())) => space,
                Err(_) => Arc::new(Space::new(clock.random())),
            },
            Err(_) => Arc::new(Space::new(clock.random())),
        };
        space.numbers(tags.names)
    }

    /// Takes the next number and raises `tags` to it.
    pub(super) fn raise(&self, tags: Tags<'_>, clock: &Clock, caller: &Caller) -> io::Result<u64> {
        let raise = |space: &mut Space| space.raise(tags.names, MOST);
        Ok(self.change(tags.space, clock, caller, raise)?.1)
    }

    /// Raises the floor of `space` over every number given.
    pub(super) fn raise_floor(
        &self,
        space: &str,
        clock: &Clock,
        caller: &Caller,
    ) -> io::Result<()> {
        self.change(space, clock, caller, Space::raise_floor)?;
        Ok(())
    }

    /// Changes the numbers of `name` by `act`, in one act for all processes.
    fn change<R>(
        &self,
        name: &str,
        clock: &Clock,
        caller: &Caller,
        act: impl FnOnce(&mut Space) -> R,
    ) -> io::Result<(Arc<Space>, R)> {
        let file = file_name(name);
        let lock = self.room.lock(caller)?;
        let mut space = match self.kept(name, &file)? {
            Kept::Numbers(parsed) => {
                // Forgotten here first, so that one who changes often need not copy.
                self.parsed().remove(name);
                Arc::unwrap_or_clone(parsed.space)
            }
            Kept::Nothing => Space::new(clock.random()),
        };
        let done = act(&mut space);
        let space = self.write(&lock, name, &file, space, clock)?;
        Ok((space, done))
    }

    fn write(
        &self,
        lock: &Lock<'_>,
        name: &str,
        file: &str,
        space: Space,
        clock: &Clock,
    ) -> io::Result<Arc<Space>> {
        let mut start = [0; START];
        start[..8].copy_from_slice(MAGIC);
        start[8..].copy_from_slice(&clock.random().to_be_bytes());
        let rest = encoded(name, &space);
        let sum = xxh3_64(&rest).to_be_bytes();
        lock.replace(file, &[&start, &sum, &rest], None, clock.random())?;
        let space = Arc::new(space);
        self.remember(name, start, &space);
        Ok(space)
    }

    /// What is kept of `name`; an error where that cannot be told.
    fn kept(&self, name: &str, file: &str) -> io::Result<Kept> {
        let path = self.room.path().join(file);
        let start = match room::read_start(&path, START as u64) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::Nothing),
            start => start?,
        };
        if let Some(parsed) = self.parsed().get(name)
            && parsed.start[..] == start[..]
        {
            return Ok(Kept::Numbers(parsed.clone()));
        }
        // Another file may be there by now, which is as well: it is newer.
        let bytes = match room::read(&path, LONGEST) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::Nothing),
            Err(error) if error.kind() == ErrorKind::FileTooLarge => return Ok(Kept::Nothing),
            bytes => bytes?,
        };
        let Some((start, space)) = parsed(name, &bytes) else {
            return Ok(Kept::Nothing);
        };
        let space = Arc::new(space);
        self.remember(name, start, &space);
        Ok(Kept::Numbers(Parsed { start, space }))
    }

    fn remember(&self, name: &str, start: [u8; START], space: &Arc<Space>) {
        let mut all = self.parsed();
        if all.len() >= MOST_PARSED {
            all.clear();
        }
        let space = Arc::clone(space);
        all.insert(name.into(), Parsed { start, space });
    }

    fn parsed(&self) -> MutexGuard<'_, HashMap<Box<str>, Parsed>> {
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file of a space, whose name may be anything.
fn file_name(space: &str) -> String {
    slot::place(space).1
}

fn encoded(name: &str, space: &Space) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + space.of.len() * 32);
    for number in [space.era, space.seq, space.floor] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    put_text(&mut bytes, name);
    let count = u32::try_from(space.of.len()).expect("fewer than 2^32 tags");
    bytes.extend_from_slice(&count.to_be_bytes());
    for (tag, number) in &space.of {
        put_text(&mut bytes, tag);
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).expect("a name is below 4 GiB");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// The numbers in the file `bytes`, if it is whole and the space's own.
fn parsed(name: &str, bytes: &[u8]) -> Option<([u8; START], Space)> {
    let (start, rest) = bytes.split_first_chunk::<START>()?;
    let (sum, mut rest) = rest.split_first_chunk::<8>()?;
    if !start.starts_with(MAGIC) || u64::from_be_bytes(*sum) != xxh3_64(rest) {
        return None;
    }
    let rest = &mut rest;
    let (era, seq, floor) = (number(rest)?, number(rest)?, number(rest)?);
    if text(rest)? != name {
        return None;
    }
    let mut of = HashMap::new();
    for _ in 0..length(rest)? {
        let tag = Tag::from(text(rest)?);
        of.insert(tag, number(rest)?);
    }
    Some((*start, Space::of(era, seq, floor, of)))
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*number))
}

fn length(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    usize::try_from(u32::from_be_bytes(*number)).ok()
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = length(bytes)?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}
