//! The cache that a command line means.

use std::io::{self, Write as _};

use larder::{Cache, Error, ErrorKind, Settings};

use crate::flags::Which;
use crate::{Answer, Outcome};

/// The cache that `which` names.
pub(crate) async fn cache(which: &Which) -> larder::Result<Cache> {
    let caches = settings(which)?.open().await?;
    caches.get(&which.alias).cloned()
}

fn settings(which: &Which) -> larder::Result<Settings> {
    match (&which.store, &which.settings) {
        (Some(url), _) => Settings::default().with_url(&which.alias, url),
        (None, Some(file)) => Ok(Settings::from_file(file)?.with_env()),
        (None, None) => {
            let settings = Settings::default().with_env();
            if settings.aliases().any(|alias| alias == which.alias) {
                return Ok(settings);
            }
            let error = Error::new(ErrorKind::Invalid, "larder", "no cache is named");
            Err(error
                .with_hint("add `--store redis://127.0.0.1:6379/1`, or `--settings larder.toml`"))
        }
    }
}

/// Makes the table of an SQL store, or prints how.
pub(crate) async fn create_table(which: &Which, dry_run: bool) -> Outcome {
    let settings = settings(which)?;
    if dry_run {
        for statement in settings.table_sql(&which.alias)? {
            writeln!(io::stdout(), "{statement};")?;
        }
        return Ok(Answer::Done);
    }
    let made = settings.create_table(&which.alias).await?;
    let says = if made { "made" } else { "there already" };
    writeln!(io::stderr(), "the table is {says}")?;
    Ok(Answer::Done)
}
