//! A near store before a far one.
//!
//! Everything is written to the far store, which also has every lease, counter and number. The near
//! one holds copies of what was read there, each for a moment.
//!
//! *How a copy is made.* A refill is a fill under a lease: the near slot is marked, then the far
//! store is read, then the copy is put in if the mark is still there. Whatever this process writes
//! to the key meanwhile takes the mark away. Only live values are copied in whose slot nothing is
//! going on; no leases, no markers, and no plain integers, which count at the far store.
//!
//! *Why a write drops the near slot after the far store's answer, and before it as well.* After:
//! a refill whose mark is older than this drop is refused, or its copy is removed by it; one whose
//! mark is younger reads the far store when the write is done. So once a write is acknowledged, no
//! copy from before it is left here, nor can one come. Dropped only before, the slot could be
//! refilled while the write is on its way. Before, too: a caller that goes away midway never comes to
//! the second drop, a near store that cannot drop is told before anything is sent, and who reads
//! while the write is on its way does not go on reading the copy.
//!
//! *What a message does.* A watched tier drops the slot, and the mark of a refill, as a write of this
//! process does. So a refill that was overtaken by a change elsewhere is refused.
//!
//! | file | what |
//! | --- | --- |
//! | `hearing.rs` | what is heard of the far store, and how long it is trusted |
//! | `rules.rs` | what a simulation can break |

mod hearing;
mod rules;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;

use self::hearing::{Hearing, Watched};
#[cfg(feature = "simulation")]
pub use self::rules::NearRule;
#[cfg(not(feature = "simulation"))]
use self::rules::NearRule;
use self::rules::Rules;
use crate::entry::{Copied, Entry, Head, Mark, Stamp, State, Value};
use crate::store::{Found, Scan, Store, Sum, Tags, Watch, When};
use crate::{Clock, Key, Moment, Result};

/// How long a refill may take before another may begin.
const REFILL: Duration = Duration::from_secs(1);

/// Reads from a near store what was read from the far one a moment ago; a clone shares both.
///
/// Any two stores: memory before Redis saves round trips, files before Redis save the network.
///
/// *What is bounded.* Of writes in other processes the near slot hears nothing. A copy is therefore
/// gone [`near_for`](Self::near_for) after the far store was asked for it, and a value that
/// another process has replaced or deleted is served from it no longer than that:
///
/// | read | may come from the near store | so that, within what other processes do |
/// | --- | --- | --- |
/// | `fetch`, `get_or_set`, `ticket` | no | the promise holds |
/// | the same, under [`numbers_only`](Self::numbers_only) | values with tags | tags: the promise holds; keys: bounded |
/// | `get`, `get_many`, pages | yes | tags: the promise holds; keys, and values without tags: bounded |
/// | `has`, `ttl` | no | current |
///
/// Under [`watched`](Self::watched), while the far store can be heard, all but `has` and `ttl` may come from
/// the near store for as long as a copy lives, and keys and tags are both bounded.
///
/// Else the numbers of tags are always read at the far store, after the value. What is made of a bounded
/// hit and kept lives as long as it says: a load that must not begin with an outdated value reads it
/// by `fetch`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::{Cache, store::Memory, wrap::Tiered};
///
/// let far = Memory::new(); // a `store::Redis` in earnest
/// let tiers = Tiered::new(Memory::new(), far.clone());
/// assert_eq!(tiers.to_string(), "memory over memory");
///
/// let cache = Cache::new(tiers);
/// cache.set("k", "v").await?;
/// assert_eq!(cache.get("k").await?, Some("v".to_owned()));
/// assert_eq!(far.len(), 1, "writes go to the far store");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tiered {
    near: Arc<dyn Store>,
    far: Arc<dyn Store>,
    near_for: Duration,
    numbers_only: bool,
    /// Made with the first use, when all is set.
    watched: Option<Arc<OnceLock<Watched>>>,
    rules: Rules,
}

