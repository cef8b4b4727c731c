//! The call that knows no engine.

use std::future::Future;

use super::VaryOn;
use crate::cache::policy;
use crate::django_keys::{KeyFormat, fragment_key};
use crate::{Cache, FetchError, Policy};

/// A part of a page that is kept, to be [rendered](Self::render).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use larder::{Cache, store::Memory};
///
/// let cache = Cache::new(Memory::new());
/// let hello = |name: &'static str| {
///     let fragment = cache.fragment("hello").vary(name).ttl(Duration::from_secs(60));
///     fragment.grace(Duration::from_secs(60)).tags(["people"])
/// };
/// let made = hello("ann").render(|| async { Ok::<_, std::fmt::Error>("Hello Ann".to_owned()) });
/// assert_eq!(made.await?, "Hello Ann");
///
/// let kept = hello("ann").render(|| async { Err(std::fmt::Error) });
/// assert_eq!(kept.await?, "Hello Ann", "and nothing is rendered");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is read until it is rendered"]
pub struct Fragment<'a> {
    cache: &'a Cache,
    name: String,
    vary: Vec<VaryOn>,
    format: KeyFormat,
    policy: Policy,
}

impl Cache {
    /// The fragment `name`, as Django's `{% cache %}` keeps it; see [`fragment`](crate::fragment).
    pub fn fragment(&self, name: impl Into<String>) -> Fragment<'_> {
        Fragment {
            cache: self,
            name: name.into(),
            vary: Vec::new(),
            format: KeyFormat::default(),
            policy: crate::fragment::policy(),
        }
    }
}

impl Fragment<'_> {
    policy!();

    /// Adds a value on which the text depends; each combination is kept by itself. Default: none.
    pub fn vary(mut self, value: impl Into<VaryOn>) -> Self {
        self.vary.push(value.into());
        self
    }

    /// How the values become a key. Default: as Django 6.1 and later.
    pub fn key_format(mut self, format: KeyFormat) -> Self {
        self.format = format;
        self
    }

    /// Returns the key, to be deleted.
    ///
    /// ```
    /// use larder::{Cache, fragment::make_template_fragment_key, store::Null};
    ///
    /// let cache = Cache::new(Null::new());
    /// let key = cache.fragment("sidebar").vary(7).key();
    /// assert_eq!(key, make_template_fragment_key("sidebar", &[7.into()]));
    /// ```
    pub fn key(&self) -> String {
        fragment_key(&self.name, &self.vary, self.format)
    }

    /// Returns the text, from the cache or from `render`.
    ///
    /// It is a [`fetch`](Cache::fetch): `render` runs in a task of its own. Where the store fails, it
    /// runs without it. Errors are those of `render`; all who waited for it share them, and the next
    /// to come tries again.
    pub async fn render<E, Fut>(
        self,
        render: impl FnOnce() -> Fut + Send + 'static,
    ) -> Result<String, FetchError<E>>
    where
        Fut: Future<Output = Result<String, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let key = self.cache.key(self.key());
        let made = (self.cache).fetch_regardless(&key, self.policy, |_| render());
        made.await
    }
}
