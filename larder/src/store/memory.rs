//! Entries in this process.
//!
//! Values live in a map that evicts; leases and markers live beside it, so that no burst of new
//! values can throw out a lease. Who writes holds one of a few locks, chosen by the key; who reads
//! a live value takes none of them.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::cells::InSight;
use super::marks::Stripe;
use super::{Found, Scan, Scanned, Spaces, Store, Sum, Tags, Watch, When};
use crate::entry::{Decoded, Entry, Head, Mark, Stamp, Tag, Value};
use crate::{Clock, Error, ErrorKind, Key, Moment, Result};

/// What an entry costs besides its key and its bytes.
const OVERHEAD: u64 = 192;
/// Locks for writers; a power of two.
const STRIPES: usize = 64;
/// The share of the bytes that marks may take beside the entries, and the numbers of tags again.
const SHARE: u64 = 8;
/// How often what has expired is swept out.
const SWEEP: Duration = Duration::from_secs(1);

/// Keeps entries in this process, bounded by bytes and by entries; a clone shares them.
///
/// Eviction is scan-resistant (S3-FIFO's family). What has expired leaves within a second or so,
/// read or not. Each value is an atomic unit per key.
///
/// ```
/// use larder::store::Memory;
///
/// let small = Memory::builder().max_bytes(1 << 20).max_entries(1000).build();
/// assert_eq!(small.to_string(), "memory");
/// assert!(small.is_empty());
/// ```
#[derive(Clone)]
pub struct Memory(Arc<Inner>);

struct Inner {
    entries: Entries,
    /// Leases and markers, by the lock that guards their keys.
    stripes: Box<[Mutex<Stripe>]>,
    hasher: DefaultHashBuilder,
    spaces: Spaces,
    clock: Clock,
    keep_decoded: bool,
    largest: u64,
    sweeping: AtomicBool,
}

type Entries = quick_cache::sync::Cache<Key, Arc<Entry>, Weight, DefaultHashBuilder, Quiet>;
type Marks<'a> = MutexGuard<'a, Stripe>;

/// The room an entry takes; never less than its share of the entry limit, so that a limit in bytes
/// bounds the number of entries as well.
#[derive(Debug, Clone)]
struct Weight {
    least: u64,
}

impl Weighter<Key, Arc<Entry>> for Weight {
    fn weight(&self, key: &Key, entry: &Arc<Entry>) -> u64 {
        weight(key, entry).max(self.least)
    }
}

/// What an entry costs, in bytes.
fn weight(key: &Key, entry: &Entry) -> u64 {
    let value = entry.value.as_ref().map_or(0, Value::len);
    let tags = entry
        .tags
        .as_ref()
        .map_or(0, |tags| tags.good_from.iter().map(cost_of_tag).sum());
    (key.kept_len() + value + tags) as u64 + OVERHEAD
}

/// A tag and its cell are shared with other entries, but may be this one's alone.
fn cost_of_tag((tag, _): &(Tag, u64)) -> usize {
    tag.len() + 120
}

/// Does nothing when an entry is evicted.
#[derive(Debug, Clone)]
struct Quiet;

impl Lifecycle<Key, Arc<Entry>> for Quiet {
    type RequestState = ();

    fn on_evict(&self, (): &mut Self::RequestState, _: Key, _: Arc<Entry>) {}
}

/// Settings of a [`Memory`].
///
/// ```
/// let memory = larder::store::Memory::builder().max_entries(300).build();
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct MemoryBuilder {
    max_bytes: u64,
    max_entries: u64,
    keep_decoded: bool,
    clock: Clock,
}

