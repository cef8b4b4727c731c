//! Removing all slots of a scope: by listing the keys of every server.

use std::collections::VecDeque;

use super::Memcached;
use super::address::decoded;
use super::connector::Connector;
use super::hello::{self, Lines, Refused};
use super::numbers::Records;
use super::request::Batch;
use super::{act::Again, connection::Link};
use crate::{Error, ErrorKind, Result};

/// Names removed by one batch.
const AT_ONCE: usize = 512;
/// How often a server that is listing for somebody else is asked again.
const MOST_TRIES: u32 = 100;

/// What to list by: the whole table, or on servers that do not know that, the queues of use, in which
/// a key that is used just then can be missed.
const LISTINGS: [&str; 2] = ["lru_crawler metadump hash", "lru_crawler metadump all"];

impl Memcached {
    /// Removes what is under `scope`, and the numbers of the tags in `space`.
    pub(super) async fn clear_all(&self, scope: &str, space: &str) -> Result<()> {
        for server in 0..self.0.servers.len() {
            self.check_listing(server).await?;
        }
        // First: what is written from now on notes at least this number.
        self.raise_floor(space).await?;
        let numbers = Records::of(space).tags();
        for server in 0..self.0.servers.len() {
            self.clear_server(server, scope, &numbers).await?;
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

    async fn clear_server(&self, server: usize, scope: &str, numbers: &str) -> Result<()> {
        let connector = &self.0.servers[server];
        let mut listing = Listing::start(connector).await?;
        let mut names = VecDeque::new();
        loop {
            let name = listing.next(connector).await?;
            let is_last = name.is_none();
            let is_ours = |name: &String| is_slot_within(name, scope) || name.starts_with(numbers);
            names.extend(name.filter(is_ours));
            if names.len() >= AT_ONCE || (is_last && !names.is_empty()) {
                let remove = |_: &Link, batch: &mut Batch| {
                    for name in &names {
                        batch.delete(name, None);
                    }
                };
                self.ask(server, names.len(), Again::Once, remove).await?;
                names.clear();
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// A list of keys that is being read.
struct Listing(Lines);

impl Listing {
    async fn start(connector: &Connector) -> Result<Self> {
        let mut lines = limited(connector, hello::log_in(&connector.server)).await?;
        let mut way = 0;
        for _ in 0..MOST_TRIES {
            let ask = format!("{}\r\n", LISTINGS[way]);
            limited(connector, hello::say(&mut lines, &ask)).await?;
            let first = limited(connector, fill(&mut lines)).await?;
            if first.starts_with(b"BUSY") {
                limited(connector, hello::line(&mut lines)).await?;
                let pause = std::time::Duration::from_millis(50);
                connector.clock.sleep(connector.clock.jittered(pause)).await;
            } else if first.starts_with(b"key=") || first.starts_with(b"END") {
                return Ok(Self(lines));
            } else if way + 1 < LISTINGS.len() {
                limited(connector, hello::line(&mut lines)).await?;
                way += 1;
            } else {
                return Err(no_listing(connector));
            }
        }
        let does = "is listing its keys for somebody else";
        Err(connector.complaint(ErrorKind::Unavailable, does))
    }

    /// The next name; `None` at the end.
    async fn next(&mut self, connector: &Connector) -> Result<Option<String>> {
        loop {
            let line = limited(connector, hello::line(&mut self.0)).await?;
            if line == "END" {
                return Ok(None);
            }
            let name = line
                .strip_prefix("key=")
                .ok_or_else(|| connector.odd(&line))?;
            let name = name.split(' ').next().unwrap_or_default();
            // One that is no text is not ours.
            if let Some(name) = decoded(name) {
                return Ok(Some(name));
            }
        }
    }
}

/// The start of the next line, which stays there.
async fn fill(lines: &mut Lines) -> Result<Vec<u8>, Refused> {
    use tokio::io::AsyncBufReadExt as _;
    let start = lines.fill_buf().await?;
    Ok(start[..start.len().min(16)].to_vec())
}

async fn limited<T>(
    connector: &Connector,
    work: impl Future<Output = Result<T, Refused>> + Send,
) -> Result<T> {
    let limit = connector
        .limits
        .connect_timeout
        .max(connector.limits.timeout);
    match connector.clock.timeout(limit, work).await {
        Some(Ok(done)) => Ok(done),
        Some(Err(Refused::Stats(_))) => Err(no_listing(connector)),
        Some(Err(refused)) => Err(connector.connect_error(&refused)),
        None => {
            let does = format!("did not answer within {limit:?}");
            Err(connector.complaint(ErrorKind::Timeout, &does))
        }
    }
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
