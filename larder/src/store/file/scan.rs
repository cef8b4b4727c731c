//! Listing keys, folder by folder.

use async_trait::async_trait;

use super::{File, Inner, ROOMS, is_nothing, room, slot};
use crate::Result;
use crate::store::{Scan, Scanned};

#[async_trait]
impl Scan for File {
    /// A page is what is left of a folder, or `limit` keys of it.
    async fn page(&self, scope: &str, from: Option<&str>, limit: usize) -> Result<Scanned> {
        let (number, after) = from.and_then(position).unwrap_or((0, String::new()));
        let scope = scope.to_owned();
        self.job(move |inner, _| inner.page(number, &after, &scope, limit.max(1)))
            .await
    }
}

/// The folder and the file that a page goes on after.
fn position(from: &str) -> Option<(usize, String)> {
    let (number, after) = from.split_once('/')?;
    Some((number.parse().ok()?, after.to_owned()))
}

impl Inner {
    fn page(&self, number: usize, after: &str, scope: &str, limit: usize) -> Result<Scanned> {
        let Some(room) = self.rooms.get(number) else {
            return Ok(Scanned::default());
        };
        let failed = |error| self.failed("list", room.path(), error);
        let mut names = room.names().map_err(failed)?;
        names.retain(|name| slot::is_place(name) && name.as_str() > after);
        names.sort_unstable();
        let more = names.len() > limit;
        names.truncate(limit);
        let next = match names.last().filter(|_| more) {
            Some(last) => Some(format!("{number}/{last}")),
            None => (number + 1 < ROOMS).then(|| format!("{}/", number + 1)),
        };
        let now = self.clock.now();
        let mut keys = Vec::new();
        for name in names {
            let path = room.path().join(&name);
            let bytes = match room::read(&path, slot::LONGEST) {
                Err(error) if is_nothing(&error) => continue,
                bytes => bytes.map_err(|error| self.failed("list", &path, error))?,
            };
            let key = slot::key(&bytes).filter(|key| key.name().starts_with(scope));
            let Some(key) = key.filter(|key| slot::place(key.name()).1 == name) else {
                continue;
            };
            let entry = slot::entry(bytes, &key, self.incarnation);
            keys.extend(entry.filter(|entry| entry.is_live(now)).map(|_| key));
        }
        Ok(Scanned { keys, next })
    }
}
