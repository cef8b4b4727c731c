//! Runs every clause of the contract against every store, behind every kind of pointer.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod support;

#[path = "../examples/own_store.rs"]
mod own_store;
#[path = "conformance/racy.rs"]
mod racy;

use std::cell::Cell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use larder::Clock;
use larder::conformance::{CLAUSES, Clause};
use larder::store::{File, Memcached, Memory, Mysql, Null, Postgres, Redis, Sqlite, Store};
use larder::wrap::{Forgiving, Instrumented, Signed, Tiered};
use libtest_mimic::{Arguments, Failed, Trial};
use support::{Kind, MemcachedServer, RedisCluster, RedisServer, SqlServer, SqliteFile, Watched};

/// A store under test.
struct Case {
    name: &'static str,
    make: fn() -> Making,
}

/// A store, once it is connected.
type Making = Pin<Box<dyn Future<Output = Arc<dyn Store>>>>;

const CASES: &[Case] = &[
    Case {
        name: "memory",
        make: || here(memory()),
    },
    Case {
        name: "memory_on_the_systems_clock",
        make: || here(Memory::new()),
    },
    Case {
        name: "boxed",
        make: || here(Box::new(Memory::new()) as Box<dyn Store>),
    },
    Case {
        name: "shared",
        make: || here(Arc::new(Memory::new())),
    },
    Case {
        name: "own_store",
        make: || here(own_store::Plain::default()),
    },
    Case {
        name: "file",
        make: || {
            here(
                File::builder(folder())
                    .clock(Clock::manual())
                    .open()
                    .unwrap(),
            )
        },
    },
    Case {
        name: "redis",
        make: || Box::pin(async { Arc::new(redis().await) as _ }),
    },
    Case {
        name: "redis_cluster",
        make: || Box::pin(async { Arc::new(cluster().await) as _ }),
    },
    Case {
        name: "redis_behind_sentinels",
        make: || Box::pin(async { Arc::new(watched().await) as _ }),
    },
    Case {
        name: "signed_redis_cluster",
        make: || Box::pin(async { Arc::new(Signed::new(cluster().await, "secret")) as _ }),
    },
    Case {
        name: "tiered",
        make: || here(tiers()),
    },
    Case {
        name: "tiered_numbers_only",
        make: || here(tiers().numbers_only()),
    },
    Case {
        name: "tiered_over_redis",
        make: || Box::pin(async { Arc::new(before_redis().await) as _ }),
    },
    Case {
        name: "forgiving",
        make: || here(Forgiving::new(memory())),
    },
    Case {
        name: "forgiving_redis",
        make: || Box::pin(async { Arc::new(Forgiving::new(redis().await)) as _ }),
    },
    Case {
        name: "instrumented",
        make: || here(Instrumented::new(memory())),
    },
    Case {
        name: "instrumented_forgiving_tiered",
        make: || {
            Box::pin(async {
                let tiers = before_redis().await.numbers_only();
                Arc::new(Instrumented::new(Forgiving::new(tiers))) as _
            })
        },
    },
    Case {
        name: "signed",
        make: || here(Signed::new(memory(), "secret")),
    },
    Case {
        name: "signed_redis",
        make: || Box::pin(async { Arc::new(Signed::new(redis().await, "secret")) as _ }),
    },
    Case {
        name: "tiered_over_instrumented_forgiving",
        make: || {
            let clock = Clock::manual();
            let memory = |clock: &Clock| Memory::builder().clock(clock.clone()).build();
            let far = Instrumented::new(Forgiving::new(memory(&clock)));
            here(Forgiving::new(Tiered::new(memory(&clock), far)))
        },
    },
    Case {
        name: "sqlite",
        make: || Box::pin(async { Arc::new(sqlite().await) as _ }),
    },
    Case {
        name: "sqlite_with_outbox",
        make: || Box::pin(async { Arc::new(sqlite_with_outbox().await) as _ }),
    },
    Case {
        name: "postgres",
        make: || Box::pin(async { Arc::new(postgres().await) as _ }),
    },
    Case {
        name: "postgres_with_outbox",
        make: || Box::pin(async { Arc::new(postgres_with_outbox().await) as _ }),
    },
    Case {
        name: "mariadb",
        make: || Box::pin(async { Arc::new(mariadb().await) as _ }),
    },
    Case {
        name: "mariadb_with_outbox",
        make: || Box::pin(async { Arc::new(mariadb_with_outbox().await) as _ }),
    },
    Case {
        name: "memcached",
        make: || Box::pin(async { Arc::new(memcached(1).await) as _ }),
    },
    Case {
        name: "memcached_on_three_servers",
        make: || Box::pin(async { Arc::new(memcached(3).await) as _ }),
    },
];

