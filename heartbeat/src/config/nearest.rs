//! What was meant: the director's configuration asks this, too.

/// The known word nearest to what was found, if any is near.
#[must_use]
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The measure and the bound with which clap suggests options.
    const NEAR: f64 = 0.7;
    let found = found.to_lowercase();
    // Very short words are far from each other by that measure, whatever was mistyped in them.
    let likeness = |word: &str| match strsim::osa_distance(&found, word) {
        0 | 1 => strsim::jaro(&found, word).max(NEAR + 0.01),
        _ => strsim::jaro(&found, word),
    };
    known
        .into_iter()
        .map(|word| (likeness(word), word))
        .filter(|(likeness, _)| *likeness > NEAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near() {
        let known = ["links", "groups", "keepalive", "deadtime", "key"];
        for (found, expected) in [
            ("keep_alive", Some("keepalive")),
            ("Deadtime", Some("deadtime")),
            ("group", Some("groups")),
            ("kye", Some("key")),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(found, known), expected, "{found}");
        }
    }
}
