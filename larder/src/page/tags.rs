//! Tags of a page, told by whoever makes it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::entry::Tag;

/// The tags of a page, for [`Cache::invalidate`](crate::Cache::invalidate): a handle in the request's
/// extensions, or an extension of the response.
///
/// A page also has the tags of all that was read from caches while it was made; these are for what it
/// depends on besides. They are good from before the handler was asked, so that nothing of it is kept
/// if one is invalidated while the page is made. What is added after the body's end counts no more.
///
/// With the feature `axum` it is an extractor. Outside of a [`CacheLayer`](super::CacheLayer) what is
/// added goes nowhere.
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::{Extension, Router, extract::Path, response::IntoResponse, routing::get};
/// use larder::{Cache, page::{CacheLayer, PageTags}, store::Memory};
///
/// async fn object(tags: PageTags, Path(id): Path<u64>) -> String {
///     tags.add(format!("object:{id}"));
///     format!("object {id}")
/// }
///
/// async fn list() -> impl IntoResponse {
///     (Extension(PageTags::from_iter(["objects"])), "all objects")
/// }
///
/// let cache = Cache::new(Memory::new());
/// let app: Router = Router::new()
///     .route("/objects", get(list))
///     .route("/objects/{id}", get(object))
///     .layer(CacheLayer::new(cache.clone()));
/// // After a write: cache.invalidate(["objects", "object:5"]).await?;
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct PageTags(Arc<Mutex<Vec<Tag>>>);

impl PageTags {
    /// No tags yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tag to the page.
    pub fn add(&self, tag: impl AsRef<str>) {
        self.told(|tags| tags.push(tag.as_ref().into()));
    }

    /// What was added so far.
    pub(super) fn so_far(&self) -> Vec<Tag> {
        self.told(|tags| tags.clone())
    }

    fn told<R>(&self, act: impl FnOnce(&mut Vec<Tag>) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T: AsRef<str>> FromIterator<T> for PageTags {
    fn from_iter<I: IntoIterator<Item = T>>(tags: I) -> Self {
        let tags = tags.into_iter().map(|tag| tag.as_ref().into());
        Self(Arc::new(Mutex::new(tags.collect())))
    }
}

/// The handle of the page that is being made; where none is, one that goes nowhere.
#[cfg(feature = "axum")]
impl<S: Sync> axum::extract::FromRequestParts<S> for PageTags {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _: &S,
    ) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}
