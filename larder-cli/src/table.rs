//! The tables of SQL stores, and outboxes.

use std::time::Duration;

use larder::outbox::Outbox;

use crate::fault::Fault;
use crate::flags::{Database, Table, Which};
use crate::out::{say, talk};
use crate::{Answer, Outcome, open};

/// How often an outbox is looked at.
const EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn look_after(which: &Which, table: Table) -> Outcome {
    match table {
        Table::Create { dry_run } => create(which, dry_run).await,
        Table::Outbox { database, dry_run } => make_outbox(&database, dry_run).await,
        Table::Watch {
            table,
            database,
            tags,
            space,
        } => watch(&table, &database, tags, space).await,
        Table::Unwatch { table, database } => unwatch(&table, &database).await,
        Table::Drain { database, follow } => drain(which, &database, follow).await,
    }
}

/// Makes the table of an SQL store, or prints how.
async fn create(which: &Which, dry_run: bool) -> Outcome {
    let settings = open::settings(which)?;
    let alias = which.alias();
    if dry_run {
        return print(settings.table_sql(alias)?);
    }
    if settings.create_table(alias).await? {
        talk("the table is made\n");
        return Ok(Answer::Done);
    }
    // One of that name may be somebody else's, which is told when it is used.
    let caches = settings.open().await?;
    caches.get(alias)?.has("larder-check").await?;
    talk("the table is there already\n");
    Ok(Answer::Done)
}

fn print(statements: Vec<String>) -> Outcome {
    for statement in statements {
        say(format_args!("{statement};"))?;
    }
    Ok(Answer::Done)
}

async fn make_outbox(database: &Database, dry_run: bool) -> Outcome {
    let outbox = outbox(database)?;
    if dry_run {
        return print(outbox.table_sql());
    }
    let made = outbox.create_table().await?;
    talk(if made {
        "the outbox is made\n"
    } else {
        "the outbox is there already\n"
    });
    Ok(Answer::Done)
}

async fn watch(table: &str, database: &Database, tags: Vec<String>, space: String) -> Outcome {
    let outbox = outbox(database)?.space(space);
    let tags = outbox.watch(table, tags).await?;
    let tags: Vec<String> = tags.iter().map(|tag| format!("`{tag}`")).collect();
    let tags = tags.join(" and ");
    talk(&format!(
        "whoever writes `{table}` now invalidates {tags}\n"
    ));
    Ok(Answer::Done)
}

async fn unwatch(table: &str, database: &Database) -> Outcome {
    if outbox(database)?.unwatch(table).await? {
        talk(&format!("`{table}` is no longer watched\n"));
        return Ok(Answer::Done);
    }
    talk(&format!("`{table}` was not watched\n"));
    Ok(Answer::No)
}

async fn drain(which: &Which, database: &Database, follow: bool) -> Outcome {
    let outbox = outbox(database)?;
    let cache = open::cache(which).await?;
    if !follow {
        let drained = outbox.drain([&cache]).await;
        // What was told has arrived; how the connection ends is no answer.
        let _ = cache.close().await;
        return say(drained?);
    }
    let mut is_well = true;
    // Whoever ends this loses nothing: rows are removed after they have been acted on.
    loop {
        let drained = outbox.drain([&cache]).await;
        let was_well = std::mem::replace(&mut is_well, drained.is_ok());
        match drained {
            Ok(_) if !was_well => talk("larder: goes on\n"),
            Err(error) if was_well => Fault::from(error).tell("larder"),
            _ => {}
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn outbox(database: &Database) -> Result<Outbox, Fault> {
    Ok(Outbox::lazy(&database.url)?)
}
