//! Passwords that stand in files of their own: read for each run, as they may be changed at any time.

use std::borrow::Cow;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Failure, FailureKind, PLACES};
use crate::config::{LoginProbe, Secret};
use crate::files::open_regular;
use crate::health::aside::Aside;

/// The longest password in a file.
const PASSWORD_BYTES: u64 = 1024;

static READING: Aside<PathBuf, Result<String, Failure>> = Aside::new(&PLACES);

/// A login with its password. A file that takes long, of a network's file system, holds up no other check.
pub(super) async fn read(probe: &LoginProbe) -> Result<Cow<'_, LoginProbe>, Failure> {
    let Some(file) = &probe.password_file else {
        return Ok(Cow::Borrowed(probe));
    };
    let read = READING.get(file, |file| {
        password(file).map_err(|error| failed(file, &error))
    });
    let password = read.await.map_err(|error| failed(file, &error))??;
    Ok(Cow::Owned(LoginProbe {
        password: Some(Secret(password)),
        ..probe.clone()
    }))
}

fn failed(file: &Path, error: &io::Error) -> Failure {
    let words = format!("the password file {}: {error}", file.display());
    Failure::new(FailureKind::of_beginning(error), words)
}

/// The first line, which must be the only one.
fn password(path: &Path) -> io::Result<String> {
    let file = open_regular(path)?;
    let mode = file.metadata()?.mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(io::Error::other(format!(
            "everybody may read or write it (mode {mode:o}); chmod 600 makes it its owner's"
        )));
    }
    let mut text = String::new();
    // Room for the end of the line.
    file.take(PASSWORD_BYTES + 2).read_to_string(&mut text)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.len() as u64 > PASSWORD_BYTES || line.contains(['\n', '\0']) {
        return Err(io::Error::other(format!(
            "a password on one line was expected, of at most {PASSWORD_BYTES} bytes"
        )));
    }
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_with_passwords() {
        let directory =
            std::env::temp_dir().join(format!("director-password-test-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("password");
        let long = "x".repeat(1024);
        // (text, mode, the password or words)
        let cases: [(&str, u32, Result<&str, &str>); 10] = [
            ("secret", 0o600, Ok("secret")),
            ("secret\n", 0o400, Ok("secret")),
            ("with a space \r\n", 0o640, Ok("with a space ")),
            (&long, 0o600, Ok(&long)),
            ("secret", 0o644, Err("mode 644")),
            ("secret", 0o602, Err("mode 602")),
            ("", 0o600, Err("one line was expected")),
            ("\n", 0o600, Err("one line was expected")),
            ("two\nlines\n", 0o600, Err("one line was expected")),
            (&format!("{long}x\n"), 0o600, Err("at most 1024 bytes")),
        ];
        for (text, mode, expected) in cases {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match (password(&path), expected) {
                (Ok(found), Ok(password)) => assert_eq!(found, password),
                (Err(said), Err(words)) => {
                    assert!(said.to_string().contains(words), "{said}");
                }
                (found, expected) => panic!("{text:?}: {found:?}, expected {expected:?}"),
            }
            fs::remove_file(&path).unwrap();
        }
        for (path, words) in [(&path, "No such file"), (&directory, "no regular file")] {
            let said = password(path).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
