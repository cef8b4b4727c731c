//! What each subcommand does.

use std::io::{self, IsTerminal, Write as _};

use clap::CommandFactory as _;
use larder::{Cache, Codec, Error, ErrorKind, Settings, Ttl};

use crate::flags::{Command, Larder, Table, Write};
use crate::{Answer, Outcome, open, value};

pub(crate) async fn run(larder: Larder) -> Outcome {
    let which = larder.which;
    match larder.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Larder::command(), "larder", &mut script);
            io::stdout().write_all(&script)?;
            Ok(Answer::Done)
        }
        Command::Check { file } => check(&Settings::from_file(file)?).await,
        Command::Table(Table::Create { dry_run }) => open::create_table(&which, dry_run).await,
        command => {
            let cache = open::cache(&which).await?;
            let answer = act(&cache, command).await;
            // What was written has arrived; how the connection ends is no answer.
            let _ = cache.close().await;
            answer
        }
    }
}

async fn act(cache: &Cache, command: Command) -> Outcome {
    match command {
        Command::Get { key, raw: true } => match cache.get_bytes(&key).await? {
            None => Ok(Answer::No),
            Some(bytes) => {
                io::stdout().write_all(&bytes)?;
                Ok(Answer::Done)
            }
        },
        Command::Get { key, raw: false } => get(cache, &key).await,
        Command::Set(write) => set(cache, write).await,
        Command::Add(write) => add(cache, write).await,
        Command::Delete { keys } => {
            let count = cache.delete_many(&keys).await?;
            say(count)?;
            Ok(yes(count > 0))
        }
        Command::Touch { key, ttl } => Ok(yes(cache.touch(&key, ttl).await?)),
        Command::Ttl { key } => match cache.ttl(&key).await? {
            None => Ok(Answer::No),
            Some(Ttl::For(span)) => say(format_args!("{:.3}", span.as_secs_f64())),
            Some(_) => say("never"),
        },
        Command::Incr { key, delta } => match cache.incr(&key, delta).await {
            Err(error) if error.kind() == ErrorKind::NoSuchKey => Ok(Answer::No),
            sum => say(sum?),
        },
        Command::Keys { start, limit } => keys(cache, &start, limit).await,
        Command::Stats => stats(cache).await,
        Command::Clear { yes } => clear(cache, yes).await,
        Command::Table(_) | Command::Check { .. } | Command::Completions { .. } => {
            unreachable!("needs no cache, and is done already")
        }
    }
}

fn yes(is: bool) -> Answer {
    if is { Answer::Done } else { Answer::No }
}

fn say(what: impl std::fmt::Display) -> Outcome {
    writeln!(io::stdout(), "{what}")?;
    Ok(Answer::Done)
}

async fn get(cache: &Cache, key: &str) -> Outcome {
    if let Some(value) = value::find(cache, key).await? {
        return say(value);
    }
    if cache.has(key).await? {
        let what = format!("the value at `{key}` is neither MessagePack nor JSON nor a text");
        let error = Error::new(ErrorKind::Codec, "cache", what);
        return Err(error.with_hint("`--raw` prints its bytes").into());
    }
    Ok(Answer::No)
}

async fn set(cache: &Cache, write: Write) -> Outcome {
    let ttl = write.ttl.unwrap_or_default();
    if write.raw {
        let bytes = value::bytes(&write.value)?;
        let raw = cache.with_codec(Codec::Raw);
        let bytes = serde_bytes::Bytes::new(&bytes);
        raw.set(&write.key, bytes)
            .ttl(ttl)
            .tags(&write.tags)
            .await?;
    } else {
        let value = value::read(&write.value)?;
        cache
            .set(&write.key, &value)
            .ttl(ttl)
            .tags(&write.tags)
            .await?;
    }
    Ok(Answer::Done)
}

async fn add(cache: &Cache, write: Write) -> Outcome {
    let ttl = write.ttl.unwrap_or_default();
    let added = if write.raw {
        let bytes = value::bytes(&write.value)?;
        let raw = cache.with_codec(Codec::Raw);
        let bytes = serde_bytes::Bytes::new(&bytes);
        raw.add(&write.key, bytes)
            .ttl(ttl)
            .tags(&write.tags)
            .await?
    } else {
        let value = value::read(&write.value)?;
        cache
            .add(&write.key, &value)
            .ttl(ttl)
            .tags(&write.tags)
            .await?
    };
    Ok(yes(added))
}

async fn keys(cache: &Cache, start: &str, limit: Option<usize>) -> Outcome {
    let mut keys = cache.keys(start);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut left = limit.unwrap_or(usize::MAX);
    while left > 0
        && let Some(page) = keys.next_page().await?
    {
        for key in page.into_iter().take(left) {
            writeln!(out, "{key}")?;
            left -= 1;
        }
        out.flush()?;
    }
    Ok(Answer::Done)
}

async fn stats(cache: &Cache) -> Outcome {
    let mut keys = cache.keys("");
    let mut progress = Progress::new("keys");
    let mut count = 0;
    while let Some(page) = keys.next_page().await? {
        count += page.len();
        progress.show(count);
    }
    progress.end();
    say(format_args!("store: {}", cache.store_name()))?;
    say(format_args!("keys: {count}"))
}

async fn clear(cache: &Cache, yes: bool) -> Outcome {
    if !yes {
        if !io::stdin().is_terminal() {
            let what = "`clear` removes every key of the cache's prefix";
            let error = Error::new(ErrorKind::Invalid, "clear", what);
            return Err(error
                .with_hint("add `--yes` to do so without being asked")
                .into());
        }
        write!(io::stderr(), "Remove every key of {cache:?}? [y/N] ")?;
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        if !matches!(line.trim(), "y" | "Y" | "yes") {
            return Ok(Answer::No);
        }
    }
    cache.clear().await?;
    Ok(Answer::Done)
}

/// Opens every cache of the settings and asks it for a key.
async fn check(settings: &Settings) -> Outcome {
    let caches = settings.open().await?;
    let mut answer = Answer::Done;
    for alias in caches.aliases() {
        let cache = caches.get(alias)?;
        match cache.has("larder-check").await {
            Ok(_) => say(format_args!("{alias}: {} answers", cache.store_name()))?,
            Err(error) => {
                answer = Answer::No;
                let hint = error.hint().map(|hint| format!("\nhint: {hint}"));
                let line = format!("{alias}: {error}{}\n", hint.unwrap_or_default());
                io::stderr().write_all(line.as_bytes())?;
                Answer::No
            }
        };
    }
    Ok(answer)
}

/// Counts on a line of the terminal, where there is one.
struct Progress {
    what: &'static str,
    is_shown: bool,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            is_shown: io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, count: usize) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r{count} {}", self.what);
        }
    }

    fn end(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
