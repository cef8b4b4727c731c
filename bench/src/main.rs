//! Larder side by side with its peers: every figure is a ratio, the median of nine interleaved pairs
//! of one run; but hit ratios, which do not vary, are told as they are.
//!
//! `cargo run --release -p bench` prints most; a word picks one: `store`, `cache`, `file`, `sqlite`,
//! `postgres`, `page`, `tags`, `hits`; `memcached` and `stores` only if it is theirs. Each starts the servers that
//! it needs. The page bench needs `wrk`, and `taskset`, which gives client and server a core each.

mod file;
mod hits;
mod memcached;
mod page;
mod pairs;
mod servers;
mod sql;
mod stores;
mod tags;
mod values;

use std::process::ExitCode;

/// What can fail for want of a program that it needs.
type Bench = fn() -> Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let only = std::env::args().nth(1);
    let picked = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if only.as_deref() == Some("stores") {
        return finish(stores::beside_drivers());
    }
    if only.as_deref() != Some("hits") {
        println!("{:<58} {:>9} {:>9}  ratio", "", "Larder", "peer");
    }
    if picked("store") {
        values::store_against_quick_cache(1);
        values::store_against_quick_cache(2);
    }
    if picked("cache") {
        values::cache_against_moka(1);
        values::cache_against_moka(2);
    }
    if picked("file") {
        file::store_against_plain_files();
        file::many_against_few();
    }
    let others: [(_, Bench); 4] = [
        ("tags", tags::hits_with_tags),
        ("sqlite", sql::get_against_rusqlite),
        ("postgres", sql::get_against_tokio_postgres),
        ("page", || Ok(page::hit_against_bare_handler()?)),
    ];
    for (name, bench) in others {
        if picked(name)
            && let Err(error) = bench()
        {
            return finish(Err(error));
        }
    }
    if picked("hits") {
        hits::memory_against_moka();
    }
    if only.as_deref() == Some("memcached") {
        return finish(memcached::gets());
    }
    ExitCode::SUCCESS
}

fn finish(outcome: servers::Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}
