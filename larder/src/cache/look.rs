//! Reading a slot and judging what is in it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::Cache;
use super::counts::count;
use super::rules::Rule;
use crate::entry::{Entry, Head, Stamp, State, Tag, Tagged, hard_tag, soft_tag};
use crate::event::Miss;
use crate::flight::Noted;
use crate::store::{Numbers, Tags};
use crate::{Key, Moment, Result};

/// Keys whose tags are remembered; past that, the memory starts anew.
const MOST_HINTS: usize = 10_000;

/// The tags that a key's entry had when it was last read, so that their numbers can be asked for
/// in the same batch. Wrong hints cost a round trip, never a wrong answer.
#[derive(Debug, Default)]
pub(super) struct Hints(RwLock<HashMap<Key, Arc<[Tag]>>>);

impl Hints {
    fn get(&self, key: &Key) -> Option<Arc<[Tag]>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    fn put(&self, key: &Key, tags: &Arc<[Tag]>) {
        let mut hints = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if hints.len() >= MOST_HINTS {
            hints.clear();
        }
        hints.insert(key.clone(), Arc::clone(tags));
    }
}

/// A slot as it was read, with its numbers.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) entry: Option<Arc<Entry>>,
    /// Era and counter, noted after the slot was read and before anything is loaded.
    pub(crate) era: u64,
    pub(crate) seq: u64,
    /// The tag that was invalidated since the entry was made.
    moved: Option<Tag>,
    /// Whether every tag that was asked for has a number, as on a server that gives one to whoever
    /// asks.
    pub(super) is_counted: bool,
}

/// What a look at a slot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// A value that is fresh; the numbers are of no use without one.
    Value,
    /// The same, and numbers to note.
    Fresh,
    /// The same, and what has expired may do.
    Stale,
}

impl Look {
    /// A slot without tags, as it is told without waiting.
    pub(super) fn of(entry: Option<Arc<Entry>>) -> Self {
        Self {
            entry,
            era: 0,
            seq: 0,
            moved: None,
            is_counted: false,
        }
    }

    /// The entry, if it holds a value that may be looked at.
    pub(crate) fn usable(&self, now: Moment) -> Option<&Arc<Entry>> {
        let usable = |entry: &&Arc<Entry>| self.moved.is_none() && entry.is_within_grace(now);
        self.entry.as_ref().filter(usable)
    }

    /// The entry, if the verbs see its value.
    pub(crate) fn live(&self, now: Moment) -> Option<&Arc<Entry>> {
        self.usable(now).filter(|entry| entry.is_live(now))
    }

    pub(crate) fn noted(&self) -> Noted {
        let &Self { era, seq, .. } = self;
        Noted { era, seq }
    }

    /// What tells this slot from any later state of it.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.entry.as_ref().map(|entry| entry.stamp)
    }

    pub(crate) fn state(&self, now: Moment) -> State {
        self.entry
            .as_ref()
            .map_or(State::Idle, |entry| entry.state_at(now))
    }

    /// The lease in the slot.
    pub(crate) fn lease(&self, now: Moment) -> Option<Stamp> {
        (self.state(now) == State::Loading).then(|| self.stamp())?
    }

    /// Why there is nothing to serve.
    pub(crate) fn miss(&self) -> Miss {
        match (&self.entry, &self.moved) {
            (_, Some(tag)) => Miss::Invalidated(tag.clone()),
            (Some(entry), _) if entry.unreadable => Miss::Unreadable,
            (Some(entry), _) if entry.value.is_some() => Miss::Expired,
            _ => Miss::Absent,
        }
    }
}

impl Cache {
    /// Reads the slot of `key` for a verb: what can be told at once, else one round trip.
    pub(super) async fn look_for_value(&self, key: &Key) -> Result<Look> {
        if let Some(look) = self.look_now(key) {
            return Ok(look);
        }
        let hint = self.shared.hints.get(key);
        self.look_with(key, hint, For::Value).await
    }

    /// What the slot of `key` holds, if that can be told without waiting and no tag has moved.
    pub(crate) fn look_now(&self, key: &Key) -> Option<Look> {
        let entry = self.shared.store.get_now(key)?;
        let space = &self.shared.space;
        if !entry.as_ref().is_none_or(|it| it.is_unmoved_now(space)) {
            return None;
        }
        self.count_unreadable(entry.as_deref());
        Some(Look::of(entry))
    }

    /// Reads the slot of `key` and the numbers, in one round trip where the tags are as last time.
    pub(crate) async fn look(&self, key: &Key) -> Result<Look> {
        let hint = self.shared.hints.get(key);
        self.look_with(key, hint, For::Fresh).await
    }

    /// The same for who can use what has expired as well.
    pub(crate) async fn look_for_stale(&self, key: &Key) -> Result<Look> {
        let hint = self.shared.hints.get(key);
        self.look_with(key, hint, For::Stale).await
    }

