//! `{% cache %}` rewritten to what the engine of the templates knows.
//!
//! `{% cache 500 "sidebar" user.id %}…{% endcache %}` becomes
//! `{% call cache(500, "sidebar", user.id) %}…{% endcall %}`, on the same lines. The source is read as
//! `MiniJinja` reads it, so that strings, comments and `{% raw %}` stay as they are.

use std::borrow::Cow;
use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

use super::errors;

/// The source with its tags rewritten; borrowed if it has none.
pub(super) fn rewritten<'s>(
    name: &str,
    source: &'s str,
    syntax: &SyntaxConfig,
) -> Result<Cow<'s, str>, Error> {
    let reader = Reader {
        name,
        source,
        block: syntax.block_delimiters(),
        variable: syntax.variable_delimiters(),
        comment: syntax.comment_delimiters(),
    };
    let changes = reader.changes()?;
    let Some((first, _)) = changes.first() else {
        return Ok(Cow::Borrowed(source));
    };
    if syntax.line_statement_prefix().is_some() || syntax.line_comment_prefix().is_some() {
        let what =
            "`cache` is no tag where lines can be statements or comments; hint: `call cache(…)`";
        return Err(reader.error(first.start, what));
    }
    let (mut out, mut copied) = (String::with_capacity(source.len() + 64), 0);
    for (range, new) in changes {
        out.push_str(&source[copied..range.start]);
        out.push_str(&new);
        copied = range.end;
    }
    out.push_str(&source[copied..]);
    Ok(Cow::Owned(out))
}

/// What stands where, and what is to stand there.
type Change = (Range<usize>, String);

/// A template as it is read.
struct Reader<'s> {
    name: &'s str,
    source: &'s str,
    block: (&'s str, &'s str),
    variable: (&'s str, &'s str),
    comment: (&'s str, &'s str),
}

/// What begins at a place of the source.
enum Begin {
    Block,
    Variable,
    Comment,
}

