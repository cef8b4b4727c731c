//! Tasks and threads inside a load.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::scope::Scope;

/// Spawns `work` as [`tokio::spawn`] does, inside the caller's load: what it reads from caches becomes
/// a dependency of what is loaded.
///
/// Also in the caller's span. A load that does not wait for the task does not depend on what it reads
/// after the end. Outside of a load it is `tokio::spawn`. Panics outside of a runtime.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use larder::{Cache, store::Memory};
///
/// let cache = Cache::new(Memory::new());
/// cache.set("price", &7).tags(["prices"]).await?;
/// let inner = cache.clone();
/// let load = || async move {
///     let price = larder::spawn(async move { inner.get::<i32>("price").await });
///     Ok::<_, larder::Error>(format!("{:?}", price.await.expect("it does not panic")?))
/// };
/// assert_eq!(cache.fetch("page", load).await?, "Some(7)");
///
/// cache.invalidate(["prices"]).await?;
/// assert_eq!(cache.get::<String>("page").await?, None, "it was made of the price");
/// # Ok(())
/// # }
/// ```
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let work = work.instrument(tracing::Span::current());
    match Scope::current() {
        Some(scope) => tokio::spawn(scope.around(work)),
        None => tokio::spawn(work),
    }
}

/// Runs `work` where it may block, as [`tokio::task::spawn_blocking`] does, inside the caller's load.
///
/// As [`spawn`], for work that keeps its thread busy. `Handle::block_on` in it reads from caches.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use larder::{Cache, store::Memory};
/// use tokio::runtime::Handle;
///
/// let cache = Cache::new(Memory::new());
/// cache.set("price", &7).tags(["prices"]).await?;
/// let (inner, handle) = (cache.clone(), Handle::current());
/// let load = || async {
///     let price = larder::spawn_blocking(move || handle.block_on(inner.get::<i32>("price")));
///     Ok::<_, larder::Error>(format!("{:?}", price.await.expect("it does not panic")?))
/// };
/// assert_eq!(cache.fetch("page", load).await?, "Some(7)");
///
/// cache.invalidate(["prices"]).await?;
/// assert_eq!(cache.get::<String>("page").await?, None, "it was made of the price");
/// # Ok(())
/// # }
/// ```
pub fn spawn_blocking<F, R>(work: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let (span, scope) = (tracing::Span::current(), Scope::current());
    tokio::task::spawn_blocking(move || {
        span.in_scope(|| match scope {
            Some(scope) => scope.around_now(work),
            None => work(),
        })
    })
}
