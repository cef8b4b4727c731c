//! TOML to settings, with the line of whatever is wrong.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::{nearest, suggest};
use super::stores::OPTIONS;
use super::url::{self, WORDS};
use super::{CacheSettings, Settings, backend};
use crate::{Error, Result};

/// A text and what it is called in errors.
struct Source<'a> {
    text: &'a str,
    name: &'a str,
}

/// A setting as it stands in a table.
struct Setting<'a> {
    /// Its name, in lower case: Django writes some in capitals.
    word: String,
    span: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
}

pub(super) fn settings(text: &str, name: &str) -> Result<Settings> {
    let source = Source { text, name };
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        source.error(&span, format!("not TOML: {}", error.message()))
    })?;
    let mut settings = Settings::default();
    let Some((key, caches)) = table.get_ref().get_key_value("caches") else {
        return Err(no_caches(&source, table.get_ref()));
    };
    let caches = table_of(&source, caches, "caches")?;
    if caches.is_empty() {
        let error = source.error(&key.span(), "`[caches]` names no cache");
        return Err(error.with_hint("begin with `[caches.default]`"));
    }
    for (alias, table) in caches {
        let name = format!("caches.{}", alias.get_ref());
        // What is wrong with one does not matter to who opens another.
        let cache = cache_of(&source, &alias.span(), &name, table);
        settings.caches.insert(alias.get_ref().to_string(), cache);
    }
    Ok(settings)
}

/// Other tables are other people's, but one of them may have been meant.
fn no_caches(source: &Source<'_>, table: &DeTable<'_>) -> Error {
    let what = "there is no table `[caches.…]`";
    let is_meant = |name: &str| nearest(name, ["caches"]).is_some();
    match table.keys().find(|key| is_meant(key.get_ref())) {
        Some(key) => source
            .error(&key.span(), what)
            .with_hint("did you mean `[caches.…]`?"),
        None => source
            .error(&(0..0), what)
            .with_hint("begin with `[caches.default]`"),
    }
}

fn table_of<'a>(
    source: &Source<'_>,
    value: &'a Spanned<DeValue<'a>>,
    name: &str,
) -> Result<&'a DeTable<'a>> {
    let error = || source.error(&value.span(), format!("`{name}` is no table"));
    value.get_ref().as_table().ok_or_else(error)
}

/// What stands in a table, in the order of the lines, each word once.
fn settings_of<'a>(source: &Source<'_>, table: &'a DeTable<'a>) -> Result<Vec<Setting<'a>>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut settings: Vec<Setting<'_>> = Vec::new();
    for (key, value) in entries {
        let setting = Setting {
            word: key.get_ref().to_ascii_lowercase(),
            span: key.span(),
            value,
        };
        if settings.iter().any(|other| other.word == setting.word) {
            return Err(url::twice(&setting.word, &source.at(&setting.span)));
        }
        settings.push(setting);
    }
    Ok(settings)
}

fn cache_of(
    source: &Source<'_>,
    alias: &Range<usize>,
    name: &str,
    table: &Spanned<DeValue<'_>>,
) -> Result<CacheSettings> {
    let settings = settings_of(source, table_of(source, table, name)?)?;
    let find = |word: &str| settings.iter().find(|setting| setting.word == word);
    let mut cache = match (find("url"), find("backend"), find("location")) {
        (Some(url), None, None) => url::cache(&source.text(url)?, &source.at(&url.span))?,
        (Some(_), Some(other), _) | (Some(_), None, Some(other)) => {
            let what = format!("`[{name}]` has both `url` and `{}`", other.word);
            return Err(source.error(alias, what).with_hint("one of them is enough"));
        }
        (None, Some(backend), location) => store_of(source, backend, location)?,
        (None, None, _) => {
            let what = format!("`[{name}]` names no store");
            let hint = "add `backend = \"memory\"`, or `url = \"memory://\"`";
            return Err(source.error(alias, what).with_hint(hint));
        }
    };
    for setting in &settings {
        match setting.word.as_str() {
            "url" | "backend" | "location" => {}
            "options" => take_options(source, &mut cache, setting)?,
            word if !WORDS.contains(&word) => return Err(no_setting(source, setting, name)),
            word => {
                let text = match word {
                    "timeout" => source.plain(setting)?,
                    _ => source.word(setting)?,
                };
                cache.take(word, &text, &source.at(&setting.span))?;
            }
        }
    }
    Ok(cache)
}

