//! What stands in the tag.

use std::time::Duration;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State, UndefinedBehavior};

use crate::fragment::VaryOn;
use crate::{Policy, Ttl};

/// What a tag asks for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) vary: Vec<VaryOn>,
    /// The alias of the cache.
    pub(super) using: Option<String>,
    pub(super) policy: Policy,
}

impl Asked {
    pub(super) fn of(state: &State<'_, '_>, args: &[Value], named: &Kwargs) -> Result<Self, Error> {
        let [ttl, name, vary @ ..] = args else {
            return Err(Error::new(
                ErrorKind::MissingArgument,
                "`cache` needs a TTL and a name, as in `{% cache 500 \"sidebar\" %}`",
            ));
        };
        let Some(name) = name.as_str() else {
            let what = format!("the name of a fragment is a text, not `{name}`");
            return Err(invalid(what));
        };
        let strict = !matches!(
            state.undefined_behavior(),
            UndefinedBehavior::Lenient | UndefinedBehavior::Chainable
        );
        let text = |value: &Value| vary_on(value, strict);
        let mut policy = crate::fragment::policy()
            .without_time_limit()
            .ttl(ttl_of(ttl)?);
        if let Some(grace) = given(named, "grace")? {
            policy = policy.grace(match ttl_of(&grace)? {
                Ttl::For(span) => span,
                _ => {
                    return Err(invalid(
                        "`grace` is a time, such as `60` or `\"1m\"`".into(),
                    ));
                }
            });
        }
        if let Some(tags) = given(named, "tags")? {
            policy = policy.tags(tags_of(&tags)?);
        }
        let using = given(named, "using")?.map(|alias| match alias.as_str() {
            Some(alias) => Ok(alias.to_owned()),
            None => Err(invalid(format!(
                "the alias of a cache is a text, not `{alias}`"
            ))),
        });
        Ok(Self {
            name: name.to_owned(),
            vary: vary.iter().map(text).collect::<Result<_, _>>()?,
            using: using.transpose()?,
            policy,
        })
    }
}

/// A named argument that stands in the tag, undefined or not: what is not what it was meant to be is an
/// error, and not as if it had not been said.
fn given(named: &Kwargs, name: &str) -> Result<Option<Value>, Error> {
    if !named.has(name) {
        return Ok(None);
    }
    named.get::<Value>(name).map(Some)
}

fn invalid(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// How long: seconds, whole ones as in Django, or a text such as `5m`; none for ever.
fn ttl_of(value: &Value) -> Result<Ttl, Error> {
    let seconds = |seconds: i64| Ttl::For(Duration::from_secs(seconds.max(0).unsigned_abs()));
    let wrong = || {
        invalid(format!(
            "`{value}` is no TTL; hint: seconds, or a text such as \"5m\", or none for ever"
        ))
    };
    match value.kind() {
        ValueKind::None => Ok(Ttl::Never),
        ValueKind::Number => {
            let whole = i64::try_from(value.clone()).ok();
            let cut = || f64::try_from(value.clone()).ok().and_then(cut);
            whole.or_else(cut).map(seconds).ok_or_else(wrong)
        }
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default().trim();
            if text == "never" {
                return Ok(Ttl::Never);
            }
            let whole = text.parse().ok().map(seconds);
            let span = || humantime::parse_duration(text).ok().map(Ttl::For);
            whole.or_else(span).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

/// The whole seconds of a number; past all bounds there are none.
fn cut(seconds: f64) -> Option<i64> {
    let span = Duration::try_from_secs_f64(seconds.max(0.0)).ok()?;
    i64::try_from(span.as_secs()).ok()
}

fn tags_of(value: &Value) -> Result<Vec<String>, Error> {
    if let Some(tag) = value.as_str() {
        return Ok(vec![tag.to_owned()]);
    }
    let wrong = || invalid(format!("`tags` is a list of texts, not `{value}`"));
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(wrong());
    }
    let tags = value.try_iter()?;
    tags.map(|tag| match tag.kind() {
        ValueKind::String | ValueKind::Number => Ok(tag.to_string()),
        _ => Err(wrong()),
    })
    .collect()
}

/// A value as Python's `str` writes it, since the keys are Django's.
fn vary_on(value: &Value, strict: bool) -> Result<VaryOn, Error> {
    match value.kind() {
        ValueKind::Undefined if strict => Err(Error::new(
            ErrorKind::UndefinedError,
            "a fragment cannot vary on an undefined value",
        )),
        ValueKind::Invalid => Err(invalid(format!("a fragment cannot vary on `{value}`"))),
        ValueKind::Undefined => Ok(String::new().into()),
        ValueKind::String => Ok(value.to_string().into()),
        _ => Ok(python(value)?.into()),
    }
}

/// A value inside a list, as Python's `repr` writes it.
fn python(value: &Value) -> Result<String, Error> {
    Ok(match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::String => quoted(&value.to_string()),
        ValueKind::Bytes => format!("b{:?}", value.as_bytes().unwrap_or_default()),
        ValueKind::Seq => {
            let members: Result<Vec<_>, _> =
                value.try_iter()?.map(|member| python(&member)).collect();
            format!("[{}]", members?.join(", "))
        }
        ValueKind::Map => {
            let member = |key: Value| {
                let member = python(&value.get_item(&key)?)?;
                Ok(format!("{}: {member}", python(&key)?))
            };
            let members: Result<Vec<_>, Error> = value.try_iter()?.map(member).collect();
            format!("{{{}}}", members?.join(", "))
        }
        _ => value.to_string(),
    })
}

/// A text in Python's quotes: single ones, unless it has such and no double ones.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for char in text.chars() {
        match char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            char if char == quote => out.extend(['\\', char]),
            char => out.push(char),
        }
    }
    out.push(quote);
    out
}
