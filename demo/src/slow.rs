//! The slow API and its client. Both live here so that the demo needs no network; the call between them is
//! a real one, over HTTP.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{sleep, timeout};

/// The longest delay that the API agrees to.
pub(crate) const LONGEST: Duration = Duration::from_mins(1);

/// What the API may take beyond its delay.
const PATIENCE: Duration = Duration::from_secs(5);

/// The slow API as its callers know it: where it is, and how often it was called.
pub(crate) struct SlowApi {
    url: String,
    delay: Duration,
    calls: AtomicU64,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl SlowApi {
    pub(crate) fn new(site: &str, delay: Duration) -> Self {
        let url = format!("{site}/delay/{}", delay.as_secs_f64());
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self {
            url,
            delay,
            calls: AtomicU64::new(0),
            client,
        }
    }

    /// Calls the API over HTTP and waits for its answer.
    pub(crate) async fn call(&self) -> Result<(), CallError> {
        let url: Uri = self.url.parse().map_err(|error| self.failed(error))?;
        let answer = timeout(self.delay + PATIENCE, self.client.get(url)).await;
        let answer = answer
            .map_err(|error| self.failed(error))?
            .map_err(|error| self.failed(error))?;
        match answer.status() {
            StatusCode::OK => Ok(()),
            status => Err(self.failed(status)),
        }
    }

    /// The API's own side: answers after `seconds`, or `None` if it does not agree to wait that long.
    pub(crate) async fn answer(&self, seconds: f64) -> Option<String> {
        let delay = Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|delay| *delay <= LONGEST)?;
        // Counted before the wait: a caller that goes away has cost a call all the same.
        self.calls.fetch_add(1, Ordering::Relaxed);
        sleep(delay).await;
        Some(format!("answered after {seconds} s\n"))
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn failed(&self, cause: impl fmt::Display) -> CallError {
        CallError {
            url: self.url.clone(),
            cause: cause.to_string(),
        }
    }
}

/// A call that brought no answer.
#[derive(Debug)]
pub(crate) struct CallError {
    url: String,
    cause: String,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer from `{}`: {}", self.url, self.cause)
    }
}

impl std::error::Error for CallError {}
