//! Percent-encoding (RFC 3986 §2.1), as URLs of stores and memcached's lists of keys have it.

/// `text` with `%` and two digits read as the byte that they stand for; `None` where a `%` is no code, or
/// the bytes are no text.
pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let code = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(code).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_digits_are_a_byte_and_nothing_else_is() {
        for (text, read) in [
            ("", Some("")),
            ("a b", Some("a b")),
            ("s%40:%20%C3%a9", Some("s@: é")),
            ("%", None),
            ("%4", None),
            ("%+5", None),
            ("%g0", None),
            ("%ff", None),
        ] {
            assert_eq!(decoded(text).as_deref(), read, "{text}");
        }
    }
}