impl Reader<'_> {
    fn changes(&self) -> Result<Vec<Change>, Error> {
        let (mut changes, mut open, mut at) = (Vec::new(), Vec::new(), 0);
        while let Some((start, begin, inside)) = self.next_begin(at) {
            // What does not end is an error that the engine of the templates tells better.
            let end = match begin {
                Begin::Comment => self.after(inside, self.comment.1),
                Begin::Variable => self.code(inside, self.variable.1).map(|(_, end)| end),
                Begin::Block => {
                    if let Some(raw) = self.word_alone(inside, "raw") {
                        self.raw_end(inside + raw)
                    } else {
                        let code = self.code(inside, self.block.1);
                        if let Some((code, _)) = &code {
                            changes.extend(self.tag(start, code.clone(), &mut open)?);
                        }
                        code.map(|(_, end)| end)
                    }
                }
            };
            let Some(end) = end else { break };
            at = end;
        }
        match open.last() {
            None => Ok(changes),
            Some(start) => Err(self.error(*start, "`cache` is not closed by `endcache`")),
        }
    }

    /// What a block changes to, if it is one of ours.
    fn tag(
        &self,
        start: usize,
        code: Range<usize>,
        open: &mut Vec<usize>,
    ) -> Result<Option<Change>, Error> {
        let text = &self.source[code.clone()];
        let blanks = text.len() - text.trim_start().len();
        let word = text[blanks..]
            .find(|char: char| !char.is_ascii_alphanumeric() && char != '_')
            .map_or(text.len(), |end| blanks + end);
        let rest = &text[word..];
        let word_at = code.start + blanks..code.start + word;
        match &text[blanks..word] {
            // A variable may be called so, as in `{% cache = 1 %}`, which is an error anyhow.
            "cache" => {
                let call = arguments(rest).map_err(|what| self.error(start, what))?;
                open.push(start);
                Ok(Some((
                    word_at.start..code.end,
                    format!("call cache({call}"),
                )))
            }
            "endcache" if !rest.trim().is_empty() => {
                Err(self.error(start, "`endcache` stands alone"))
            }
            "endcache" => match open.pop() {
                Some(_) => Ok(Some((word_at, "endcall".to_owned()))),
                None => Err(self.error(start, "`endcache` without `cache`")),
            },
            _ => Ok(None),
        }
    }

    /// The next thing that is no text: where it stands, what it is, and where its inside begins.
    fn next_begin(&self, from: usize) -> Option<(usize, Begin, usize)> {
        let rest = &self.source[from..];
        let find = |mark: &str| rest.find(mark).map(|at| (at, mark.len()));
        let begins = [
            (find(self.block.0), Begin::Block),
            (find(self.variable.0), Begin::Variable),
            (find(self.comment.0), Begin::Comment),
        ];
        let found = begins
            .into_iter()
            .filter_map(|(at, begin)| Some((at?, begin)));
        // The first one, and of those at one place the longest.
        let ((at, len), begin) = found.min_by_key(|((at, len), _)| (*at, usize::MAX - len))?;
        let inside = from + at + len;
        let has_sign = matches!(begin, Begin::Block | Begin::Variable)
            && self.source[inside..].starts_with(['-', '+']);
        Some((from + at, begin, inside + usize::from(has_sign)))
    }

    fn after(&self, from: usize, mark: &str) -> Option<usize> {
        Some(from + self.source[from..].find(mark)? + mark.len())
    }

    /// The end of the `{% endraw %}` that comes next.
    fn raw_end(&self, mut at: usize) -> Option<usize> {
        loop {
            let next = self.after(at, self.block.0)?;
            let sign = usize::from(self.source[next..].starts_with(['-', '+']));
            if let Some(len) = self.word_alone(next + sign, "endraw") {
                return Some(next + sign + len);
            }
            at = next;
        }
    }

    /// The length of a block from its inside on, if all it says is `word`.
    fn word_alone(&self, inside: usize, word: &str) -> Option<usize> {
        let rest = &self.source[inside..];
        let blank = |char: char| char.is_ascii_whitespace();
        let after = rest.trim_start_matches(blank).strip_prefix(word)?;
        let after = after.trim_start_matches(blank);
        let after = after.strip_prefix(['-', '+']).unwrap_or(after);
        let after = after.strip_prefix(self.block.1)?;
        Some(rest.len() - after.len())
    }

    /// Where the code that begins at `from` is, and where what ends it with `mark` ends.
    fn code(&self, from: usize, mark: &str) -> Option<(Range<usize>, usize)> {
        let (mut at, mut depth) = (from, 0_i32);
        loop {
            let rest = &self.source[at..];
            let first = rest.chars().next()?;
            if depth == 0 {
                let sign = usize::from(rest.starts_with(['-', '+']));
                for sign in [sign, 0] {
                    if rest[sign..].starts_with(mark) {
                        return Some((from..at, at + sign + mark.len()));
                    }
                }
            }
            depth += nesting(first);
            at += step(rest, first)?;
        }
    }

    fn error(&self, at: usize, what: &str) -> Error {
        let line = 1 + self.source[..at].matches('\n').count();
        errors::at(self.name, line, ErrorKind::SyntaxError, what)
    }
}

fn nesting(char: char) -> i32 {
    match char {
        '(' | '[' | '{' => 1,
        ')' | ']' | '}' => -1,
        _ => 0,
    }
}

/// How far to go on in code: past a whole string, else past a character. `None` if a string has no end.
fn step(rest: &str, first: char) -> Option<usize> {
    if !matches!(first, '"' | '\'') {
        return Some(first.len_utf8());
    }
    let mut escaped = false;
    let end = rest.char_indices().skip(1).find(|&(_, char)| {
        let ends = char == first && !escaped;
        escaped = char == '\\' && !escaped;
        ends
    });
    end.map(|(at, quote)| at + quote.len_utf8())
}

