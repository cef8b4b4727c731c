//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use larder::Ttl;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the answer is no: no such key, one that is there already, a cache that cannot be used
  2  an error";

/// Looks into caches and changes them
#[derive(Debug, Parser)]
#[command(
    name = "larder",
    version,
    disable_help_subcommand = true,
    after_help = EXIT_CODES
)]
pub(crate) struct Larder {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cache
#[derive(Debug, Args)]
pub(crate) struct Which {
    // Not read by clap, to which it would be a flag as well and in the way of others.
    /// The cache, as a URL: `redis://host:6379/1?key_prefix=shop`; else what `LARDER_STORE` says
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// A TOML file with `[caches.ALIAS]` tables
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "store")]
    pub(crate) settings: Option<PathBuf>,
    /// Which of its caches [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) alias: Option<String>,
}

impl Which {
    /// What the cache is called.
    pub(crate) fn alias(&self) -> &str {
        self.alias.as_deref().unwrap_or("default")
    }
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
        /// End each by a zero byte, for programs: a key may hold a line break
        #[arg(short = '0', long)]
        null: bool,
    },
    /// Print where the cache is, and how many keys it has
    Stats,
    /// Remove all keys of the cache's prefix, of all versions
    ///
    /// Values with tags go as well, in every cache of the same tag space: by default all caches on a
    /// store are in one. The setting `space` keeps them apart.
    Clear {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Look after the tables of SQL stores
    #[command(subcommand)]
    Table(Table),
    /// Check a file of settings, and whether each cache takes and gives back a value
    Check { file: PathBuf },
    /// Print a script by which a shell completes this command
    Completions { shell: Shell },
}

impl Command {
    /// Its name on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Get { .. } => "get",
            Self::Set(_) => "set",
            Self::Add(_) => "add",
            Self::Delete { .. } => "delete",
            Self::Touch { .. } => "touch",
            Self::Ttl { .. } => "ttl",
            Self::Incr { .. } => "incr",
            Self::Keys { .. } => "keys",
            Self::Stats => "stats",
            Self::Clear { .. } => "clear",
            Self::Table(_) => "table",
            Self::Check { .. } => "check",
            Self::Completions { .. } => "completions",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Write {
    pub(crate) key: String,
    /// JSON; what is none is a text. `-` reads it from stdin
    #[arg(allow_negative_numbers = true)]
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
    /// Make the outbox of a database, unless it is there
    ///
    /// Transactions put the tags there that they invalidate. A SQL store whose URL says `outbox=true`
    /// reads its own, which `table create` makes along with its table; for other stores it is drained.
    Outbox {
        #[command(flatten)]
        database: Database,
        /// Print the statements, and run none
        #[arg(long)]
        dry_run: bool,
    },
    /// Let PostgreSQL put tags into the outbox whenever a row of a table is written, raw SQL included
    ///
    /// Installs triggers for inserts, updates, deletes and `TRUNCATE`, in the place of those that an
    /// earlier call has installed.
    Watch {
        /// As in SQL: `object`, `shop.object`, `'"Object"'`
        table: String,
        #[command(flatten)]
        database: Database,
        /// A tag that each row invalidates, such as `object:{id}`; `{pk}` is the primary key; may be
        /// given more than once [default: TABLE and TABLE:{pk}]
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// The tag space, for caches that have one of their own
        #[arg(
            long,
            value_name = "NAME",
            default_value = "",
            hide_default_value = true
        )]
        space: String,
    },
    /// Remove what `watch` has installed
    Unwatch {
        table: String,
        #[command(flatten)]
        database: Database,
    },
    /// Invalidate in a cache what waits in the outbox, and print how many rows that were
    ///
    /// For a cache that is not in the same database. An outbox is for one store: a row goes when it has
    /// been acted on.
    Drain {
        #[command(flatten)]
        database: Database,
        /// Go on, and look every second; print nothing
        #[arg(long)]
        follow: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Database {
    /// The database: `postgres://user:password@host:5432/database`, `mysql://…` or `sqlite://…`
    #[arg(long, value_name = "URL")]
    pub(crate) url: String,
}

fn ttl(text: &str) -> Result<Ttl, String> {
    if text == "never" {
        return Ok(Ttl::Never);
    }
    let seconds = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    if seconds.is_none() && text.contains('M') {
        // To others it is months, which nobody means.
        return Err("`m` is minutes, `months` are months".to_owned());
    }
    let span = seconds.map_or_else(|| humantime::parse_duration(text).ok(), Some);
    span.map(Ttl::For)
        .ok_or_else(|| "give seconds, like `300`, a span, like `5m`, or `never`".to_owned())
}
