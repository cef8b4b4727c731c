//! Reading from several servers.

use redis::{Value as Reply, cmd};

use super::act::Again;
use super::connection::Link;
use super::slots::slot;
use super::spread::Answer;
use super::{Redis, entry_of, names, none, numbers_name, read_numbers, reply};
use crate::entry::Entry;
use crate::store::{Found, Numbers, Tags};
use crate::{Key, Result};

impl Redis {
    /// What the slots hold on the nodes of a cluster, and the numbers.
    ///
    /// One trip to each node, and the numbers after it: read at the same time, they could be older than
    /// an entry. One trip for all where a single node has entries and numbers.
    pub(super) async fn get_spread(&self, keys: &[Key], tags: Option<Tags<'_>>) -> Result<Found> {
        let mut names: Vec<String> = names(keys).into_iter().map(str::to_owned).collect();
        let along = match tags {
            Some(tags) if self.is_one_node(&names, tags).await? => Some(tags),
            _ => None,
        };
        names.extend(along.map(|tags| numbers_name(tags.space)));
        let command = |_: &Link, at: usize| match (keys.get(at), along) {
            (None, Some(tags)) => read_numbers(tags),
            _ => cmd("GET").arg(&names[at]).to_owned(),
        };
        let mut answers = self.each(&names, none, Again::Once, command).await?;
        let mut numbers = along.and_then(|_| answers.pop());
        // A slot that has moved meanwhile was read later than the numbers.
        let after = |(link, _): &Answer| {
            (answers.iter()).all(|(other, _)| std::sync::Arc::ptr_eq(link, other))
        };
        numbers = numbers.filter(after);
        let entry = |(key, (link, answer)): (&Key, Answer)| entry_of(answer, key, &link);
        let entries = keys.iter().zip(answers).map(entry).collect();
        let numbers = match tags {
            None => None,
            Some(tags) => Some(self.numbers_in(numbers, tags).await?),
        };
        Ok(Found { entries, numbers })
    }

    /// Whether the keys and the numbers are on the same node, as far as is known.
    async fn is_one_node(&self, names: &[String], tags: Tags<'_>) -> Result<bool> {
        let Some(cluster) = &self.1 else {
            return Ok(true);
        };
        let map = cluster.map().await?;
        let owner = |name: &str| map.owner(slot(name.as_bytes()));
        let of_numbers = owner(&numbers_name(tags.space));
        Ok(of_numbers.is_some() && names.iter().all(|name| owner(name) == of_numbers))
    }

    /// The numbers in an answer, or those read now.
    async fn numbers_in(&self, answer: Option<Answer>, tags: Tags<'_>) -> Result<Numbers> {
        let (link, answer) = if let Some(answer) = answer {
            answer
        } else {
            let name = [numbers_name(tags.space)];
            let read = |_: &Link, _| read_numbers(tags);
            self.first(self.each(&name, none, Again::Once, read).await?)?
        };
        let read = |answer: Reply| reply::numbers(&reply::list(answer)?, link.incarnation);
        match read(answer) {
            Some(numbers) => Ok(numbers),
            None => self.draw_numbers(tags).await,
        }
    }

    /// What the slots hold at replicas; `None` where these are not to be read, or not all can be.
    pub(super) async fn get_from_replicas(
        &self,
        keys: &[Key],
    ) -> Result<Option<Vec<Option<Entry>>>> {
        if self.0.replicas.is_none() || keys.is_empty() {
            return Ok(None);
        }
        let mut entries: Vec<Option<Entry>> = vec![None; keys.len()];
        for (server, places) in self.servers_of(keys).await? {
            let here: Vec<&Key> = places.iter().map(|at| &keys[*at]).collect();
            let Some(read) = self.read_replica(&server, &here).await? else {
                return Ok(None);
            };
            for (at, entry) in places.into_iter().zip(read) {
                entries[at] = entry;
            }
        }
        Ok(Some(entries))
    }
}
