//! The cache that a command line means.

use larder::{Cache, Error, ErrorKind, Settings};

use crate::Outcome;
use crate::flags::Which;

/// The cache that `which` names.
pub(crate) async fn cache(which: &Which) -> larder::Result<Cache> {
    let caches = settings(which)?.open().await?;
    caches.get(&which.alias).cloned()
}

fn settings(which: &Which) -> larder::Result<Settings> {
    match (&which.store, &which.settings) {
        (Some(url), _) => Settings::default().with_url(&which.alias, url),
        (None, Some(file)) => Settings::from_file(file)?.with_env(),
        (None, None) => {
            let settings = Settings::default().with_env()?;
            if settings.aliases().any(|alias| alias == which.alias) {
                return Ok(settings);
            }
            let error = Error::new(ErrorKind::Invalid, "larder", "no cache is named");
            Err(error
                .with_hint("add `--store redis://127.0.0.1:6379/1`, or `--settings larder.toml`"))
        }
    }
}

/// Makes the table of a SQL store, or prints how.
pub(crate) fn create_table(which: &Which, _dry_run: bool) -> Outcome {
    let url = which.store.as_deref().unwrap_or_default();
    let scheme = url.split(':').next().unwrap_or_default();
    let error = Error::new(
        ErrorKind::Unsupported,
        "table",
        format!("`{scheme}` has no table"),
    );
    let hint = "SQL stores have: `sqlite:`, `postgres:`, `mysql:`";
    Err(error.with_hint(hint).into())
}
