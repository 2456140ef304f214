//! The recovery kit after `init`: written again when the keys change.
//!
//! Responsible for the files that a kit is made of, and for no other: somebody may
//! keep notes beside them. New slots come before old ones go, so that a crash in
//! between leaves a kit that opens with either.
//!
//! Refuses: a directory that holds something else than a kit of this repository.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use backstay_model::Finding;
use backstay_model::error::Classified;
use backstay_repo::description::Description;
use backstay_repo::layout;
use serde::Serialize;

use crate::context::{Context, off_thread};
use crate::error::{Error, Result};

/// Where the new files wait for their turn: in the kit, so that they lie on its disk.
const STAGING: &str = ".new";
/// Slots of a kit, as in the repository.
const KEYS: &str = "keys";
/// Hexadecimal digits at the end of a slot's name.
const TAG_DIGITS: usize = 16;
/// The description is small.
const DESCRIPTION_BYTES_MAX: u64 = 1 << 20;

/// What became of the kit when the keys had changed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct KitReport {
    /// Where it was written again.
    pub recovery_kit: Option<PathBuf>,
    /// Why it was not.
    pub findings: Vec<Finding>,
}

/// Writes the kit into a directory that is new, empty, or a kit of this repository.
pub async fn write(context: &Context, directory: &Path) -> Result<Vec<PathBuf>> {
    let store = &**context.repo.store();
    let description = Description::read(store).await?.claimed().clone();
    if !is_kit(context, directory).await? {
        return Ok(backstay_repo::kit::write_kit(store, &description, directory).await?);
    }
    let (kit, staging) = (directory.to_owned(), directory.join(STAGING));
    let left_over = staging.clone();
    off_thread(move || match fs::remove_dir_all(&left_over) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&left_over)(error)),
        _ => Ok(()),
    })
    .await?;
    let files = backstay_repo::kit::write_kit(store, &description, &staging).await?;
    off_thread(move || replace(&kit, &staging, &files)).await
}

/// Writes the kit again where it is said to lie. The keys have changed by now, so
/// that a kit which cannot be written is told and no reason to fail.
pub async fn renew(context: &Context, directory: &Path) -> KitReport {
    let not_written = |why: String| KitReport {
        recovery_kit: None,
        findings: vec![Finding::warning(
            directory.display().to_string(),
            format!("the recovery kit {why}: every copy of it has the key slots of before"),
            "`backstay key kit --to DIR` writes it to where it belongs, and repository.recovery_kit names the place",
        )],
    };
    let written = match is_kit(context, directory).await {
        Ok(true) => write(context, directory).await,
        Ok(false) => return not_written("is not there".to_owned()),
        Err(error) => Err(error),
    };
    match written {
        Ok(_) => KitReport { recovery_kit: Some(directory.to_owned()), findings: Vec::new() },
        Err(error) => {
            let hints: String = error.hints().iter().take(1).map(|hint| format!(" ({hint})")).collect();
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            not_written(format!("was not written, {error}{}{hints}", cause.unwrap_or_default()))
        }
    }
}

/// Whether a kit of this very repository lies there.
async fn is_kit(context: &Context, directory: &Path) -> Result<bool> {
    let name = layout::description();
    let stored = context.repo.store().get(&name, DESCRIPTION_BYTES_MAX).await;
    let stored = stored.map_err(backstay_repo::Error::from)?;
    let path = directory.join(name.as_str());
    off_thread(move || match fs::read(&path) {
        Ok(found) => Ok(found == stored),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(failed(&path)(error)),
    })
    .await
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::WriteKit { path, source }
}

/// Brings what was staged to its places and takes the slots away that are no more.
fn replace(kit: &Path, staging: &Path, files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let relative = |path: &PathBuf| path.strip_prefix(staging).map(Path::to_owned).ok();
    let mut names: Vec<PathBuf> = files.iter().filter_map(relative).collect();
    names.sort_by_key(|name| !name.starts_with(KEYS));
    let keys = kit.join(KEYS);
    DirBuilder::new().recursive(true).mode(0o700).create(&keys).map_err(failed(&keys))?;
    let mut written = Vec::with_capacity(names.len());
    for name in &names {
        let path = kit.join(name);
        // Its bytes are durable since it was staged, its name is with the syncs below.
        rustix::fs::rename(staging.join(name), &path).map_err(|error| failed(&path)(error.into()))?;
        written.push(path);
    }
    let current: Vec<OsString> = names
        .iter()
        .filter(|name| name.starts_with(KEYS))
        .filter_map(|name| name.file_name())
        .map(Into::into)
        .collect();
    sync(&keys).map_err(failed(&keys))?;
    for entry in fs::read_dir(&keys).map_err(failed(&keys))? {
        let name = entry.map_err(failed(&keys))?.file_name();
        if is_slot(&name) && !current.contains(&name) {
            let path = keys.join(name);
            fs::remove_file(&path).map_err(failed(&path))?;
        }
    }
    fs::remove_dir_all(staging).map_err(failed(staging))?;
    sync(&keys).and_then(|()| sync(kit)).map_err(failed(kit))?;
    Ok(written)
}

/// `<slot>-<tag>`
fn is_slot(name: &OsString) -> bool {
    name.to_str().and_then(|name| name.rsplit_once('-')).is_some_and(|(slot, tag)| {
        !slot.is_empty() && tag.len() == TAG_DIGITS && tag.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
