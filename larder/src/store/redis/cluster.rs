//! The nodes of a cluster: a connection to each, and the map of slots.
//!
//! Each node is a server of its own here, with its connection, its incarnation, its failures and
//! pauses: what is known about one server holds for each. A node's incarnation is its `run_id` together
//! with its configuration epoch, which every failover raises: a replica that takes over is another, and
//! so is a primary that was replaced and comes back. Entries that a slot brings along from another node
//! are misses.
//!
//! The map is read from a majority of the nodes, and the newest word counts. It is read again each
//! second while it is used, before it is used when it is older than three, and when a node fails or
//! says that a slot has moved. So a connection is not trusted for longer than two failovers take,
//! and a node that was cut off from the others is left when they have another in its place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Pipeline, cmd};
use tokio::sync::watch;
use tokio::time::Instant;

use super::address::Address;
use super::connection::{Connector, Role};
use super::map::{Map, Node};
use super::sentinels::{TRUSTED, TRUSTED_UNUSED};
use super::together;
use crate::{Error, ErrorKind, Result};

/// How many nodes are asked for the map.
const MOST_ASKED: usize = 5;
/// How soon after an attempt to read the map the next one begins.
const PAUSE: Duration = Duration::from_millis(100);

/// A cluster, by some of its nodes.
pub(super) struct Cluster {
    /// Who texts and settings come from; it is not connected itself.
    front: Arc<Connector>,
    seeds: Vec<Arc<Connector>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    map: Option<Arc<Map>>,
    nodes: HashMap<String, Arc<Connector>>,
    /// When the map was last read.
    read_at: Option<Instant>,
    /// When the last attempt began or ended.
    tried_at: Option<Instant>,
    /// Whether something has happened that the map does not explain.
    is_doubted: bool,
    failure: Option<Error>,
    reading: Option<Attempt>,
}

type Attempt = watch::Receiver<Option<Result<Arc<Map>>>>;

enum Step {
    Take(Arc<Map>),
    Wait(Attempt),
    Fail(Error),
}

impl Cluster {
    pub(super) fn new(front: Arc<Connector>, seeds: Vec<Address>) -> Arc<Self> {
        let seed = |address| front.to_another(address, Role::Node);
        Arc::new(Self {
            seeds: seeds.into_iter().map(seed).collect(),
            front,
            state: Mutex::default(),
        })
    }

    /// The map, read not long ago.
    pub(super) async fn map(self: &Arc<Self>) -> Result<Arc<Map>> {
        let mut attempt = match self.step() {
            Step::Take(map) => return Ok(map),
            Step::Fail(error) => return Err(error),
            Step::Wait(attempt) => attempt,
        };
        // The attempt limits itself; this one is for a runtime that does not run it.
        let front = &self.front;
        let limit = (front.connect_timeout.saturating_add(front.timeout)).saturating_mul(2);
        let read = attempt.wait_for(Option::is_some);
        match front.clock.timeout(limit, read).await {
            Some(Ok(outcome)) => outcome.clone().expect("waited for an outcome"),
            _ => Err(front.cannot_connect("the attempt was given up")),
        }
    }

    fn step(self: &Arc<Self>) -> Step {
        let mut state = self.state();
        let age = state.read_at.map_or(Duration::MAX, |at| at.elapsed());
        if let Some(map) = &state.map
            && age < TRUSTED
            && !state.is_doubted
        {
            return Step::Take(Arc::clone(map));
        }
        // A sender that is gone without an outcome went with its runtime.
        let running = state.reading.clone();
        let mut running = running.filter(|it| it.has_changed().is_ok());
        let is_time = state.tried_at.is_none_or(|at| at.elapsed() >= PAUSE);
        if running.is_none() && is_time {
            running = Some(self.start(&mut state));
        }
        match (&state.map, running) {
            (Some(map), _) if age < TRUSTED_UNUSED => Step::Take(Arc::clone(map)),
            (_, Some(attempt)) => Step::Wait(attempt),
            (_, None) => Step::Fail(state.failure.clone().unwrap_or_else(|| {
                let does = "was asked for its slots just now, and is not asked again yet";
                self.front.complaint(ErrorKind::Unavailable, does)
            })),
        }
    }

    fn start(self: &Arc<Self>, state: &mut State) -> Attempt {
        let (sender, attempt) = watch::channel(None);
        state.reading = Some(attempt.clone());
        state.tried_at = Some(Instant::now());
        state.is_doubted = false;
        let cluster = Arc::clone(self);
        self.front.clock.spawn(async move {
            let outcome = cluster.read().await.map(Arc::new);
            cluster.settle(&outcome);
            sender.send_replace(Some(outcome));
        });
        attempt
    }

