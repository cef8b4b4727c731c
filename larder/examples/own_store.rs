//! A store of one's own, in a map under one lock, and the whole contract run over it.
//!
//! `cargo run --example own_store --features conformance`

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use larder::store::{Found, Numbers, Scan, Store, Sum, Tags, Watch, When};
use larder::{Clock, Entry, Head, Key, Mark, Moment, Result, Stamp, State, Tag, Value};

/// Keeps entries in a map, without bounds.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    clock: Clock,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    slots: HashMap<Key, Entry>,
    spaces: HashMap<String, Space>,
}

#[derive(Debug)]
struct Space {
    era: u64,
    seq: u64,
    floor: u64,
    of: HashMap<Tag, u64>,
}

impl Plain {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    /// The live entry at `key`, to be changed.
    fn live(&mut self, key: &Key, now: Moment) -> Option<&mut Entry> {
        self.slots.get_mut(key).filter(|entry| entry.is_live(now))
    }

    fn space(&mut self, name: &str, clock: &Clock) -> &mut Space {
        let new = || Space {
            era: clock.random(),
            seq: 0,
            floor: 0,
            of: HashMap::new(),
        };
        self.spaces.entry(name.to_owned()).or_insert_with(new)
    }
}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain")
    }
}

#[async_trait]
impl Store for Plain {
    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn get_now(&self, key: &Key) -> Option<Option<Arc<Entry>>> {
        Some(self.inside().slots.get(key).cloned().map(Arc::new))
    }

    async fn get(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let mut inside = self.inside();
        let entries = keys
            .iter()
            .map(|key| inside.slots.get(key).cloned())
            .collect();
        let numbers = tags.map(|tags| {
            let space = inside.space(tags.space, &self.clock);
            let of = tags
                .names
                .iter()
                .map(|name| space.of.get(name).copied())
                .collect();
            Numbers {
                era: space.era,
                seq: space.seq,
                floor: space.floor,
                of,
            }
        });
        Ok(Found { entries, numbers })
    }

    async fn heads(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let (mut inside, now) = (self.inside(), self.clock.now());
        Ok(keys
            .iter()
            .map(|key| inside.live(key, now).map(|entry| entry.head()))
            .collect())
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<bool> {
        let (mut inside, now) = (self.inside(), self.clock.now());
        let may = match when {
            When::Always => true,
            When::IfAbsent => inside.live(key, now).is_none(),
            When::IfPresent => inside.live(key, now).is_some(),
            When::IfStamp(stamp) => inside
                .slots
                .get(key)
                .is_some_and(|found| found.stamp == stamp),
        };
        if may {
            inside.slots.insert(key.clone(), entry);
        }
        Ok(may)
    }

    async fn put_many(&self, entries: Vec<(Key, Entry)>) -> Result<Vec<usize>> {
        self.inside().slots.extend(entries);
        Ok(Vec::new())
    }

    async fn mark(&self, key: &Key, seen: Option<Stamp>, mark: Mark) -> Result<bool> {
        let mut inside = self.inside();
        let found = inside.slots.get(key).cloned();
        let may = found.as_ref().map(|entry| entry.stamp) == seen;
        if may {
            let marked = found.map_or_else(|| Entry::bare(mark), |entry| entry.marked(mark));
            inside.slots.insert(key.clone(), marked);
        }
        Ok(may)
    }

    async fn touch(&self, key: &Key, fresh_until: Moment) -> Result<Option<Head>> {
        let (mut inside, now) = (self.inside(), self.clock.now());
        let Some(entry) = inside.live(key, now) else {
            return Ok(None);
        };
        let head = entry.head();
        let grace = entry.grace();
        entry.fresh_until = fresh_until;
        entry.stale_until = fresh_until.plus(grace);
        entry.stamp = Stamp::draw(&self.clock);
        entry.state = State::Idle;
        Ok(Some(head))
    }

    async fn add_to(&self, key: &Key, delta: i64) -> Result<Sum> {
        let (mut inside, now) = (self.inside(), self.clock.now());
        let Some(entry) = inside.live(key, now) else {
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
        entry.stamp = Stamp::draw(&self.clock);
        Ok(Sum::Is(sum))
    }

    async fn raise(&self, tags: Tags<'_>) -> Result<u64> {
        let mut inside = self.inside();
        let space = inside.space(tags.space, &self.clock);
        space.seq += 1;
        space
            .of
            .extend(tags.names.iter().map(|name| (name.clone(), space.seq)));
        Ok(space.seq)
    }

    async fn delete(&self, keys: &[Key]) -> Result<Vec<Option<Head>>> {
        let (mut inside, now) = (self.inside(), self.clock.now());
        let remove = |key| {
            let entry = inside.slots.remove(key)?;
            entry.is_live(now).then(|| entry.head())
        };
        Ok(keys.iter().map(remove).collect())
    }

    async fn clear(&self, scope: &str, space: &str) -> Result<()> {
        let mut inside = self.inside();
        let space = inside.space(space, &self.clock);
        space.seq += 1;
        space.floor = space.seq;
        space.of.clear();
        inside.slots.retain(|key, _| !key.name().starts_with(scope));
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    fn scan(&self) -> Option<&dyn Scan> {
        None
    }

    fn watch(&self) -> Option<&dyn Watch> {
        None
    }
}

pub(crate) fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a plain runtime").block_on(async {
        for (name, clause) in larder::conformance::CLAUSES {
            let store: Arc<dyn Store> = Arc::new(Plain::default());
            clause(&store).await;
            println!("kept: {name}");
        }
    });
}