    /// The same for who is going to load if it comes to that. `tags` are what is loaded will have:
    /// asked for now, they have a number from before the load also where a server has none for them.
    pub(super) async fn look_before_load(
        &self,
        key: &Key,
        tags: &[Tag],
        what: For,
    ) -> Result<Look> {
        let mut hint = self.shared.hints.get(key);
        let known = hint.as_deref().unwrap_or_default();
        if tags.iter().any(|tag| !known.contains(tag)) {
            let new = tags.iter().filter(|tag| !known.contains(tag));
            hint = Some(known.iter().chain(new).cloned().collect());
        }
        self.look_with(key, hint, what).await
    }

    async fn look_with(&self, key: &Key, hint: Option<Arc<[Tag]>>, what: For) -> Result<Look> {
        let shared = &self.shared;
        let names = hint.unwrap_or_default();
        let ask = (what != For::Value || !names.is_empty()).then(|| shared.tags(&names));
        let mut found = shared.store.get(std::slice::from_ref(key), ask).await?;
        let entry = found.entries.pop().flatten();
        self.count_unreadable(entry.as_ref());
        let numbers = found.numbers.unwrap_or_default();
        let mut look = Look {
            era: numbers.era,
            seq: numbers.seq,
            is_counted: numbers.are_all_there(),
            moved: None,
            entry: None,
        };
        if let Some(mut entry) = entry {
            if let Some(tagged) = entry.tags.clone() {
                look.moved = match self.moved(key, &tagged, &names, numbers).await? {
                    Some(_) if what == For::Stale => self.only_expired(&mut entry).await?,
                    moved => moved,
                };
            }
            look.entry = Some(Arc::new(entry));
        }
        Ok(look)
    }

    /// Ends the TTL of an entry one of whose tags has moved, if none was invalidated but by
    /// [`expire`](Self::expire); else the tag that was.
    ///
    /// What is made of it is good from the numbers of now: that it is past its time is known, and goes
    /// along with it as a short life.
    async fn only_expired(&self, entry: &mut Entry) -> Result<Option<Tag>> {
        let Some(tagged) = entry.tags.clone() else {
            return Ok(None);
        };
        let names: Vec<Tag> = tagged
            .good_from
            .iter()
            .map(|(tag, _)| tag.clone())
            .collect();
        let mut hard = Tagged::clone(&tagged);
        for (tag, _) in &mut hard.good_from {
            *tag = hard_tag(tag);
        }
        let hard_names: Vec<Tag> = hard.good_from.iter().map(|(tag, _)| tag.clone()).collect();
        let numbers = self
            .numbers(&[names.clone(), hard_names.clone()].concat())
            .await?;
        let (soft_numbers, hard_numbers) = numbers.split_at(names.len());
        if let Some(tag) = self.judge(&hard_numbers, &hard_names, &hard) {
            return Ok(Some(soft_tag(&tag)));
        }
        entry.fresh_until = entry.fresh_until.min(self.shared.clock.now());
        let mut known = Tagged::clone(&tagged);
        for (at, (_, good_from)) in known.good_from.iter_mut().enumerate() {
            *good_from = (*good_from).max(soft_numbers.at(at));
        }
        entry.tags = Some(Arc::new(known));
        Ok(None)
    }

    fn count_unreadable(&self, entry: Option<&Entry>) {
        if entry.is_some_and(|entry| entry.unreadable) {
            count(&self.shared.counters.unreadable);
        }
    }

    /// Which of `tagged`'s tags has moved, by `numbers` of `names` or, where those are other tags,
    /// by another read.
    async fn moved(
        &self,
        key: &Key,
        tagged: &Tagged,
        names: &[Tag],
        numbers: Numbers,
    ) -> Result<Option<Tag>> {
        let shared = &self.shared;
        if !shared.rules.keep(Rule::CheckTags) {
            return Ok(None);
        }
        let known = tagged.good_from.iter().all(|(tag, _)| names.contains(tag));
        if known {
            return Ok(self.judge(&numbers, names, tagged));
        }
        let names: Arc<[Tag]> = tagged
            .good_from
            .iter()
            .map(|(tag, _)| tag.clone())
            .collect();
        shared.hints.put(key, &names);
        let numbers = self.numbers(&names).await?;
        Ok(self.judge(&numbers, &names, tagged))
    }

    pub(super) fn judge(&self, numbers: &Numbers, names: &[Tag], tagged: &Tagged) -> Option<Tag> {
        self.judge_at(
            numbers,
            |tag| names.iter().position(|name| name == tag),
            tagged,
        )
    }

    /// As [`judge`](Self::judge), where `names` are in order: many entries have many tags.
    fn judge_sorted(&self, numbers: &Numbers, names: &[Tag], tagged: &Tagged) -> Option<Tag> {
        self.judge_at(numbers, |tag| names.binary_search(tag).ok(), tagged)
    }

    fn judge_at(
        &self,
        numbers: &Numbers,
        position: impl Fn(&Tag) -> Option<usize>,
        tagged: &Tagged,
    ) -> Option<Tag> {
        let rules = &self.shared.rules;
        let (has_era, has_floor) = (rules.keep(Rule::CheckEra), rules.keep(Rule::CountFromFloor));
        if has_era && has_floor {
            return numbers.moved_at(position, tagged);
        }
        let mut numbers = numbers.clone();
        if !has_era {
            numbers.era = tagged.era;
        }
        if !has_floor {
            numbers.floor = 0;
        }
        numbers.moved_at(position, tagged)
    }

