//! Removing what begins with a prefix, and the loads under it.
//!
//! A scan goes through the slots batch by batch while others write. What is there from its beginning
//! to its end it meets, but a lease that is put where it has been already it does not; nor a value
//! that was loaded before and is written there. So the hash [`UNDER_WAY`] says which clears are going
//! on. A lease, and what is written under one, is noted with those that would have removed it, in the
//! same act, and the clear ends by removing what was noted: no load that began before is kept after.
//!
//! That costs a look at a key that mostly is not there, and only where a lease is put or a load is
//! written. A number in each lease to compare would cost the same, and room in every slot; to repeat
//! the scan until it finds no lease would never be sure of the last pass.
//!
//! In a cluster no script looks beyond its slot, so each of the 16,384 has a record of its own while a
//! clear is under way, which costs as many small commands at its beginning and twice at its end, in
//! some dozens of trips to all nodes at once. What moves to another node during the scan is a miss there.

use std::sync::Arc;

use redis::cmd;

use super::act::Again;
use super::cluster::Cluster;
use super::connection::{Connector, Link};
use super::{Redis, glob, none, pipeline, restarts, scripts, slots, unlink};
use crate::{ErrorKind, Result};

/// The hash of clears that are under way: a random name of each, and its scope. What a dead process
/// left there lapses with it, within a minute.
pub(super) const UNDER_WAY: &str = ":@:clearing";
/// How long a clear is known to be under way that nobody goes on with, in ms.
const LONGEST: u64 = 60_000;
/// The same in a cluster, where that is said once.
const LONGEST_IN_CLUSTER: u64 = 600_000;
/// How many slots of a cluster are told of a clear in one trip.
const TOLD_AT_ONCE: u16 = 1024;
/// How often a clear is begun anew when the server has lost the hash.
const MOST_TRIES: usize = 5;

impl Redis {
    /// Removes the slots under `scope`, and what was loaded meanwhile.
    pub(super) async fn clear_slots(&self, scope: &str) -> Result<()> {
        let name = format!("{:016x}", self.0.clock.random());
        let noted = format!(":@:cleared:{name}");
        for _ in 0..MOST_TRIES {
            self.say_under_way(&name, scope).await?;
            self.remove_all(scope).await?;
            let end = |_: &Link| {
                let mut end = scripts::CLEAR_END.call(&[UNDER_WAY, noted.as_str()]);
                pipeline([end.arg(&name).to_owned()])
            };
            let (_, answers) = self.call(none, Again::Never, end).await?;
            if self.yes(answers.first().unwrap_or(&redis::Value::Nil))? {
                return Ok(());
            }
        }
        let does = "forgot again and again what was being cleared";
        Err(self.0.complaint(ErrorKind::Unavailable, does))
    }

    /// Removes the slots under `scope` from all nodes, and what was loaded meanwhile.
    pub(super) async fn clear_nodes(&self, cluster: &Arc<Cluster>, scope: &str) -> Result<()> {
        let name = format!("{:016x}", self.0.clock.random());
        for _ in 0..MOST_TRIES {
            let begin = |record: &str| {
                let mut begin = scripts::CLEAR_BEGIN.call(record);
                begin
                    .arg(&name)
                    .arg(scope)
                    .arg(LONGEST_IN_CLUSTER)
                    .to_owned()
            };
            self.tell_slots(UNDER_WAY, begin).await?;
            self.remove_from_nodes(cluster, scope).await?;
            let end = |record: &str| cmd("HDEL").arg(record).arg(&name).to_owned();
            let ended = self.tell_slots(UNDER_WAY, end).await?;
            // A record that was lost has noted nothing.
            if ended.iter().all(|answer| *answer == redis::Value::Int(1)) {
                return self.remove_noted(&name).await;
            }
        }
        let does = "forgot again and again what was being cleared";
        Err(self.0.complaint(ErrorKind::Unavailable, does))
    }

    async fn remove_noted(&self, name: &str) -> Result<()> {
        let begin = format!(":@:cleared:{name}");
        let noted = |record: &str| cmd("SMEMBERS").arg(record).to_owned();
        let answers = self.tell_slots(&begin, noted).await?;
        let mut names: Vec<Vec<u8>> = Vec::new();
        for (slot, answer) in (0_u16..).zip(answers) {
            let found = match answer {
                redis::Value::Set(found) | redis::Value::Array(found) => found,
                _ => return Err(self.odd()),
            };
            if !found.is_empty() {
                names.push(format!("{begin}{}", slots::suffix(slot)).into_bytes());
                names.extend(found.into_iter().filter_map(|name| match name {
                    redis::Value::BulkString(name) => Some(name),
                    _ => None,
                }));
            }
        }
        self.unlink_each(&names).await
    }

