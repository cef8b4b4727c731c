//! What each subcommand does.

use clap::CommandFactory as _;
use larder::{Cache, Codec, ErrorKind, Ttl};

use crate::fault::Fault;
use crate::flags::{Command, Larder, Write};
use crate::out::{self, say};
use crate::{Answer, Outcome, check, clear, list, open, table, value};

pub(crate) async fn run(larder: Larder) -> Outcome {
    let name = larder.command.name();
    let same = "run `larder table create` with the same flags";
    let outcome = obey(larder).await;
    outcome.map_err(|fault| fault.during(name).with_table_made_by(same))
}

async fn obey(larder: Larder) -> Outcome {
    let which = larder.which;
    match larder.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Larder::command(), "larder", &mut script);
            out::write(&script)?;
            Ok(Answer::Done)
        }
        Command::Check { file } => check::check(&which, &file).await,
        Command::Table(table) => table::look_after(&which, table).await,
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
                out::write(&bytes)?;
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
        Command::Keys { start, limit, null } => list::keys(cache, &start, limit, null).await,
        Command::Stats => list::stats(cache).await,
        Command::Clear { yes } => clear::clear(cache, yes).await,
        Command::Table(_) | Command::Check { .. } | Command::Completions { .. } => {
            unreachable!("needs no cache, and is done already")
        }
    }
}

fn yes(is: bool) -> Answer {
    if is { Answer::Done } else { Answer::No }
}

async fn get(cache: &Cache, key: &str) -> Outcome {
    if let Some(value) = value::shown(cache, key).await? {
        return say(value);
    }
    if cache.has(key).await? {
        let what = format!("the value at `{key}` is none that JSON can show");
        return Err(Fault::new(what).with_hint("`--raw` prints its bytes"));
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
