//! Where the director that runs listens, by a file that cannot be loaded.

use std::path::PathBuf;

use super::{resolve, yaml};

/// The control socket that a text with mistakes most probably names: what stands behind `control` and `instance` at the
/// beginning of a line. `None`: those cannot be read.
#[must_use]
pub fn guess_control_socket(text: &str) -> Option<PathBuf> {
    let is_one = |line: &&str| line.starts_with("control:") || line.starts_with("instance:");
    let short: Vec<&str> = text.lines().filter(is_one).collect();
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
            ("interfaces: [eth0\n", Some("/run/director/default.sock")),
            (
                "instance: blue\nservices: [[[\n",
                Some("/run/director/blue.sock"),
            ),
            (
                "control: /tmp/a.sock # here\nnonsense: 1\n",
                Some("/tmp/a.sock"),
            ),
            (
                "services:\n- name: x\n  instance: no\n",
                Some("/run/director/default.sock"),
            ),
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
