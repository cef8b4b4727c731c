//! Listing keys.

use async_trait::async_trait;
use redis::cmd;

use super::act::Again;
use super::clear::is_slot_within;
use super::{Redis, glob, none, pipeline, reply, restarts};
use crate::entry::whole_key;
use crate::key::MARKER;
use crate::store::{Scan, Scanned, Store as _};
use crate::{Key, Result};

/// How much of a slot is read to find the key that its hashed name stands for: a whole key and tags
/// past that are not listed.
const START: usize = 64 * 1024;

#[async_trait]
impl Scan for Redis {
    async fn page(&self, scope: &str, from: Option<&str>, limit: usize) -> Result<Scanned> {
        let pattern = format!("{}*", glob::escaped(scope));
        let cursor = from.unwrap_or("0");
        let build = |_: &_| pipeline([restarts::scan_command(cursor, &pattern, limit)]);
        let (_, answers) = self.call(none, Again::Once, build).await?;
        let (next, names) =
            restarts::scanned(answers.into_iter().next()).map_err(|_| self.odd())?;
        let ours = names.into_iter().filter(|name| is_slot_within(name, scope));
        let names: Vec<String> = ours
            .filter_map(|name| String::from_utf8(name).ok())
            .collect();
        let keys = self.keys_of(names).await?;
        let heads = self.heads(&keys).await?;
        let live = keys
            .into_iter()
            .zip(heads)
            .filter(|(_, head)| head.is_some());
        Ok(Scanned {
            keys: live.map(|(key, _)| key).collect(),
            next: (next != "0").then_some(next),
        })
    }
}

impl Redis {
    /// The keys that slots of these names are for.
    async fn keys_of(&self, names: Vec<String>) -> Result<Vec<Key>> {
        let (hashed, plain): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| name.contains(MARKER));
        let mut keys: Vec<Key> = plain.into_iter().map(Key::new).collect();
        if hashed.is_empty() {
            return Ok(keys);
        }
        let build = |_: &_| {
            let start = |name: &String| cmd("GETRANGE").arg(name).arg(0).arg(START).to_owned();
            pipeline(hashed.iter().map(start))
        };
        let (_, answers) = self.call(none, Again::Once, build).await?;
        for (name, answer) in hashed.iter().zip(answers) {
            let frame = reply::bytes(answer).unwrap_or_default();
            let key = whole_key(&frame).map(Key::new);
            keys.extend(key.filter(|key| key.name() == name));
        }
        Ok(keys)
    }
}
