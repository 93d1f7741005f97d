//! The keys that the section names.

use std::path::{Path, PathBuf};

use conn_sync::wire::auth::{Key, KeyError, Keyring};
use heartbeat::config::{ConfigError, read_secret};

use super::model::{KeyFile, Sync};

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SyncKeyError {
    /// Its file cannot be read, or can be read by others than its owner.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// It is no key.
    #[error("the key in {}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
}

impl SyncKeyError {
    /// The key's file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(error) => error.file(),
            Self::Key { path, .. } => Some(path),
        }
    }
}

/// Reads the keys.
///
/// # Errors
/// A file cannot be read, can be read by others than its owner, or holds no key.
pub fn load_sync_keys(sync: &Sync) -> Result<Keyring, SyncKeyError> {
    let Some(files) = &sync.keys else {
        return Ok(Keyring::without_secret());
    };
    let active = load(&files.active)?;
    let accept = files
        .accept
        .iter()
        .map(load)
        .collect::<Result<Vec<_>, _>>()?;
    Keyring::new(active, accept).map_err(|source| SyncKeyError::Key {
        path: files.active.file.clone(),
        source,
    })
}

fn load(KeyFile { id, file }: &KeyFile) -> Result<Key, SyncKeyError> {
    let secret = read_secret(file)?;
    Key::new(*id, &secret).map_err(|source| SyncKeyError::Key {
        path: file.clone(),
        source,
    })
}