impl Tiered {
    /// `near` before `far`.
    pub fn new(near: impl Store, far: impl Store) -> Self {
        Self {
            near: Arc::new(near),
            far: Arc::new(far),
            near_for: Duration::from_secs(1),
            numbers_only: false,
            watched: None,
            rules: Rules::default(),
        }
    }

    /// How long a copy may be served, counted from when the far store was asked for it; by so much
    /// a read may lag behind other processes. Default: one second. Zero: the near store is not used.
    #[must_use]
    pub fn near_for(mut self, span: Duration) -> Self {
        self.near_for = span;
        self
    }

    /// Lets `fetch` and its like take values with tags from the near store, so that only the
    /// numbers of the tags are sent. Default: off.
    ///
    /// Invalidations of tags are seen at once, as ever. That another process has set or deleted the
    /// key is seen [`near_for`](Self::near_for) later at most: bounded, not promised.
    ///
    /// ```
    /// use larder::{store::Memory, wrap::Tiered};
    ///
    /// let tiers = Tiered::new(Memory::new(), Memory::new()).numbers_only();
    /// ```
    #[must_use]
    pub fn numbers_only(mut self) -> Self {
        self.numbers_only = true;
        self
    }

    /// Listens to what changes at the far store, and serves copies for as long as they live without
    /// asking: to plain reads, pages, `fetch` and its like. Default: off.
    ///
    /// Needs a far store that can be [watched](Store::watch): one server of Redis 6 or later, or of Valkey,
    /// that is not read through replicas. With others, clusters and sentinels among them, and where the connection cannot be made, the tier
    /// works as if this were off, and says so in the log.
    ///
    /// *What is bounded.* That another process has changed a key or invalidated a tag is heard a moment
    /// after it was acknowledged there, and [`near_for`](Self::near_for) later at most, however the
    /// connection fails: every quarter of it the far store has to say that all is told, and copies
    /// that are not covered by that are not served. What this process itself does holds at once.
    ///
    /// *What it costs.* One more connection, and on Redis a message for each key that changes on the
    /// whole server. Values with tags are kept near as well, and the numbers of ten thousand tags.
    ///
    /// ```
    /// use larder::{store::Memory, wrap::Tiered};
    ///
    /// let far = Memory::new(); // a `store::Redis` in earnest
    /// let tiers = Tiered::new(Memory::new(), far).watched();
    /// ```
    #[must_use]
    pub fn watched(mut self) -> Self {
        self.watched = Some(Arc::default());
        self
    }

    /// What is heard of the far store.
    fn hearing(&self) -> Option<&Hearing> {
        self.listener().map(|listener| &*listener.hearing)
    }

    fn listener(&self) -> Option<&Watched> {
        let new = || {
            let (near, clock) = (Arc::clone(&self.near), self.far.clock().clone());
            Watched::new(near, clock, self.near_for, self.rules.clone())
        };
        self.watched
            .as_ref()
            .map(|watched| watched.get_or_init(new))
    }

    /// Whether copies may be served for as long as they live.
    fn is_current(&self) -> bool {
        self.hearing().is_some_and(Hearing::is_current)
    }

