//! The recovery kit after `init`: written again when the keys change.
//!
//! Responsible for the files that a kit is made of, and for no other: somebody may
//! keep notes beside them. New slots come before old ones go, so that a crash in
//! between leaves a kit that opens with either. Of the old ones only those go that
//! the verb took from the repository: one that the store has lost may be the last
//! copy there is.
//!
//! Refuses: a directory that holds something else than a kit of this repository, or
//! lies in the repository; to put a slot into the kit that cannot be read.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use backstay_model::Finding;
use backstay_model::error::Classified;
use backstay_repo::description::Description;
use backstay_repo::key::Slots;
use backstay_repo::layout::{self, ObjectName};
use bytes::Bytes;
use serde::Serialize;

use crate::context::{Context, off_thread};
use crate::error::{Error, Result};

/// Where the new files wait for their turn: in the kit, so that they lie on its disk.
const STAGING: &str = ".new-";
/// Slots of a kit, as in the repository.
const KEYS: &str = "keys";
/// What a kit has besides the description, and a repository has not.
const OF_A_KIT: [&str; 2] = ["FORMAT.md", "README.txt"];
/// Hexadecimal digits at the end of a slot's name.
const TAG_DIGITS: usize = 16;
/// The description is small.
const DESCRIPTION_BYTES_MAX: u64 = 1 << 20;

/// What became of the kit when the keys had changed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct KitReport {
    /// Where it was written again.
    pub recovery_kit: Option<PathBuf>,
    /// Why it was not, and what does not belong to it.
    pub findings: Vec<Finding>,
}

/// A kit that was written.
#[derive(Debug, Clone)]
pub struct WrittenKit {
    pub files: Vec<PathBuf>,
    /// Slots of the kit that the repository has not.
    pub findings: Vec<Finding>,
}

/// Writes the kit into a directory that is new, empty, or a kit of this repository.
pub async fn write(context: &Context, directory: &Path) -> Result<WrittenKit> {
    write_without(context, directory, &[]).await
}

/// `gone` are the slots that were taken from the repository a moment ago.
async fn write_without(context: &Context, directory: &Path, gone: &[ObjectName]) -> Result<WrittenKit> {
    let store = &**context.repo.store();
    refuse_within_repository(context, directory).await?;
    // A damaged slot would take the place of the good one that the kit has.
    Slots::new(store, context.repo.id()).list().await?;
    let description = Description::read(store).await?.claimed().clone();
    if !is_kit(context, directory).await? {
        let files = backstay_repo::kit::write_kit(store, &description, directory).await?;
        return Ok(WrittenKit { files, findings: Vec::new() });
    }
    let (kit, parent) = (directory.to_owned(), directory.to_owned());
    let staging = off_thread(move || make_staging(&parent)).await?;
    let staged = backstay_repo::kit::write_kit(store, &description, &staging).await;
    let gone: Vec<OsString> = gone.iter().map(|name| name.file_name().into()).collect();
    off_thread(move || {
        let written = match staged {
            Ok(files) => replace(&kit, &staging, &files, &gone),
            Err(error) => Err(error.into()),
        };
        // It was made by us a moment ago, under a name that nobody else has.
        let cleared = fs::remove_dir_all(&staging).map_err(failed(&staging));
        written.and_then(|written| cleared.map(|()| written))
    })
    .await
}

fn make_staging(kit: &Path) -> Result<PathBuf> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| failed(kit)(error.into()))?;
    let staging = kit.join(format!("{STAGING}{:016x}", u64::from_le_bytes(random)));
    DirBuilder::new().mode(0o700).create(&staging).map_err(failed(&staging))?;
    Ok(staging)
}

