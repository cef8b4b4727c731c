//! What Django's keys for pages and for fragments have in common, and the key of a fragment.

use std::fmt::{Display, Write};

use md5::{Digest, Md5};

/// How the values that choose a variant become one digest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyFormat {
    /// As Django 6.1 and later: each value with its length, so that no two lists are the same text.
    #[default]
    Django61,
    /// As Django up to 6.0: values glued together. Different lists may have one key; for sharing with such a site.
    Django52,
}

/// Returns the key of a template fragment, as Django's `make_template_fragment_key` names it.
///
/// ```
/// use larder::django_keys::{KeyFormat, fragment_key};
///
/// let key = fragment_key("sidebar", &["admin"], KeyFormat::Django52);
///
/// assert_eq!(key, "template.cache.sidebar.1f7d50c56381bb05217922bda930004c");
/// ```
pub fn fragment_key<V: Display>(name: &str, vary: &[V], format: KeyFormat) -> String {
    let mut digest = Md5::new();
    for value in vary {
        let value = value.to_string();
        match format {
            KeyFormat::Django61 => netstring(&mut digest, value.as_bytes()),
            KeyFormat::Django52 => {
                digest.update(&value);
                digest.update(b":");
            }
        }
    }
    format!("template.cache.{name}.{}", hex(&digest.finalize()))
}

/// Adds `<length>:<bytes>,` to a digest.
pub(crate) fn netstring(digest: &mut Md5, bytes: &[u8]) {
    digest.update(bytes.len().to_string());
    digest.update(b":");
    digest.update(bytes);
    digest.update(b",");
}

/// Returns bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes whatever is written to it");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_read_alike_have_keys_of_their_own() {
        let key = |vary: &[&str], format| fragment_key("sidebar", vary, format);

        assert_eq!(
            key(&["a", "b"], KeyFormat::Django52),
            key(&["a:b"], KeyFormat::Django52)
        );
        assert_ne!(
            key(&["a", "b"], KeyFormat::Django61),
            key(&["a:b"], KeyFormat::Django61)
        );
        assert_ne!(
            key(&[""], KeyFormat::Django61),
            key(&[], KeyFormat::Django61)
        );
    }
}
