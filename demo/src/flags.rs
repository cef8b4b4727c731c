//! The demo's flags. Whatever is wrong with them is one line on stderr and exit code 2.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;

use crate::slow;

/// One page that waits for a slow API
#[derive(Debug, Parser)]
#[command(name = "demo", version, disable_help_subcommand = true)]
pub(crate) struct Flags {
    /// Where to listen; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub(crate) listen: String,
    /// Where pages are kept: `memory://` or `redis://host:port/db`
    #[arg(long, value_name = "URL", default_value = "memory://")]
    pub(crate) cache: String,
    /// How long the slow API takes
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = delay)]
    pub(crate) delay: Duration,
    /// How long a page is kept
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    pub(crate) ttl: Duration,
    /// The SQLite file with the objects, shared by demos; without it one that goes when the demo stops
    #[arg(long, value_name = "FILE")]
    pub(crate) shop: Option<PathBuf>,
}

impl Flags {
    /// Reads the command line; what is wrong with it is already told.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        let flags = Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                print!("{}", error.render());
                ExitCode::SUCCESS
            }
            _ => refuse(&first_line(&error)),
        })?;
        match known_store(&flags.cache) {
            Ok(()) => Ok(flags),
            Err(line) => Err(refuse(&line)),
        }
    }
}

fn refuse(line: &str) -> ExitCode {
    eprintln!("demo: {line}");
    ExitCode::from(2)
}

/// Clap writes a paragraph; its first line says what is wrong.
fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    if line.contains("hint: ") {
        line.to_owned()
    } else {
        format!("{line}; hint: `demo --help` lists the flags")
    }
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; hint: a number and a unit, like `90s` or `5m`"))
}

fn delay(text: &str) -> Result<Duration, String> {
    let delay = time(text)?;
    if delay > slow::LONGEST {
        let longest = humantime::format_duration(slow::LONGEST);
        return Err(format!(
            "the slow API takes {longest} at most; hint: `--delay 2s`"
        ));
    }
    Ok(delay)
}

/// Names the scheme only when it is wrong: the rest of the URL may hold a password.
fn known_store(url: &str) -> Result<(), String> {
    let hint = "hint: `memory://` or `redis://127.0.0.1:6379/0`";
    match url.split_once("://") {
        Some(("memory" | "redis" | "rediss", _)) => Ok(()),
        Some((scheme, _)) => Err(format!(
            "no store has the scheme `{scheme}` of `--cache`; {hint}"
        )),
        None => Err(format!("the value of `--cache` is not a URL; {hint}")),
    }
}
