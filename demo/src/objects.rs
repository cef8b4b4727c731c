//! `/objects` and `/account`: a list that is a fragment, pages that are kept, forms that change the rows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Form, Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use http::StatusCode;
use http::header::{COOKIE, HeaderMap, SET_COOKIE};
use larder::page::cache_page;
use larder::{Cache, fragment};
use minijinja::{Environment, ErrorKind, Value, context};
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::app::time_of_day;
use crate::shop::Shop;

/// The longest name of an object, or of a visitor.
const LONGEST: usize = 80;

/// What these handlers share.
struct Site {
    shop: Shop,
    cache: Cache,
    templates: Arc<Environment<'static>>,
}

/// These pages, kept in `cache` for `ttl`.
pub(crate) fn router(shop: Shop, cache: &Cache, ttl: Duration) -> Router {
    let site = Site {
        templates: Arc::new(templates(&shop, cache)),
        shop,
        cache: cache.clone(),
    };
    let kept = || cache_page(cache, ttl);
    Router::new()
        .route("/objects", get(list).layer(kept()))
        .route("/objects", post(create))
        .route("/objects/{id}", get(detail).layer(kept()))
        .route("/objects/{id}", post(edit))
        .route("/objects/{id}/delete", post(delete))
        .route("/account", get(account).layer(kept()))
        .route("/account", post(sign_in))
        .route("/api/queries", get(queries))
        .with_state(Arc::new(site))
}

fn templates(shop: &Shop, cache: &Cache) -> Environment<'static> {
    let mut templates = Environment::new();
    fragment::install(&mut templates, cache.clone());
    let shop = shop.clone();
    // Called only where the list is not there: templates are rendered on threads that may wait.
    templates.add_function("objects", move || {
        let objects = Handle::current().block_on(shop.all());
        let objects = objects.map_err(|error| {
            minijinja::Error::new(ErrorKind::InvalidOperation, "no objects").with_source(error)
        })?;
        let object =
            |object: crate::object::Model| context! { id => object.id, name => object.name };
        Ok(objects.into_iter().map(object).collect::<Value>())
    });
    templates.add_function("now", || time_of_day(SystemTime::now()));
    for (name, source) in [
        ("base.html", include_str!("../templates/base.html")),
        ("list.html", include_str!("../templates/list.html")),
        ("objects.html", include_str!("../templates/objects.html")),
        ("object.html", include_str!("../templates/object.html")),
        ("account.html", include_str!("../templates/account.html")),
    ] {
        fragment::add_template(&mut templates, name, source)
            .expect("the templates are part of the program and parse");
    }
    templates
}

/// What went wrong, for the log; the visitor gets a line.
struct Failed(Box<dyn std::error::Error + Send + Sync>);

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        tracing::error!(error = %self.0, "page_failed");
        (StatusCode::INTERNAL_SERVER_ERROR, "the shop is closed\n").into_response()
    }
}

impl Site {
    async fn page(&self, template: &str, context: Value) -> Result<Response, Failed> {
        let page = fragment::render(&self.templates, template, context).await?;
        Ok(Html(page).into_response())
    }
}

async fn list(State(site): State<Arc<Site>>) -> Result<Response, Failed> {
    site.page("objects.html", context! {}).await
}

async fn detail(State(site): State<Arc<Site>>, Path(id): Path<i32>) -> Result<Response, Failed> {
    let shop = site.shop.clone();
    let load = move || async move {
        let object = shop.one(id).await?;
        Ok::<_, sea_orm::DbErr>(object.map(|object| object.name))
    };
    // A value: its tag becomes the page's.
    let tag = format!("object:{id}");
    let name: Option<String> = site.cache.fetch(&tag, load).tags([&tag]).await?;
    let Some(name) = name else {
        return Ok((StatusCode::NOT_FOUND, "there is no such object\n").into_response());
    };
    site.page("object.html", context! { id, name }).await
}

/// A name that is none.
struct Refused;

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let line = format!("a name has 1 to {LONGEST} characters\n");
        (StatusCode::BAD_REQUEST, line).into_response()
    }
}

/// What the forms send.
#[derive(Deserialize)]
struct Named {
    name: String,
}

impl Named {
    /// The name, or why it is none.
    fn checked(&self) -> Result<&str, Refused> {
        let name = self.name.trim();
        if name.is_empty() || name.chars().count() > LONGEST || name.contains(char::is_control) {
            return Err(Refused);
        }
        Ok(name)
    }
}

async fn create(
    State(site): State<Arc<Site>>,
    Form(form): Form<Named>,
) -> Result<Response, Failed> {
    match form.checked() {
        Err(refused) => Ok(refused.into_response()),
        Ok(name) => {
            site.shop.save(None, name).await?;
            Ok(Redirect::to("/objects").into_response())
        }
    }
}

async fn edit(
    State(site): State<Arc<Site>>,
    Path(id): Path<i32>,
    Form(form): Form<Named>,
) -> Result<Response, Failed> {
    match form.checked() {
        Err(refused) => Ok(refused.into_response()),
        Ok(name) if site.shop.save(Some(id), name).await? => {
            Ok(Redirect::to("/objects").into_response())
        }
        Ok(_) => Ok((StatusCode::NOT_FOUND, "there is no such object\n").into_response()),
    }
}

async fn delete(State(site): State<Arc<Site>>, Path(id): Path<i32>) -> Result<Redirect, Failed> {
    site.shop.delete(id).await?;
    Ok(Redirect::to("/objects"))
}

async fn account(State(site): State<Arc<Site>>, headers: HeaderMap) -> Result<Response, Failed> {
    site.page("account.html", context! { visitor => visitor(&headers) })
        .await
}

async fn sign_in(Form(form): Form<Named>) -> Response {
    match form.checked() {
        Err(refused) => refused.into_response(),
        Ok(name) => {
            let cookie = format!("visitor={}; Path=/; HttpOnly; SameSite=Lax", in_hex(name));
            ([(SET_COOKIE, cookie)], Redirect::to("/account")).into_response()
        }
    }
}

async fn queries(State(site): State<Arc<Site>>) -> String {
    format!("{}\n", site.shop.queries())
}

/// A name as a cookie can carry it.
fn in_hex(name: &str) -> String {
    let digits = name.bytes().flat_map(|byte| [byte >> 4, byte & 15]);
    let digit = |digit: u8| char::from_digit(digit.into(), 16).expect("four bits are a digit");
    digits.map(digit).collect()
}

/// Who has signed in, by the cookie.
fn visitor(headers: &HeaderMap) -> Option<String> {
    let cookies = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|it| it.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';'));
    let hex = pairs.find_map(|pair| pair.trim().strip_prefix("visitor="))?;
    let digits = hex.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    String::from_utf8(digits.collect::<Option<Vec<u8>>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_keeps_their_name_and_a_forged_cookie_has_none() {
        let with = |cookie: String| {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, cookie.parse().expect("a cookie"));
            visitor(&headers)
        };
        let cookie = format!("other=1; visitor={}", in_hex("Zoë; <b>"));
        assert_eq!(with(cookie).as_deref(), Some("Zoë; <b>"));
        assert_eq!(with("visitor=zz".to_owned()), None);
        assert_eq!(with("visitor=ff".to_owned()), None, "no UTF-8");
        assert_eq!(with("visitors=61".to_owned()), None);
    }
}