fn memory() -> Memory {
    Memory::builder().clock(Clock::manual()).build()
}

fn tiers() -> Tiered {
    let far = memory();
    let near = Memory::builder().clock(far.clock().clone()).build();
    Tiered::new(near, far)
}

async fn before_redis() -> Tiered {
    Tiered::new(Memory::new(), redis().await)
}

/// What `Null` declines, by name: it keeps nothing, so that nothing can be read back.
const NULL_DECLINES: &[&str] = &[
    "what_was_put_is_what_is_got",
    "many_are_answered_in_the_order_asked",
    "a_put_replaces_all_that_was_there",
    "if_absent_keeps_the_first",
    "if_absent_writes_over_what_has_expired",
    "if_present_writes_only_over_what_is_live",
    "if_stamp_writes_only_over_the_stamp_seen",
    "of_many_at_once_one_is_the_first",
    "put_many_writes_all",
    "a_ttl_ends_to_the_millisecond",
    "what_is_past_its_grace_is_gone",
    "touch_moves_the_deadline_and_nothing_else",
    "touch_of_an_integer_moves_its_deadline",
    "heads_tell_deadlines_and_tags",
    "delete_tells_what_was_live",
    "a_sum_keeps_the_ttl_and_goes_below_zero",
    "a_sum_needs_a_plain_integer",
    "a_sum_past_64_bits_changes_nothing",
    "sums_at_once_all_count",
    "digits_in_bytes_stay_bytes",
    "empty_and_large_values_are_kept",
    "keys_that_are_hashed_do_not_mix",
    "clear_removes_its_own_scope_only",
    "entries_and_numbers_are_got_together",
    "a_sum_gives_a_new_stamp",
    "sums_over_a_lease_all_count_and_keep_the_ttl",
    "what_is_too_large_leaves_nothing_behind",
    "put_many_may_name_a_key_twice",
    "delete_of_a_key_named_twice_counts_once",
    "what_is_past_its_end_when_put_is_nothing",
    "deadlines_at_the_end_of_time_are_kept",
    "an_act_that_is_dropped_changes_nothing_else",
    "a_lease_on_an_empty_slot_is_taken_once",
    "a_lease_is_nothing_to_the_verbs",
    "a_lease_leaves_the_value_and_its_deadlines",
    "a_lease_on_an_integer_leaves_its_value_and_ttl",
    "a_lease_is_renewed_by_its_holder_only",
    "a_load_writes_under_its_lease",
    "whatever_is_written_takes_the_lease_away",
    "a_marker_over_a_stale_value_leaves_it",
    "a_marker_is_nothing_to_the_verbs",
    "a_bare_marker_can_be_put",
    "a_lease_outlives_the_value_and_the_value_the_lease",
    "a_stale_value_is_nothing_to_the_verbs",
    "numbers_are_given_one_after_the_other",
    "tags_raised_together_get_one_number",
    "numbers_at_once_are_all_different",
    "spaces_count_for_themselves",
    "clear_raises_the_floor_over_every_number",
    "keys_are_listed_page_by_page",
];

fn here(store: impl Store) -> Making {
    Box::pin(async { Arc::new(store) as Arc<dyn Store> })
}

/// Where the folders of this run are.
static FOLDERS: OnceLock<PathBuf> = OnceLock::new();

