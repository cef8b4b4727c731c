//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use larder::Ttl;

/// Looks into caches and changes them
#[derive(Debug, Parser)]
#[command(name = "larder", version, disable_help_subcommand = true)]
pub(crate) struct Larder {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cache
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The cache, as a URL: `redis://host:6379/1?key_prefix=shop`
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "LARDER_STORE",
        hide_env_values = true
    )]
    pub(crate) store: Option<String>,
    /// A TOML file with `[caches.ALIAS]` tables
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "store")]
    pub(crate) settings: Option<PathBuf>,
    /// Which of its caches
    #[arg(long, global = true, value_name = "NAME", default_value = "default")]
    pub(crate) alias: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the value at a key, as JSON
    Get {
        key: String,
        /// Print the bytes as they are
        #[arg(long)]
        raw: bool,
    },
    /// Write a value, whatever was there
    Set(Write),
    /// Write a value if none is there
    Add(Write),
    /// Remove keys, and print how many were there
    Delete {
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Give a value a new TTL
    Touch {
        key: String,
        /// Such as `90s`, `5m` or `never`
        #[arg(value_parser = ttl)]
        ttl: Ttl,
    },
    /// Print what is left of a TTL, in seconds, or `never`
    Ttl { key: String },
    /// Add to an integer, and print the sum
    Incr {
        key: String,
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        delta: i64,
    },
    /// Print the keys, one a line
    Keys {
        /// Only those that begin so
        #[arg(default_value = "")]
        start: String,
        /// Stop after so many
        #[arg(long, value_name = "COUNT")]
        limit: Option<usize>,
    },
    /// Print how many keys there are, and how much they take
    Stats,
    /// Remove all keys of the cache's prefix, and no others
    Clear {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Look after the tables of SQL stores
    #[command(subcommand)]
    Table(Table),
    /// Check a file of settings, and whether each cache answers
    Check { file: PathBuf },
    /// Print a script by which a shell completes this command
    Completions { shell: Shell },
}

#[derive(Debug, Args)]
pub(crate) struct Write {
    pub(crate) key: String,
    /// JSON; what is none is a text. `-` reads it from stdin
    pub(crate) value: String,
    /// Such as `90s`, `5m` or `never`; by default the cache's
    #[arg(long, value_parser = ttl)]
    pub(crate) ttl: Option<Ttl>,
    /// A tag to invalidate it by; may be given more than once
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Take the bytes as they are
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Table {
    /// Make the table of a SQL store, unless it is there
    Create {
        /// Print the statements, and run none
        #[arg(long)]
        dry_run: bool,
    },
}

fn ttl(text: &str) -> Result<Ttl, String> {
    if text == "never" {
        return Ok(Ttl::Never);
    }
    let seconds = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let span = seconds.map_or_else(|| humantime::parse_duration(text).ok(), Some);
    span.map(Ttl::For)
        .ok_or_else(|| "give seconds, like `300`, a span, like `5m`, or `never`".to_owned())
}