impl MemoryBuilder {
    /// How many bytes of keys and values to keep, with what keeping them costs. Default: 64 MiB.
    ///
    /// Leases and markers may take an eighth of that besides, and the numbers of tags another for each
    /// tag space.
    /// The store has a few independent parts, so that one entry may take at most an eighth or so.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes.max(4096);
        self
    }

    /// How many entries to keep. Default: no limit but the bytes.
    ///
    /// Each entry then counts for at least `max_bytes / max_entries` bytes.
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.max_entries = entries.max(1);
        self
    }

    /// Keeps values decoded beside their bytes, for [`Cache::get_shared`](crate::Cache::get_shared).
    /// Default: off. The decoded values are not counted in `max_bytes`.
    pub fn keep_decoded(mut self) -> Self {
        self.keep_decoded = true;
        self
    }

    /// Tells the time by `clock`. Default: the machine's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The store.
    pub fn build(self) -> Memory {
        // So that one entry more than allowed is too much, and all that are allowed are not.
        let least = self.max_bytes / self.max_entries.saturating_add(1) + 1;
        let share = self.max_bytes / SHARE;
        let shards = usize::try_from(self.max_bytes / (8 * least.max(OVERHEAD))).unwrap_or(8);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(
                usize::try_from((self.max_bytes / least.max(1024)).max(64)).unwrap_or(usize::MAX),
            )
            .weight_capacity(self.max_bytes)
            .shards(shards.clamp(1, 8))
            .build()
            .expect("both capacities are set");
        let weight = Weight { least };
        let hasher = DefaultHashBuilder::default();
        let entries = Entries::with_options(options, weight, hasher.clone(), Quiet);
        Memory(Arc::new(Inner {
            largest: entries.shard_capacity() / 10 * 9,
            entries,
            stripes: (0..STRIPES)
                .map(|_| Mutex::new(Stripe::new(share / STRIPES as u64)))
                .collect(),
            hasher,
            spaces: Spaces::within(share),
            clock: self.clock,
            keep_decoded: self.keep_decoded,
            sweeping: AtomicBool::new(false),
        }))
    }
}

impl Memory {
    /// A store of at most 64 MiB.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Settings for a store of another size.
    pub fn builder() -> MemoryBuilder {
        MemoryBuilder {
            max_bytes: 64 * 1024 * 1024,
            max_entries: u64::MAX,
            keep_decoded: false,
            clock: Clock::system(),
        }
    }

    /// How many entries are kept, those that have expired but are not yet swept out included.
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes the entries take, by the store's own count.
    pub fn bytes(&self) -> u64 {
        self.0.entries.weight()
    }

    /// Forgets the oldest half of the tags' numbers.
    #[cfg(feature = "simulation")]
    pub(crate) fn forget_numbers(&self) {
        self.0.spaces.forget();
    }

    /// Loses the tags' numbers, era and counter with them.
    #[cfg(feature = "simulation")]
    pub(crate) fn lose_numbers(&self) {
        self.0.spaces.lose();
    }

    /// Every value that is kept.
    #[cfg(feature = "simulation")]
    pub(crate) fn values(&self) -> Vec<(Key, Arc<Entry>)> {
        self.0.entries.iter().collect()
    }

