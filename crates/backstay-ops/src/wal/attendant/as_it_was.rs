//! Whether a file is still the one that was read.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::context::off_thread;

/// A file as it was when it was read. Whoever changes it afterwards changes this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AsItWas {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl AsItWas {
    pub async fn of(path: &Path) -> Option<AsItWas> {
        let path = path.to_owned();
        off_thread(move || Ok(AsItWas::look(&path))).await.ok()?
    }

    /// The same whoever owns it, and may read it. Blocks.
    pub fn written(path: &Path) -> Option<AsItWas> {
        AsItWas::look(path).map(|found| AsItWas { changed: (0, 0), ..found })
    }

    /// Blocks.
    fn look(path: &Path) -> Option<AsItWas> {
        let found = std::fs::metadata(path).ok()?;
        Some(AsItWas {
            file: (found.dev(), found.ino()),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}