/// The arguments of a tag as those of a call, with its closing parenthesis; what is wrong, if something is.
fn arguments(code: &str) -> Result<String, &'static str> {
    let pieces = pieces(code);
    let is_named = |piece: &&Range<usize>| named(&code[(*piece).clone()]);
    let plain: Vec<_> = pieces.iter().filter(|piece| !is_named(piece)).collect();
    if plain.len() < 2 {
        return Err("`cache` needs a TTL and a name, as in `{% cache 500 \"sidebar\" %}`");
    }
    let in_order = plain.into_iter().chain(pieces.iter().filter(is_named));
    let (mut out, mut before) = (String::new(), 0);
    for (number, (piece, place)) in in_order.zip(&pieces).enumerate() {
        // What stood between stays, since it may hold line breaks.
        out.push_str(if number > 0 { "," } else { "" });
        let between = code[before..place.start].replace(',', "");
        out.push_str(if number == 0 && !between.contains('\n') {
            ""
        } else {
            &between
        });
        before = place.end;
        let text = &code[piece.clone()];
        match number {
            1 if !text.starts_with(['"', '\'', '(']) => out.push_str(&literal(text)),
            _ => out.push_str(text),
        }
    }
    Ok(format!("{out}){}", code[before..].replace(',', "")))
}

/// A bare word as a string of the template.
fn literal(word: &str) -> String {
    format!("{word:?}")
}

/// Whether a piece is `name=value`.
fn named(piece: &str) -> bool {
    let Some((name, value)) = piece.split_once('=') else {
        return false;
    };
    let name = name.trim_end();
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    !name.is_empty() && name.chars().all(is_name) && !value.starts_with('=')
}

/// The pieces of code that blanks and commas separate, those joined that an operator joins.
fn pieces(code: &str) -> Vec<Range<usize>> {
    let mut pieces: Vec<Range<usize>> = Vec::new();
    let (mut at, mut depth, mut is_open) = (0, 0, false);
    while let Some(first) = code[at..].chars().next() {
        let separates = depth == 0 && (first.is_whitespace() || first == ',');
        if separates {
            is_open = false;
            at += first.len_utf8();
            continue;
        }
        depth += nesting(first);
        let next = at + step(&code[at..], first).unwrap_or(code.len() - at);
        match pieces.last_mut() {
            Some(piece) if is_open => piece.end = next,
            _ => pieces.push(at..next),
        }
        (is_open, at) = (true, next);
    }
    joined(code, pieces)
}

fn joined(code: &str, pieces: Vec<Range<usize>>) -> Vec<Range<usize>> {
    const OPERATORS: &[char] = &['|', '.', '~', '+', '*', '/', '%', '<', '>', '=', '!'];
    let mut all: Vec<Range<usize>> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let text = &code[piece.clone()];
        let leans = text.starts_with(OPERATORS) || text == "-";
        match all.last_mut() {
            Some(last) if leans || ends_open(&code[last.clone()], OPERATORS) => {
                last.end = piece.end;
            }
            _ => all.push(piece),
        }
    }
    all
}

