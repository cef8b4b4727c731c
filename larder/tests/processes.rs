//! Several processes on one store: one load, every count, one winner each, and never an old value.
//!
//! This program is all of them: told an act by its environment, it is one of the others.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod grounds;
mod support;

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use grounds::Ground;
use larder::{Cache, Settings, Ttl};
use libtest_mimic::{Arguments, Trial};

const ACT: &str = "LARDER_TEST_ACT";
const URL: &str = "LARDER_TEST_URL";
const PROCESSES: usize = 4;

type Test = fn(&str);

fn main() {
    if let Ok(act) = std::env::var(ACT) {
        return runtime().block_on(act_as(&act));
    }
    let tests: [(&str, Test); 8] = [
        ("a_thousand_callers_make_one_load", one_load),
        ("a_thousand_counts_all_count", every_count),
        ("each_of_1500_keys_is_added_once", one_winner_each),
        ("what_another_loads_during_a_delete_is_not_served", |url| {
            never_old(url, "delete");
        }),
        ("what_another_loads_during_a_set_is_not_served", |url| {
            never_old(url, "set");
        }),
        (
            "what_another_loads_during_an_invalidation_is_not_served",
            |url| {
                never_old(url, "tag");
            },
        ),
        ("what_another_loads_during_a_clear_is_not_served", |url| {
            never_old(url, "clear");
        }),
        (
            "the_same_over_a_plain_get_load_set_is_old",
            old_without_lease,
        ),
    ];
    let shared = grounds::all().into_iter().filter_map(Ground::into_shared);
    let trials = shared.flat_map(|(name, url)| {
        tests.map(|(test, run)| {
            let url = url.clone();
            Trial::test(format!("{name}::{test}"), move || {
                run(&url);
                Ok(())
            })
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn one_load(url: &str) {
    assert_eq!(together(url, "fetch").iter().sum::<usize>(), 1);
}

fn every_count(url: &str) {
    let done = together(url, "incr");
    assert_eq!(
        done.iter().max(),
        Some(&1000),
        "the last sum seen: {done:?}"
    );
}

fn one_winner_each(url: &str) {
    let won = together(url, "add");
    assert_eq!(won.iter().sum::<usize>(), 1500, "{won:?}");
}

fn never_old(url: &str, act: &str) {
    let [kept, there, here] = invalidated_meanwhile(url, "load", act);
    assert_ne!(kept, Some(0), "kept after a {act}");
    assert_eq!((there, here), (Some(1), Some(1)), "loaded there, and here");
}

fn old_without_lease(url: &str) {
    // The harness can fail: what is set by hand is written back.
    let [kept, ..] = invalidated_meanwhile(url, "set by hand", "delete");
    assert_eq!(kept, Some(0));
}

/// Lets another process read version 0 of a row, then writes version 1 and does `act` here, then lets
/// the other put into the cache what it has read: what is there after that, and what then is fetched
/// there and here.
fn invalidated_meanwhile(url: &str, other: &str, act: &str) -> [Option<usize>; 3] {
    let own = own(url);
    let row = std::env::temp_dir().join(format!("larder-row-{}", own.1));
    std::fs::write(&row, "0").unwrap();
    let mut other = Other::start(&own.0, other);
    assert_eq!(other.line(), "ready");
    other.say(row.to_str().unwrap());
    assert_eq!(other.line(), "loading");

    let runtime = runtime();
    let seen = runtime.block_on(async {
        let cache = open(&own.0).await;
        std::fs::write(&row, "1").unwrap();
        match act {
            "delete" => drop(cache.delete("k").await.unwrap()),
            "set" => cache.set("k", &1_usize).tags(["t"]).await.unwrap(),
            "tag" => cache.invalidate(["t"]).await.unwrap(),
            _ => cache.clear().await.unwrap(),
        }
        other.say("go on");
        assert_eq!(other.line(), "loaded");
        let kept = cache.get("k").await.unwrap();
        other.say("go on");
        let there = other.line().parse().ok();
        [kept, there, Some(current(&cache, &row).await)]
    });
    std::fs::remove_file(row).unwrap();
    seen
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A prefix and a tag space of a test's own at `url`, and their name.
fn own(url: &str) -> (String, String) {
    static ROUNDS: AtomicUsize = AtomicUsize::new(0);
    let round = ROUNDS.fetch_add(1, Ordering::Relaxed);
    let separator = if url.contains('?') { '&' } else { '?' };
    let name = format!("processes{}-{round}", std::process::id());
    let url = format!("{url}{separator}key_prefix={name}&space={name}");
    (url, name)
}

/// Lets four processes act at once; what each says.
fn together(url: &str, act: &str) -> Vec<usize> {
    let (own, _) = own(url);
    let mut others: Vec<Other> = (0..PROCESSES).map(|_| Other::start(&own, act)).collect();
    for other in &mut others {
        assert_eq!(other.line(), "ready");
    }
    for other in &mut others {
        other.say("go");
    }
    others
        .iter_mut()
        .map(|other| other.line().parse().unwrap())
        .collect()
}

/// Another process.
struct Other(Child, BufReader<std::process::ChildStdout>);

impl Other {
    fn start(url: &str, act: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ACT, act)
            .env(URL, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self(child, said)
    }

    fn say(&mut self, word: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn open(url: &str) -> Cache {
    let settings = Settings::default().with_url("default", url).unwrap();
    let caches = settings.open().await.unwrap();
    caches.get("default").unwrap().clone()
}

/// The next word from the process that started this one.
async fn heard() -> String {
    let read = || std::io::stdin().lines().next().unwrap().unwrap();
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// What another process does: says that it is ready, waits for the word, acts, and says what came of it.
async fn act_as(act: &str) {
    let cache = open(&std::env::var(URL).unwrap()).await;
    // Connected, so that all begin at the same moment.
    cache.has("nothing").await.unwrap();
    println!("ready");
    let word = heard().await;
    let said = match act {
        "fetch" => fetch(&cache).await,
        "incr" => incr(&cache).await,
        "load" => load(&cache, word.into()).await,
        "set by hand" => set_by_hand(&cache, word.into()).await,
        _ => add(&cache).await,
    };
    println!("{said}");
    cache.close().await.unwrap();
}

/// How many loads of this process ran for 250 callers.
async fn fetch(cache: &Cache) -> usize {
    let loads = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..250)
        .map(|_| {
            let (cache, loads) = (cache.clone(), Arc::clone(&loads));
            tokio::spawn(async move {
                let load = move || async move {
                    loads.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    Ok::<_, Infallible>("loaded".to_owned())
                };
                // Patient: on a busy machine the one load may take long.
                let policy = larder::Policy::new().wait(Duration::from_mins(1));
                cache.fetch("cold", load).policy(policy).await.unwrap()
            })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), "loaded");
    }
    loads.load(Ordering::SeqCst)
}

/// The last sum of 250 counts of this process.
async fn incr(cache: &Cache) -> usize {
    cache.add("n", &0).ttl(Ttl::Never).await.unwrap();
    let mut last = 0;
    for _ in 0..250 {
        last = cache.incr("n", 1).await.unwrap();
    }
    usize::try_from(last).unwrap()
}

/// How many of 1,500 keys this process was the one to add.
async fn add(cache: &Cache) -> usize {
    let mut won = 0;
    for number in 0..1500 {
        won += usize::from(cache.add(format!("k{number}"), &number).await.unwrap());
    }
    won
}

/// Loads `row`, slowly, and then fetches it again.
async fn load(cache: &Cache, row: PathBuf) -> usize {
    let from = row.clone();
    let slow = move || async move { read_slowly(&from).await };
    cache.get_or_set("k", slow).tags(["t"]).await.unwrap();
    println!("loaded");
    heard().await;
    current(cache, &row).await
}

/// The same by hand.
async fn set_by_hand(cache: &Cache, row: PathBuf) -> usize {
    let version = read_slowly(&row).await;
    cache.set("k", &version).tags(["t"]).await.unwrap();
    println!("loaded");
    heard().await;
    current(cache, &row).await
}

/// Reads `row`, says so, and goes on when it is told to.
async fn read_slowly(row: &Path) -> usize {
    let version = read(row);
    println!("loading");
    heard().await;
    version
}

async fn current(cache: &Cache, row: &Path) -> usize {
    let row = row.to_owned();
    let load = move || async move { read(&row) };
    cache.get_or_set("k", load).tags(["t"]).await.unwrap()
}

/// The version of `row`.
fn read(row: &Path) -> usize {
    std::fs::read_to_string(row).unwrap().parse().unwrap()
}
