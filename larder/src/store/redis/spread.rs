//! How what concerns several names is sent: in one trip to the one server, or to each node of a cluster
//! that has some of them, all nodes at once.
//!
//! A node answers for each command by itself that its slot is elsewhere; such a command was not run, and
//! is sent there. Commands of one slot keep their order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, RedisError, Value as Reply, cmd};

use super::act::Again;
use super::cluster::Cluster;
use super::connection::{Connector, Link};
use super::slots::slot;
use super::{Redis, names, none, pipeline, together};
use crate::{ErrorKind, Key, Result};

/// How often a command follows its slot.
const MOST_MOVES: u32 = 8;
/// How long to wait, for the first time, for a slot that is between two nodes.
const PAUSE: Duration = Duration::from_millis(10);

/// An answer and the link that it came by, whose incarnation it is to be judged by.
pub(super) type Answer = (Arc<Link>, Reply);

/// What a node says instead of running a command.
pub(super) enum Elsewhere {
    /// Now and later.
    Moved(String, u16),
    /// This time.
    Ask(String, u16),
    /// Nowhere yet.
    Later,
}

/// A command that is still to be sent: which, and by whose word, if not the map's.
type Pending = (usize, Option<Arc<Connector>>);

impl Redis {
    /// Sends a command for each of `names`, which it is about; the answers in order.
    ///
    /// `unknown` tells which groups of bare integers are to be looked after first; in a cluster there
    /// are none.
    pub(super) async fn each<N: AsRef<[u8]> + Sync>(
        &self,
        names: &[N],
        unknown: impl Fn(&Link) -> BTreeSet<Box<str>> + Send + Sync,
        again: Again,
        command: impl Fn(&Link, usize) -> Cmd + Send + Sync,
    ) -> Result<Vec<Answer>> {
        if let Some(cluster) = &self.1 {
            return self.follow(cluster, names, again, &command).await;
        }
        let build = |link: &Link| pipeline((0..names.len()).map(|at| command(link, at)));
        let (link, answers) = self.call(unknown, again, build).await?;
        Ok(answers
            .into_iter()
            .map(|answer| (Arc::clone(&link), answer))
            .collect())
    }

    async fn follow<N: AsRef<[u8]> + Sync>(
        &self,
        cluster: &Arc<Cluster>,
        names: &[N],
        again: Again,
        command: &(impl Fn(&Link, usize) -> Cmd + Send + Sync),
    ) -> Result<Vec<Answer>> {
        let mut answers: Vec<Option<Answer>> = names.iter().map(|_| None).collect();
        let mut pending: Vec<Pending> = (0..names.len()).map(|at| (at, None)).collect();
        for moves in 0..MOST_MOVES {
            let groups = self.grouped(cluster, names, pending).await?;
            let work = groups.iter().map(|group| self.send(group, again, command));
            let given = together::all(work.collect()).await;
            let (mut moved, mut waits) = (Vec::new(), false);
            for (group, given) in groups.iter().zip(given) {
                let (link, given) = given.inspect_err(|_| cluster.doubt())?;
                for (&at, answer) in group.commands.iter().zip(given) {
                    let Some(elsewhere) = elsewhere(&answer, &group.server) else {
                        answers[at] = Some((Arc::clone(&link), answer));
                        continue;
                    };
                    let server = match elsewhere {
                        Elsewhere::Moved(host, port) => {
                            cluster.moved(slot(names[at].as_ref()), &host, port);
                            None
                        }
                        Elsewhere::Ask(host, port) => Some(cluster.at(&host, port)),
                        Elsewhere::Later => {
                            waits = true;
                            None
                        }
                    };
                    moved.push((at, server));
                }
            }
            if moved.is_empty() {
                return Ok(answers.into_iter().flatten().collect());
            }
            if waits {
                self.0.clock.sleep(PAUSE * (1 << moves.min(4))).await;
            }
            moved.sort_unstable_by_key(|(at, _)| *at);
            pending = moved;
        }
        let does = "moved slots again and again while they were asked for";
        Err(self.0.complaint(ErrorKind::Unavailable, does))
    }

    /// The primaries that have `keys`, each with the places of its own.
    pub(super) async fn servers_of(
        &self,
        keys: &[Key],
    ) -> Result<Vec<(Arc<Connector>, Vec<usize>)>> {
        let Some(cluster) = &self.1 else {
            return Ok(vec![(Arc::clone(&self.0), (0..keys.len()).collect())]);
        };
        let pending = (0..keys.len()).map(|at| (at, None)).collect();
        let groups = self.grouped(cluster, &names(keys), pending).await?;
        Ok(groups
            .into_iter()
            .map(|it| (it.server, it.commands))
            .collect())
    }

    /// The commands by server, each server's in order.
    async fn grouped<N: AsRef<[u8]> + Sync>(
        &self,
        cluster: &Arc<Cluster>,
        names: &[N],
        pending: Vec<Pending>,
    ) -> Result<Vec<Group>> {
        let map = cluster.map().await?;
        let mut groups: Vec<Group> = Vec::new();
        for (at, server) in pending {
            let asks = server.is_some();
            let server = match server {
                Some(server) => server,
                None => cluster.owner(&map, slot(names[at].as_ref()))?,
            };
            let same = |it: &&mut Group| it.asks == asks && Arc::ptr_eq(&it.server, &server);
            match groups.iter_mut().find(same) {
                Some(group) => group.commands.push(at),
                None => groups.push(Group {
                    server,
                    asks,
                    commands: vec![at],
                }),
            }
        }
        Ok(groups)
    }

    async fn send(
        &self,
        group: &Group,
        again: Again,
        command: &(impl Fn(&Link, usize) -> Cmd + Send + Sync),
    ) -> Result<(Arc<Link>, Vec<Reply>)> {
        let build = |link: &Link| {
            let commands = group.commands.iter().flat_map(|at| {
                let asking = group.asks.then(|| cmd("ASKING"));
                asking.into_iter().chain([command(link, *at)])
            });
            pipeline(commands)
        };
        let (link, answers) = self.call_on(&group.server, none, again, build).await?;
        let every = if group.asks { 2 } else { 1 };
        let answers: Vec<Reply> = answers.into_iter().skip(every - 1).step_by(every).collect();
        if answers.len() != group.commands.len() {
            return Err(self.odd());
        }
        Ok((link, answers))
    }
}

/// Commands for one server.
struct Group {
    server: Arc<Connector>,
    /// Whether another server has sent us here for this time.
    asks: bool,
    commands: Vec<usize>,
}

/// What `by` says instead of running a command, if that is a node of a cluster.
pub(super) fn elsewhere(answer: &Reply, by: &Connector) -> Option<Elsewhere> {
    if !by.is_node() {
        return None;
    }
    let Reply::ServerError(error) = answer else {
        return None;
    };
    // A script whose key lapsed between the look where it is and its first act has done nothing.
    let details = error.details().unwrap_or_default();
    if error.code() == "TRYAGAIN" || details.contains("access a non local key") {
        return Some(Elsewhere::Later);
    }
    let is_moved = error.code() == "MOVED";
    let error = RedisError::from(error.clone());
    let (place, _) = error.redirect_node()?;
    let (host, port) = place.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // A node that does not know the other's name means its own.
    let host = if host.is_empty() || host == "?" {
        by.address.host()
    } else {
        host
    };
    let (host, port) = (host.to_owned(), port.parse().ok()?);
    Some(if is_moved {
        Elsewhere::Moved(host, port)
    } else {
        Elsewhere::Ask(host, port)
    })
}
