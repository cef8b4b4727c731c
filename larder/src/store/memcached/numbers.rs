//! The numbers of tags, each an item of its own, all of a space on one server.
//!
//! Counter and era are one item, `space:@:seq`: the era is its upper half, so that neither can be
//! lost without the other. The number of a tag is an item too, and holds the counter as it was, era
//! included: a number of another era is seen for what it is.
//!
//! *Lost numbers.* The server forgets what it has no room for, and does not say which number it
//! was: no higher one, though, than the counter. So a tag without a number is given the counter's.
//! An empty item holds the place of the number while the counter is read; whoever raises the tag
//! meanwhile replaces that item, and the number is not written over a later one.

use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::connection::Link;
use super::reply::{Code, Reply, number};
use super::request::{Batch, Beside, Mode, What};
use super::{Memcached, act::Again};
use crate::key::{MARKER, MAX_NAME, fits_scope};
use crate::store::{Numbers, Tags};
use crate::{Result, Tag};

/// How often numbers are read or raised anew since somebody else wrote in between.
const MOST_TRIES: u32 = 256;

/// The names of a space's records.
pub(super) struct Records(String);

impl Records {
    pub(super) fn of(space: &str) -> Self {
        // A colon could make the records of two spaces the same.
        if fits_scope(&format!("{space}:@:t:")) && !space.contains(':') {
            Self(format!("{space}:@:"))
        } else {
            Self(format!("{MARKER}{}:@:", hash(space)))
        }
    }

    /// Counter and era; by this name the server of the space is found.
    pub(super) fn seq(&self) -> String {
        format!("{}seq", self.0)
    }

    fn tag(&self, tag: &str) -> String {
        let name = format!("{}{tag}", self.tags());
        let odd = |byte: u8| byte <= b' ' || byte == 0x7f;
        if name.len() > MAX_NAME || tag.contains(MARKER) || tag.bytes().any(odd) {
            format!("{}{MARKER}{}", self.tags(), hash(tag))
        } else {
            name
        }
    }

    /// What the names of all tags' numbers begin with.
    pub(super) fn tags(&self) -> String {
        format!("{}t:", self.0)
    }
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("memory takes what is written");
        hex
    })
}

/// The counter of a space as its item has it: the era above, the last number given below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Counter(u64);

impl Counter {
    fn read(reply: &Reply) -> Option<Self> {
        number(reply.value.trim_ascii_end()).map(Self)
    }

    const fn era(self) -> u64 {
        self.0 >> 32
    }

    const fn seq(self) -> u64 {
        self.0 & 0xffff_ffff
    }
}

/// A tag's item as it was read.
struct Found {
    number: Option<Counter>,
    cas: u64,
}

impl Memcached {
    /// The numbers of `tags`, by one round trip if all are there.
    pub(super) async fn numbers(&self, tags: Tags<'_>) -> Result<Numbers> {
        let records = Records::of(tags.space);
        let server = self.server_of(&records.seq());
        for tries in 0..MOST_TRIES {
            self.step_aside(tries).await;
            let ask = |_: &Link, batch: &mut Batch| ask_numbers(batch, &records, tags);
            let count = tags.names.len() + 1;
            let (link, replies) = self.ask(server, count, Again::Once, ask).await?;
            if let Some(numbers) = self.read_numbers(server, &link, &replies, tags).await? {
                return Ok(numbers);
            }
        }
        Err(self.too_busy(server))
    }

    /// The numbers that `replies` tell, once all tags have one; `None` if somebody else wrote meanwhile.
    pub(super) async fn read_numbers(
        &self,
        server: usize,
        link: &Arc<Link>,
        replies: &[Reply],
        tags: Tags<'_>,
    ) -> Result<Option<Numbers>> {
        let records = Records::of(tags.space);
        let (seq, found) = replies.split_last().ok_or_else(|| self.odd(server, None))?;
        let found = self.found(server, found)?;
        let counter = match seq.line.code {
            Code::Value => Counter::read(seq),
            Code::Miss => None,
            _ => return Err(self.odd(server, Some(seq))),
        };
        let counter = match counter {
            Some(counter) => counter,
            None => self.begin_era(server, link, &records).await?,
        };
        // One of another era is lost, like one that is not there.
        let of_era = |found: &Found| found.number.filter(|number| number.era() == counter.era());
        let lost: Vec<(&Tag, &Found)> = (tags.names.iter().zip(&found))
            .filter(|(_, found)| of_era(found).is_none())
            .collect();
        if !self
            .write_numbers(server, link, &records, &lost, counter)
            .await?
        {
            return Ok(None);
        }
        let of = found.iter().map(|found| of_era(found).unwrap_or(counter));
        let of: Vec<Option<u64>> = of.map(|number| Some(number.seq())).collect();
        let seq = counter.seq();
        Ok(Some(Numbers {
            // What was counted before a restart may have been lost: another incarnation, another era.
            era: counter.era() ^ link.hello.incarnation,
            seq,
            floor: seq,
            of,
        }))
    }

    fn found(&self, server: usize, replies: &[Reply]) -> Result<Vec<Found>> {
        let found = |reply: &Reply| match reply.line.code {
            Code::Value => Ok(Found {
                number: Counter::read(reply),
                cas: reply.line.cas,
            }),
            _ => Err(self.odd(server, Some(reply))),
        };
        replies.iter().map(found).collect()
    }

