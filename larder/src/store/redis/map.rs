//! Which node of a cluster has which slot.

use redis::Value;

use super::reply;
use super::slots::SLOTS;

/// A primary of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) host: String,
    pub(super) port: u16,
    /// The failover, or the move of slots, by which it got what it has; 0 if that is not known.
    pub(super) epoch: u64,
}

impl Node {
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// The primaries and their slots, as a node sees them.
#[derive(Debug, Clone)]
pub(super) struct Map {
    pub(super) nodes: Vec<Node>,
    /// For each slot, one more than the place of its node; 0 for none.
    owners: Vec<u16>,
    /// The greatest epoch that the node knows: of two maps, this tells the newer one.
    pub(super) newest: u64,
}

impl Map {
    /// Reads the answers to `CLUSTER SLOTS` and `CLUSTER NODES` of the node at `host`.
    pub(super) fn read(slots: Value, nodes: &Value, host: &str) -> Option<Self> {
        let epochs = Epochs::read(reply::text(nodes)?);
        let mut map = Self {
            nodes: Vec::new(),
            owners: vec![0; SLOTS],
            newest: epochs.0.iter().map(|(_, epoch)| *epoch).max()?,
        };
        for range in reply::list(slots)? {
            let mut range = reply::list(range)?.into_iter();
            let (first, last) = (range.next()?, range.next()?);
            let (first, last) = (reply::number(&first)?, reply::number::<usize>(&last)?);
            let primary = reply::list(range.next()?)?;
            let [endpoint, port, id, ..] = &primary[..] else {
                return None;
            };
            // A node that does not know its own name is where it was reached.
            let endpoint = reply::text(endpoint).filter(|it| !it.is_empty() && *it != "?");
            let node = Node {
                host: endpoint.unwrap_or(host).to_owned(),
                port: reply::number(port)?,
                epoch: epochs.of(reply::text(id)?),
            };
            let place = map.place(node)?;
            map.owners.get_mut(first..=last)?.fill(place);
        }
        Some(map)
    }

    /// One more than the place of `node`, which is added if it is not there.
    fn place(&mut self, node: Node) -> Option<u16> {
        let same = |it: &Node| (&it.host, it.port) == (&node.host, node.port);
        let at = self.nodes.iter().position(same).unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        });
        u16::try_from(at + 1).ok()
    }

    /// The node that has `slot`.
    pub(super) fn owner(&self, slot: u16) -> Option<&Node> {
        let place = usize::from(*self.owners.get(usize::from(slot))?);
        self.nodes.get(place.checked_sub(1)?)
    }

    /// This map after a node has said that `slot` is at `host` now.
    pub(super) fn moved(&self, slot: u16, host: &str, port: u16) -> Self {
        let mut map = self.clone();
        let node = Node {
            host: host.to_owned(),
            port,
            epoch: 0,
        };
        if let Some(place) = map.place(node) {
            map.owners[usize::from(slot)] = place;
        }
        map
    }
}

/// The epoch of each node, by its id.
struct Epochs<'a>(Vec<(&'a str, u64)>);

impl<'a> Epochs<'a> {
    /// Lines of `id address flags primary ping pong epoch …`.
    fn read(nodes: &'a str) -> Self {
        let line = |line: &'a str| {
            let mut words = line.split(' ');
            Some((words.next()?, words.nth(5)?.parse().ok()?))
        };
        Self(nodes.lines().filter_map(line).collect())
    }

    fn of(&self, id: &str) -> u64 {
        let same = |(it, _): &&(&str, u64)| *it == id;
        self.0.iter().find(same).map_or(0, |(_, epoch)| *epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, host: &str, port: i64, id: &str) -> Value {
        let node = Value::Array(vec![
            text(host),
            Value::Int(port),
            text(id),
            Value::Array(Vec::new()),
        ]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node])
    }

    fn map() -> Map {
        let slots = Value::Array(vec![
            range(0, 99, "a", 1, "ida"),
            range(200, 16383, "", 2, "idb"),
        ]);
        let nodes = "ida a:1@11 master - 0 0 3 connected 0-99\n\
                     idb :2@12 myself,master - 0 0 5 connected 200-16383\n\
                     idc c:3@13 slave ida 0 0 3 connected\n";
        Map::read(slots, &text(nodes), "seed").expect("a good map")
    }

    #[test]
    fn a_map_says_who_has_a_slot_and_since_when() {
        let map = map();

        let owner = |slot| map.owner(slot).map(|it| (it.name(), it.epoch));
        assert_eq!(owner(99), Some(("a:1".to_owned(), 3)));
        assert_eq!(owner(100), None);
        assert_eq!(owner(200), Some(("seed:2".to_owned(), 5)));
        assert_eq!(map.newest, 5);
    }

    #[test]
    fn a_slot_that_moved_is_found_where_it_is() {
        let map = map().moved(7, "new", 9).moved(8, "seed", 2);

        assert_eq!(map.owner(7).map(Node::name).as_deref(), Some("new:9"));
        assert_eq!(map.owner(8).map(|it| it.epoch), Some(5));
        assert_eq!(map.owner(9).map(Node::name).as_deref(), Some("a:1"));
    }

    #[test]
    fn nonsense_is_no_map() {
        let nodes = text("id a:1@2 master - 0 0 3 connected");
        for slots in [
            Value::Nil,
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![range(5, 99_999, "a", 1, "id")]),
            Value::Array(vec![range(5, 2, "a", -1, "id")]),
        ] {
            assert!(Map::read(slots, &nodes, "seed").is_none());
        }
    }
}
