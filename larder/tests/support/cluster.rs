//! A Redis cluster for tests, and what sentinels watch.

#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::redis::{RedisServer, free_port, new_folder};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_mins(1);

/// Runs `redis-cli` against a port; what it says.
pub(crate) fn cli(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(arguments)
        .output()
        .expect("`redis-cli` is installed");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Waits until `is_so`.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Three primaries, and as many replicas of each as asked for; they end with this value.
pub(crate) struct RedisCluster {
    /// The primaries first, then their replicas.
    pub(crate) servers: Vec<RedisServer>,
}

impl RedisCluster {
    pub(crate) fn start(replicas: usize) -> Self {
        Self::start_with(replicas, &[])
    }

    /// Starts it with more arguments for each server.
    pub(crate) fn start_with(replicas: usize, arguments: &[&str]) -> Self {
        let servers: Vec<RedisServer> = (0..3 * (1 + replicas))
            .map(|_| start_node(arguments))
            .collect();
        let cluster = Self { servers };
        let hosts: Vec<String> = (cluster.servers.iter())
            .map(|server| format!("127.0.0.1:{}", server.port()))
            .collect();
        let replicas = replicas.to_string();
        let mut create = vec!["--cluster", "create"];
        create.extend(hosts.iter().map(String::as_str));
        create.extend(["--cluster-replicas", &replicas, "--cluster-yes"]);
        let said = cli(cluster.port(0), &create);
        assert!(said.contains("All 16384 slots covered"), "{said}");
        cluster.until_well();
        cluster
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = (self.servers.iter())
            .map(|server| format!("127.0.0.1:{}", server.port()))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    pub(crate) fn port(&self, at: usize) -> u16 {
        self.servers[at].port()
    }

    /// Waits until every server that runs says that all is well, and replicas follow their primaries.
    pub(crate) fn until_well(&self) {
        until("the cluster is well", || {
            let mut running = (self.servers.iter()).filter(|server| server.is_running());
            running.all(|server| {
                cli(server.port(), &["cluster", "info"]).contains("cluster_state:ok")
                    && !cli(server.port(), &["info", "replication"])
                        .contains("master_link_status:down")
            })
        });
    }

    /// The place of the server that has the slot of `name` now.
    pub(crate) fn owner(&self, name: &str) -> usize {
        let asked = (self.servers.iter()).find(|server| server.is_running());
        let asked = asked.expect("one runs").port();
        let slot: u16 = cli(asked, &["cluster", "keyslot", name])
            .parse()
            .expect("a slot");
        self.owner_of(asked, slot).expect("somebody has it")
    }

    fn owner_of(&self, asked: u16, slot: u16) -> Option<usize> {
        let nodes = cli(asked, &["cluster", "nodes"]);
        let port = nodes.lines().find_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let has = |range: &&str| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last) = (first.parse::<u16>(), last.parse::<u16>());
                matches!((first, last), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
            };
            let is_primary = words[2].contains("master") && !words[2].contains("fail");
            (is_primary && words[8..].iter().any(has)).then(|| {
                let (_, port) = words[1].split('@').next()?.rsplit_once(':')?;
                port.parse::<u16>().ok()
            })?
        })?;
        (self.servers.iter()).position(|server| server.port() == port)
    }

    /// Waits until another server than the one at `old` has the slot of `name`; its place.
    pub(crate) fn until_taken_over(&self, name: &str, old: usize) -> usize {
        let asked = (self.servers.iter().enumerate())
            .find(|(at, server)| *at != old && server.is_running())
            .expect("another runs");
        let port = asked.1.port();
        let slot: u16 = cli(port, &["cluster", "keyslot", name])
            .parse()
            .expect("a slot");
        let mut new = None;
        until("another takes over", || {
            new = self.owner_of(port, slot).filter(|at| *at != old);
            new.is_some()
        });
        new.expect("just seen")
    }

    /// The id of the server at `at`.
    pub(crate) fn id(&self, at: usize) -> String {
        cli(self.port(at), &["cluster", "myid"])
    }

    /// Kills the server at `at`, and starts it again from its last snapshot.
    pub(crate) fn restart(&mut self, at: usize) {
        self.servers[at].kill();
        self.servers[at].start_again();
        self.until_well();
    }
}

