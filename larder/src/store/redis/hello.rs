//! What a server says of itself when it is connected: which start of it this is, since which failover, and
//! whether it may hold what it did not take itself.

use redis::{ErrorKind as Fault, Pipeline, RedisResult, Value};

use super::connection::Role;
use super::{reply, scripts};

/// The sections of `INFO` that are asked for.
pub(super) const INFOS: [&str; 3] = ["server", "persistence", "replication"];

pub(super) const NO_RUN_ID: &str = "no run_id";

/// The start of the server's `run_id`, which it draws anew each time that it starts.
pub(super) fn run(info: Option<&Value>) -> RedisResult<u64> {
    let id = info.and_then(reply::text).and_then(|info| {
        let line = info.lines().find_map(|line| line.strip_prefix("run_id:"))?;
        u64::from_str_radix(line.trim().get(..16)?, 16).ok()
    });
    id.ok_or_else(|| {
        let detail = NO_RUN_ID.to_owned();
        (Fault::Client, "the answer to INFO", detail).into()
    })
}

/// The incarnation of a server in this run and since this failover.
pub(super) fn incarnation(run: u64, epoch: u64) -> u64 {
    // An odd factor: each epoch gives another number.
    run ^ epoch.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// What the answers to `INFO` say of `name`.
pub(super) fn field<'a>(info: &'a [Value], name: &str) -> Option<&'a str> {
    let lines = info.iter().filter_map(reply::text).flat_map(str::lines);
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.next().map(str::trim)
}

/// Whether the server may hold keys that it did not take itself in this run, by what `INFO` says of
/// persistence and replication. What it does not say counts as so.
pub(super) fn has_older(info: &[Value]) -> bool {
    let field = |name: &str| field(info, name);
    let has_loaded = field("rdb_last_load_keys_loaded") != Some("0");
    let has_log = field("aof_enabled") != Some("0");
    // One that was a replica before it became the primary remembers whose.
    let was_replica = field("role") != Some("master")
        || field("master_replid2").is_none_or(|id| id.bytes().any(|digit| digit != b'0'));
    has_loaded || has_log || was_replica
}

/// What is asked of a server before anything else: [`INFOS`], our name, a word for its role.
pub(super) fn hello(role: &Role) -> Pipeline {
    let mut hello = Pipeline::new();
    for section in INFOS {
        hello.cmd("INFO").arg(section);
    }
    hello.cmd("CLIENT").arg("ID");
    match role {
        Role::Node => hello.cmd("CLUSTER").arg("INFO"),
        // An error where there is no cluster, and not needed there.
        Role::Replica => hello.cmd("READONLY"),
        Role::Alone | Role::Named(_) => hello.cmd("PING"),
    };
    for load in scripts::load() {
        hello.add_command(load);
    }
    hello
}
