//! The word that was meant.

use crate::Error;

/// The one of `words` that `word` is most like, if it is like one; case does not matter.
pub(crate) fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let likeness = |known: &'a str| {
        let likeness = strsim::jaro_winkler(&word, &known.to_lowercase());
        (known, likeness)
    };
    let alike = words.into_iter().map(likeness);
    let (known, likeness) = alike.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    (likeness > 0.75).then_some(known)
}

/// `error` with the word that was meant, or all there are.
pub(crate) fn suggest<'a>(
    error: Error,
    word: &str,
    words: impl IntoIterator<Item = &'a str> + Clone,
) -> Error {
    if let Some(meant) = nearest(word, words.clone()) {
        return error.with_hint(format!("did you mean `{meant}`?"));
    }
    let all: Vec<&str> = words.into_iter().collect();
    if all.is_empty() {
        return error;
    }
    error.with_hint(format!("there are {}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood_and_nonsense_is_not() {
        let words = ["timeout", "key_prefix", "version"];

        for (word, meant) in [
            ("timout", Some("timeout")),
            ("TIMEOUT", Some("timeout")),
            ("keyprefix", Some("key_prefix")),
            ("versoin", Some("version")),
            ("colour", None),
        ] {
            assert_eq!(nearest(word, words), meant, "{word}");
        }
    }
}
