//! Removing all slots of a scope: by listing the keys of every server.
//!
//! A server writes its list while it holds locks that its other work needs, so that a list that is not
//! read holds up everybody. A task of its own therefore reads a whole list first, however long that
//! takes, and nothing is removed before its end.

use std::pin::pin;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Memcached;
use super::connector::Connector;
use super::hello::{self, Lines, Refused};
use super::numbers::Records;
use super::reply::Code;
use super::request::{Batch, What};
use super::{act::Again, connection::Link};
use crate::percent::decoded;
use crate::{Error, ErrorKind, Result};

/// Names removed by one batch.
const AT_ONCE: usize = 512;
/// Bytes of names that are remembered; past that they are removed before the list is begun anew.
const MOST_BYTES: usize = 128 << 20;
/// What a name costs besides its bytes.
const OVERHEAD: usize = 32;
/// How often a server that cannot list just now is asked again, 50 ms apart.
const MOST_TRIES: u32 = 600;
/// How often what a list may miss is looked for.
const MOST_PASSES: u32 = 10;
/// For how long a list may bring nothing, while the server does other work: one of a large and almost
/// empty table says nothing for most of its time.
const LONGEST_SILENCE: Duration = Duration::from_mins(10);

/// What to list by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The whole table.
    Table,
    /// The queues of use, on servers that know no other way: what is used or moved just then is missed.
    Queues,
}

/// Names to remove.
struct Listed {
    names: Vec<String>,
    way: Way,
    /// Whether the list was read to its end.
    is_whole: bool,
}

impl Memcached {
    /// Removes what is under `scope`, and the numbers of the tags in `space`.
    pub(super) async fn clear_all(&self, scope: &str, space: &str) -> Result<()> {
        for server in 0..self.0.servers.len() {
            self.check_listing(server).await?;
        }
        // First: what is written from now on notes at least this number.
        self.raise_floor(space).await?;
        let wanted = Wanted {
            scope: scope.to_owned(),
            numbers: Records::of(space).tags(),
        };
        for server in 0..self.0.servers.len() {
            self.clear_server(server, &wanted).await?;
        }
        Ok(())
    }

    /// Reports a server that lists no keys, before anything is changed.
    async fn check_listing(&self, server: usize) -> Result<()> {
        let connector = &self.0.servers[server];
        let mut lists = true;
        let mut lines = limited(connector, hello::log_in(&connector.server)).await?;
        limited(connector, hello::say(&mut lines, "stats settings\r\n")).await?;
        let settings = hello::stats(&mut lines, |name, text| {
            if matches!(name, "dump_enabled" | "lru_crawler") && text == "no" {
                lists = false;
            }
        });
        match limited(connector, settings).await {
            Err(error) if error.kind() != ErrorKind::Unsupported => Err(error),
            _ if lists => Ok(()),
            _ => Err(no_listing(connector)),
        }
    }

    async fn clear_server(&self, server: usize, wanted: &Wanted) -> Result<()> {
        let mut passes = 0;
        while passes < MOST_PASSES {
            let (store, own) = (self.clone(), wanted.clone());
            let reading = async move { store.list(server, &own).await };
            let reading = Reading(self.0.clock.spawn(reading));
            let listed = reading.end(&self.0.servers[server]).await?;
            for names in listed.names.chunks(AT_ONCE) {
                self.remove(server, names).await?;
            }
            if listed.is_whole && (listed.way == Way::Table || listed.names.is_empty()) {
                return Ok(());
            }
            passes += u32::from(listed.is_whole);
        }
        let does = "goes on listing keys that were removed; is somebody writing them?";
        Err(self.0.servers[server].complaint(ErrorKind::Unavailable, does))
    }

    async fn remove(&self, server: usize, names: &[String]) -> Result<()> {
        let remove = |_: &Link, batch: &mut Batch| {
            for name in names {
                batch.delete(name, None);
            }
        };
        let (_, replies) = self.ask(server, names.len(), Again::Once, remove).await?;
        match (replies.iter()).find(|reply| !matches!(reply.line.code, Code::Done | Code::NotFound))
        {
            Some(reply) => Err(self.odd(server, Some(reply))),
            None => Ok(()),
        }
    }

    /// The names that are wanted of a server's list.
    async fn list(&self, server: usize, wanted: &Wanted) -> Result<Listed> {
        let connector = &self.0.servers[server];
        let (mut lines, way, mut line) = self.begin_list(server, wanted).await?;
        let (mut names, mut bytes) = (Vec::new(), 0);
        loop {
            if line == "END" || line.starts_with("NOTSTARTED") {
                break;
            }
            let name = line
                .strip_prefix("key=")
                .ok_or_else(|| connector.odd(&line))?;
            let name = name.split(' ').next().unwrap_or_default();
            // One that is no text is not ours.
            if let Some(name) = decoded(name).filter(|name| wanted.has(name)) {
                bytes += name.len() + OVERHEAD;
                names.push(name);
            }
            if bytes > MOST_BYTES {
                let is_whole = false;
                return Ok(Listed {
                    names,
                    way,
                    is_whole,
                });
            }
            line = self
                .patiently(server, wanted, hello::line(&mut lines))
                .await?;
        }
        let is_whole = true;
        Ok(Listed {
            names,
            way,
            is_whole,
        })
    }