/// The cache whose store is given by `backend` and `location`.
fn store_of(
    source: &Source<'_>,
    backend: &Setting<'_>,
    location: Option<&Setting<'_>>,
) -> Result<CacheSettings> {
    let servers = match location {
        None => Vec::new(),
        Some(location) => source.texts(location)?,
    };
    let named = source.at(&backend.span);
    let written = location.map_or_else(|| named.clone(), |it| source.at(&it.span));
    let url = backend::url(&source.text(backend)?, &servers, |what| {
        source.error(&location.unwrap_or(backend).span, what)
    })?;
    let mut cache = url::cache(&url, &written)?;
    cache.place.named = named;
    Ok(cache)
}

fn take_options(
    source: &Source<'_>,
    cache: &mut CacheSettings,
    options: &Setting<'_>,
) -> Result<()> {
    let table = table_of(source, options.value, "options")?;
    for option in settings_of(source, table)? {
        let word = &option.word;
        if WORDS.contains(&word.as_str()) {
            let what = format!("`{word}` is a setting of the cache, not an option of its store");
            let error = source.error(&option.span, what);
            return Err(error.with_hint("put it above `options`"));
        }
        let text = source.plain(&option)?;
        cache.take_option(word, text, &source.at(&option.span))?;
    }
    Ok(())
}

fn no_setting(source: &Source<'_>, setting: &Setting<'_>, name: &str) -> Error {
    let word = setting.word.as_str();
    let what = format!("`{word}` is no setting of `[{name}]`");
    let error = source.error(&setting.span, what);
    let places = ["backend", "location", "url", "options"];
    let words = WORDS.into_iter().chain(places);
    match nearest(word, OPTIONS) {
        Some(option) if option == word => error.with_hint("put it into `options`"),
        Some(option) if nearest(word, words.clone()).is_none() => {
            error.with_hint(format!("did you mean `{option}`, in `options`?"))
        }
        _ => suggest(error, word, words),
    }
}

impl Source<'_> {
    fn at(&self, span: &Range<usize>) -> String {
        let breaks = self.text.match_indices('\n');
        let line = breaks.take_while(|(at, _)| *at < span.start).count() + 1;
        format!("{}:{line}", self.name)
    }

    fn error(&self, span: &Range<usize>, what: impl std::fmt::Display) -> Error {
        url::error(&self.at(span), what)
    }

    /// A text, and nothing else.
    fn text(&self, setting: &Setting<'_>) -> Result<String> {
        match setting.value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            other => Err(self.odd(setting, other, "give a text")),
        }
    }

    /// A text, or several of them.
    fn texts(&self, setting: &Setting<'_>) -> Result<Vec<String>> {
        let DeValue::Array(list) = setting.value.get_ref() else {
            return Ok(vec![self.text(setting)?]);
        };
        let text = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            other => Err(self.odd(setting, other, "give a text, or a list of texts")),
        };
        list.iter().map(text).collect()
    }

    /// A text or a whole number, as the text that a URL would have.
    fn word(&self, setting: &Setting<'_>) -> Result<String> {
        match setting.value.get_ref() {
            DeValue::String(_) | DeValue::Integer(_) => self.plain(setting),
            other => Err(self.odd(setting, other, "give a text or a whole number")),
        }
    }

    /// A plain value as the text that a URL would have.
    fn plain(&self, setting: &Setting<'_>) -> Result<String> {
        match setting.value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Float(number) => Ok(number.as_str().replace('_', "")),
            DeValue::Boolean(yes) => Ok(yes.to_string()),
            DeValue::Integer(number) => {
                let digits = number.as_str().replace('_', "");
                let value = i64::from_str_radix(&digits, number.radix());
                // One past 64 bits is refused by who wants it as a number.
                Ok(value.map_or(digits, |value| value.to_string()))
            }
            other => Err(self.odd(
                setting,
                other,
                "give a text, a number, or `true` or `false`",
            )),
        }
    }

    fn odd(&self, setting: &Setting<'_>, value: &DeValue<'_>, wanted: &str) -> Error {
        let name = value.type_str();
        let article = if name.starts_with(['a', 'i']) {
            "an"
        } else {
            "a"
        };
        let what = format!("`{}` cannot be {article} {name}", setting.word);
        self.error(&setting.span, what).with_hint(wanted)
    }
}
