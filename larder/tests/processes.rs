//! Four processes on one store: one load, every count, one winner each.
//!
//! This program is all of them: told an act by its environment, it is one of the four.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod grounds;
mod support;

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Write as _};
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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(act_as(&act));
    }
    let tests: [(&str, Test); 3] = [
        ("a_thousand_callers_make_one_load", one_load),
        ("a_thousand_counts_all_count", every_count),
        ("each_of_1500_keys_is_added_once", one_winner_each),
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

/// Lets four processes act at once; what each says.
fn together(url: &str, act: &str) -> Vec<usize> {
    static ROUNDS: AtomicUsize = AtomicUsize::new(0);
    let round = ROUNDS.fetch_add(1, Ordering::Relaxed);
    let separator = if url.contains('?') { '&' } else { '?' };
    let own = format!(
        "{url}{separator}key_prefix=processes{}-{round}",
        std::process::id()
    );
    let mut others: Vec<Other> = (0..PROCESSES).map(|_| Other::start(&own, act)).collect();
    for other in &mut others {
        assert_eq!(other.line(), "ready");
    }
    for other in &mut others {
        writeln!(other.0.stdin.as_mut().unwrap(), "go").unwrap();
    }
    others
        .iter_mut()
        .map(|other| other.line().parse().unwrap())
        .collect()
}

/// One of the four.
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

/// What one of the four does: says that it is ready, waits for the word, acts, and says what came of it.
async fn act_as(act: &str) {
    let url = std::env::var(URL).unwrap();
    let settings = Settings::default().with_url("default", &url).unwrap();
    let caches = settings.open().await.unwrap();
    let cache = caches.get("default").unwrap().clone();
    // Connected, so that all begin at the same moment.
    cache.has("nothing").await.unwrap();
    println!("ready");
    std::io::stdin()
        .lock()
        .read_line(&mut String::new())
        .unwrap();
    let said = match act {
        "fetch" => fetch(&cache).await,
        "incr" => incr(&cache).await,
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
