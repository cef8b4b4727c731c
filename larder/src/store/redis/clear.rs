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
//! In a cluster no act sees two slots, and 16,384 records would be needed. There a scan of each node is
//! all: a load that was under way when the clear was asked for has its lease in its slot, which the scan
//! meets; one that begins later, and read its data later, may be kept. What moves to another node
//! meanwhile is a miss there.

use std::sync::Arc;

use redis::cmd;

use super::act::Again;
use super::cluster::Cluster;
use super::connection::{Connector, Link};
use super::{Redis, glob, none, pipeline, restarts, scripts, unlink};
use crate::{ErrorKind, Result};

/// The hash of clears that are under way: a random name of each, and its scope. What a dead process
/// left there lapses with it, within a minute.
pub(super) const UNDER_WAY: &str = ":@:clearing";
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

    /// Removes the slots under `scope` from each primary, also from those that turn up meanwhile.
    pub(super) async fn clear_nodes(&self, cluster: &Arc<Cluster>, scope: &str) -> Result<()> {
        let mut done: Vec<String> = Vec::new();
        loop {
            let map = cluster.map().await?;
            let next = map.nodes.iter().find(|node| !done.contains(&node.name()));
            let Some(node) = next else { return Ok(()) };
            self.clear_node(&cluster.connector(node), scope)
                .await
                .inspect_err(|_| cluster.doubt())?;
            done.push(node.name());
        }
    }

    async fn clear_node(&self, node: &Arc<Connector>, scope: &str) -> Result<()> {
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
            if !names.is_empty() {
                let command = |_: &Link, at: usize| unlink(&names[at]);
                self.each(&names, none, Again::Never, command).await?;
            }
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

    async fn say_under_way(&self, name: &str, scope: &str) -> Result<()> {
        let build = |_: &Link| {
            let mut begin = scripts::CLEAR_BEGIN.call(UNDER_WAY);
            pipeline([begin.arg(name).arg(scope).to_owned()])
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
                renew.arg(UNDER_WAY).arg(60_000);
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
