//! The cache that a command line means.

use std::env;

use larder::{Cache, Settings};

use crate::fault::Fault;
use crate::flags::Which;

/// The cache that `which` names.
pub(crate) async fn cache(which: &Which) -> Result<Cache, Fault> {
    let caches = settings(which)?.open().await?;
    Ok(caches.get(which.alias())?.clone())
}

/// The settings of that cache alone; a flag is stronger than the environment.
pub(crate) fn settings(which: &Which) -> Result<Settings, Fault> {
    let alias = which.alias();
    if let Some(url) = &which.store {
        return Ok(Settings::default().with_url(alias, url)?);
    }
    if let Some(file) = &which.settings {
        return Ok(Settings::from_file(file)?.with_env().only(alias)?);
    }
    let exported = env::var("LARDER_STORE").ok().filter(|url| !url.is_empty());
    if let (Some(url), None) = (exported, &which.alias) {
        return Ok(Settings::default().with_url(alias, &url)?);
    }
    let settings = Settings::default().with_env();
    if settings.aliases().any(|name| name == alias) {
        return Ok(settings.only(alias)?);
    }
    if let Some(alias) = &which.alias {
        let fault = Fault::new(format!("no cache `{alias}` is named"));
        let hint = "add `--settings larder.toml`, or set `LARDER_…_URL` with the name in capitals";
        return Err(fault.with_hint(hint));
    }
    let hint = "add `--store redis://127.0.0.1:6379/1`, or `--settings larder.toml`";
    Err(Fault::new("no cache is named").with_hint(hint))
}