    /// Has the server begin a list; the first line of it.
    async fn begin_list(&self, server: usize, wanted: &Wanted) -> Result<(Lines, Way, String)> {
        let connector = &self.0.servers[server];
        let mut lines = limited(connector, hello::log_in(&connector.server)).await?;
        let mut way = Way::Table;
        for _ in 0..MOST_TRIES {
            let ask = match way {
                Way::Table => "lru_crawler metadump hash\r\n",
                Way::Queues => "lru_crawler metadump all\r\n",
            };
            limited(connector, hello::say(&mut lines, ask)).await?;
            let first = self
                .patiently(server, wanted, hello::line(&mut lines))
                .await?;
            match judge(&first) {
                First::Begun => return Ok((lines, way, first)),
                First::NotNow => {
                    let pause = connector.clock.jittered(Duration::from_millis(50));
                    connector.clock.sleep(pause).await;
                }
                First::No if way == Way::Table => way = Way::Queues,
                First::No => return Err(no_listing(connector)),
            }
        }
        let does = "is listing its keys for somebody else";
        Err(connector.complaint(ErrorKind::Unavailable, does))
    }

    /// Waits for what a list brings, as long as the server does its other work.
    async fn patiently<T>(
        &self,
        server: usize,
        wanted: &Wanted,
        work: impl Future<Output = Result<T, Refused>> + Send,
    ) -> Result<T> {
        let connector = &self.0.servers[server];
        let mut work = pin!(work);
        let limit = limit(connector);
        let mut silence = Duration::ZERO;
        while silence < LONGEST_SILENCE {
            match connector.clock.timeout(limit, work.as_mut()).await {
                Some(done) => return done.map_err(|refused| told(connector, &refused)),
                None => silence += limit,
            }
            let any = |_: &Link, batch: &mut Batch| batch.get(&wanted.numbers, What::Life);
            self.ask(server, 1, Again::Once, any).await?;
        }
        Err(late(connector, LONGEST_SILENCE))
    }
}

/// What is to be removed.
#[derive(Clone)]
struct Wanted {
    scope: String,
    /// What the names of numbers begin with.
    numbers: String,
}

impl Wanted {
    fn has(&self, name: &str) -> bool {
        is_slot_within(name, &self.scope) || name.starts_with(&self.numbers)
    }
}

/// A list that is being read, as long as somebody waits for it.
struct Reading(JoinHandle<Result<Listed>>);

impl Reading {
    async fn end(mut self, connector: &Connector) -> Result<Listed> {
        let ended = (&mut self.0).await;
        ended.unwrap_or_else(|cause| Err(connector.odd(&cause.to_string())))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the first line after a request for a list says.
#[derive(Debug, PartialEq, Eq)]
enum First {
    Begun,
    /// Somebody else's list is being written, or the table grows.
    NotNow,
    /// The server does not list in this way.
    No,
}

fn judge(line: &str) -> First {
    let begins = |word: &&str| line.starts_with(word);
    if ["key=", "END", "NOTSTARTED"].iter().any(begins) {
        First::Begun
    } else if begins(&"BUSY") || line.contains("try again") || line.contains("unknown error") {
        First::NotNow
    } else {
        First::No
    }
}

fn limit(connector: &Connector) -> Duration {
    (connector.limits.connect_timeout).max(connector.limits.timeout)
}

async fn limited<T>(
    connector: &Connector,
    work: impl Future<Output = Result<T, Refused>> + Send,
) -> Result<T> {
    let limit = limit(connector);
    match connector.clock.timeout(limit, work).await {
        Some(done) => done.map_err(|refused| told(connector, &refused)),
        None => Err(late(connector, limit)),
    }
}

fn told(connector: &Connector, refused: &Refused) -> Error {
    match refused {
        Refused::Stats(_) => no_listing(connector),
        refused => connector.connect_error(refused),
    }
}

fn late(connector: &Connector, limit: Duration) -> Error {
    let does = format!("did not answer within {limit:?}");
    connector.complaint(ErrorKind::Timeout, &does)
}

fn no_listing(connector: &Connector) -> Error {
    connector
        .complaint(ErrorKind::Unsupported, "does not list its keys, without which nothing can be cleared")
        .with_hint("start it without `-X` and `-o no_lru_crawler`, or change the cache's version or prefix")
}

/// Whether a slot is meant, and not one of Larder's own records.
fn is_slot_within(name: &str, scope: &str) -> bool {
    let is_record = name
        .split_once(':')
        .is_some_and(|(_, rest)| rest.starts_with("@:"));
    name.starts_with(scope) && !is_record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_told_apart() {
        for (line, expected) in [
            ("key=a exp=-1", First::Begun),
            ("END", First::Begun),
            ("NOTSTARTED no items to crawl", First::Begun),
            ("BUSY currently processing crawler request", First::NotNow),
            ("ERROR locked try again later", First::NotNow),
            ("ERROR an unknown error happened", First::NotNow),
            ("BADCLASS invalid class id", First::No),
            ("ERROR metadump not allowed", First::No),
            ("CLIENT_ERROR lru crawler disabled", First::No),
            ("ERROR", First::No),
        ] {
            assert_eq!(judge(line), expected, "{line}");
        }
    }
}
