//! Removing all keys of a cache, if that is what is meant.

use std::io::{self, IsTerminal as _};

use larder::Cache;

use crate::fault::Fault;
use crate::out::talk;
use crate::progress::watched;
use crate::{Answer, Outcome};

/// Clears `cache`; asks before, unless the answer is `yes` already.
pub(crate) async fn clear(cache: &Cache, yes: bool) -> Outcome {
    if !yes {
        let what = what_goes(cache);
        if !io::stdin().is_terminal() {
            let hint = "add `--yes` to do so without being asked";
            return Err(Fault::new(format!("`clear` removes {what}")).with_hint(hint));
        }
        talk(&format!("This removes {what}.\nGo on? [y/N] "));
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line);
        read.map_err(|error| Fault::new("cannot read the answer").caused_by(&error))?;
        if !["y", "yes"].contains(&line.trim().to_lowercase().as_str()) {
            talk("nothing is removed\n");
            return Ok(Answer::No);
        }
    }
    watched("clearing", cache.clear()).await?;
    Ok(Answer::Done)
}

/// What is gone afterwards.
fn what_goes(cache: &Cache) -> String {
    let key = cache.key("");
    // `prefix:version:`; a prefix holds no `:`.
    let prefix = match key.whole().split(':').next().unwrap_or_default() {
        "" => "without a prefix".to_owned(),
        prefix => format!("of the prefix `{prefix}`"),
    };
    format!(
        "every key {prefix}, of all versions, from `{}`, and every value with tags in the same tag \
         space: all caches on the store are in one, unless `space` keeps them apart",
        cache.store_name()
    )
}