/// A folder that nobody else uses.
fn folder() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    FOLDERS.get().unwrap().join(count.to_string())
}

/// The server that the test command started, or the one of this run.
static REDIS: OnceLock<String> = OnceLock::new();

async fn redis() -> Redis {
    Redis::connect(REDIS.get().unwrap().as_str()).await.unwrap()
}

/// The cluster of this run.
static CLUSTER: OnceLock<String> = OnceLock::new();

async fn cluster() -> Redis {
    Redis::connect(CLUSTER.get().unwrap().as_str())
        .await
        .unwrap()
}

/// The sentinels of this run.
static WATCHED: OnceLock<String> = OnceLock::new();

async fn watched() -> Redis {
    Redis::connect(WATCHED.get().unwrap().as_str())
        .await
        .unwrap()
}

/// The hosts of three servers of this run.
static MEMCACHED: OnceLock<Vec<String>> = OnceLock::new();

/// The one server of this run that keeps large items.
static SPACIOUS: OnceLock<String> = OnceLock::new();

async fn memcached(count: usize) -> Memcached {
    let hosts = MEMCACHED.get().unwrap()[..count].join(",");
    Memcached::connect(format!("memcached://{hosts}"))
        .await
        .unwrap()
}

/// The file of this run.
static SQLITE: OnceLock<String> = OnceLock::new();

async fn sqlite() -> Sqlite {
    Sqlite::connect(SQLITE.get().unwrap().as_str())
        .await
        .unwrap()
}

/// The same file, with an outbox that is read along.
async fn sqlite_with_outbox() -> Sqlite {
    let store = Sqlite::builder(SQLITE.get().unwrap()).outbox();
    let store = store.lazy().unwrap();
    store.create_table().await.unwrap();
    store
}

/// The server of this run.
static POSTGRES: OnceLock<String> = OnceLock::new();

async fn postgres() -> Postgres {
    let url = POSTGRES.get().unwrap().as_str();
    Postgres::connect(url).await.unwrap()
}

async fn postgres_with_outbox() -> Postgres {
    let store = Postgres::builder(POSTGRES.get().unwrap()).outbox();
    let store = store.lazy().unwrap();
    store.create_table().await.unwrap();
    store
}

/// The server of this run.
static MARIADB: OnceLock<String> = OnceLock::new();

async fn mariadb() -> Mysql {
    let url = MARIADB.get().unwrap().as_str();
    Mysql::connect(url).await.unwrap()
}

async fn mariadb_with_outbox() -> Mysql {
    let store = Mysql::builder(MARIADB.get().unwrap()).outbox();
    let store = store.lazy().unwrap();
    store.create_table().await.unwrap();
    store
}

/// Runs one clause on a fresh store; a hang is a failure.
fn run(clause: Clause, case: &Case) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = (case.make)().await;
        let done = tokio::time::timeout(Duration::from_secs(30), clause(&store)).await;
        assert!(done.is_ok(), "{store}: the clause hangs");
    });
}

/// The clauses that a store breaks whose acts are two.
const RACES: &[&str] = &[
    "of_many_at_once_one_is_the_first",
    "a_lease_on_an_empty_slot_is_taken_once",
    "sums_at_once_all_count",
    "numbers_at_once_are_all_different",
    "numbers_are_read_after_entries",
];

/// Fails unless the clause `name` fails on a store that looks first and acts then.
fn found_out(name: &str) -> Result<(), Failed> {
    let racy = Case {
        name: "racy",
        make: || here(racy::Racy::default()),
    };
    let (_, clause) = (CLAUSES.iter().find(|(clause, _)| *clause == name)).unwrap();
    DECLINING.set(true);
    let kept = std::panic::catch_unwind(AssertUnwindSafe(|| run(*clause, &racy))).is_ok();
    DECLINING.set(false);
    if kept {
        return Err("is kept by a store whose acts are two".into());
    }
    Ok(())
}

