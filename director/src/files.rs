//! Files that somebody names in the configuration and that are read while the director runs.
//!
//! Whoever reads one must not wait for a pipe's other end, nor read a device without an end.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::O_NONBLOCK;

/// Opens a file for reading, if it is a regular one.
///
/// # Errors
/// It cannot be opened, or it is a pipe, a device, a socket or a directory.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        // A pipe that nobody writes to would be waited for; what is regular does not know this flag.
        .custom_flags(O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open_regular`], or it is longer than that, or cannot be read.
pub fn read_regular(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(limit + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!(
            "it is longer than {limit} bytes, which is the most that is read"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_regular_files_up_to_a_length() {
        let directory =
            std::env::temp_dir().join(format!("director-files-test-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (file, pipe) = (directory.join("file"), directory.join("pipe"));
        fs::write(&file, "four").unwrap();
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        // (path, limit, what is read or said)
        let cases = [
            (file.as_path(), 4, Ok("four")),
            (file.as_path(), 3, Err("longer than 3 bytes")),
            (pipe.as_path(), 4, Err("no regular file")),
            (directory.as_path(), 4, Err("no regular file")),
            (Path::new("/dev/zero"), 4, Err("no regular file")),
            (Path::new("/nowhere"), 4, Err("No such file")),
        ];
        for (path, limit, expected) in cases {
            match (read_regular(path, limit), expected) {
                (Ok(bytes), Ok(text)) => assert_eq!(bytes, text.as_bytes(), "{path:?}"),
                (Err(error), Err(words)) => {
                    assert!(error.to_string().contains(words), "{path:?}: {error}");
                }
                (found, expected) => panic!("{path:?}: {found:?}, expected {expected:?}"),
            }
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