    fn settle(&self, outcome: &Result<Arc<Map>>) {
        let mut state = self.state();
        state.reading = None;
        state.tried_at = Some(Instant::now());
        match outcome {
            Ok(map) => {
                state.failure = None;
                state.read_at = Some(Instant::now());
                state.nodes.retain(|name, connector| {
                    let keep = map.nodes.iter().any(|node| node.name() == *name);
                    if !keep {
                        connector.close();
                    }
                    keep
                });
                for node in &map.nodes {
                    let connector = state.nodes.get(&node.name());
                    let link = connector.and_then(|it| it.live());
                    if let (Some(connector), Some(link)) = (connector, link)
                        && node.epoch > link.epoch
                    {
                        // What it was connected as, it is no longer.
                        connector.discard(&link);
                    }
                }
                state.map = Some(Arc::clone(map));
            }
            Err(error) => {
                if state.failure.is_none() && state.map.is_some() {
                    tracing::warn!(store = %self.front.address, %error, "redis_cluster_lost");
                }
                state.failure = Some(error.clone());
            }
        }
    }

    /// Asks a majority of the nodes, or of some of them, for the map.
    async fn read(&self) -> Result<Map> {
        let mut nodes = self.connectors();
        while nodes.len() > MOST_ASKED {
            let random = self.front.clock.random() % nodes.len() as u64;
            nodes.swap_remove(usize::try_from(random).expect("an index fits"));
        }
        let mut given = self.ask(&nodes).await;
        if given.is_empty() {
            given = self.ask(&self.seeds).await;
        }
        let newest = given.into_iter().max_by_key(|map| map.newest);
        let Some(map) = newest else {
            // Why, the seeds can tell: they were asked last.
            for seed in &self.seeds {
                seed.link().await?;
            }
            let error = self.front.complaint(
                ErrorKind::Unavailable,
                "does not say which node has which slot",
            );
            return Err(error.with_hint("is it a cluster? else write `redis://host:6379/0`"));
        };
        if map.nodes.is_empty() {
            let does = "is a cluster whose slots nobody has";
            let error = self.front.complaint(ErrorKind::Unavailable, does);
            return Err(error.with_hint("`redis-cli --cluster create` gives them out"));
        }
        Ok(map)
    }

    async fn ask(&self, nodes: &[Arc<Connector>]) -> Vec<Map> {
        let ask = |node: &Arc<Connector>| ask(Arc::clone(node));
        let asked = nodes.iter().map(ask).collect();
        together::until(asked, together::majority(nodes.len())).await
    }

    /// The nodes that the last map names.
    fn connectors(&self) -> Vec<Arc<Connector>> {
        let map = self.state().map.clone();
        let nodes = map.iter().flat_map(|map| &map.nodes);
        nodes.map(|node| self.connector(node)).collect()
    }

    /// The connector to a node.
    pub(super) fn connector(&self, node: &Node) -> Arc<Connector> {
        let new = || {
            let address = self.front.address.at(&node.host, node.port);
            self.front.to_another(address, Role::Node)
        };
        let mut state = self.state();
        Arc::clone(state.nodes.entry(node.name()).or_insert_with(new))
    }

    /// The connector to the node at `host`.
    pub(super) fn at(&self, host: &str, port: u16) -> Arc<Connector> {
        self.connector(&Node {
            host: host.to_owned(),
            port,
            epoch: 0,
        })
    }

    /// The connector to the node that has `slot`.
    pub(super) fn owner(&self, map: &Map, slot: u16) -> Result<Arc<Connector>> {
        if let Some(node) = map.owner(slot) {
            return Ok(self.connector(node));
        }
        self.doubt();
        let does = format!("has no node for slot {slot}");
        Err(self.front.complaint(ErrorKind::Unavailable, &does))
    }

    /// Says that the map may be outdated.
    pub(super) fn doubt(&self) {
        self.state().is_doubted = true;
    }

    /// A node has said that `slot` is at `host` now.
    pub(super) fn moved(&self, slot: u16, host: &str, port: u16) {
        let mut state = self.state();
        state.is_doubted = true;
        if let Some(map) = &state.map {
            state.map = Some(Arc::new(map.moved(slot, host, port)));
        }
    }

    /// Lets go of all connections.
    pub(super) fn close(&self) {
        let state = self.state();
        for connector in self.seeds.iter().chain(state.nodes.values()) {
            connector.close();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(node: Arc<Connector>) -> Option<Map> {
    let link = node.link().await.ok()?;
    let mut ask = Pipeline::new();
    for what in ["SLOTS", "NODES"] {
        ask.add_command(cmd("CLUSTER").arg(what).to_owned());
    }
    match node.clock.timeout(node.timeout, link.send(&ask)).await {
        None => {
            node.suspect(&link);
            None
        }
        Some(Err(_)) => {
            node.discard(&link);
            None
        }
        Some(Ok(answers)) => {
            node.answered();
            let [slots, nodes] = <[redis::Value; 2]>::try_from(answers).ok()?;
            Map::read(slots, &nodes, node.address.host())
        }
    }
}
