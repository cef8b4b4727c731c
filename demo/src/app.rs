//! The site: its routes, its handlers, and the timing of every request.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use larder::Cache;
use larder::page::cache_page;
use minijinja::{Environment, context};

use crate::objects;
use crate::shop::Shop;
use crate::slow::SlowApi;

/// What the handlers share.
pub(crate) struct App {
    slow: SlowApi,
    templates: Environment<'static>,
}

impl App {
    pub(crate) fn new(slow: SlowApi) -> Self {
        let mut templates = Environment::new();
        templates
            .add_template("home.html", include_str!("../templates/home.html"))
            .expect("the template is part of the program and parses");
        Self { slow, templates }
    }
}

/// The whole site: `/` is kept in `cache` for `ttl`, `/uncached/` is the same page, made anew for each
/// request; `/objects` and `/account` are made of the rows of `shop`.
pub(crate) fn router(app: App, shop: Shop, cache: &Cache, ttl: Duration) -> Router {
    Router::new()
        .route("/", get(home).layer(cache_page(cache, ttl)))
        .route("/uncached/", get(home))
        .route("/delay/{seconds}", get(delay))
        .route("/api/calls", get(calls))
        .route("/style.css", get(style))
        .route("/status.js", get(status))
        .with_state(Arc::new(app))
        .merge(objects::router(shop, cache, ttl))
        .layer(middleware::from_fn(log_total_time))
}

async fn home(State(app): State<Arc<App>>) -> Result<Html<String>, Response> {
    app.slow.call().await.map_err(|error| {
        tracing::warn!(%error, "page_failed");
        (StatusCode::BAD_GATEWAY, "the slow API did not answer\n").into_response()
    })?;

    let template = app
        .templates
        .get_template("home.html")
        .expect("added at the start");
    let page = template.render(
        context! { content => "Results received!", time => time_of_day(SystemTime::now()) },
    );
    Ok(Html(
        page.expect("the template uses nothing but what it is given"),
    ))
}

async fn delay(
    State(app): State<Arc<App>>,
    Path(seconds): Path<f64>,
) -> Result<String, (StatusCode, &'static str)> {
    app.slow.answer(seconds).await.ok_or((
        StatusCode::BAD_REQUEST,
        "a delay is between 0 and 60 seconds\n",
    ))
}

async fn calls(State(app): State<Arc<App>>) -> String {
    format!("{}\n", app.slow.calls())
}

async fn style() -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/css; charset=utf-8")],
        include_str!("../static/style.css"),
    )
}

async fn status() -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/javascript; charset=utf-8")],
        include_str!("../static/status.js"),
    )
}

/// Logs how long a request took, from the outside of all other layers.
async fn log_total_time(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    tracing::info!(%path, "Total time: {:.2}s", start.elapsed().as_secs_f64());
    response
}

/// `HH:MM:SS` in UTC.
pub(crate) fn time_of_day(now: SystemTime) -> String {
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
        % 86_400;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_day_is_two_digits_each() {
        let moment = UNIX_EPOCH + Duration::from_secs(86_400 * 365 + 3600 * 9 + 60 * 5 + 7);

        assert_eq!(time_of_day(moment), "09:05:07");
    }
}
