//! Tickets for what may be made later, or never: nobody waits for them.
//!
//! A caller that cannot wait for the store cannot take a lease before it makes a value. It can let a
//! *note* be left in the slot behind its back: a mark with a stamp of its own that is no lease, so that
//! it holds nobody up. What is made once the note is known to be there is written if the note still
//! is, and was then made after everything that has happened to the slot.

use std::future::Future;
use std::time::Duration;

use serde::Serialize;

use super::Cache;
use super::lead::Kept;
use super::look::For;
use super::policy::Policy;
use super::scope::{Gathered, Scope};
use super::ticket::{LASTS, Ticket};
use crate::entry::{Entry, Mark, Stamp, State, Tag};
use crate::{Key, Moment, Result};

/// What a caller finds who would leave a note.
#[derive(Debug)]
pub(crate) enum Noting {
    /// The note is there.
    Left(Ticket),
    /// It is not wanted: there is a value.
    Fresh,
    /// It is not wanted: somebody is loading.
    Busy,
}

impl Cache {
    /// Leaves a note in the slot of `key`, for a value with these `tags`. Two round trips.
    pub(crate) async fn note(&self, key: &Key, tags: &[Tag]) -> Result<Noting> {
        let look = self.look_before_load(key, tags, For::Fresh).await?;
        let clock = &self.shared.clock;
        let now = clock.now();
        if look.live(now).is_some() {
            return Ok(Noting::Fresh);
        }
        if look.state(now) != State::Idle {
            return Ok(Noting::Busy);
        }
        let mark = Mark {
            stamp: Stamp::draw(clock),
            state: State::Idle,
            until: now.plus(LASTS),
        };
        // There before the note is, as with a ticket: dropped, it takes the note back.
        let mut ticket = Ticket::new(self, key.clone(), look.noted());
        ticket.mark = Some(mark.stamp);
        let store = &self.shared.store;
        if store.mark(key, look.stamp(), mark).await? {
            return Ok(Noting::Left(ticket));
        }
        ticket.mark = None;
        Ok(Noting::Busy)
    }

    /// Does `work`, whose value is to be written under `ticket`; what it was made of, which its caller's
    /// scope has got as well.
    pub(crate) fn make_under<R>(
        &self,
        ticket: &Ticket,
        policy: &Policy,
        work: impl FnOnce() -> R,
    ) -> (R, Gathered) {
        let scope = Scope::new(self, vec![ticket.key.clone()], ticket.noted);
        let made = scope.clone().around_now(work);
        let gathered = scope.take();
        let verdict = self.not_kept(
            ticket.noted,
            policy,
            policy.ttl,
            Vec::new(),
            gathered.clone(),
        );
        self.absorb(verdict.tagged.as_deref(), verdict.life);
        (made, gathered)
    }

    /// `value` as it is kept by `policy`; `None` if it cannot be encoded.
    pub(crate) fn kept<T: Serialize>(&self, value: &T, policy: &Policy) -> Option<Kept> {
        match self.coding.encode(value) {
            Ok(encoded) => Some(Kept {
                value: encoded.value,
                codec: encoded.codec,
                ttl: policy.ttl,
                grace: policy.kept_stale(),
                tags: policy.tags.clone(),
                extra: None,
            }),
            Err(error) => {
                tracing::warn!(%error, "not_kept_since_not_encodable");
                None
            }
        }
    }

    /// Runs `work` in the background, for whoever need not know what comes of it.
    pub(crate) fn spawn_quietly(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.shared.clock.spawn_if_running(work);
    }

    /// Tells, once, that the store fails where a fragment needs it, or that it answers again.
    pub(crate) fn tell_health<T>(&self, answer: &Result<T>) {
        match answer {
            Ok(_) => self.shared.fragments.works(),
            Err(error) => self.shared.fragments.fails(error),
        }
    }

    /// The present moment, by the store's clock.
    pub(crate) fn now(&self) -> Moment {
        self.shared.clock.now()
    }

    /// Does `work` as a part of what its caller makes, with the tags and the life that `policy` says.
    pub(crate) fn make_beside<R>(&self, policy: &Policy, work: impl FnOnce() -> R) -> R {
        let made = work();
        self.absorb_beside(policy);
        made
    }
}

impl Ticket {
    /// Writes `kept` under the note, unless something has happened to the key or to a tag since it was
    /// left; says whether it did.
    pub(crate) async fn fill(mut self, kept: Kept, gathered: Gathered) -> Result<bool> {
        if gathered.mixed {
            return Ok(false);
        }
        let cache = self.cache.clone();
        let ttl = kept.ttl.or(cache.shared.default_ttl);
        let now = cache.shared.clock.now();
        let deadline = (cache.deadline(ttl)).min(gathered.life.unwrap_or(Moment::NEVER));
        if deadline <= now {
            return Ok(false);
        }
        let grace = (deadline != Moment::NEVER).then_some(kept.grace);
        let tagged = self.tagged(&kept.tags, gathered.tags);
        let Some(mark) = self.good_for(&tagged).await? else {
            return Ok(false);
        };
        let mut entry = Entry::new(&cache.shared.clock, kept.value)
            .fresh_until(deadline)
            .with_grace(grace.unwrap_or(Duration::ZERO));
        entry.codec = kept.codec;
        if !tagged.good_from.is_empty() {
            entry = entry.with_tags(tagged);
        }
        self.write(entry, mark).await
    }
}
