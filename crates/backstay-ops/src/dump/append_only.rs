//! Append-only files of Redis or Valkey that lie on a shelf with the manifest that names them: read
//! as a server would load them, each file once, on a thread that may block.
//!
//! Refuses to call them the ones that were taken in where one byte of one of them is another.

use std::path::{Path, PathBuf};

use backstay_engine::redis::aof::{self, AofFacts};
use backstay_engine::redis::place::{self, Holder};
use backstay_engine::snapshot::Placed;
use backstay_model::dump::{DumpMember, DumpRecord};
use backstay_repo::shelf::ShelfPath;

use crate::context::off_thread;
use crate::error::Result;
use crate::run::Run;

/// What lets it be seen whether a server of another user works with a set.
pub(crate) const LOOK: &str = "run it as root or as the user of that server";

pub(crate) async fn read(run: &Run, shelf: &Path, manifest: &ShelfPath) -> Result<AofFacts> {
    let (directory, name, cancel) = (parent(shelf, manifest), file_name(manifest), run.cancel.clone());
    off_thread(move || Ok(aof::read(&directory, &name, None, &cancel)?)).await
}

/// Into an empty or new directory; nothing has a name there that a server reads before it is
/// committed.
pub(crate) async fn copy(
    run: &Run,
    shelf: &Path,
    manifest: &ShelfPath,
    into: &Path,
) -> Result<(AofFacts, Placed)> {
    let (directory, name, cancel) = (parent(shelf, manifest), file_name(manifest), run.cancel.clone());
    let into = into.to_owned();
    off_thread(move || Ok(aof::copy(&directory, &name, &into, &cancel)?)).await
}

/// What a record says of the files besides the manifest.
pub(crate) fn members(facts: &AofFacts) -> Vec<DumpMember> {
    let member = |file: &aof::AofRead| DumpMember {
        file: file.name.clone(),
        stored_bytes: file.length,
        sha256: file.sha256.clone(),
    };
    facts.files.iter().map(member).collect()
}

/// The first file that is not what was taken in.
pub(crate) fn differing(record: &DumpRecord, facts: &AofFacts) -> Option<String> {
    let found = members(facts);
    let other = record.members.iter().find(|member| !found.contains(member));
    other
        .or_else(|| found.iter().find(|member| !record.members.contains(member)))
        .map(|member| member.file.clone())
}

/// Who has a file of the set open, one that a rewrite made since included; or who may have.
pub(crate) async fn holder(shelf: &Path, manifest: &ShelfPath) -> Result<Option<Holder>> {
    let (directory, name) = (parent(shelf, manifest), file_name(manifest));
    off_thread(move || {
        let unread = |source| backstay_engine::Error::Read { path: directory.clone(), source };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(unread)? {
            let entry = entry.map_err(unread)?;
            let is_of_set = |own: &str| own == name || aof::may_be_member(&name, own);
            files.extend(entry.file_name().to_str().filter(|own| is_of_set(own)).map(|_| entry.path()));
        }
        Ok(place::holder(&files)?)
    })
    .await
}

pub(crate) fn parent(shelf: &Path, path: &ShelfPath) -> PathBuf {
    shelf.join(path.as_str()).parent().unwrap_or(shelf).to_owned()
}

fn file_name(path: &ShelfPath) -> String {
    path.file_name().to_owned()
}