    /// Breaks a rule of the near tier, to see that a simulation finds it.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn break_rule(mut self, rule: NearRule) -> Self {
        self.rules = Rules::broken(rule);
        self
    }

    fn now(&self) -> Moment {
        self.far.clock().now()
    }

    /// The far store's entry of which `slot` holds a copy that may still be served.
    fn copied(&self, key: &Key, slot: &Entry, is_current: bool) -> Option<Entry> {
        let now = self.now();
        let Some(Value::Bytes(frame)) = &slot.value else {
            return None;
        };
        let may = slot.is_live(now) || is_current && slot.is_within_grace(now);
        if !may || slot.state_at(now) != State::Idle {
            return None;
        }
        let mut entry = Entry::from_frame(frame, key, 0).filter(|entry| !entry.unreadable)?;
        entry.decoded.clone_from(&slot.decoded);
        Some(entry)
    }

    /// The copy of `entry` to keep near, if it may be kept: its frame, with a deadline of its own.
    fn copy(&self, key: &Key, entry: &Entry, asked: Moment) -> Option<Entry> {
        let now = self.now();
        // From the question on, not the answer: what was written meanwhile is not in it.
        let until = asked.plus(self.near_for).min(entry.fresh_until);
        // Past that, it is there for those whom a watch covers.
        let kept_until = match self.watched {
            Some(_) => entry.fresh_until,
            None => until,
        };
        let may = entry.is_live(now)
            && entry.state_at(now) == State::Idle
            && !entry.unreadable
            && !entry.is_plain()
            && kept_until > now;
        let copy = || {
            let frame = Value::Bytes(entry.to_frame(key, 0));
            let mut copy = Entry::new(self.far.clock(), frame).fresh_until(until);
            copy.stale_until = kept_until;
            copy
        };
        may.then(copy)
    }

    /// What the near store says about `keys`, and what is to be done about each.
    async fn plan(&self, keys: &[Key], checks_tags: bool, is_current: bool) -> Vec<Plan> {
        // A near store that fails is none: the far one has it all.
        let slots = match self.near.get(&near_keys(keys), None).await {
            Ok(found) => found.entries,
            Err(_) => return keys.iter().map(|_| Plan::Ask).collect(),
        };
        let mut plans = Vec::with_capacity(keys.len());
        for (key, slot) in keys.iter().zip(slots) {
            let copied = slot
                .as_ref()
                .and_then(|slot| self.copied(key, slot, is_current));
            let by_numbers = |entry: &Entry| self.numbers_only && entry.tags.is_some();
            let may = |entry: &Entry| !checks_tags || is_current || by_numbers(entry);
            plans.push(match copied {
                Some(entry) if may(&entry) => Plan::Serve(entry),
                Some(entry) => Plan::Compare(entry.stamp),
                None => match self.claim(key, slot).await {
                    Some(mark) => Plan::Refill(mark),
                    None => Plan::Ask,
                },
            });
        }
        plans
    }

    /// Marks the near slot for a refill, unless one is under way.
    async fn claim(&self, key: &Key, slot: Option<Entry>) -> Option<Stamp> {
        let (clock, now) = (self.far.clock(), self.now());
        if self.near_for.is_zero() {
            return None;
        }
        if !self.rules.keep(NearRule::MarkBeforeTheQuestion) {
            return Some(Stamp::draw(clock));
        }
        if (slot.as_ref()).is_some_and(|slot| slot.state_at(now) == State::Loading) {
            return None;
        }
        let mark = Mark {
            stamp: Stamp::draw(clock),
            state: State::Loading,
            until: now.plus(REFILL),
        };
        let seen = slot.map(|slot| slot.stamp);
        let marked = self.near.mark(&near_key(key), seen, mark).await;
        marked.is_ok_and(|marked| marked).then_some(mark.stamp)
    }

    /// Puts what the far store said into the near slot, if its mark is still there, or takes the
    /// mark away. What the near store does not take, it does not take.
    async fn refill(&self, key: &Key, found: Option<&Entry>, mark: Stamp, asked: Moment) {
        let Some(copy) = found.and_then(|entry| self.copy(key, entry, asked)) else {
            // Perhaps another's mark by now: then a refill is lost, and nothing else.
            self.drop_near(key).await;
            return;
        };
        let when = if self.rules.keep(NearRule::MarkBeforeTheQuestion) {
            When::IfStamp(mark)
        } else {
            When::Always
        };
        if let Err(error) = self.near.put(&near_key(key), copy, when).await {
            tracing::debug!(%error, "copy_not_kept");
        }
    }

    /// Asks the far store for all that is not served from the near one.
    async fn ask(
        &self,
        keys: &[Key],
        plans: &[Plan],
        tags: Option<Tags<'_>>,
        is_current: bool,
    ) -> Result<Found> {
        let is_far = |plan: &Plan| !matches!(plan, Plan::Serve(_));
        let far = keys.iter().zip(plans).filter(|(_, plan)| is_far(plan));
        let far: Vec<Key> = far.map(|(key, _)| key.clone()).collect();
        if far.is_empty() {
            let ask = self.rules.keep(NearRule::AskForNumbers);
            let heard = self.hearing().filter(|_| is_current);
            let numbers = match (heard, tags) {
                (Some(hearing), Some(tags)) => hearing.numbers(tags),
                _ => (!ask).then(|| self.rules.remembered(tags)).flatten(),
            };
            if tags.is_none() || numbers.is_some() {
                return Ok(Found {
                    entries: Vec::new(),
                    numbers,
                });
            }
        }
        // The numbers come after all entries, those taken from the near store included.
        let found = self.ask_far(&far, tags).await?;
        self.rules.remember(tags, found.numbers.as_ref());
        Ok(found)
    }

    /// Asks the far store, and keeps the numbers that it gives.
    async fn ask_far(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let hearing = self
            .hearing()
            .map(|hearing| (hearing, hearing.generation()));
        let found = self.far.get(keys, tags).await?;
        if let (Some((hearing, generation)), Some(tags), Some(numbers)) =
            (hearing, tags, &found.numbers)
        {
            hearing.remember(tags, numbers, generation);
        }
        Ok(found)
    }

    async fn drop_near(&self, key: &Key) {
        let _ = self
            .near
            .delete(std::slice::from_ref(&*near_key(key)))
            .await;
    }

    /// Runs a write of the numbers of `space`; acknowledged only when those that are known are dropped.
    async fn raising<T>(
        &self,
        space: &str,
        act: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let hearing = self.hearing();
        let hearing = hearing.filter(|_| self.rules.keep(NearRule::ForgetOwnNumbers));
        if let Some(hearing) = hearing {
            hearing.forget_numbers(space);
        }
        let done = act.await;
        if let Some(hearing) = hearing {
            hearing.forget_numbers(space);
        }
        done
    }

    /// Does what was planned with what the far store said.
    async fn carry_out(&self, key: &Key, plan: &Plan, found: Option<&Entry>, asked: Moment) {
        match plan {
            Plan::Refill(mark) => self.refill(key, found, *mark, asked).await,
            Plan::Compare(stamp) if found.is_none_or(|found| found.stamp != *stamp) => {
                // Seen to be outdated: nobody is to read it again after what was read now.
                self.drop_near(key).await;
            }
            _ => {}
        }
    }

    /// Runs a write of `keys` at the far store; acknowledged only when the near slots are dropped.
    async fn write<T: Send>(
        &self,
        keys: &[Key],
        act: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let near = near_keys(keys);
        self.near.delete(&near).await?;
        let done = act.await;
        if !self.rules.keep(NearRule::DropAfterTheWrite) {
            return done;
        }
        // Also after an error: what failed may have happened.
        let dropped = self.near.delete(&near).await;
        let done = done?;
        dropped.map(|_| done)
    }
}

