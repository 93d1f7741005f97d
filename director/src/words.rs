//! Errors in words, for people.

/// An error and its causes, without those whose text stands there already.
pub(crate) fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_not_repeated() {
        let cause = std::io::Error::other("no such thing");
        let error = anyhow::Error::new(cause).context("cannot do it: no such thing");
        assert_eq!(in_words(&error), "cannot do it: no such thing");
        let error = anyhow::anyhow!("no such thing").context("cannot do it");
        assert_eq!(in_words(&error), "cannot do it: no such thing");
    }
}
