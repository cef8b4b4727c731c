//! A Redis cluster: real nodes that are killed, frozen, flushed and restarted, and slots that move.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod support;

#[path = "support/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use larder::store::{Redis, Scan as _, Store, Tags, When};
use larder::{Cache, Clock, Entry, ErrorKind, Key, Mark, Moment, Stamp, State, Value};
use support::{RedisCluster, RedisServer, cli, until};
use world::{HANGS, MS, ROWS, World};

/// What a server would run into if a command touched two slots.
fn crossed(cluster: &RedisCluster) -> String {
    let running = cluster.servers.iter().filter(|it| it.is_running());
    let said = running.map(|server| cli(server.port(), &["info", "errorstats"]));
    said.filter(|it| it.contains("CROSSSLOT")).collect()
}

/// How often the nodes have answered with `error`.
fn errors_of(cluster: &RedisCluster, error: &str) -> u64 {
    let running = cluster.servers.iter().filter(|it| it.is_running());
    let name = format!("errorstat_{error}:count=");
    let count = |server: &RedisServer| {
        let said = cli(server.port(), &["info", "errorstats"]);
        let line = said.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.trim().parse::<u64>().unwrap())
    };
    running.map(count).sum()
}

fn caches(cluster: &RedisCluster) -> [Cache; 2] {
    [(); 2].map(|()| Cache::new(Redis::lazy(cluster.url()).unwrap()))
}

fn world() -> Arc<World> {
    Arc::new(World::default())
}

fn text(clock: &Clock, text: &'static str) -> Entry {
    Entry::new(clock, Value::Bytes(text.into())).fresh_until(Moment::NEVER)
}

fn lease(clock: &Clock) -> Mark {
    Mark {
        stamp: Stamp::draw(clock),
        state: State::Loading,
        until: clock.now().plus(Duration::from_mins(1)),
    }
}

async fn value(store: &Redis, key: &Key) -> Option<Value> {
    let found = store.get(std::slice::from_ref(key), None).await.unwrap();
    found.entries.into_iter().next().unwrap()?.value
}

/// Asks until the store answers without an error.
async fn until_answered(store: &Redis, names: &[String]) {
    let keys: Vec<Key> = names.iter().map(|name| Key::new(name.clone())).collect();
    let tags = Tags {
        space: "",
        names: &[],
    };
    let asked = async {
        while store.get(&keys, Some(tags)).await.is_err() {
            tokio::time::sleep(5 * MS).await;
        }
    };
    tokio::time::timeout(HANGS, asked).await.unwrap();
}

