//! Listing keys.

use std::sync::Arc;

use async_trait::async_trait;
use redis::cmd;

use super::act::Again;
use super::clear::is_slot_within;
use super::cluster::Cluster;
use super::connection::{Connector, Link};
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
        let (server, cursor, after) = match &self.1 {
            None => (Arc::clone(&self.0), from.unwrap_or("0").to_owned(), None),
            Some(cluster) => match node_of(cluster, from).await? {
                Some(place) => place,
                None => return Ok(Scanned::default()),
            },
        };
        let pattern = format!("{}*", glob::escaped(scope));
        let build = |_: &_| pipeline([restarts::scan_command(&cursor, &pattern, limit)]);
        let (_, answers) = self.call_on(&server, none, Again::Once, build).await?;
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
            next: match (self.1.is_some(), next != "0") {
                (false, goes_on) => goes_on.then_some(next),
                (true, true) => Some(format!("{next}@{}", server.address.host_and_port())),
                (true, false) => after,
            },
        })
    }
}

/// The node that a cursor of a cluster (`cursor@node`) means, its own cursor, and where to go on when it
/// has no more. Nodes are taken in the order of their names: one that is gone is passed over.
async fn node_of(
    cluster: &Arc<Cluster>,
    from: Option<&str>,
) -> Result<Option<(Arc<Connector>, String, Option<String>)>> {
    let (cursor, name) = from
        .and_then(|from| from.split_once('@'))
        .unwrap_or_default();
    let map = cluster.map().await?;
    let mut nodes: Vec<_> = map
        .nodes
        .iter()
        .map(|node| cluster.connector(node))
        .collect();
    nodes.sort_unstable_by_key(|node| node.address.host_and_port());
    let mut nodes = (nodes.into_iter()).filter(|node| *node.address.host_and_port() >= *name);
    let Some(node) = nodes.next() else {
        return Ok(None);
    };
    let is_same = node.address.host_and_port() == name;
    let cursor = if is_same { cursor } else { "0" };
    let after = nodes.next();
    let after = after.map(|node| format!("0@{}", node.address.host_and_port()));
    Ok(Some((node, cursor.to_owned(), after)))
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
        let start = |_: &Link, at: usize| {
            let mut start = cmd("GETRANGE");
            start.arg(&hashed[at]).arg(0).arg(START).to_owned()
        };
        let answers = self.each(&hashed, none, Again::Once, start).await?;
        for (name, (_, answer)) in hashed.iter().zip(answers) {
            let frame = reply::bytes(answer).unwrap_or_default();
            let key = whole_key(&frame).map(Key::new);
            keys.extend(key.filter(|key| key.name() == name));
        }
        Ok(keys)
    }
}
