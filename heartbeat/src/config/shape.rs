//! What a YAML reader expected, for people: the director's configuration asks this, too.

/// The reader's words for a shape in ours. `found` is the single value that stands there instead, if it is one.
#[must_use]
pub fn shape(expected: &str, found: Option<&str>) -> String {
    if expected.starts_with("a single value") {
        expected.to_owned()
    } else if expected.contains("sequence") {
        match found {
            Some(found) => {
                format!(
                    "a list, like [{found}], or lines that begin with \"- \", one for each entry"
                )
            }
            None => "a list: each entry begins with \"- \"".to_owned(),
        }
    } else if expected.contains("string") {
        "a single value".to_owned()
    } else if expected.contains("mapping") || expected.starts_with("struct") {
        "a mapping of keys and values".to_owned()
    } else {
        expected.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_in_words() {
        let rows = [
            (
                "sequence start",
                Some("eth0"),
                "a list, like [eth0], or lines that begin with \"- \", one for each entry",
            ),
            ("a sequence", None, "a list: each entry begins with \"- \""),
            ("mapping start", Some("x"), "a mapping of keys and values"),
            ("string scalar", None, "a single value"),
            (
                "a single value or a list",
                Some("x"),
                "a single value or a list",
            ),
            ("a key", None, "a key"),
        ];
        for (expected, found, words) in rows {
            assert_eq!(shape(expected, found), words);
        }
    }
}
