//! Listing and counting keys.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};

use larder::{Cache, ErrorKind};

use crate::fault::Fault;
use crate::out::say;
use crate::progress::Progress;
use crate::{Answer, Outcome};

/// Prints the keys that begin with `start`: one a line, or each ended by a zero byte.
pub(crate) async fn keys(cache: &Cache, start: &str, limit: Option<usize>, null: bool) -> Outcome {
    let mut keys = cache.keys(start);
    let mut out = BufWriter::new(io::stdout().lock());
    // What a key holds is not to steer a terminal.
    let is_escaped = !null && io::stdout().is_terminal();
    let end = if null { '\0' } else { '\n' };
    let mut left = limit.unwrap_or(usize::MAX);
    while left > 0
        && let Some(page) = keys.next_page().await?
    {
        let page = page.into_iter().take(left);
        left -= page.len();
        let write = || {
            for key in page {
                let key = if is_escaped { escaped(&key) } else { key };
                write!(out, "{key}{end}")?;
            }
            out.flush()
        };
        write().map_err(|error| Fault::stdout(&error))?;
    }
    Ok(Answer::Done)
}

fn escaped(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for char in key.chars() {
        if char.is_control() {
            text.extend(char.escape_default());
        } else {
            text.push(char);
        }
    }
    text
}

/// Prints the store, and how many keys the cache has there.
pub(crate) async fn stats(cache: &Cache) -> Outcome {
    let count = match count(cache).await {
        Ok(count) => count.to_string(),
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            Fault::from(error).tell("larder");
            "unknown".to_owned()
        }
        Err(error) => return Err(error.into()),
    };
    say(format_args!("store: {}\nkeys: {count}", cache.store_name()))
}

async fn count(cache: &Cache) -> larder::Result<usize> {
    let mut keys = cache.keys("");
    let mut progress = Progress::new();
    let mut count = 0;
    while let Some(page) = keys.next_page().await? {
        count += page.len();
        progress.show(&format!("{count} keys"));
    }
    Ok(count)
}
