//! A lease in the caller's hands: for those who read and then set.

use std::future::IntoFuture;
use std::time::Duration;

use serde::Serialize;

use super::Cache;
use super::write::{Boxed, Terms, terms};
use crate::codec::Encoded;
use crate::entry::{Mark, Stamp, State, Tagged};
use crate::store::When;
use crate::{Key, Result};

/// How long a ticket is good.
const LASTS: Duration = Duration::from_secs(30);

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
    cache: Cache,
    key: Key,
    /// The lease, unless somebody else is loading.
    mark: Option<Stamp>,
    era: u64,
    seq: u64,
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
        let mut ticket = Ticket {
            cache: self.clone(),
            key,
            mark: is_free.then_some(mark.stamp),
            era: look.era,
            seq: look.seq,
        };
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
            let Some(mark) = ticket.mark else {
                return Ok(false);
            };
            let names = terms.tags();
            let good_from = names.iter().map(|tag| (tag.clone(), ticket.seq)).collect();
            let tagged = Tagged {
                era: ticket.era,
                good_from,
            };
            let numbers = match names {
                [] => None,
                names => Some(ticket.cache.numbers(names).await?),
            };
            if numbers.is_some_and(|numbers| numbers.moved(names, &tagged).is_some()) {
                return Ok(false);
            }
            let Some(entry) = ticket.cache.entry(value, &terms, Some(&tagged)) else {
                ticket.cache.put_pass(&ticket.key, mark).await?;
                ticket.mark = None;
                return Ok(false);
            };
            let written =
                ticket
                    .cache
                    .shared
                    .store
                    .put(&ticket.key, entry.framed(), When::IfStamp(mark));
            let written = written.await?;
            // The lease went with the write.
            ticket.mark = None;
            Ok(written)
        })
    }
}
