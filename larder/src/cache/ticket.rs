//! A lease in the caller's hands: for those who read and then set.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::time::Duration;

use serde::Serialize;

use super::Cache;
use super::write::{Boxed, Terms, terms};
use crate::codec::Encoded;
use crate::entry::{Entry, Mark, Stamp, State, Tag, Tagged};
use crate::flight::Noted;
use crate::store::When;
use crate::{Key, Result};

/// How long a ticket is good.
pub(super) const LASTS: Duration = Duration::from_secs(30);

/// The right to set a value that is read from now on.
///
/// Taken *before* the value is read from where it comes from. [`set`](Self::set) then writes it
/// only if nobody has set, deleted or invalidated the key meanwhile: what a [`fetch`](Cache::fetch)
/// promises, for code that cannot be a closure. It is good for thirty seconds; whoever fetches the
/// key meanwhile waits for it. Dropped, it lets them go.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// let cache = larder::Cache::new(larder::store::Memory::new());
///
/// let ticket = cache.ticket("user:7").await?;
/// let name = "old name"; // read from the database …
/// cache.delete("user:7").await?; // … where somebody changes it meanwhile
/// assert!(!ticket.set(name).await?, "what was read is outdated, and not kept");
///
/// let ticket = cache.ticket("user:7").await?;
/// assert!(ticket.set("new name").await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a ticket that is dropped lets others load"]
pub struct Ticket {
    pub(super) cache: Cache,
    pub(super) key: Key,
    /// The lease, unless somebody else is loading.
    pub(super) mark: Option<Stamp>,
    pub(super) noted: Noted,
}

/// A [`Ticket::set`] to be awaited.
#[derive(Debug)]
#[must_use = "nothing is written until it is awaited"]
pub struct SetTicket {
    ticket: Ticket,
    value: Result<Encoded>,
    terms: Terms,
}

impl Cache {
    /// Takes a [`Ticket`] for `key`, before its value is read.
    ///
    /// Where somebody is loading the key already, the ticket is void: its `set` writes nothing,
    /// since the other will. The same where the store takes no lease for now, as a folder does
    /// while it is cleared. Two round trips.
    pub async fn ticket(&self, key: impl AsRef<str>) -> Result<Ticket> {
        let key = self.key(key);
        let look = self.look(&key).await?;
        let clock = &self.shared.clock;
        let now = clock.now();
        let mark = Mark {
            stamp: Stamp::draw(clock),
            state: State::Loading,
            until: now.plus(LASTS),
        };
        let is_free = look.lease(now).is_none();
        // There before the lease is: should the answer not come, dropping it takes the lease back.
        let mut ticket = Ticket::new(self, key, look.noted());
        ticket.mark = is_free.then_some(mark.stamp);
        if is_free {
            let store = &self.shared.store;
            if !store.mark(&ticket.key, look.stamp(), mark).await? {
                ticket.mark = None;
            }
        }
        Ok(ticket)
    }
}

impl Ticket {
    /// A ticket without a lease.
    pub(super) fn new(cache: &Cache, key: Key, noted: Noted) -> Self {
        Self {
            cache: cache.clone(),
            key,
            mark: None,
            noted,
        }
    }

    /// Writes `value` if nothing has happened to the key, or to the value's tags, since the ticket
    /// was taken; says whether it did.
    pub fn set<T: Serialize + ?Sized>(self, value: &T) -> SetTicket {
        let value = self.cache.coding.encode(value);
        SetTicket {
            ticket: self,
            value,
            terms: Terms::default(),
        }
    }

    /// The numbers that a value with the tags `own`, made of what has the tags `inherited`, is good from.
    pub(super) fn tagged(&self, own: &[Tag], mut inherited: BTreeMap<Tag, u64>) -> Tagged {
        let Noted { era, seq } = self.noted;
        for tag in own {
            let number = inherited.entry(tag.clone()).or_insert(seq);
            *number = seq.min(*number);
        }
        Tagged {
            era,
            good_from: inherited.into_iter().collect(),
        }
    }

    /// The mark under which to write, unless there is none or one of the tags has moved.
    pub(super) async fn good_for(&self, tagged: &Tagged) -> Result<Option<Stamp>> {
        let names: Vec<Tag> = (tagged.good_from.iter())
            .map(|(tag, _)| tag.clone())
            .collect();
        if self.mark.is_none() || names.is_empty() {
            return Ok(self.mark);
        }
        let moved = self.cache.numbers(&names).await?.moved(&names, tagged);
        Ok(self.mark.filter(|_| moved.is_none()))
    }

    pub(super) async fn write(&mut self, entry: Entry, mark: Stamp) -> Result<bool> {
        let when = When::IfStamp(mark);
        let put = self.cache.shared.store.put(&self.key, entry.framed(), when);
        let written = put.await?;
        // The lease went with the write.
        self.mark = None;
        Ok(written)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(mark) = self.mark.take() {
            self.cache.take_back(&self.key, mark);
        }
    }
}

impl SetTicket {
    terms!();
}

impl IntoFuture for SetTicket {
    type Output = Result<bool>;
    type IntoFuture = Boxed<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self {
                mut ticket,
                value,
                terms,
            } = self;
            let value = value?;
            let tagged = ticket.tagged(terms.tags(), BTreeMap::new());
            let Some(mark) = ticket.good_for(&tagged).await? else {
                return Ok(false);
            };
            let Some(entry) = ticket.cache.entry(value, &terms, Some(&tagged)) else {
                ticket.cache.put_pass(&ticket.key, mark).await?;
                ticket.mark = None;
                return Ok(false);
            };
            ticket.write(entry, mark).await
        })
    }
}