    /// Writes `number` into the items of `tags`, unless they have changed; whether none had.
    async fn write_numbers(
        &self,
        server: usize,
        link: &Arc<Link>,
        records: &Records,
        tags: &[(&Tag, &Found)],
        number: Counter,
    ) -> Result<bool> {
        if tags.is_empty() {
            return Ok(true);
        }
        let mut batch = link.batch(tags.len());
        for (tag, found) in tags {
            let digits = number.0.to_string();
            let mode = Mode::Cas(found.cas);
            batch.set(
                &records.tag(tag),
                digits.as_bytes(),
                Beside::default(),
                mode,
            );
        }
        let mut all = true;
        for reply in self.ask_batch(server, link, batch).await? {
            match reply.line.code {
                Code::Done => {}
                Code::Exists | Code::NotFound | Code::NotStored => all = false,
                _ => return Err(self.odd(server, Some(&reply))),
            }
        }
        Ok(all)
    }

    /// The counter of a space that had none, or whose item is not ours.
    async fn begin_era(
        &self,
        server: usize,
        link: &Arc<Link>,
        records: &Records,
    ) -> Result<Counter> {
        for tries in 0..MOST_TRIES {
            self.step_aside(tries).await;
            let ask = |_: &Link, batch: &mut Batch| {
                batch.count(&records.seq(), 0, self.new_counter());
            };
            let replies = self.ask_on(server, link, 1, ask).await?;
            if let Some(counter) = self.counter(server, link, records, replies.first()).await? {
                return Ok(counter);
            }
        }
        Err(self.too_busy(server))
    }

    /// A counter that has given no number yet, in an era of its own.
    fn new_counter(&self) -> u64 {
        (self.0.clock.random() << 32).max(1 << 32)
    }

    /// The counter in the answer to a [`count`](Batch::count). What others have written in its place is
    /// removed, and the answer is `None`.
    async fn counter(
        &self,
        server: usize,
        link: &Arc<Link>,
        records: &Records,
        reply: Option<&Reply>,
    ) -> Result<Option<Counter>> {
        let reply = reply.ok_or_else(|| self.odd(server, None))?;
        match (&reply.line.code, Counter::read(reply)) {
            (Code::Value, Some(counter)) => Ok(Some(counter)),
            (Code::Refused(super::reply::Refusal::NotANumber), _) => {
                let ask = |_: &Link, batch: &mut Batch| batch.delete(&records.seq(), None);
                self.ask_on(server, link, 1, ask).await?;
                Ok(None)
            }
            _ => Err(self.odd(server, Some(reply))),
        }
    }

    /// Takes the next number, and raises every tag to it.
    pub(super) async fn raise_all(&self, tags: Tags<'_>) -> Result<u64> {
        let records = Records::of(tags.space);
        let server = self.server_of(&records.seq());
        let link = self.link(server).await?;
        let ask = |_: &Link, batch: &mut Batch| {
            batch.count(&records.seq(), 1, self.new_counter() + 1);
            for tag in tags.names {
                batch.get(&records.tag(tag), What::Claim);
            }
        };
        let mut names: Vec<Tag> = tags.names.to_vec();
        let replies = self.ask_on(server, &link, names.len() + 1, ask).await?;
        let (seq, mut replies) = match replies.split_first() {
            Some((seq, rest)) => (seq.clone(), rest.to_vec()),
            None => return Err(self.odd(server, None)),
        };
        let Some(counter) = self.counter(server, &link, &records, Some(&seq)).await? else {
            return Box::pin(self.raise_all(tags)).await;
        };
        for tries in 0..MOST_TRIES {
            self.step_aside(tries).await;
            let found = self.found(server, &replies)?;
            // Of another era it may be higher, and says nothing.
            let is_raised = |found: &Found| {
                found
                    .number
                    .is_some_and(|number| number.era() == counter.era() && number >= counter)
            };
            let below: Vec<(&Tag, &Found)> = (names.iter().zip(&found))
                .filter(|(_, found)| !is_raised(found))
                .collect();
            if self
                .write_numbers(server, &link, &records, &below, counter)
                .await?
            {
                return Ok(counter.seq());
            }
            names = below.into_iter().map(|(tag, _)| tag.clone()).collect();
            let ask = |_: &Link, batch: &mut Batch| {
                for tag in &names {
                    batch.get(&records.tag(tag), What::Claim);
                }
            };
            replies = self.ask_on(server, &link, names.len(), ask).await?;
        }
        Err(self.too_busy(server))
    }

    /// Takes a number above every one given so far.
    pub(super) async fn raise_floor(&self, space: &str) -> Result<()> {
        self.raise_all(Tags { space, names: &[] }).await.map(|_| ())
    }
}

/// The commands that read `tags`, the counter last: it must be no older than the place of a number
/// that is missing.
pub(super) fn ask_numbers(batch: &mut Batch, records: &Records, tags: Tags<'_>) {
    for tag in tags.names {
        batch.get(&records.tag(tag), What::Claim);
    }
    batch.get(&records.seq(), What::Value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_space_and_tag_has_names_of_its_own() {
        let long = "t".repeat(300);
        let tags = [
            "a",
            "a b",
            "seq",
            "",
            "schlüssel",
            "~sha256~",
            long.as_str(),
        ];
        let spaces = ["", "s", "s t", "a:@:t:x", long.as_str(), "~sha256~"];
        let mut names: Vec<String> = Vec::new();
        for space in spaces {
            let records = Records::of(space);
            names.push(records.seq());
            names.extend(tags.map(|tag| records.tag(tag)));
        }

        for name in &names {
            assert!(name.len() <= MAX_NAME, "{name}");
            assert!(
                name.bytes().all(|byte| byte > b' ' && byte != 0x7f),
                "{name}"
            );
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