    /// The numbers of `names` now.
    pub(crate) async fn numbers(&self, names: &[Tag]) -> Result<Numbers> {
        let found = self
            .shared
            .store
            .get(&[], Some(self.shared.tags(names)))
            .await?;
        Ok(found.numbers.unwrap_or_default())
    }

    /// Which of `heads` belong to entries whose tags have not moved.
    pub(super) async fn unmoved(&self, heads: Vec<Option<Head>>) -> Result<Vec<Option<Head>>> {
        let tags = |head: &Head| head.tags.clone();
        let mut names: Vec<Tag> = (heads.iter().flatten().filter_map(tags))
            .flat_map(|tagged| {
                tagged
                    .good_from
                    .iter()
                    .map(|(tag, _)| tag.clone())
                    .collect::<Vec<_>>()
            })
            .collect();
        if names.is_empty() {
            return Ok(heads);
        }
        names.sort_unstable();
        names.dedup();
        let numbers = self.numbers(&names).await?;
        let keep = |head: &Head| {
            head.tags
                .as_ref()
                .is_none_or(|tagged| self.judge_sorted(&numbers, &names, tagged).is_none())
        };
        Ok(heads.into_iter().map(|head| head.filter(keep)).collect())
    }

    /// Reads two slots, if that can be told without waiting and no tag has moved.
    #[cfg(feature = "page")]
    pub(crate) fn look_at_pair_now(&self, first: &Key, second: &Key) -> Option<[Look; 2]> {
        Some([self.look_now(first)?, self.look_now(second)?])
    }

    /// Reads two slots in one round trip.
    #[cfg(feature = "page")]
    pub(crate) async fn look_at_pair(&self, first: &Key, second: &Key) -> Result<[Look; 2]> {
        if let Some(looks) = self.look_at_pair_now(first, second) {
            return Ok(looks);
        }
        let keys = [first.clone(), second.clone()];
        let looks = self.look_at_many(&keys, &[], For::Stale).await?;
        Ok(looks
            .try_into()
            .expect("a store answers for each key that it is asked for"))
    }

    /// Reads many slots in one round trip, or two where tags are new here.
    ///
    /// `tags` are what is loaded will have, as for [`look_before_load`](Self::look_before_load).
    pub(super) async fn look_at_many(
        &self,
        keys: &[Key],
        tags: &[Tag],
        what: For,
    ) -> Result<Vec<Look>> {
        let shared = &self.shared;
        let hints = keys.iter().filter_map(|key| shared.hints.get(key));
        let hinted = hints.flat_map(|tags| tags.to_vec());
        let mut names: Vec<Tag> = hinted.chain(tags.iter().cloned()).collect();
        names.sort_unstable();
        names.dedup();
        let ask = (what != For::Value || !names.is_empty()).then(|| shared.tags(&names));
        let found = shared.store.get(keys, ask).await?;
        let first = found.numbers.unwrap_or_default();
        let is_counted = first.are_all_there();
        let mut numbers = first.clone();
        let mut unknown = Vec::new();
        for (key, entry) in keys.iter().zip(&found.entries) {
            self.count_unreadable(entry.as_ref());
            let Some(tagged) = entry.as_ref().and_then(|entry| entry.tags.as_ref()) else {
                continue;
            };
            let tags: Arc<[Tag]> = tagged
                .good_from
                .iter()
                .map(|(tag, _)| tag.clone())
                .collect();
            // Those that were asked for stand in order.
            if tags.iter().any(|tag| names.binary_search(tag).is_err()) {
                unknown.extend(tags.iter().cloned());
                shared.hints.put(key, &tags);
            }
        }
        if !unknown.is_empty() {
            names.append(&mut unknown);
            names.sort_unstable();
            names.dedup();
            numbers = self.numbers(&names).await?;
        }
        let mut looks = Vec::with_capacity(keys.len());
        for mut entry in found.entries {
            let tagged = entry.as_ref().and_then(|entry| entry.tags.as_deref());
            let mut moved = tagged.and_then(|it| self.judge_sorted(&numbers, &names, it));
            if let (Some(_), Some(entry), For::Stale) = (&moved, &mut entry, what) {
                moved = self.only_expired(entry).await?;
            }
            looks.push(Look {
                entry: entry.map(Arc::new),
                era: first.era,
                seq: first.seq,
                moved,
                is_counted,
            });
        }
        Ok(looks)
    }
}

/// What is left of a deadline for those who inherit it: never is no bound.
pub(super) fn life(fresh_until: Moment) -> Option<Moment> {
    (fresh_until != Moment::NEVER).then_some(fresh_until)
}

/// For how long an entry made from a stale one may live.
pub(super) const STALE_LIFE: Duration = Duration::from_secs(1);

impl super::Shared {
    /// The cache's tag space, with `names` in it.
    pub(crate) fn tags<'a>(&'a self, names: &'a [Tag]) -> Tags<'a> {
        Tags {
            space: &self.space,
            names,
        }
    }
}