    /// Runs a command for the name that begins with `begin` in each slot; the answers in order.
    async fn tell_slots(
        &self,
        begin: &str,
        command: impl Fn(&str) -> redis::Cmd + Send + Sync,
    ) -> Result<Vec<redis::Value>> {
        let mut answers = Vec::with_capacity(slots::SLOTS);
        for first in (0..slots::SLOTS as u16).step_by(TOLD_AT_ONCE.into()) {
            let names: Vec<String> = (first..first + TOLD_AT_ONCE)
                .map(|slot| format!("{begin}{}", slots::suffix(slot)))
                .collect();
            let told = self.each(&names, none, Again::Never, |_, at| command(&names[at]));
            answers.extend(told.await?.into_iter().map(|(_, answer)| answer));
        }
        Ok(answers)
    }

    /// Goes through each primary, also through those that turn up meanwhile.
    async fn remove_from_nodes(&self, cluster: &Arc<Cluster>, scope: &str) -> Result<()> {
        let mut done: Vec<String> = Vec::new();
        loop {
            let map = cluster.map().await?;
            let next = map.nodes.iter().find(|node| !done.contains(&node.name()));
            let Some(node) = next else { return Ok(()) };
            self.remove_from(&cluster.connector(node), scope).await?;
            done.push(node.name());
        }
    }

    async fn remove_from(&self, node: &Arc<Connector>, scope: &str) -> Result<()> {
        let pattern = format!("{}*", glob::escaped(scope));
        let mut cursor = "0".to_owned();
        let mut scanned_by: Option<Arc<Link>> = None;
        loop {
            let scan =
                |_: &Link| pipeline([restarts::scan_command(&cursor, &pattern, restarts::SCANNED)]);
            let (link, answers) = self.call_on(node, none, Again::Once, scan).await?;
            let (next, mut names) =
                restarts::scanned(answers.into_iter().next()).map_err(|_| self.odd())?;
            names.retain(|name| is_slot_within(name, scope));
            self.unlink_each(&names).await?;
            // A cursor means nothing to a server that was started after it was given.
            let moved = scanned_by.is_some_and(|before| !Arc::ptr_eq(&before, &link));
            scanned_by = Some(link);
            if moved {
                "0".clone_into(&mut cursor);
                continue;
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn unlink_each(&self, names: &[Vec<u8>]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let command = |_: &Link, at: usize| unlink(&names[at]);
        self.each(names, none, Again::Never, command)
            .await
            .map(drop)
    }

    async fn say_under_way(&self, name: &str, scope: &str) -> Result<()> {
        let build = |_: &Link| {
            let mut begin = scripts::CLEAR_BEGIN.call(UNDER_WAY);
            pipeline([begin.arg(name).arg(scope).arg(LONGEST).to_owned()])
        };
        self.call(none, Again::Never, build).await.map(|_| ())
    }

    /// Removes the slots under `scope`, batch by batch.
    async fn remove_all(&self, scope: &str) -> Result<()> {
        let pattern = format!("{}*", glob::escaped(scope));
        let mut cursor = "0".to_owned();
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut scanned_by: Option<Arc<Link>> = None;
        loop {
            let build = |_: &Link| {
                let scan = restarts::scan_command(&cursor, &pattern, restarts::SCANNED);
                let mut renew = cmd("PEXPIRE");
                renew.arg(UNDER_WAY).arg(LONGEST);
                pipeline([scan, renew].into_iter().chain(names.iter().map(unlink)))
            };
            let (link, answers) = self.call(none, Again::Never, build).await?;
            let (next, found) =
                restarts::scanned(answers.into_iter().next()).map_err(|_| self.odd())?;
            names = found;
            names.retain(|name| is_slot_within(name, scope));
            // A cursor means nothing to a server that was started after it was given.
            let moved = scanned_by.is_some_and(|before| !Arc::ptr_eq(&before, &link));
            scanned_by = Some(link);
            if moved {
                "0".clone_into(&mut cursor);
                continue;
            }
            if next == "0" {
                return self.remove(&names).await;
            }
            cursor = next;
        }
    }

    async fn remove(&self, names: &[Vec<u8>]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let build = |_: &Link| pipeline(names.iter().map(unlink));
        self.call(none, Again::Never, build).await.map(|_| ())
    }
}

/// Whether the name is within `scope`, and none of Larder's own records.
pub(super) fn is_slot_within(name: &[u8], scope: &str) -> bool {
    name.starts_with(scope.as_bytes()) && !std::str::from_utf8(name).is_ok_and(restarts::is_record)
}
