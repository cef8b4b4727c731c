//! Bare integers across a restart of the server.
//!
//! A frame states the incarnation in which it was written, bare digits cannot. On a server that holds
//! nothing from before, all digits are good. On others the hash [`RECORD`] states, per group of slots,
//! in which incarnation they were found good: who meets digits of a group of which it does not say so
//! deletes them first, and says so then.
//!
//! A group is `prefix:version:`, so that another program's integers that merely begin with our prefix
//! are left alone. Names that do not have that form, which only a key function makes, share one group:
//! there every integer of that kind of name counts as ours.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Pipeline, RedisResult, Value, cmd};
use tokio::sync::watch;

use super::connection::Link;
use super::{glob, reply, scripts};
use crate::{Clock, Key};

/// The hash of groups; version `@` is kept for Larder's own records.
pub(super) const RECORD: &str = ":@:restarts";
/// Groups that a link remembers; past that, it asks again.
const MOST_GROUPS: usize = 1024;

/// What is known about a group on this link.
pub(super) enum Group {
    Good,
    Sweeping(Sweep),
}

pub(super) type Sweep = watch::Receiver<Option<RedisResult<()>>>;

/// The group of a slot: `prefix:version:`, or the one of all names that have no such beginning.
pub(super) fn group(name: &str) -> &str {
    let version = name.match_indices(':').nth(1);
    version.map_or("", |(colon, _)| &name[..=colon])
}

/// Whether the slot is one of Larder's own records.
pub(super) fn is_record(name: &str) -> bool {
    name.split_once(':')
        .is_some_and(|(_, rest)| rest.starts_with("@:"))
}