/// The key of a slot in the near store: its name, which is all that a message tells.
fn near_key(key: &Key) -> Cow<'_, Key> {
    if key.is_hashed() {
        Cow::Owned(Key::of_slot(key.name()))
    } else {
        Cow::Borrowed(key)
    }
}

fn near_keys(keys: &[Key]) -> Cow<'_, [Key]> {
    if keys.iter().any(Key::is_hashed) {
        keys.iter().map(|key| near_key(key).into_owned()).collect()
    } else {
        Cow::Borrowed(keys)
    }
}

/// What is to be done about a key that is asked for.
enum Plan {
    /// Answer with this, which the far store said a moment ago.
    Serve(Entry),
    /// Ask the far store, and put its answer into the near slot under this mark.
    Refill(Stamp),
    /// Ask the far store, and drop the near copy, which has this stamp, if that is another.
    Compare(Stamp),
    /// Ask the far store.
    Ask,
}

impl fmt::Display for Tiered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.near, self.far)
    }
}

impl fmt::Debug for Tiered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiered")
            .field("near", &self.near)
            .field("far", &self.far)
            .field("near_for", &self.near_for)
            .field("numbers_only", &self.numbers_only)
            .field("is_watched", &self.watched.is_some())
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Tiered {
    fn clock(&self) -> &Clock {
        self.far.clock()
    }

    fn get_now(&self, key: &Key) -> Option<Option<Arc<Entry>>> {
        // A far store that need not be waited for is better than any copy.
        self.far.get_now(key).or_else(|| {
            let slot = self.near.get_now(&near_key(key))??;
            let is_current = self.is_current();
            let mut copy = self.copied(key, &slot, is_current)?;
            // For a fetch only what a watch covers is as good as the far store's word.
            copy.copied = Copied(!is_current);
            Some(Some(Arc::new(copy)))
        })
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        if keys.is_empty() {
            return self.ask_far(keys, tags).await;
        }
        let is_current = self.is_current();
        if let Some(listener) = self.listener().filter(|_| !is_current) {
            listener.listen(&self.far);
        }
        let asked = self.now();
        let plans = self.plan(keys, tags.is_some(), is_current).await;
        let Found {
            entries: answers,
            numbers,
        } = match self.ask(keys, &plans, tags, is_current).await {
            Ok(found) => found,
            Err(error) => {
                for (key, plan) in keys.iter().zip(&plans) {
                    if let Plan::Refill(mark) = plan {
                        self.refill(key, None, *mark, asked).await;
                    }
                }
                return Err(error);
            }
        };
        let mut answers = answers.into_iter();
        let mut entries = Vec::with_capacity(keys.len());
        for (key, plan) in keys.iter().zip(plans) {
            if let Plan::Serve(entry) = plan {
                entries.push(Some(entry));
                continue;
            }
            let answer = answers.next().flatten();
            self.carry_out(key, &plan, answer.as_ref(), asked).await;
            entries.push(answer);
        }
        Ok(Found { entries, numbers })
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        self.far.heads(keys).await
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        let put = self.far.put(key, entry, when);
        self.write(std::slice::from_ref(key), put).await
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        let keys: Vec<Key> = entries.iter().map(|(key, _)| key.clone()).collect();
        self.write(&keys, self.far.put_many(entries)).await
    }

    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        let marking = self.far.mark(key, seen, mark);
        self.write(std::slice::from_ref(key), marking).await
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        let touch = self.far.touch(key, fresh_until);
        self.write(std::slice::from_ref(key), touch).await
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        let add = self.far.add_to(key, delta);
        self.write(std::slice::from_ref(key), add).await
    }

    // A copy says from which numbers it is good, and the numbers are asked of the far store.
    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        self.raising(tags.space, self.far.raise(tags)).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        self.write(keys, self.far.delete(keys)).await
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        self.near.clear(scope, space).await?;
        let cleared = self.raising(space, self.far.clear(scope, space)).await;
        let dropped = self.near.clear(scope, space).await;
        cleared.and(dropped)
    }

    async fn close(&self) -> Result<()> {
        if let Some(listener) = self.watched.as_ref().and_then(|watched| watched.get()) {
            listener.stop();
        }
        let far = self.far.close().await;
        far.and(self.near.close().await)
    }

    fn scan(&self) -> Option<&dyn Scan> {
        self.far.scan()
    }

    fn watch(&self) -> Option<&dyn Watch> {
        // The near store may still have what the far one has told of: who copies from here would
        // keep it.
        None
    }
}
