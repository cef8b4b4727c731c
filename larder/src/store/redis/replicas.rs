//! Reading from replicas, for plain gets of stores that were told to.
//!
//! A replica may lag, so its answers are outside the promise, and only what neither loads nor compares
//! is asked of it: [`get`](crate::store::Store::get) without tags. What carries tags is held to their
//! numbers all the same, which the primary gives. An entry is judged by the primary's incarnation: what
//! a replica kept from before a restart or a failover is a miss.
//!
//! A replica that has lost its primary goes on answering. So each answer comes with what the replica
//! says of itself: one that has not heard of its primary for [`LONGEST_SILENCE`] is not believed, and
//! the primary is asked instead, as it is whenever something else is wrong.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Pipeline, Value, cmd};
use tokio::time::Instant;

use super::Redis;
use super::connection::{Connector, Link, Role};
use super::hello::field;
use super::{is_bare, reply};
use crate::entry::Entry;
use crate::{Key, Result};

/// How many seconds a replica may not have heard of its primary, which says something each ten.
const LONGEST_SILENCE: u64 = 15;
/// How long a list of replicas is used before the primary is asked again.
const LISTED: Duration = Duration::from_secs(5);

/// The replicas of a primary, as it lists them.
#[derive(Default)]
pub(super) struct Replicas(Mutex<Listed>);

#[derive(Default)]
struct Listed {
    replicas: Vec<Arc<Connector>>,
    at: Option<Instant>,
}

impl Replicas {
    /// Takes the list from the answer to `INFO replication` of `primary`.
    pub(super) fn learn(&self, info: &Value, primary: &Connector) {
        let lines = reply::text(info).unwrap_or_default().lines();
        let online = |line: &str| -> Option<(String, u16)> {
            let (name, about) = line.trim().split_once(':')?;
            name.strip_prefix("slave")?.parse::<u32>().ok()?;
            let part = |name: &str| {
                let mut parts = about.split(',').filter_map(|part| part.split_once('='));
                parts.find(|(it, _)| *it == name).map(|(_, value)| value)
            };
            let is_online = part("state") == Some("online");
            if !is_online {
                return None;
            }
            Some((part("ip")?.to_owned(), part("port")?.parse().ok()?))
        };
        let mut listed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = std::mem::take(&mut listed.replicas);
        listed.replicas = lines
            .filter_map(online)
            .map(|(host, port)| {
                let address = primary.address.at(&host, port);
                let same = |it: &&Arc<Connector>| it.address.to_string() == address.to_string();
                let known = known.iter().find(same).cloned();
                known.unwrap_or_else(|| primary.to_another(address, Role::Replica))
            })
            .collect();
        listed.at = Some(Instant::now());
    }

    /// One of the replicas, and whether the list is old.
    fn any(&self, random: u64) -> (Option<Arc<Connector>>, bool) {
        let mut listed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = listed.at.is_none_or(|at| at.elapsed() >= LISTED);
        if is_old {
            listed.at = Some(Instant::now());
        }
        let count = listed.replicas.len();
        let place = usize::try_from(random % count.max(1) as u64).unwrap_or(0);
        (listed.replicas.get(place).cloned(), is_old)
    }
}

impl Redis {
    /// What the slots hold at a replica of `primary`, if one is there and can be believed.
    pub(super) async fn read_replica(
        &self,
        primary: &Arc<Connector>,
        keys: &[&Key],
    ) -> Result<Option<Vec<Option<Entry>>>> {
        let Some(replicas) = &primary.replicas else {
            return Ok(None);
        };
        let link = primary.link().await?;
        let (replica, is_old) = replicas.any(self.0.clock.random());
        if is_old {
            let (primary, link) = (Arc::clone(primary), Arc::clone(&link));
            self.0
                .clock
                .spawn(async move { list(&primary, &link).await });
        }
        let Some(replica) = replica else {
            return Ok(None);
        };
        let Ok(at_replica) = replica.link().await else {
            return Ok(None);
        };
        let sent = self.0.clock.timeout(self.0.timeout, ask(&at_replica, keys));
        let Some(answers) = sent.await else {
            replica.suspect(&at_replica);
            return Ok(None);
        };
        let Ok(mut answers) = answers else {
            replica.discard(&at_replica);
            return Ok(None);
        };
        replica.answered();
        if !answers.pop().is_some_and(|info| is_up_to_date(&info)) {
            return Ok(None);
        }
        if answers.iter().any(|it| matches!(it, Value::ServerError(_))) {
            return Ok(None);
        }
        let read = |(key, answer): (&&Key, Value)| super::entry_of(answer, key, &link);
        let entries: Vec<_> = keys.iter().zip(answers).map(read).collect();
        // Whether digits are of this run, only the primary's record tells.
        let doubtful = entries.iter().any(|entry| is_bare(entry.as_ref()));
        Ok((!doubtful || link.incarnation == 0).then_some(entries))
    }
}

async fn ask(link: &Link, keys: &[&Key]) -> redis::RedisResult<Vec<Value>> {
    let mut ask = Pipeline::new();
    for key in keys {
        ask.add_command(cmd("GET").arg(key.name()).to_owned());
    }
    ask.add_command(cmd("INFO").arg("replication").to_owned());
    link.send(&ask).await
}

/// Asks a primary for its replicas.
async fn list(primary: &Arc<Connector>, link: &Link) {
    let mut ask = Pipeline::new();
    ask.add_command(cmd("INFO").arg("replication").to_owned());
    let listed = primary.clock.timeout(primary.timeout, link.send(&ask));
    if let (Some(Ok(answers)), Some(replicas)) = (listed.await, &primary.replicas)
        && let [info] = &answers[..]
    {
        replicas.learn(info, primary);
    }
}

fn is_up_to_date(info: &Value) -> bool {
    let info = std::slice::from_ref(info);
    let silence = field(info, "master_last_io_seconds_ago").and_then(|it| it.parse::<u64>().ok());
    field(info, "role") == Some("slave")
        && field(info, "master_link_status") == Some("up")
        && silence.is_some_and(|silence| silence <= LONGEST_SILENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_lost_its_primary_is_not_believed() {
        let info = |text: &str| Value::BulkString(text.replace(' ', "\r\n").into());
        for (said, believed) in [
            (
                "role:slave master_link_status:up master_last_io_seconds_ago:3",
                true,
            ),
            (
                "role:slave master_link_status:up master_last_io_seconds_ago:16",
                false,
            ),
            (
                "role:slave master_link_status:down master_last_io_seconds_ago:-1",
                false,
            ),
            (
                "role:slave master_link_status:up master_last_io_seconds_ago:-1",
                false,
            ),
            ("role:master", false),
            ("", false),
        ] {
            assert_eq!(is_up_to_date(&info(said)), believed, "{said}");
        }
    }
}