impl Link {
    /// The groups of `keys` that have not been looked after yet, if that has to be done at all.
    pub(super) fn unknown<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a Key>,
    ) -> BTreeSet<Box<str>> {
        if self.incarnation == 0 || !self.has_older || !self.takes_digits {
            return BTreeSet::new();
        }
        let groups = self.groups();
        keys.into_iter()
            .map(|key| group(key.name()))
            .filter(|group| !matches!(groups.get(*group), Some(Group::Good)))
            .map(Box::from)
            .collect()
    }

    /// Asks whether the digits in `group` are good; if they may be old, the sweep to wait for.
    pub(super) async fn look_after(
        self: &Arc<Self>,
        group: &str,
        clock: &Clock,
        limit: Duration,
    ) -> RedisResult<Option<Sweep>> {
        if let Some(Group::Sweeping(sweep)) = self.groups().get(group)
            && sweep.has_changed().is_ok()
        {
            return Ok(Some(sweep.clone()));
        }
        if self.good_in(group).await? != Some(self.incarnation_text()) {
            return Ok(Some(self.start_sweep(group, clock, limit)));
        }
        self.remember(group);
        Ok(None)
    }

    fn remember(&self, group: &str) {
        let mut groups = self.groups();
        if groups.len() >= MOST_GROUPS {
            groups.retain(|_, group| matches!(group, Group::Sweeping(_)));
        }
        groups.insert(group.into(), Group::Good);
    }

    /// The incarnation in which the digits in `group` are good.
    ///
    /// A read first: a server that takes no writes just now can still be read from.
    async fn good_in(&self, group: &str) -> RedisResult<Option<String>> {
        let ask = one(cmd("HGET").arg(RECORD).arg(group));
        match first_error(self.send(&ask).await?) {
            Ok(answer) => Ok(reply::text(&answer).map(str::to_owned)),
            // Somebody's key under our name says nothing about the digits: they are swept.
            Err(error) if error.code() == Some("WRONGTYPE") => {
                let drop = one(cmd("UNLINK").arg(RECORD));
                first_error(self.send(&drop).await?)?;
                Ok(Some(String::new()))
            }
            Err(error) => Err(error),
        }
    }

    /// A task of its own: on a large server it outlasts the patience of its callers.
    fn start_sweep(self: &Arc<Self>, group: &str, clock: &Clock, limit: Duration) -> Sweep {
        let mut groups = self.groups();
        if let Some(Group::Sweeping(sweep)) = groups.get(group)
            && sweep.has_changed().is_ok()
        {
            return sweep.clone();
        }
        let (sender, sweep) = watch::channel(None);
        groups.insert(group.into(), Group::Sweeping(sweep.clone()));
        drop(groups);
        let (link, group, clock_of_task) = (Arc::clone(self), group.to_owned(), clock.clone());
        clock.spawn(async move {
            let outcome = link.sweep(&group, &clock_of_task, limit).await;
            match &outcome {
                Ok(()) => link.remember(&group),
                Err(_) => drop(link.groups().remove(&*group)),
            }
            sender.send_replace(Some(outcome));
        });
        sweep
    }

    async fn sweep(&self, group: &str, clock: &Clock, limit: Duration) -> RedisResult<()> {
        let now = self.incarnation_text();
        let pattern = format!("{}*", glob::escaped(group));
        let mut cursor = String::from("0");
        loop {
            let scan = one(&scan_command(&cursor, &pattern, SCANNED));
            let answers = within(clock, limit, self.send(&scan)).await?;
            let (next, names) = scanned(answers.into_iter().next())?;
            let ours = |name: &&Vec<u8>| {
                std::str::from_utf8(name).is_ok_and(|name| self::group(name) == group)
            };
            let names: Vec<&[u8]> = names.iter().filter(ours).map(Vec::as_slice).collect();
            if !names.is_empty() {
                let mut keys = vec![RECORD.as_bytes()];
                keys.extend(names);
                let delete = one(scripts::SWEEP.call(&keys).arg(&now).arg(group));
                let answers = within(clock, limit, self.send(&delete)).await?;
                if first_error(answers)? == Value::Int(0) {
                    return Ok(());
                }
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
        let done = one(cmd("HSET").arg(RECORD).arg(group).arg(&now));
        first_error(within(clock, limit, self.send(&done)).await?).map(|_| ())
    }

    fn incarnation_text(&self) -> String {
        format!("{:016x}", self.incarnation)
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<Box<str>, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one(command: &redis::Cmd) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.add_command(command.clone());
    pipeline
}

/// How many keys the server looks at in one step.
pub(super) const SCANNED: usize = 500;

pub(super) fn scan_command(cursor: &str, pattern: &str, count: usize) -> redis::Cmd {
    let mut scan = cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(pattern);
    scan.arg("COUNT").arg(count.clamp(1, 10_000));
    scan
}

/// The next cursor and the names that a `SCAN` gave.
pub(super) fn scanned(answer: Option<Value>) -> RedisResult<(String, Vec<Vec<u8>>)> {
    let odd = || (redis::ErrorKind::UnexpectedReturnType, "the answer to SCAN");
    let answer = first_error(answer.into_iter().collect())?;
    let [cursor, names] = reply::list(answer)
        .and_then(|parts| <[Value; 2]>::try_from(parts).ok())
        .ok_or_else(odd)?;
    let name = |value| match value {
        Value::BulkString(name) => Some(name),
        _ => None,
    };
    let cursor = reply::text(&cursor).ok_or_else(odd)?.to_owned();
    let names = reply::list(names).ok_or_else(odd)?;
    Ok((cursor, names.into_iter().filter_map(name).collect()))
}

fn first_error(answers: Vec<Value>) -> RedisResult<Value> {
    match answers.into_iter().next().unwrap_or_default() {
        Value::ServerError(error) => Err(error.into()),
        answer => Ok(answer),
    }
}

async fn within<T>(
    clock: &Clock,
    limit: Duration,
    work: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    clock
        .timeout(limit, work)
        .await
        .unwrap_or_else(|| Err(late().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_belongs_to_the_group_of_its_prefix_and_version() {
        for (name, expected) in [
            (":1:k", ":1:"),
            ("shop:1:k:of:more", "shop:1:"),
            ("shop:visits", ""),
            ("shop:~sha256~00", ""),
            ("k", ""),
        ] {
            assert_eq!(group(name), expected, "{name}");
        }
    }

    #[test]
    fn records_are_told_from_slots() {
        for (name, expected) in [
            (":@:restarts", true),
            ("shop:@:numbers", true),
            (":1:k", false),
            (":1:@:k", false),
            ("@:1:k", false),
        ] {
            assert_eq!(is_record(name), expected, "{name}");
        }
    }
}
