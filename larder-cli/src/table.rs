//! The tables of SQL stores.

use crate::flags::Which;
use crate::out::{say, talk};
use crate::{Answer, Outcome, open};

/// Makes the table of an SQL store, or prints how.
pub(crate) async fn create(which: &Which, dry_run: bool) -> Outcome {
    let settings = open::settings(which)?;
    let alias = which.alias();
    if dry_run {
        for statement in settings.table_sql(alias)? {
            say(format_args!("{statement};"))?;
        }
        return Ok(Answer::Done);
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