    /// Removes what has expired now; a thread of the store does so about every second.
    pub fn sweep(&self) {
        self.0.sweep();
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    fn marks(&self, key: &Key) -> Marks<'_> {
        let stripe = usize::try_from(self.hasher.hash_one(key) >> 40).unwrap_or(0) % STRIPES;
        self.stripes[stripe]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What the slot holds: the value with the mark over it.
    fn slot(&self, key: &Key, marks: &Marks<'_>) -> Option<Arc<Entry>> {
        match (self.entries.get(key), marks.get(key)) {
            (Some(entry), Some(mark)) => Some(Arc::new(Entry::clone(&entry).marked(*mark))),
            (Some(entry), None) => Some(entry),
            (None, Some(mark)) => Some(Arc::new(Entry::bare(*mark))),
            (None, None) => None,
        }
    }

    fn live(&self, key: &Key, marks: &Marks<'_>) -> Option<Arc<Entry>> {
        self.slot(key, marks)
            .filter(|entry| entry.is_live(self.clock.now()))
    }

    fn write(self: &Arc<Self>, key: &Key, mut entry: Entry, marks: &mut Marks<'_>) -> Result<()> {
        let now = self.clock.now();
        marks.remove(key);
        if entry.value.is_none() {
            self.entries.remove(key);
            marks.insert(key, mark_of(&entry), now);
            self.start_sweeping();
            return Ok(());
        }
        let weight = weight(key, &entry);
        if weight > self.largest {
            self.entries.remove(key);
            let limit = self.largest;
            return Err(Error::new(
                ErrorKind::TooLarge,
                "memory",
                format!("an entry of {weight} bytes is larger than the {limit} that one may have"),
            )
            .with_hint("raise `max_bytes`"));
        }
        if entry.state != crate::State::Idle {
            marks.insert(key, mark_of(&entry), now);
        }
        entry.in_sight = match &entry.tags {
            Some(tagged) => self.spaces.in_sight(tagged),
            None => InSight::default(),
        };
        if self.keep_decoded {
            entry.decoded = Some(Decoded::default());
        }
        if entry.stale_until != Moment::NEVER {
            self.start_sweeping();
        }
        self.entries.insert(key.clone(), Arc::new(entry));
        Ok(())
    }

    fn sweep(&self) {
        let now = self.clock.now();
        self.entries.retain(|_, entry| entry.stale_until > now);
        for stripe in &self.stripes {
            let mut marks = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            marks.retain(|_, mark| mark.until > now);
        }
    }

    /// A thread, not a task: entries leave also while no runtime runs. It ends with the store.
    fn start_sweeping(self: &Arc<Self>) {
        if !self.clock.is_for_all_threads() {
            return;
        }
        if self.sweeping.load(Ordering::Relaxed) || self.sweeping.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = Arc::downgrade(self);
        let sweep = move || sweep_while_there(&inner);
        // Without the thread, entries leave when they are read or evicted.
        if let Err(error) = std::thread::Builder::new()
            .name("larder-sweep".into())
            .spawn(sweep)
        {
            tracing::warn!(%error, "memory_sweeper_missing");
        }
    }
}

fn mark_of(entry: &Entry) -> Mark {
    Mark {
        stamp: entry.stamp,
        state: entry.state,
        until: entry.state_until,
    }
}

fn sweep_while_there(inner: &Weak<Inner>) {
    loop {
        std::thread::sleep(SWEEP);
        let Some(inner) = inner.upgrade() else { return };
        inner.sweep();
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("entries", &self.len())
            .field("bytes", &self.bytes())
            .finish()
    }
}

#[async_trait]
impl Store for Memory {
    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    #[inline]
    fn get_now(&self, key: &Key) -> Option<Option<Arc<Entry>>> {
        let inner = &*self.0;
        if let Some(entry) = inner.entries.get(key)
            && entry.is_live(inner.clock.now())
        {
            return Some(Some(entry));
        }
        Some(inner.slot(key, &inner.marks(key)))
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let inner = &*self.0;
        let entry = |key| {
            let mut entry = Arc::unwrap_or_clone(inner.slot(key, &inner.marks(key))?);
            entry.in_sight = InSight::default();
            Some(entry)
        };
        let entries = keys.iter().map(entry).collect();
        Ok(Found {
            entries,
            numbers: tags.map(|tags| inner.spaces.read(tags, &inner.clock)),
        })
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let head = |key| {
            self.0
                .live(key, &self.0.marks(key))
                .map(|entry| entry.head())
        };
        Ok(keys.iter().map(head).collect())
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        let mut marks = self.0.marks(key);
        let may = match when {
            When::Always => true,
            When::IfAbsent => self.0.live(key, &marks).is_none(),
            When::IfPresent => self.0.live(key, &marks).is_some(),
            When::IfStamp(stamp) => self
                .0
                .slot(key, &marks)
                .is_some_and(|found| found.stamp == stamp),
        };
        if may {
            self.0.write(key, entry, &mut marks)?;
        }
        Ok(may)
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        let write = |(at, (key, entry))| {
            let mut marks = self.0.marks(&key);
            self.0.write(&key, entry, &mut marks).is_err().then_some(at)
        };
        Ok(entries.into_iter().enumerate().filter_map(write).collect())
    }

    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        let mut marks = self.0.marks(key);
        let may = self.0.slot(key, &marks).map(|found| found.stamp) == seen;
        if may {
            marks.insert(key, mark, self.0.clock.now());
            // Marks are swept like entries, also in a store that holds nothing else.
            self.0.start_sweeping();
        }
        Ok(may)
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        let mut marks = self.0.marks(key);
        let Some(mut entry) = self.0.live(key, &marks).map(Arc::unwrap_or_clone) else {
            return Ok(None);
        };
        let head = entry.head();
        let grace = entry.grace();
        entry = entry.fresh_until(fresh_until).with_grace(grace);
        entry.stamp = Stamp::draw(&self.0.clock);
        entry.state = crate::State::Idle;
        self.0.write(key, entry, &mut marks)?;
        Ok(Some(head))
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        let mut marks = self.0.marks(key);
        let Some(mut entry) = self.0.live(key, &marks).map(Arc::unwrap_or_clone) else {
            return Ok(Sum::NoSuchKey);
        };
        let Some(Value::Integer(number)) = entry.value else {
            return Ok(Sum::NotPlain);
        };
        if !entry.is_plain() {
            return Ok(Sum::NotPlain);
        }
        let Some(sum) = number.checked_add(delta) else {
            return Ok(Sum::Overflow);
        };
        entry.value = Some(Value::Integer(sum));
        entry.stamp = Stamp::draw(&self.0.clock);
        self.0.write(key, entry, &mut marks)?;
        Ok(Sum::Is(sum))
    }

    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        Ok(self.0.spaces.raise(tags, &self.0.clock))
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let now = self.0.clock.now();
        let remove = |key| {
            let mut marks = self.0.marks(key);
            marks.remove(key);
            let (_, entry) = self.0.entries.remove(key)?;
            entry.is_live(now).then(|| entry.head())
        };
        Ok(keys.iter().map(remove).collect())
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        let inner = &*self.0;
        inner.spaces.raise_floor(space, &inner.clock);
        // All locks at once, so that no lease slips from what is not yet cleared to what is.
        let mut stripes: Vec<Marks<'_>> = (inner.stripes.iter())
            .map(|stripe| stripe.lock().unwrap_or_else(PoisonError::into_inner))
            .collect();
        for marks in &mut stripes {
            marks.retain(|key, _| !key.name().starts_with(scope));
        }
        inner
            .entries
            .retain(|key, _| !key.name().starts_with(scope));
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    fn scan(&self) -> Option<&dyn Scan> {
        Some(self)
    }