fn ends_open(text: &str, operators: &[char]) -> bool {
    text.ends_with(operators) || text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(source: &str) -> String {
        let syntax = SyntaxConfig::default();
        rewritten("t.html", source, &syntax)
            .expect("it is right")
            .into_owned()
    }

    #[test]
    fn a_tag_becomes_a_call_on_the_same_lines() {
        for (tag, call) in [
            (
                "{% cache 500 \"sidebar\" user.id %}x{% endcache %}",
                "{% call cache(500, \"sidebar\", user.id) %}x{% endcall %}",
            ),
            (
                "{%- cache 500 sidebar -%}x{%+ endcache +%}",
                "{%- call cache(500, \"sidebar\") -%}x{%+ endcall +%}",
            ),
            (
                "{% cache 500, 'a b', tags=['t', \"u\"], user | upper %}x{% endcache %}",
                "{% call cache(500, 'a b', user | upper, tags=['t', \"u\"]) %}x{% endcall %}",
            ),
            (
                "{%\ncache\n  \"5m\"\n  'n'\n  f(a, b)\n%}x{% endcache\n%}",
                "{%\ncall cache(\n  \"5m\",\n  'n',\n  f(a, b))\n%}x{% endcall\n%}",
            ),
            (
                "{% cache t n using = \"a\" %}{% cache 5 m -1 a - b %}{% endcache %}{% endcache %}",
                "{% call cache(t, \"n\", using = \"a\") %}{% call cache(5, \"m\", -1, a - b) %}{% endcall %}{% endcall %}",
            ),
            (
                "{% cache 5 n \"%}\" {'a': {}} %}x{% endcache %}",
                "{% call cache(5, \"n\", \"%}\", {'a': {}}) %}x{% endcall %}",
            ),
            (
                "{%cache 5 n%}x{%endcache%}",
                "{%call cache(5, \"n\")%}x{%endcall%}",
            ),
        ] {
            assert_eq!(rewrite(tag), call);
        }
    }

    #[test]
    fn what_is_no_tag_stays_as_it_is() {
        for source in [
            "{% raw %}{% cache 500 'x' %}{% endraw %}",
            "{%- raw -%}{{ {% cache %} {%- endraw -%}",
            "{# {% cache 500 'x' %} #}",
            "{{ '{% cache 5 n %}' }}",
            "{% set x = '{% endcache %}' %}",
            "{% if cache %}{% endif %}{% cached %}",
            "{{ {'a': {'b': '}}'}} }} {% call cache(5, 'n') %}x{% endcall %}",
            "{% raw %}{% cache",
            "{# {% cache 5 n %}",
            "a { % cache %}",
        ] {
            assert_eq!(rewrite(source), source);
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let syntax = SyntaxConfig::default();
        for (source, line, what) in [
            (
                "\n{% cache 500 %}x{% endcache %}",
                2,
                "needs a TTL and a name",
            ),
            (
                "{% cache 500 using='a' %}x{% endcache %}",
                1,
                "needs a TTL and a name",
            ),
            ("\n\n{% endcache %}", 3, "without `cache`"),
            (
                "\n{% cache 5 n %}\n{% cache 5 m %}{% endcache %}",
                2,
                "not closed",
            ),
            ("{% cache 5 n %}{% endcache n %}", 1, "stands alone"),
        ] {
            let error = rewritten("t.html", source, &syntax).expect_err("it is wrong");
            assert_eq!(
                (error.name(), error.line()),
                (Some("t.html"), Some(line)),
                "{source}"
            );
            assert_eq!(error.kind(), ErrorKind::SyntaxError);
            assert!(
                error.detail().is_some_and(|detail| detail.contains(what)),
                "{error}"
            );
        }
    }

    #[test]
    fn other_delimiters_are_understood_and_line_statements_refused() {
        let mut builder = SyntaxConfig::builder();
        let angular = builder
            .block_delimiters("<%", "%>")
            .variable_delimiters("${", "}");
        let angular = angular.build().expect("good delimiters");
        let source = "{% cache 5 n %}<% cache 5 n %>${ {} }<% endcache %>";
        assert_eq!(
            rewritten("t", source, &angular).expect("it is right"),
            "{% cache 5 n %}<% call cache(5, \"n\") %>${ {} }<% endcall %>"
        );

        let lines = SyntaxConfig::builder().line_statement_prefix("#").build();
        let lines = lines.expect("a good prefix");
        assert!(rewritten("t", "{% cache 5 n %}{% endcache %}", &lines).is_err());
        assert!(rewritten("t", "{{ 1 }}", &lines).is_ok());
    }
}
