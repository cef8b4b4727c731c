//! A cache as a URL: the store's own, with Larder's settings in its query.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::nearest::suggest;
use super::{CacheSettings, Place};
use crate::{Codec, Error, ErrorKind, Ttl, Version};

/// The settings of a cache that stand in a query or in a table.
pub(super) const WORDS: [&str; 5] = ["timeout", "key_prefix", "version", "codec", "space"];

/// The cache at `url`; `written` says where that stands.
pub(super) fn cache(url: &str, written: &str) -> crate::Result<CacheSettings> {
    let mut cache = CacheSettings::default();
    written.clone_into(&mut cache.place.written);
    written.clone_into(&mut cache.place.named);
    let Some((scheme, rest)) = url.split_once(':').filter(|(it, _)| is_scheme(it)) else {
        // The rest may hold a password, and is not repeated.
        let error = cache.place.error("the URL has no scheme");
        return Err(error.with_hint("write it as `memory://` or `redis://host:6379/1`"));
    };
    cache.place.scheme = scheme.to_ascii_lowercase();
    let (before, fragment) = match rest.split_once('#') {
        Some((before, fragment)) => (before, Some(fragment)),
        None => (rest, None),
    };
    let (location, query) = before.split_once('?').unwrap_or((before, ""));
    let mut location = format!("{}:{location}", cache.place.scheme);
    if let Some(fragment) = fragment {
        location.push('#');
        location.push_str(fragment);
    }
    cache.place.location = location;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode =
            |text| decoded(text).ok_or_else(|| error(written, "the query is no text in UTF-8"));
        let (name, value) = (decode(name)?.to_ascii_lowercase(), decode(value)?);
        if !cache.take(&name, &value, written)? {
            cache.take_option(&name, value, written)?;
        }
    }
    Ok(cache)
}

/// RFC 3986 §3.1, and `_`, for backends of one's own.
fn is_scheme(text: &str) -> bool {
    let is_part = |char: char| char.is_ascii_alphanumeric() || "+-._".contains(char);
    text.starts_with(|char: char| char.is_ascii_alphabetic()) && text.chars().all(is_part)
}

pub(super) fn error(written: &str, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, "settings", format!("{written}: {what}"))
}

/// Of two, one would be ignored.
pub(super) fn twice(name: &str, written: &str) -> Error {
    error(written, format!("`{name}` is given twice"))
}

impl CacheSettings {
    /// Takes one of the settings of a cache, which stands at `written`; false if `name` is none.
    pub(super) fn take(&mut self, name: &str, value: &str, written: &str) -> crate::Result<bool> {
        if !WORDS.contains(&name) {
            return Ok(false);
        }
        if self.lines.contains_key(name) {
            return Err(twice(name, written));
        }
        self.lines.insert(name.to_owned(), written.to_owned());
        match name {
            "timeout" => self.ttl = ttl(value, written)?,
            "key_prefix" => value.clone_into(&mut self.prefix),
            "space" => value.clone_into(&mut self.space),
            "codec" => self.codec = codec(value, written)?,
            _ => {
                let number = value.parse().map(Version::Number);
                self.version = Some(number.unwrap_or_else(|_| Version::from(value)));
            }
        }
        Ok(true)
    }

    /// Takes what the store is told, which stands at `written`.
    pub(super) fn take_option(
        &mut self,
        name: &str,
        value: String,
        written: &str,
    ) -> crate::Result<()> {
        if self.place.options.contains_key(name) {
            return Err(twice(name, written));
        }
        self.place.options.insert(name.to_owned(), value);
        self.place.lines.insert(name.to_owned(), written.to_owned());
        Ok(())
    }
}

fn codec(value: &str, written: &str) -> crate::Result<Codec> {
    Ok(match value {
        "messagepack" => Codec::MessagePack,
        "json" => Codec::Json,
        "raw" => Codec::Raw,
        _ => {
            let error = error(written, format!("`{value}` is no `codec`"));
            return Err(suggest(error, value, ["messagepack", "json", "raw"]));
        }
    })
}

/// Seconds, with or without a fraction; a number with a unit; or `never`.
fn ttl(value: &str, written: &str) -> crate::Result<Ttl> {
    if value == "never" {
        return Ok(Ttl::Never);
    }
    span(value).map(Ttl::For).ok_or_else(|| {
        let hint = "give seconds, like `300` or `0.5`, a span, like `\"5m\"`, or `\"never\"`";
        let error = error(written, format!("`timeout` cannot be `{value}`"));
        error.with_hint(months(value).unwrap_or(hint))
    })
}

/// Seconds, or a number with a unit.
pub(super) fn span(value: &str) -> Option<Duration> {
    match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) if months(value).is_some() => None,
        Err(_) => humantime::parse_duration(value).ok(),
    }
}

/// What to say of `M`, by which months are meant rarely.
fn months(value: &str) -> Option<&'static str> {
    value
        .contains('M')
        .then_some("`m` is minutes, `months` are months")
}

/// Percent-escapes read; one that is none stays as it is. Nothing if they are no text.
fn decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut read = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |offset: usize| {
            let byte = bytes.get(at + offset)?;
            char::from(*byte).to_digit(16)
        };
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                read.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits"));
                at += 3;
            }
            (byte, ..) => {
                read.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(read).ok()
}

/// What a store was told, checked word by word.
pub(super) struct Options<'a> {
    place: &'a Place,
    left: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl<'a> Options<'a> {
    pub(super) fn of(place: &'a Place) -> Self {
        Self {
            place,
            left: place.options.clone(),
            known: Vec::new(),
        }
    }

    /// A whole number, such as a count of bytes.
    pub(super) fn number(&mut self, name: &'static str) -> crate::Result<Option<u64>> {
        self.read(name, "a whole number, like `1000`", |text| {
            text.replace('_', "").parse().ok()
        })
    }

    #[cfg_attr(
        not(any(
            all(feature = "file", unix),
            feature = "memcached",
            feature = "postgres",
            feature = "redis",
            feature = "sqlite"
        )),
        expect(dead_code, reason = "the other stores are told no such thing")
    )]
    pub(super) fn yes(&mut self, name: &'static str) -> crate::Result<bool> {
        let yes = self.read(name, "`true` or `false`", |text| match text {
            "" | "true" | "yes" | "1" => Some(true),
            "false" | "no" | "0" => Some(false),
            _ => None,
        });
        Ok(yes?.unwrap_or(false))
    }

    #[cfg_attr(
        not(any(
            all(feature = "file", unix),
            feature = "memcached",
            feature = "mysql",
            feature = "postgres",
            feature = "redis",
            feature = "sqlite"
        )),
        expect(dead_code, reason = "the other stores are told no such thing")
    )]
    pub(super) fn span(&mut self, name: &'static str) -> crate::Result<Option<Duration>> {
        self.read(name, "seconds, like `0.5`, or a span, like `500ms`", span)
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.left.remove(name)
    }

    fn read<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> crate::Result<Option<T>> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let value = read(&text).ok_or_else(|| {
            let what = format!("`{name}` cannot be `{text}`");
            let error = self.place.error_about(name, what);
            error.with_hint(format!("give {wanted}"))
        });
        value.map(Some)
    }

    /// Reports what nobody has asked for.
    pub(super) fn finish(self) -> crate::Result<()> {
        let Some(name) = self.left.keys().next() else {
            return Ok(());
        };
        let what = format!("`{name}` is no option of `{}`", self.place.scheme);
        let words = self.known.iter().chain(&WORDS).copied();
        Err(suggest(self.place.error_about(name, what), name, words))
    }
}
