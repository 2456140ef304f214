//! The place of an export: a directory that is somebody's, in which files get their names
//! whole and at the end.
//!
//! Refuses a name that is taken, before the first byte and again at the last.

use std::path::{Path, PathBuf};

use backstay_engine::postgres::leftovers;
use backstay_repo::dump::{FinishedDump, HMAC_SUFFIX};
use backstay_repo::shelf::{DiskShelf, Shelf, ShelfPath};
use backstay_repo::store::StoreError;

use super::ExportedFile;
use crate::error::{Error, Result};

pub(super) struct Destination {
    shelf: DiskShelf,
    directory: PathBuf,
    /// Directories that were not there, the innermost first.
    missing: Vec<PathBuf>,
}

/// A file that is written and waits for its name.
pub(super) struct Ready {
    pub path: ShelfPath,
    pub finished: FinishedDump,
}

/// Whether a person means a directory.
pub(super) fn is_directory(to: &Path) -> bool {
    to.is_dir() || to.as_os_str().to_string_lossy().ends_with('/')
}

impl Destination {
    /// Nothing is made yet.
    pub fn of(directory: &Path) -> Result<Self> {
        let unusable = |reason: String| Error::ExportPlace { path: directory.to_owned(), reason };
        let directory = std::path::absolute(directory).map_err(|error| unusable(error.to_string()))?;
        let missing: Vec<PathBuf> =
            directory.ancestors().take_while(|above| !above.exists()).map(Path::to_owned).collect();
        if missing.is_empty() && !directory.is_dir() {
            return Err(unusable("it is no directory".to_owned()));
        }
        Ok(Self { shelf: DiskShelf::new(&directory), directory, missing })
    }

    /// The place of one file: the directory, and the name in it.
    pub fn of_file(to: &Path, own_name: &str) -> Result<(Self, ShelfPath)> {
        if is_directory(to) {
            let destination = Self::of(to)?;
            let path = destination.name(own_name)?;
            return Ok((destination, path));
        }
        let unusable = |reason: &str| Error::ExportPlace { path: to.to_owned(), reason: reason.to_owned() };
        let name = to.file_name().ok_or_else(|| unusable("it names no file"))?;
        let name = name.to_str().ok_or_else(|| unusable("its name is no text"))?;
        let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        let destination = Self::of(directory.unwrap_or(Path::new(".")))?;
        let path = destination.name(name)?;
        Ok((destination, path))
    }

    pub fn name(&self, name: &str) -> Result<ShelfPath> {
        name.parse().map_err(|_| Error::ExportPlace {
            path: self.directory.join(name),
            reason: "a file with a hidden name is not seen by whoever looks for it".to_owned(),
        })
    }

    pub fn shelf(&self) -> &dyn Shelf {
        &self.shelf
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn full(&self, path: &ShelfPath) -> PathBuf {
        self.directory.join(path.as_str())
    }

    /// Refuses names that something has, were it a link that leads nowhere.
    pub fn must_be_free(&self, path: &ShelfPath) -> Result<()> {
        for path in [path, &beside(path)?] {
            let full = self.full(path);
            match full.symlink_metadata() {
                Ok(_) => return Err(Error::ExportTaken { path: full }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::ExportUnseen { path: full, source }),
            }
        }
        Ok(())
    }

    /// Takes away what exports into this directory have left whose process was killed:
    /// nobody else may ever write here again.
    pub async fn sweep(&self) {
        if let Err(error) = self.shelf.sweep_dead().await {
            tracing::warn!(%error, "what a killed process has left stays");
        }
        leftovers::sweep(&self.directory);
    }

    /// Gives every file its name, or none of them one: the first one last, so that whoever
    /// sees it sees all.
    pub async fn publish(&self, ready: Vec<Ready>) -> Result<Vec<ExportedFile>> {
        let (mut named, mut published) = (Vec::new(), Vec::new());
        let mut failure = None;
        for mut file in ready.into_iter().rev() {
            if failure.is_some() {
                // It never had a name; what else goes wrong with it is no news.
                let _ = file.finished.abandon().await;
                continue;
            }
            match self.publish_one(&mut file, &mut named).await {
                Ok(exported) => published.push(exported),
                Err(error) => {
                    let _ = file.finished.abandon().await;
                    failure = Some(error);
                }
            }
        }
        published.reverse();
        let Some(error) = failure else { return Ok(published) };
        for path in named.into_iter().rev() {
            if let Err(error) = self.shelf.delete(&path).await {
                tracing::warn!(%error, path = %self.full(&path).display(), "a file is left behind");
            }
        }
        Err(error)
    }

    async fn publish_one(&self, file: &mut Ready, named: &mut Vec<ShelfPath>) -> Result<ExportedFile> {
        let mut authentication = None;
        // First: a file without it would look like one that nobody authenticates.
        if let Some(line) = file.finished.written().hmac.clone() {
            let path = beside(&file.path)?;
            let put = self.shelf.put_if_absent(&path, line).await;
            put.map_err(|error| self.failed(&path, error.into()))?;
            authentication = Some(self.full(&path).display().to_string());
            named.push(path);
        }
        let written = match file.finished.commit().await {
            Ok(written) => written.clone(),
            Err(error) => return Err(self.failed(&file.path, error)),
        };
        named.push(file.path.clone());
        Ok(ExportedFile {
            path: self.full(&file.path).display().to_string(),
            raw_bytes: written.raw_bytes,
            stored_bytes: written.stored_bytes,
            sha256: written.sha256,
            authentication,
        })
    }

    /// An error of writing here, which has nothing to do with the place of the dumps.
    pub fn failed(&self, path: &ShelfPath, error: backstay_repo::Error) -> Error {
        let path = self.full(path);
        match error {
            backstay_repo::Error::Store(StoreError::AlreadyExists { .. }) => Error::ExportTaken { path },
            backstay_repo::Error::Store(source) => Error::ExportWrite { path, source },
            other => other.into(),
        }
    }

    /// The end: nothing hidden stays, and after a failure no directory that was made.
    pub async fn leave<T>(&self, result: Result<T>) -> Result<T> {
        self.shelf.tidy().await;
        if result.is_err() {
            for directory in &self.missing {
                // Somebody may have put something there meanwhile.
                if std::fs::remove_dir(directory).is_err() {
                    break;
                }
            }
        }
        result
    }
}

fn beside(path: &ShelfPath) -> Result<ShelfPath> {
    Ok(path.beside(HMAC_SUFFIX).map_err(backstay_repo::Error::from)?)
}