    fn watch(&self) -> Option<&dyn Watch> {
        None
    }
}

#[async_trait]
impl Scan for Memory {
    async fn page(&self, scope: &str, from: Option<&str>, limit: usize) -> Result<Scanned> {
        let now = self.0.clock.now();
        let live = |(key, entry): (Key, Arc<Entry>)| {
            (key.name().starts_with(scope) && entry.is_live(now)).then_some(key)
        };
        let keys = self.0.entries.iter().filter_map(live);
        Ok(Scanned::of(keys, from, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Tagged;

    fn bytes(count: usize) -> Value {
        Value::Bytes(vec![b'x'; count].into())
    }

    async fn put(memory: &Memory, name: &str, value: Value, ttl: Option<Duration>) -> Result<bool> {
        let clock = memory.clock();
        let deadline = ttl.map_or(Moment::NEVER, |ttl| clock.now().plus(ttl));
        let entry = Entry::new(clock, value).fresh_until(deadline);
        memory.put(&Key::new(name), entry, When::Always).await
    }

    #[tokio::test]
    async fn an_entry_has_its_tags_in_sight_until_one_moves() {
        let (memory, key) = (Memory::new(), Key::new(":1:k"));
        let [b, c]: [Tag; 2] = ["b".into(), "c".into()];
        let tags = |names| Tags { space: "", names };
        let now = || memory.get_now(&key).unwrap().unwrap().is_unmoved_now("");
        let put = async || {
            let found = memory.get(&[], Some(tags(&[]))).await.unwrap();
            let numbers = found.numbers.unwrap();
            let good_from = vec![("a".into(), numbers.seq), ("b".into(), numbers.seq)];
            let era = numbers.era;
            let entry = Entry::new(memory.clock(), bytes(1)).with_tags(Tagged { era, good_from });
            memory.put(&key, entry, When::Always).await.unwrap();
        };

        put().await;
        assert!(now());
        memory.raise(tags(std::slice::from_ref(&c))).await.unwrap();
        assert!(now());
        memory.raise(tags(std::slice::from_ref(&b))).await.unwrap();
        assert!(!now());

        put().await;
        assert!(now());
        let copies = memory.get(std::slice::from_ref(&key), None).await.unwrap();
        assert!(!copies.entries[0].as_ref().unwrap().is_unmoved_now(""));
        memory.clear("other:", "").await.unwrap();
        assert!(!now(), "the floor is above it");
    }

    #[tokio::test]
    async fn both_bounds_hold_whatever_is_written() {
        let memory = Memory::builder()
            .max_bytes(1 << 20)
            .max_entries(100)
            .build();

        for number in 0..5000 {
            put(&memory, &format!(":1:{number}"), bytes(number % 3000), None)
                .await
                .unwrap();
        }

        assert!(memory.len() <= 100 && memory.len() > 50, "{memory:?}");
        assert!(memory.bytes() <= 1 << 20, "{memory:?}");
    }

    #[tokio::test]
    async fn a_few_entries_are_a_few() {
        for most in [1, 2, 3, 10, 100, 1000] {
            let memory = Memory::builder().max_entries(most).build();

            for number in 0..3 * most {
                let name = format!(":1:{number}");
                put(&memory, &name, bytes(10), None).await.unwrap();
                assert!(memory.get_now(&Key::new(name)).unwrap().is_some());
            }

            let kept = memory.len() as u64;
            assert!(kept <= most && kept >= most - most / 5, "{kept} of {most}");
        }
    }

    #[tokio::test]
    async fn names_of_tags_and_hashed_keys_are_counted() {
        let memory = Memory::builder().max_bytes(1 << 16).build();
        let tags = crate::Tagged {
            era: 1,
            good_from: vec![("t".repeat(1 << 12).into(), 1)],
        };
        let entry = Entry::new(memory.clock(), bytes(1)).with_tags(tags);
        let key = Key::new(format!(":1:a {}", "k".repeat(1 << 12)));

        memory.put(&key, entry, When::Always).await.unwrap();

        assert!(memory.bytes() > 2 * (1 << 12) + 64, "{memory:?}");
    }

    #[tokio::test]
    async fn numbers_of_tags_are_bounded_by_bytes() {
        let memory = Memory::builder().max_bytes(1 << 20).build();
        let raise = |names: Vec<crate::Tag>| {
            let memory = memory.clone();
            async move {
                let tags = Tags {
                    space: "",
                    names: &names,
                };
                memory.raise(tags).await.unwrap()
            }
        };
        let first: Vec<crate::Tag> = vec!["first".into()];
        let number = raise(first.clone()).await;

        for tag in 0..2000 {
            raise(vec![format!("{tag}{}", "t".repeat(1000)).into()]).await;
        }

        let tags = Tags {
            space: "",
            names: &first,
        };
        let numbers = memory.get(&[], Some(tags)).await.unwrap().numbers.unwrap();
        assert!(
            numbers.of[0].is_none() && numbers.floor >= number,
            "{numbers:?}"
        );
    }

    #[tokio::test]
    async fn touch_keeps_a_grace_without_end() {
        let memory = Memory::new();
        let (key, clock) = (Key::new(":1:k"), memory.clock());
        let soon = clock.now().plus(Duration::from_mins(1));
        let entry = Entry::new(clock, bytes(1)).fresh_until(soon);
        let entry = entry.with_grace(Duration::MAX);
        memory.put(&key, entry, When::Always).await.unwrap();

        memory.touch(&key, soon).await.unwrap();

        let after = memory.get_now(&key).unwrap().unwrap();
        assert_eq!(after.stale_until, Moment::NEVER);
    }

    #[tokio::test]
    async fn a_lease_outlives_a_flood_of_values() {
        let memory = Memory::builder().max_bytes(1 << 16).build();
        let key = Key::new(":1:leased");
        let until = memory.clock().now().plus(Duration::from_mins(1));
        let mark = Mark {
            stamp: Stamp::from_number(7),
            state: crate::State::Loading,
            until,
        };
        assert!(memory.mark(&key, None, mark).await.unwrap());

        for number in 0..5000 {
            put(&memory, &format!(":1:{number}"), bytes(100), None)
                .await
                .unwrap();
        }

        let entry = Entry::new(memory.clock(), bytes(1));
        assert!(
            memory
                .put(&key, entry, When::IfStamp(mark.stamp))
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn what_has_expired_leaves_without_being_read() {
        let clock = Clock::manual();
        let memory = Memory::builder().clock(clock.clone()).build();
        put(
            &memory,
            ":1:short",
            bytes(10),
            Some(Duration::from_millis(5)),
        )
        .await
        .unwrap();
        put(&memory, ":1:long", bytes(10), Some(Duration::from_secs(5)))
            .await
            .unwrap();

        clock.advance(Duration::from_millis(5));
        memory.sweep();

        assert_eq!(memory.len(), 1);
    }

    #[tokio::test]
    async fn an_entry_too_large_is_refused_and_the_old_one_is_gone() {
        let memory = Memory::builder().max_bytes(1 << 16).build();
        put(&memory, ":1:k", bytes(10), None).await.unwrap();

        let refused = put(&memory, ":1:k", bytes(1 << 17), None).await;

        assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(memory.get_now(&Key::new(":1:k")), Some(None));
    }
}
