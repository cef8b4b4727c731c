//! The function behind the tag.

use std::sync::Arc;
use std::time::Duration;

use minijinja::value::{Kwargs, Value, from_args};
use minijinja::{AutoEscape, Error, ErrorKind, State};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use super::arguments::Asked;
use super::errors::{Shared, of_cache};
use super::unawaited::Unawaited;
use super::{Fragments, PATIENT};
use crate::cache::{AtOnce, caught_here};
use crate::django_keys::fragment_key;
use crate::{Cache, FetchError, Key, Policy, Result};

/// The alias whose cache is for fragments, if there is one.
const ALIAS: &str = "template_fragments";

/// `cache(ttl, name, …)`, called with a body.
#[derive(Debug)]
pub(super) struct Function {
    fragments: Fragments,
    unawaited: Arc<Unawaited>,
}

/// A body as it is kept: a plain text where it was escaped for HTML, else with the way in which it was.
trait Text: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    fn of(text: String, escape: &str) -> Self;
    fn fits(&self, escape: &str) -> bool;
    fn into_text(self) -> String;
}

impl Text for String {
    fn of(text: String, _: &str) -> Self {
        text
    }

    fn fits(&self, _: &str) -> bool {
        true
    }

    fn into_text(self) -> String {
        self
    }
}

impl Text for (String, String) {
    fn of(text: String, escape: &str) -> Self {
        (escape.to_owned(), text)
    }

    fn fits(&self, escape: &str) -> bool {
        self.0 == escape
    }

    fn into_text(self) -> String {
        self.1
    }
}

/// One fragment of one rendering.
struct Part<'a> {
    cache: &'a Cache,
    key: Key,
    name: String,
    policy: Policy,
    escape: String,
}

impl Function {
    pub(super) fn new(fragments: Fragments) -> Self {
        Self {
            fragments,
            unawaited: Arc::default(),
        }
    }

    pub(super) fn call(&self, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let (args, named) = from_args::<(&[Value], Kwargs)>(args)?;
        let Some(body) = named.get::<Option<Value>>("caller")? else {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "`cache` needs a body: `{% cache 500 \"sidebar\" %}…{% endcache %}`, or \
                 `{% call cache(500, \"sidebar\") %}…{% endcall %}`",
            ));
        };
        let asked = Asked::of(state, args, &named)?;
        named.assert_all_used()?;
        let cache = self.cache(asked.using.as_deref()).map_err(of_cache)?;
        let key = cache.key(fragment_key(
            &asked.name,
            &asked.vary,
            self.fragments.format,
        ));
        let escape = state.auto_escape().clone();
        let part = Part {
            cache,
            key,
            name: asked.name,
            policy: asked.policy,
            escape: format!("{escape:?}"),
        };
        let mut render = || body.call(state, &[]).map(String::from);
        let text = match escape {
            AutoEscape::Html => self.text::<String>(&part, &mut render),
            _ => self.text::<(String, String)>(&part, &mut render),
        }?;
        Ok(match escape {
            AutoEscape::None => Value::from(text),
            _ => Value::from_safe_string(text),
        })
    }

    /// The cache that Django takes: the one named, else the one for fragments, else the default one.
    fn cache(&self, using: Option<&str>) -> Result<&Cache> {
        let caches = &self.fragments.caches;
        match using {
            Some(alias) => caches.get(alias),
            None if caches.aliases().any(|alias| alias == ALIAS) => caches.get(ALIAS),
            None => caches.get("default"),
        }
    }

    fn text<T: Text>(
        &self,
        part: &Part<'_>,
        render: &mut dyn FnMut() -> Result<String, Error>,
    ) -> Result<String, Error> {
        // Its own error, as it is; others who wait get a copy.
        let mut failed = None;
        let mut make = Some(|| match render() {
            Ok(text) => Ok(T::of(text, &part.escape)),
            Err(error) => {
                let shared = Shared::of(&error);
                failed = Some(error);
                Err(shared)
            }
        });
        let fetched = match PATIENT.try_with(Handle::clone) {
            Ok(handle) => part.fetch(&part.policy, Some(&handle), &mut make),
            Err(_) => part.fetch_at_once(&mut make),
        };
        let fetched = fetched.unwrap_or_else(|| {
            let make = make
                .take()
                .expect("it has not run, since nothing came of it");
            (self.unawaited).make(part.cache, &part.key, &part.policy, || caught_here(make))
        });
        match fetched {
            Ok(text) => Ok(text.into_text()),
            Err(error) => Err(failed.unwrap_or_else(|| part.error(&error))),
        }
    }
}

impl Part<'_> {
    fn fetch<T: Text>(
        &self,
        policy: &Policy,
        waits: Option<&Handle>,
        make: &mut Option<impl FnOnce() -> Result<T, Shared>>,
    ) -> Option<Result<T, FetchError<Shared>>> {
        let fits = |text: &T| text.fits(&self.escape);
        let policy = Arc::new(policy.clone());
        (self.cache).fetch_in_place(&self.key, &policy, waits, &fits, make)
    }

    /// What can be had without waiting, for the store or for another's rendering; `None` if nothing can.
    fn fetch_at_once<T: Text>(
        &self,
        make: &mut Option<impl FnOnce() -> Result<T, Shared>>,
    ) -> Option<Result<T, FetchError<Shared>>> {
        let fits = |text: &T| text.fits(&self.escape);
        match self.cache.fetch_at_once(&self.key, fits) {
            AtOnce::Value(text) => return Some(Ok(text)),
            AtOnce::Nothing => {}
            AtOnce::Waits => return None,
        }
        Handle::try_current().ok()?;
        let impatient = self.policy.clone().wait(Duration::ZERO);
        self.fetch(&impatient, None, make)
    }

    fn error(&self, error: &FetchError<Shared>) -> Error {
        match error {
            FetchError::Load(shared) => shared.error(),
            _ => Error::new(
                ErrorKind::InvalidOperation,
                format!("the fragment `{}`: {error}", self.name),
            ),
        }
    }
}
