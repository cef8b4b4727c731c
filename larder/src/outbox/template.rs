//! Tags with places for columns: `object:{id}`.

use crate::{Error, ErrorKind, Result};

/// A part of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// As it stands.
    Text(String),
    /// The primary key, its columns joined by commas.
    Key,
    /// The text of this column.
    Column(String),
}

/// A tag whose parts come from a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(pub(crate) Vec<Part>);

impl Template {
    /// Reads `object:{id}`; `{pk}` is the primary key, `{{` and `}}` are braces.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let bad = |what: &str| {
            let told = format!("the tag `{}` cannot be used: {what}", text.escape_debug());
            Error::new(ErrorKind::Invalid, "outbox", told)
                .with_hint("write it as `objects`, `object:{pk}` or `object:{column}`")
        };
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '{' | '}' if chars.peek() == Some(&char) => {
                    chars.next();
                    plain.push(char);
                }
                '{' => {
                    let mut name = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some(char) => name.push(char),
                            None => return Err(bad("a `{` in it is not closed")),
                        }
                    }
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(match name.as_str() {
                        "" => return Err(bad("a `{}` in it names no column")),
                        "pk" => Part::Key,
                        _ => Part::Column(name),
                    });
                }
                '}' => return Err(bad("a `}` in it closes nothing")),
                char => plain.push(char),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        if parts.is_empty() {
            return Err(bad("it is empty"));
        }
        Ok(Self(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_falls_into_its_parts() {
        let text = |text: &str| Part::Text(text.into());
        for (written, parts) in [
            ("objects", vec![text("objects")]),
            ("object:{pk}", vec![text("object:"), Part::Key]),
            (
                "{a}-{b}!",
                vec![
                    Part::Column("a".into()),
                    text("-"),
                    Part::Column("b".into()),
                    text("!"),
                ],
            ),
            ("{{x}}", vec![text("{x}")]),
        ] {
            assert_eq!(Template::parse(written).expect(written).0, parts);
        }
        for written in ["", "a{", "a{}", "a}", "{a"] {
            let error = Template::parse(written).expect_err(written);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{written}");
        }
    }
}