/// The names of the slots of all rows.
fn rows() -> Vec<String> {
    (0..ROWS).map(|row| format!(":1:row:{row}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn primaries_killed_under_load() {
    let mut cluster = RedisCluster::start(1);
    let caches = caches(&cluster);
    let world = world();
    let tasks = world.go(&caches);

    // The numbers' own node is the second, and the third is not dead.
    for (name, is_frozen) in [
        (":1:row:0", false),
        (":@:numbers", false),
        (":1:row:1", true),
    ] {
        world.all_is_well().await;
        let dead = cluster.owner(name);
        // What it acknowledges from now on, no replica hears of.
        cut_off_replicas(cluster.port(dead));
        world.grown(&world.told, 200, "writes are heard of").await;
        if is_frozen {
            cluster.servers[dead].freeze();
        } else {
            cluster.servers[dead].kill();
        }
        world
            .grown(&world.errors, 20, "its clients hear of it")
            .await;
        cluster.until_taken_over(name, dead);
        if is_frozen {
            // It believes for a moment that nothing has happened, and has what it had.
            cluster.servers[dead].thaw();
        }
        cluster.until_well();
        // By themselves: both processes find the new primary.
        World::answers_again(&caches).await;
        world.all_is_well().await;
        // It comes back as a replica.
        if !is_frozen {
            cluster.restart(dead);
        }
    }
    world.all_is_well().await;

    world.end(tasks).await;
    World::hits_again(&caches).await;
    assert_eq!(crossed(&cluster), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_that_move_under_load() {
    let cluster = RedisCluster::start(0);
    let caches = caches(&cluster);
    let world = world();
    let tasks = world.go(&caches);
    world.all_is_well().await;

    let before = world.errors.load(std::sync::atomic::Ordering::SeqCst);
    let mut names = rows();
    names.push(":@:numbers".to_owned());
    for name in &names {
        world.grown(&world.reads, 20, "values are read").await;
        let from = cluster.owner(name);
        let to = (from + 1) % 3;
        move_slot(&cluster, name, from, to, || async {
            world.grown(&world.reads, 40, "values are read").await;
            world.grown(&world.told, 20, "writes are heard of").await;
        })
        .await;
    }
    world.all_is_well().await;

    let errors = world.errors.load(std::sync::atomic::Ordering::SeqCst) - before;
    assert_eq!(errors, 0, "{}", world.last_error());
    world.end(tasks).await;
    World::hits_again(&caches).await;
    assert!(errors_of(&cluster, "MOVED") > 0, "slots were followed");
    assert!(
        errors_of(&cluster, "ASK") > 0,
        "slots were between two nodes"
    );
    assert_eq!(crossed(&cluster), "");
}

/// Moves the slot of `name` step by step, with time for `load` in between.
async fn move_slot<F: Future<Output = ()>>(
    cluster: &RedisCluster,
    name: &str,
    from: usize,
    to: usize,
    load: impl Fn() -> F,
) {
    let (source, target) = (cluster.port(from), cluster.port(to));
    let slot = cli(source, &["cluster", "keyslot", name]);
    let set = |port, words: &[&str]| {
        let said = cli(port, &[&["cluster", "setslot", &slot], words].concat());
        assert_eq!(said, "OK", "{name}: {words:?}");
    };
    set(target, &["importing", &cluster.id(from)]);
    set(source, &["migrating", &cluster.id(to)]);
    load().await;
    let port = target.to_string();
    loop {
        let keys = cli(source, &["cluster", "getkeysinslot", &slot, "10"]);
        if keys.is_empty() {
            break;
        }
        for key in keys.lines() {
            let said = cli(source, &["migrate", "127.0.0.1", &port, key, "0", "5000"]);
            assert!(["OK", "NOKEY"].contains(&&*said), "{key}: {said}");
        }
    }
    load().await;
    for node in [target, source] {
        set(node, &["node", &cluster.id(to)]);
    }
    load().await;
}

/// What is kept at each node before it goes wrong: a plain value, an integer and a lease.
struct Kept {
    keys: Vec<[Key; 3]>,
    leases: Vec<Mark>,
}

impl Kept {
    async fn put(store: &Redis, cluster: &RedisCluster) -> Self {
        let clock = store.clock();
        let mut kept = Self {
            keys: Vec::new(),
            leases: Vec::new(),
        };
        for node in 0..3 {
            let mut names = (0..).map(|number| format!("shop:1:{number}"));
            let mut next = || names.find(|name| cluster.owner(name) == node).unwrap();
            let keys = [(); 3].map(|()| Key::new(next()));
            let entries = [
                (keys[0].clone(), text(clock, "old")),
                (keys[1].clone(), Entry::plain(5)),
            ];
            assert!(store.put_many(entries.to_vec()).await.unwrap().is_empty());
            let lease = lease(clock);
            assert!(store.mark(&keys[2], None, lease).await.unwrap());
            kept.keys.push(keys);
            kept.leases.push(lease);
        }
        kept
    }

    /// Whether the node at `at` serves what it kept, or takes a load that began before.
    async fn is_back(&self, store: &Redis, at: usize) -> [bool; 3] {
        let [value_key, integer, loaded] = &self.keys[at];
        let load = text(store.clock(), "late");
        let when = When::IfStamp(self.leases[at].stamp);
        [
            value(store, value_key).await.is_some(),
            value(store, integer).await.is_some(),
            store.put(loaded, load, when).await.unwrap(),
        ]
    }
}

#[tokio::test]
async fn a_node_back_from_an_old_snapshot_brings_nothing_old_back() {
    let mut cluster = RedisCluster::start(0);
    let store = Redis::connect(cluster.url()).await.unwrap();
    let other = Redis::connect(cluster.url()).await.unwrap();
    let kept = Kept::put(&store, &cluster).await;
    let cache = Cache::new(store.clone());
    cache.set("tagged", "old").tags(["tag"]).await.unwrap();
    for server in &cluster.servers {
        assert_eq!(cli(server.port(), &["save"]), "OK");
    }
    // What is done after the snapshot, the node with the numbers forgets.
    cache.invalidate(["tag"]).await.unwrap();
    let dead = cluster.owner(":@:numbers");
    for key in &kept.keys[dead] {
        store.delete(std::slice::from_ref(key)).await.unwrap();
    }

    cluster.restart(dead);

    for store in [store, other] {
        let names: Vec<String> = (kept.keys.iter())
            .map(|keys| keys[0].name().to_owned())
            .collect();
        until_answered(&store, &names).await;
        assert_eq!(kept.is_back(&store, dead).await, [false; 3]);
        let cache = Cache::new(store.clone());
        assert_eq!(cache.get::<String>("tagged").await.unwrap(), None);
        let alive = (dead + 1) % 3;
        let there = value(&store, &kept.keys[alive][0]).await;
        assert!(there.is_some(), "what is elsewhere has lost nothing");
    }
    // As the server itself has it, it is all there.
    let port = cluster.port(dead);
    assert_ne!(cli(port, &["get", kept.keys[dead][0].name()]), "");
}

#[tokio::test]
async fn who_trusts_restarts_keeps_what_the_snapshot_has() {
    let mut cluster = RedisCluster::start(0);
    let store = Redis::builder(cluster.url()).trust_restarts();
    let store = store.connect().await.unwrap();
    let kept = Kept::put(&store, &cluster).await;
    for server in &cluster.servers {
        assert_eq!(cli(server.port(), &["save"]), "OK");
    }

    cluster.restart(0);

    until_answered(&store, &[kept.keys[0][0].name().to_owned()]).await;
    assert_eq!(kept.is_back(&store, 0).await, [true; 3]);
    let digits = cli(cluster.port(0), &["get", kept.keys[0][1].name()]);
    assert_eq!(digits, "5", "and integers are digits");
}

#[tokio::test]
async fn a_flushed_node_takes_no_load_that_began_before() {
    let cluster = RedisCluster::start(0);
    let store = Redis::connect(cluster.url()).await.unwrap();
    let kept = Kept::put(&store, &cluster).await;
    let cache = Cache::new(store.clone());
    cache.set("tagged", "old").tags(["tag"]).await.unwrap();
    let ticket = cache.ticket("ticket").await.unwrap();
    let flushed = cluster.owner(":@:numbers");

    assert_eq!(cli(cluster.port(flushed), &["flushall"]), "OK");

    assert_eq!(kept.is_back(&store, flushed).await, [false; 3]);
    assert_eq!(cache.get::<String>("tagged").await.unwrap(), None);
    // Its slot may be elsewhere and have lost nothing; the numbers of its tags have.
    let _ = ticket.set("late").tags(["tag"]).await;
    assert_eq!(cache.get::<String>("ticket").await.unwrap(), None);
}

/// Keeps replicas of the server at `port` from following it.
fn cut_off_replicas(port: u16) {
    let rule = ["acl", "setuser", "default", "-psync", "-sync"];
    assert_eq!(cli(port, &rule), "OK");
    cli(port, &["client", "kill", "type", "replica"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_for_the_second_time_is_another_than_the_first_time() {
    let cluster = &mut RedisCluster::start(1);
    let idle = Redis::connect(cluster.url()).await.unwrap();
    let store = Redis::connect(cluster.url()).await.unwrap();
    let key = Key::new("shop:1:k");
    let names = [key.name().to_owned()];
    let first = cluster.owner(key.name());
    assert!(
        store
            .put(&key, text(store.clock(), "old"), When::Always)
            .await
            .unwrap()
    );
    assert!(value(&idle, &key).await.is_some());

    // It stops for a while, another takes its place, and it follows that one, run and data as before.
    cluster.servers[first].freeze();
    let second = cluster.until_taken_over(key.name(), first);
    cluster.servers[first].thaw();
    let follows = "role:slave";
    until("it follows", || {
        cli(cluster.port(first), &["info", "replication"]).contains(follows)
    });
    cluster.until_well();
    until_answered(&store, &names).await;
    // What the second is told now, the first never hears of.
    cut_off_replicas(cluster.port(second));
    until("it follows no longer", || {
        cli(cluster.port(first), &["info", "replication"]).contains("master_link_status:down")
    });
    store.delete(std::slice::from_ref(&key)).await.unwrap();
    cluster.servers[second].kill();
    assert_eq!(cluster.until_taken_over(key.name(), second), first);
    cluster.until_well();

    assert_ne!(cli(cluster.port(first), &["get", key.name()]), "");
    for store in [&store, &idle] {
        until_answered(store, &names).await;
        assert_eq!(value(store, &key).await, None);
    }
}

#[tokio::test]
async fn batches_go_once_to_each_node_and_come_back_in_order() {
    let cluster = RedisCluster::start(0);
    let store = Redis::connect(cluster.url()).await.unwrap();
    let keys: Vec<Key> = (0..300)
        .map(|number| Key::new(format!("shop:1:{number}")))
        .collect();
    let entries = (0_i64..).zip(&keys);
    let entries = entries.map(|(number, key)| (key.clone(), Entry::plain(number)));
    assert!(store.put_many(entries.collect()).await.unwrap().is_empty());

    // The map is read beside it now and then: one of several times nothing else happens.
    let (mut idle, mut fewest) = ([u64::MAX; 3], [u64::MAX; 3]);
    for _ in 0..20 {
        let before = [reads(&cluster), reads(&cluster)];
        let found = store.get(&keys, None).await.unwrap();
        let after = reads(&cluster);
        for at in 0..3 {
            // To ask is to be read as well.
            idle[at] = idle[at].min(before[1][at] - before[0][at]);
            fewest[at] = fewest[at].min(after[at] - before[1][at]);
        }
        for (number, entry) in (0_i64..).zip(found.entries) {
            assert_eq!(entry.unwrap().value, Some(Value::Integer(number)));
        }
    }
    assert_eq!(fewest, idle.map(|reads| reads + 1));

    assert!(
        store
            .heads(&keys)
            .await
            .unwrap()
            .iter()
            .all(Option::is_some)
    );
    assert_eq!(listed(&store, "shop:").await.len(), 300);
    assert_eq!(listed(&store, "sho").await.len(), 300);
    let gone = store.delete(&keys).await.unwrap();
    assert_eq!(gone.iter().flatten().count(), 300);
    assert_eq!(listed(&store, "shop:").await.len(), 0);
    assert_eq!(crossed(&cluster), "");
}

/// How often each node has read from a connection.
fn reads(cluster: &RedisCluster) -> [u64; 3] {
    std::array::from_fn(|at| {
        let said = cli(cluster.port(at), &["info", "stats"]);
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("total_reads_processed:"));
        line.unwrap().trim().parse().unwrap()
    })
}

async fn listed(store: &Redis, scope: &str) -> BTreeSet<String> {
    let (mut names, mut from) = (BTreeSet::new(), None);
    loop {
        let page = store.page(scope, from.as_deref(), 50).await.unwrap();
        names.extend(page.keys.iter().map(|key| key.name().to_owned()));
        from = page.next;
        if from.is_none() {
            return names;
        }
    }
}

#[tokio::test]
async fn a_clear_takes_its_own_prefix_from_every_node() {
    let cluster = RedisCluster::start(0);
    let store = Redis::connect(cluster.url()).await.unwrap();
    let put = |name: String| {
        let (store, key) = (store.clone(), Key::new(name));
        async move {
            let entry = text(store.clock(), "v");
            assert!(store.put(&key, entry, When::Always).await.unwrap());
        }
    };
    for number in 0..200 {
        put(format!("shop:1:{number}")).await;
        put(format!("shopping:1:{number}")).await;
    }
    let mut held = Vec::new();
    for number in 0..20 {
        let (key, mark) = (
            Key::new(format!("shop:1:led {number}")),
            lease(store.clock()),
        );
        assert!(store.mark(&key, None, mark).await.unwrap());
        held.push((key, mark));
    }

    store.clear("shop:", "").await.unwrap();

    assert_eq!(listed(&store, "shop:").await.len(), 0);
    assert_eq!(listed(&store, "shopping:").await.len(), 200);
    for (key, mark) in held {
        let late = text(store.clock(), "late");
        let put = store.put(&key, late, When::IfStamp(mark.stamp)).await;
        assert!(!put.unwrap());
    }
    assert_eq!(crossed(&cluster), "");
}

#[tokio::test]
async fn integers_are_counted_in_one_act_with_their_ttl() {
    let cluster = RedisCluster::start(0);
    let cache = Cache::new(Redis::connect(cluster.url()).await.unwrap());
    cache
        .set("n", &5)
        .ttl(Duration::from_mins(1))
        .await
        .unwrap();
    cache.set("tagged", &1).tags(["tag"]).await.unwrap();

    assert_eq!(cache.incr("n", 37).await.unwrap(), 42);
    assert_eq!(cache.decr("n", 50).await.unwrap(), -8);
    assert_eq!(cache.incr("tagged", 1).await.unwrap(), 2);
    assert!(cache.incr("none", 1).await.is_err());
    cache.set("n", &i64::MAX).await.unwrap();
    assert!(cache.incr("n", 1).await.is_err());
    assert_eq!(cache.get("n").await.unwrap(), Some(i64::MAX));

    // Somebody's digits do not say on which node they were written.
    let owner = cluster.port(cluster.owner(":1:digits"));
    assert_eq!(cli(owner, &["set", ":1:digits", "7"]), "OK");
    assert_eq!(cache.get::<i64>("digits").await.unwrap(), None);
    assert!(cache.add("digits", &8).await.unwrap());
    assert_eq!(cache.get("digits").await.unwrap(), Some(8));
}

/// How often a `GET` was run at each server.
fn gets(cluster: &RedisCluster) -> Vec<u64> {
    let count = |server: &RedisServer| {
        let said = cli(server.port(), &["info", "commandstats"]);
        let line = (said.lines()).find_map(|line| line.strip_prefix("cmdstat_get:calls="));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    };
    cluster.servers.iter().map(count).collect()
}

#[tokio::test]
async fn plain_gets_that_opt_in_are_for_replicas_and_nothing_else_is() {
    let cluster = RedisCluster::start(1);
    let store = Redis::builder(cluster.url()).read_replicas();
    let cache = Cache::new(store.connect().await.unwrap());
    let primaries = || gets(&cluster)[..3].iter().sum::<u64>();
    let replicas = || gets(&cluster)[3..].iter().sum::<u64>();
    let names: Vec<String> = (0..30).map(|number| format!("k{number}")).collect();
    for name in &names {
        cache.set(name, "v").await.unwrap();
    }
    for server in &cluster.servers[..3] {
        cli(server.port(), &["wait", "1", "5000"]);
    }

    let before = primaries();
    for name in &names {
        assert_eq!(cache.get(name).await.unwrap(), Some("v".to_owned()));
    }
    let many = cache.get_many::<String, _>(names.clone()).await.unwrap();
    assert_eq!(many.len(), names.len());
    assert_eq!((primaries() - before, replicas()), (0, 60));

    let load = || async { Ok::<_, Infallible>("new".to_owned()) };
    for name in &names {
        let fetched: String = cache.fetch(name, load).await.unwrap();
        assert_eq!(fetched, "v");
        drop(cache.ticket(name).await.unwrap());
    }
    cache.set("n", &1).await.unwrap();
    cache.incr("n", 1).await.unwrap();
    assert_eq!(replicas(), 60, "who loads or compares asks the primary");

    let plain = Cache::new(Redis::connect(cluster.url()).await.unwrap());
    let _ = plain.get::<String>("k0").await.unwrap();
    assert_eq!(replicas(), 60, "nobody else does");
}

#[tokio::test]
async fn a_replica_without_its_primary_is_not_believed() {
    let cluster = RedisCluster::start(1);
    let store = Redis::builder(cluster.url()).read_replicas();
    let cache = Cache::new(store.connect().await.unwrap());
    cache.set("k", "v").await.unwrap();
    let primary = cluster.port(cluster.owner(":1:k"));
    cli(primary, &["wait", "1", "5000"]);
    assert_eq!(cache.get("k").await.unwrap(), Some("v".to_owned()));
    assert_eq!(gets(&cluster)[3..].iter().sum::<u64>(), 1);

    cut_off_replicas(primary);
    until("the replica notices", || {
        cluster.servers[3..].iter().any(|server| {
            cli(server.port(), &["info", "replication"]).contains("master_link_status:down")
        })
    });
    cache.delete("k").await.unwrap();

    assert_eq!(cache.get::<String>("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_password_is_for_every_node_and_never_shown() {
    let secret = ["--requirepass", "s@cret", "--masterauth", "s@cret"];
    let servers: Vec<RedisServer> = (0..3)
        .map(|_| RedisServer::start_with(&[&["--cluster-enabled", "yes"][..], &secret].concat()))
        .collect();
    // By hand, since not all of `redis-cli --cluster` knows of passwords.
    let auth = |server: &RedisServer, words: &[&str]| {
        let said = cli(
            server.port(),
            &[&["--no-auth-warning", "-a", "s@cret"], words].concat(),
        );
        assert_eq!(said, "OK", "{words:?}");
    };
    let ranges = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    for (server, (first, last)) in servers.iter().zip(ranges) {
        auth(server, &["cluster", "addslotsrange", first, last]);
    }
    let port = servers[0].port().to_string();
    for server in &servers[1..] {
        auth(server, &["cluster", "meet", "127.0.0.1", &port]);
    }
    until("all is well", || {
        servers.iter().all(|server| {
            let words = ["--no-auth-warning", "-a", "s@cret", "cluster", "info"];
            let said = cli(server.port(), &words);
            said.contains("cluster_state:ok") && said.contains("cluster_size:3")
        })
    });
    let url = format!("redis+cluster://:s%40cret@127.0.0.1:{port}");

    let cache = Cache::new(Redis::connect(url.as_str()).await.unwrap());
    for number in 0..10 {
        cache.set(format!("k{number}"), &number).await.unwrap();
    }

    let shown = format!("redis+cluster://127.0.0.1:{port}");
    assert_eq!(Redis::lazy(url.as_str()).unwrap().to_string(), shown);
    let wrong = Redis::lazy(url.replace("s%40cret", "wr0ng")).unwrap();
    let error = wrong.get(&[Key::new("k")], None).await.unwrap_err();
    let told = format!("{error} {error:?}");
    assert!(told.contains("refuses the login"), "{told}");
    assert!(!told.contains("wr0ng"), "{told}");
}

#[tokio::test]
async fn nodes_with_names_are_spoken_to_by_tls() {
    let folder = support::new_folder();
    support::make_certificates(&folder);
    let authority = std::fs::read(folder.join("ca.crt")).unwrap();
    let (port, bus) = (support::free_port(), support::free_port());
    let arguments = format!(
        "--tls-port {port} --tls-cert-file @/server.crt --tls-key-file @/server.key \
         --tls-ca-cert-file @/ca.crt --tls-auth-clients no --cluster-enabled yes \
         --cluster-port {bus} --tls-cluster yes --cluster-announce-hostname localhost \
         --cluster-preferred-endpoint-type hostname"
    );
    let arguments = arguments.replace('@', folder.to_str().unwrap());
    let arguments = arguments.split_whitespace().map(str::to_owned).collect();
    let server = RedisServer::start_in(folder, arguments);
    let all = ["cluster", "addslotsrange", "0", "16383"];
    assert_eq!(cli(server.port(), &all), "OK");
    until("all is well", || {
        cli(server.port(), &["cluster", "info"]).contains("cluster_state:ok")
    });
    let url = format!("rediss+cluster://localhost:{port}");

    let builder = Redis::builder(url.as_str()).connect_timeout(Duration::from_secs(5));
    let trusting = builder.clone().ca_certificate_pem(authority);
    let cache = Cache::new(trusting.connect().await.unwrap());
    cache.set("k", "v").tags(["tag"]).await.unwrap();

    assert_eq!(cache.get("k").await.unwrap(), Some("v".to_owned()));
    let error = builder.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn what_is_no_cluster_is_told_so() {
    let server = RedisServer::start();
    let url = format!("redis+cluster://127.0.0.1:{}", server.port());

    let error = Redis::connect(url.as_str()).await.unwrap_err();

    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let said = format!("redis: `{url}` does not say which node has which slot");
    assert_eq!(error.to_string(), said);
    assert!(error.hint().unwrap().contains("redis://"));
    drop(server);
    let error = Redis::connect(url.as_str()).await.unwrap_err();
    assert!(error.to_string().contains("cannot connect"), "{error}");
}

#[tokio::test]
async fn empty_nodes_of_a_cluster_are_told_so() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    let url = format!("redis+cluster://127.0.0.1:{}", server.port());

    let error = Redis::connect(url.as_str()).await.unwrap_err();

    assert!(error.to_string().contains("slots nobody has"), "{error}");
}
