//! TOML to settings, with the line of whatever is wrong.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::suggest;
use super::url::{self, WORDS};
use super::{CacheSettings, Settings};
use crate::{Error, ErrorKind, Result};

/// Django's dotted paths, for who comes from there.
const DJANGO: [(&str, &str); 7] = [
    ("django.core.cache.backends.locmem.LocMemCache", "memory"),
    (
        "django.core.cache.backends.filebased.FileBasedCache",
        "file",
    ),
    ("django.core.cache.backends.dummy.DummyCache", "null"),
    ("django.core.cache.backends.redis.RedisCache", "redis"),
    ("django_redis.cache.RedisCache", "redis"),
    (
        "django.core.cache.backends.memcached.PyMemcacheCache",
        "memcached",
    ),
    (
        "django.core.cache.backends.memcached.PyLibMCCache",
        "memcached",
    ),
];

/// A text and what it is called in errors.
struct Source<'a> {
    text: &'a str,
    name: &'a str,
}

impl Source<'_> {
    fn at(&self, span: &Range<usize>) -> String {
        let breaks = self.text.match_indices('\n');
        let line = breaks.take_while(|(at, _)| *at < span.start).count() + 1;
        format!("{}:{line}", self.name)
    }

    fn error(&self, span: &Range<usize>, what: impl std::fmt::Display) -> Error {
        let what = format!("{}: {what}", self.at(span));
        Error::new(ErrorKind::Invalid, "settings", what)
    }
}

pub(super) fn settings(text: &str, name: &str) -> Result<Settings> {
    let source = Source { text, name };
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        source.error(&span, format!("not TOML: {}", error.message()))
    })?;
    let mut settings = Settings::default();
    // Other tables are other people's.
    let Some(caches) = table.get_ref().get("caches") else {
        let error = source.error(&(0..0), "there is no table `[caches.…]`");
        return Err(error.with_hint("begin with `[caches.default]`"));
    };
    for (alias, cache) in table_of(&source, caches, "caches")? {
        let name = format!("caches.{}", alias.get_ref());
        let cache = cache_of(&source, &alias.span(), &name, cache)?;
        settings.caches.insert(alias.get_ref().to_string(), cache);
    }
    Ok(settings)
}

fn table_of<'a, 'i>(
    source: &Source<'_>,
    value: &'a Spanned<DeValue<'i>>,
    name: &str,
) -> Result<&'a DeTable<'i>> {
    let error = || source.error(&value.span(), format!("`{name}` is no table"));
    value.get_ref().as_table().ok_or_else(error)
}

fn cache_of(
    source: &Source<'_>,
    alias: &Range<usize>,
    name: &str,
    table: &Spanned<DeValue<'_>>,
) -> Result<CacheSettings> {
    let table = table_of(source, table, name)?;
    let text = |key: &str| match table.get(key) {
        Some(value) => text_of(source, key, value).map(Some),
        None => Ok(None),
    };
    let (url, backend, location) = (text("url")?, text("backend")?, text("location")?);
    let mut cache = match (url, backend) {
        (Some(_), Some(_)) => {
            let what = format!("`[{name}]` has both `url` and `backend`");
            return Err(source.error(alias, what).with_hint("one of them is enough"));
        }
        (Some(text), None) => url::cache(&text, &source.at(&table["url"].span()))?,
        (None, Some(backend)) => {
            let at = source.at(&table["backend"].span());
            url::cache(&joined(&backend, location.unwrap_or_default()), &at)?
        }
        (None, None) => {
            let what = format!("`[{name}]` names no store");
            let hint = "add `backend = \"memory\"`, or `url = \"memory://\"`";
            return Err(source.error(alias, what).with_hint(hint));
        }
    };
    for (key, value) in table {
        let (word, span) = (key.get_ref().as_ref(), key.span());
        match word {
            "url" | "backend" | "location" => {}
            "options" => {
                for (name, value) in table_of(source, value, "options")? {
                    let text = text_of(source, name.get_ref(), value)?;
                    let name = name.get_ref().to_ascii_lowercase();
                    cache.place.options.insert(name, text);
                }
            }
            _ => {
                let text = text_of(source, word, value)?;
                let at = std::mem::replace(&mut cache.place.written, source.at(&span));
                if !cache.take(word, &text)? {
                    let what = format!("`{word}` is no setting of `[{name}]`");
                    let words = WORDS
                        .into_iter()
                        .chain(["backend", "location", "url", "options"]);
                    return Err(suggest(source.error(&span, what), word, words));
                }
                cache.place.written = at;
            }
        }
    }
    Ok(cache)
}

/// The URL of a backend at a location, which may be one already.
fn joined(backend: &str, location: String) -> String {
    let django = DJANGO.iter().find(|(path, _)| *path == backend);
    let scheme = django.map_or(backend, |(_, scheme)| *scheme);
    if location.contains("://") {
        return location;
    }
    // An absolute path is the URL's own, as in `file:///var/cache`.
    format!("{scheme}://{location}")
}

/// A plain value as the text that a URL would have.
fn text_of(source: &Source<'_>, name: &str, value: &Spanned<DeValue<'_>>) -> Result<String> {
    Ok(match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.as_str().replace('_', ""),
        DeValue::Float(number) => number.as_str().replace('_', ""),
        DeValue::Boolean(yes) => yes.to_string(),
        // Several servers.
        DeValue::Array(list) => {
            let texts = list.iter().map(|value| text_of(source, name, value));
            texts.collect::<Result<Vec<_>>>()?.join(",")
        }
        other => {
            let what = format!("`{name}` cannot be a {}", other.type_str());
            return Err(source.error(&value.span(), what));
        }
    })
}
