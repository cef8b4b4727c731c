//! Checking a file of settings, and whether each cache can be used.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::Path;
use std::time::Duration;

use larder::Settings;

use crate::fault::Fault;
use crate::flags::Which;
use crate::out::say;
use crate::{Answer, Outcome};

/// How long what is written stays, if it cannot be removed.
const TTL: Duration = Duration::from_secs(10);

/// Opens the caches of `file` one by one, or the one that `which` names, and tries each.
pub(crate) async fn check(which: &Which, file: &Path) -> Outcome {
    for (flag, is_given) in [
        ("--store", which.store.is_some()),
        ("--settings", which.settings.is_some()),
    ] {
        if is_given {
            let fault = Fault::new(format!("`check` takes no `{flag}`"));
            return Err(fault.with_hint("give it a file: `larder check larder.toml`"));
        }
    }
    let settings = Settings::from_file(file)?.with_env();
    if let Some(alias) = &which.alias
        && !settings.aliases().any(|it| it == alias)
    {
        settings.only(alias)?;
    }
    let mut answer = Answer::Done;
    let is_meant = |alias: &&str| which.alias.as_deref().is_none_or(|it| it == *alias);
    for alias in settings.aliases().filter(is_meant) {
        match try_out(&settings, alias).await {
            Ok(name) => say(format_args!("{alias}: {name} answers"))?,
            Err(fault) => {
                answer = Answer::No;
                let command = format!(
                    "run `larder table create --settings {} --alias {alias}`",
                    file.display()
                );
                fault.with_table_made_by(&command).tell(alias);
                Answer::No
            }
        };
    }
    Ok(answer)
}

/// Writes, reads and deletes a key of its own; what the store is called.
async fn try_out(settings: &Settings, alias: &str) -> Result<String, Fault> {
    let caches = settings.only(alias)?.open().await?;
    let cache = caches.get(alias)?;
    let name = cache.store_name();
    let key = format!("larder-check-{:016x}", random());
    cache.set(&key, "larder").ttl(TTL).await?;
    let is_kept = cache.get::<String>(&key).await?.as_deref() == Some("larder");
    cache.delete(&key).await?;
    // What was written has arrived; how the connection ends is no answer.
    let _ = cache.close().await;
    // Keeping nothing is what `null` is for.
    if is_kept || name == "null" {
        return Ok(name);
    }
    Err(Fault::new(format!(
        "`{name}` did not keep what was written"
    )))
}

/// A number that no other process has: the standard library draws its hashes at random.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
