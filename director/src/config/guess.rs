//! Where the director that runs listens, by a file that cannot be loaded.

use std::path::PathBuf;

use super::{resolve, yaml};

/// The control socket that a text with mistakes most probably names: what stands behind `control` and `instance` at the
/// beginning of a line. `None`: there are none, or those cannot be read. A text without them may be any director's, or none's:
/// it does not speak for the one with the default name.
#[must_use]
pub fn guess_control_socket(text: &str) -> Option<PathBuf> {
    let is_one = |line: &&str| line.starts_with("control:") || line.starts_with("instance:");
    let short: Vec<&str> = text.lines().filter(is_one).collect();
    // What stands in the next line is not seen.
    let is_empty = |line: &&str| {
        let value = line.split_once(':').map_or("", |(_, value)| value).trim();
        value.is_empty() || value.starts_with('#')
    };
    if short.is_empty() || short.iter().any(is_empty) {
        return None;
    }
    // The rest of a configuration may be empty but for an interface.
    let short = format!("interfaces: [lo]\n{}\n", short.join("\n"));
    let file = yaml::read(&short).ok()?;
    resolve::resolve(&file)
        .ok()
        .map(|(config, _)| config.control_socket)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn sockets_of_files_with_mistakes() {
        let cases = [
            ("interfaces: [eth0\n", None),
            ("", None),
            ("\u{0}\u{1}control: /tmp/a.sock\n", None),
            ("control:\n  /tmp/a.sock\n", None),
            ("instance: # blue\n", None),
            ("instance: blue\ninstance: green\n", None),
            (
                "instance: blue\nservices: [[[\n",
                Some("/run/director/blue.sock"),
            ),
            (
                "control: /tmp/a.sock # here\nnonsense: 1\n",
                Some("/tmp/a.sock"),
            ),
            ("services:\n- name: x\n  instance: no\n", None),
            ("control: [\n", None),
            ("instance: ../../etc\n", None),
        ];
        for (text, expected) in cases {
            assert_eq!(
                guess_control_socket(text).as_deref(),
                expected.map(Path::new),
                "{text}"
            );
        }
    }
}