fn start_node(arguments: &[&str]) -> RedisServer {
    let mut all = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
    // The nodes talk to each other on a second port, by default 10,000 higher: that may be none.
    let bus = free_port().to_string();
    all.extend(["--cluster-port", &bus]);
    // A replica that was apart for a while may still take over, so that tests need not wait.
    all.extend(["--cluster-replica-validity-factor", "0"]);
    all.extend(["--repl-diskless-sync-delay", "0"]);
    all.extend(arguments);
    RedisServer::start_with(&all)
}

/// A primary with a replica, and three sentinels that watch them.
pub(crate) struct Watched {
    pub(crate) servers: Vec<RedisServer>,
    sentinels: Vec<(u16, Child)>,
    folder: PathBuf,
}

impl Watched {
    pub(crate) fn start() -> Self {
        let watched = Self::start_unwatched(&[], &[]);
        watched.until_watched();
        watched
    }

    /// Starts it with more arguments for each server and more lines for the sentinels, and does not wait.
    pub(crate) fn start_unwatched(arguments: &[&str], lines: &[&str]) -> Self {
        let quick = ["--repl-diskless-sync-delay", "0"];
        let primary = RedisServer::start_with(&[&quick[..], arguments].concat());
        let port = primary.port().to_string();
        let follows = ["--replicaof", "127.0.0.1", &port];
        let replica = RedisServer::start_with(&[&quick[..], arguments, &follows].concat());
        let folder = new_folder();
        let sentinels = (0..3)
            .map(|_| start_sentinel(&folder, primary.port(), lines))
            .collect();
        Self {
            servers: vec![primary, replica],
            sentinels,
            folder,
        }
    }

    /// The port of the first sentinel.
    pub(crate) fn sentinel(&self) -> u16 {
        self.sentinels[0].0
    }

    pub(crate) fn kill_sentinels(&mut self) {
        for (_, child) in &mut self.sentinels {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+sentinel://{}/main/0", self.hosts())
    }

    pub(crate) fn hosts(&self) -> String {
        let hosts: Vec<String> = (self.sentinels.iter())
            .map(|(port, _)| format!("127.0.0.1:{port}"))
            .collect();
        hosts.join(",")
    }

    /// The place of the server that the first sentinel names.
    pub(crate) fn primary(&self) -> usize {
        let ask = ["sentinel", "get-master-addr-by-name", "main"];
        let said = cli(self.sentinels[0].0, &ask);
        let port = said
            .lines()
            .nth(1)
            .and_then(|port| port.trim().parse::<u16>().ok());
        let port = port.unwrap_or_else(|| panic!("{said}"));
        let place = (self.servers.iter()).position(|server| server.port() == port);
        place.expect("one of ours")
    }

    /// Waits until the sentinels know each other and a replica that follows.
    pub(crate) fn until_watched(&self) {
        until("the sentinels see all", || {
            self.sentinels.iter().all(|(port, _)| {
                let about = cli(*port, &["sentinel", "master", "main"]);
                let lines: Vec<&str> = about.lines().collect();
                let number = |name| {
                    let at = lines.iter().position(|line| *line == name)?;
                    lines.get(at + 1)?.parse::<u32>().ok()
                };
                number("num-other-sentinels") == Some(2) && number("num-slaves") == Some(1)
            })
        });
        let port = self.servers[self.primary()].port();
        until("the replica follows", || {
            cli(port, &["info", "replication"]).contains("state=online")
        });
    }

    /// Waits until all sentinels name another than the server at `old`.
    pub(crate) fn until_taken_over(&self, old: usize) {
        let port = self.servers[old].port().to_string();
        until("another takes over", || {
            self.sentinels.iter().all(|(sentinel, _)| {
                let ask = ["sentinel", "get-master-addr-by-name", "main"];
                let said = cli(*sentinel, &ask);
                said.lines().count() == 2 && !said.contains(&port)
            })
        });
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.kill_sentinels();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn start_sentinel(folder: &Path, primary: u16, lines: &[&str]) -> (u16, Child) {
    for _ in 0..5 {
        let port = free_port();
        let file = folder.join(format!("{port}.conf"));
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor main 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 2000\n{}\n",
            folder.display(),
            lines.join("\n"),
        );
        std::fs::write(&file, text).expect("it is writable");
        let binary = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
        let mut child = Command::new(binary)
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`redis-server` is installed");
        let end = Instant::now() + LONG;
        while Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
            let said = cli(port, &["ping"]);
            if said == "PONG" || said.contains("NOAUTH") {
                return (port, child);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("no sentinel started");
}