thread_local! {
    /// Whether a panic is expected on this thread, and not worth a report.
    static DECLINING: Cell<bool> = const { Cell::new(false) };
}

fn main() {
    // Before any server is started: a wrong argument ends the process here.
    let arguments = Arguments::from_args();
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !DECLINING.get() {
            report(panic);
        }
    }));
    let given = std::env::var("LARDER_TEST_REDIS").ok();
    let server = given.is_none().then(RedisServer::start);
    let url = given
        .or_else(|| server.as_ref().map(RedisServer::url))
        .unwrap();
    REDIS.set(url).unwrap();
    let cluster = RedisCluster::start(0);
    CLUSTER.set(cluster.url()).unwrap();
    let watched = Watched::start();
    WATCHED.set(watched.url()).unwrap();
    let file = SqliteFile::new();
    SQLITE.set(file.url()).unwrap();
    let postgres = SqlServer::start(Kind::Postgres);
    POSTGRES.set(postgres.url()).unwrap();
    let mariadb = SqlServer::start(Kind::Mariadb);
    MARIADB.set(mariadb.url()).unwrap();
    let folders = support::new_folder();
    FOLDERS.set(folders.clone()).unwrap();
    let memcached = [(); 3].map(|()| MemcachedServer::start());
    let spacious = MemcachedServer::start_with(&["-I", "128m", "-m", "1024"]);
    SPACIOUS.set(spacious.url()).unwrap();
    let host = |server: &MemcachedServer| format!("127.0.0.1:{}", server.port());
    MEMCACHED.set(memcached.iter().map(host).collect()).unwrap();

    let trials = CASES.iter().flat_map(|case| {
        CLAUSES.iter().map(move |&(name, clause)| {
            Trial::test(format!("{}::{name}", case.name), move || {
                run(clause, case);
                Ok(())
            })
        })
    });
    let null = Case {
        name: "null",
        make: || here(Null::new()),
    };
    let null: &'static Case = Box::leak(Box::new(null));
    let null = CLAUSES.iter().map(move |&(name, clause)| {
        Trial::test(format!("null::{name}"), move || {
            DECLINING.set(true);
            let kept = std::panic::catch_unwind(AssertUnwindSafe(|| run(clause, null))).is_ok();
            DECLINING.set(false);
            match (kept, NULL_DECLINES.contains(&name)) {
                (true, true) => Err("is listed as declined, and kept".into()),
                (false, false) => Err("is broken, and not listed as declined".into()),
                _ => Ok(()),
            }
        })
    });
    let spacious_case: &'static Case = Box::leak(Box::new(Case {
        name: "memcached_with_large_items",
        make: || {
            Box::pin(async {
                let memcached = Memcached::connect(SPACIOUS.get().unwrap().as_str());
                Arc::new(memcached.await.unwrap()) as _
            })
        },
    }));
    let of_sizes = |(name, _): &&(&str, Clause)| name.contains("too_large");
    let large = CLAUSES.iter().filter(of_sizes).map(move |&(name, clause)| {
        Trial::test(format!("{}::{name}", spacious_case.name), move || {
            run(clause, spacious_case);
            Ok(())
        })
    });
    let listed = Trial::test("null::every_clause_declined_exists", || {
        let known = |name: &&str| CLAUSES.iter().any(|(clause, _)| clause == name);
        match NULL_DECLINES.iter().find(|name| !known(name)) {
            Some(name) => Err(format!("there is no clause `{name}`").into()),
            None => Ok(()),
        }
    });
    let racy = RACES.iter().map(|&name| {
        Trial::test(format!("racy::{name}_is_found_out"), move || {
            found_out(name)
        })
    });
    let example = Trial::test("own_store::the_example_runs", || {
        own_store::main();
        Ok(())
    });
    let trials = trials.chain(null).chain(large).chain(racy);
    let trials = trials.chain([listed, example]).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop((
        server, cluster, watched, file, postgres, mariadb, memcached, spacious,
    ));
    let _ = std::fs::remove_dir_all(folders);
    conclusion.exit();
}
