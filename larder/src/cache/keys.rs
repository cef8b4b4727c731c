//! Listing the keys of a cache.

use super::Cache;
use crate::key::fits_scope;
use crate::{Error, ErrorKind, Result};

/// How many keys a page has, about.
const PAGE: usize = 500;

/// The keys of a cache, page by page; made by [`Cache::keys`].
#[derive(Debug)]
pub struct Keys<'a> {
    cache: &'a Cache,
    /// `prefix:version:` and the start asked for.
    start: String,
    from: Option<String>,
    is_over: bool,
}

impl Cache {
    /// The keys of this cache and version that begin with `start`, as they were given to `set`.
    ///
    /// For looking around: a page is a round trip, and all of the store's keys are walked, though never
    /// at once. A key that is there all the while is given at least once; one that comes or goes
    /// meanwhile may be. A store that cannot list its keys, and a cache with a key function, are
    /// errors of kind `Unsupported`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> larder::Result<()> {
    /// let cache = larder::Cache::new(larder::store::Memory::new());
    /// cache.set_many([("user:7", "ann"), ("user 8", "bob"), ("page", "<p>")]).await?;
    ///
    /// let mut keys = cache.keys("user");
    /// let mut found = Vec::new();
    /// while let Some(page) = keys.next_page().await? {
    ///     found.extend(page);
    /// }
    /// found.sort();
    /// assert_eq!(found, ["user 8", "user:7"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn keys(&self, start: &str) -> Keys<'_> {
        Keys {
            cache: self,
            start: format!("{}{start}", self.scope),
            from: None,
            is_over: false,
        }
    }
}

impl Keys<'_> {
    /// The next page, which may be empty; `None` after the last.
    pub async fn next_page(&mut self) -> Result<Option<Vec<String>>> {
        if self.is_over {
            return Ok(None);
        }
        let shared = &self.cache.shared;
        if shared.key_function.is_some() {
            let what = "keys that a function has made cannot be told apart again";
            return Err(Error::new(ErrorKind::Unsupported, "cache", what));
        }
        let Some(store) = shared.store.scan() else {
            let what = "this store cannot list its keys";
            return Err(Error::new(ErrorKind::Unsupported, &shared.store, what));
        };
        // Of a hashed key no more than this is readable, and of an odd version not even that.
        let scope = &*self.cache.scope;
        let prefix = format!("{}:", shared.prefix);
        let readable = if fits_scope(scope) { scope } else { &prefix };
        let page = store.page(readable, self.from.as_deref(), PAGE).await?;
        self.is_over = page.next.is_none();
        self.from = page.next;
        let own = |key: &crate::Key| {
            let whole = key.whole();
            let is_own = whole.starts_with(&self.start);
            is_own.then(|| whole[scope.len()..].to_owned())
        };
        Ok(Some(page.keys.iter().filter_map(own).collect()))
    }
}