/// Writes the kit again where it is said to lie. The keys have changed by now, so
/// that a kit which cannot be written is told and no reason to fail. `gone` are the
/// slots that this change took from the repository.
pub async fn renew(context: &Context, directory: &Path, gone: &[ObjectName]) -> KitReport {
    let not_written = |why: String| KitReport {
        recovery_kit: None,
        findings: vec![Finding::warning(
            directory.display().to_string(),
            format!("the recovery kit {why}: every copy of it has the key slots of before"),
            "`backstay key kit --to DIR` writes it to where it belongs, and repository.recovery_kit names the place",
        )],
    };
    let written = match is_kit(context, directory).await {
        Ok(true) => write_without(context, directory, gone).await,
        Ok(false) => return not_written("is not there".to_owned()),
        Err(error) => Err(error),
    };
    match written {
        Ok(WrittenKit { findings, .. }) => KitReport { recovery_kit: Some(directory.to_owned()), findings },
        Err(error) => {
            let hints: String = error.hints().iter().take(1).map(|hint| format!(" ({hint})")).collect();
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            not_written(format!("was not written, {error}{}{hints}", cause.unwrap_or_default()))
        }
    }
}

/// Whether a kit of this very repository lies there.
async fn is_kit(context: &Context, directory: &Path) -> Result<bool> {
    let (stored, directory) = (stored_description(context).await?, directory.to_owned());
    off_thread(move || Ok(has_description(&directory, &stored)? && has_words(&directory))).await
}

/// Fails for the repository itself and for what lies in it, by whatever path it is
/// reached: a store may be mounted as well.
async fn refuse_within_repository(context: &Context, directory: &Path) -> Result<()> {
    let (stored, directory) = (stored_description(context).await?, directory.to_owned());
    let root = context.repo.store().location().strip_prefix("file://").map(PathBuf::from);
    off_thread(move || {
        let root = root.and_then(|root| root.canonicalize().ok());
        let whole = std::path::absolute(&directory).map_err(failed(&directory))?;
        let Some(there) = whole.ancestors().find_map(|part| part.canonicalize().ok()) else {
            return Ok(());
        };
        for part in there.ancestors() {
            // What we may not read above the directory is no repository of ours.
            let is_repository = has_description(part, &stored).unwrap_or(false) && !has_words(part);
            if root.as_deref() == Some(part) || is_repository {
                return Err(backstay_repo::Error::KitInRepository { path: directory }.into());
            }
        }
        Ok(())
    })
    .await
}

async fn stored_description(context: &Context) -> Result<Bytes> {
    let stored = context.repo.store().get(&layout::description(), DESCRIPTION_BYTES_MAX).await;
    Ok(stored.map_err(backstay_repo::Error::from)?)
}

fn has_description(directory: &Path, stored: &Bytes) -> Result<bool> {
    let path = directory.join(layout::description().as_str());
    match fs::read(&path) {
        Ok(found) => Ok(found == *stored),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(failed(&path)(error)),
    }
}

fn has_words(directory: &Path) -> bool {
    OF_A_KIT.iter().any(|name| directory.join(name).is_file())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::WriteKit { path, source }
}

/// Brings what was staged to its places and takes the slots away that are gone.
fn replace(kit: &Path, staging: &Path, files: &[PathBuf], gone: &[OsString]) -> Result<WrittenKit> {
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
    let mut findings = Vec::new();
    for entry in fs::read_dir(&keys).map_err(failed(&keys))? {
        let name = entry.map_err(failed(&keys))?.file_name();
        if current.contains(&name) {
            continue;
        }
        let path = keys.join(&name);
        if gone.contains(&name) {
            fs::remove_file(&path).map_err(failed(&path))?;
        } else if is_slot(&name) {
            findings.push(not_in_the_store(&path));
        }
    }
    sync(&keys).and_then(|()| sync(kit)).map_err(failed(kit))?;
    findings.sort_by(|a, b| a.subject.cmp(&b.subject));
    Ok(WrittenKit { files: written, findings })
}

/// The store may have lost it, or an earlier change of the keys did not reach this kit.
fn not_in_the_store(path: &Path) -> Finding {
    Finding::warning(
        path.display().to_string(),
        "the kit has a key slot that the repository has not",
        format!(
            "if the store has lost it, copy it back to keys/ there; if it was removed or rotated away on purpose, `rm {}`",
            backstay_engine::postgres::starting::shell_word(path.as_os_str())
        ),
    )
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
