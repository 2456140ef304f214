//! Append-only files of Redis or Valkey, as they were copied from a server: the manifest names the
//! others and bears the sidecar.
//!
//! Refuses a set of which a server would not start, one with a file that no server calls so, and
//! one that a server is at work in, or of which this user may not see whether one is. What a rewrite
//! left beside a set, or what waits there for its deletion, is neither a part of it nor a dump.

use std::path::{Path, PathBuf};

use backstay_engine::redis::aof::{self, AofManifest};
use backstay_engine::snapshot::SnapshotFacts;
use backstay_model::dump::DumpMember;
use backstay_repo::dump::DumpInside;
use backstay_repo::shelf::{ShelfFile, ShelfPath};

use super::sets::{self, Sets};
use super::{Adopting, Fate, Read};
use crate::context::off_thread;
use crate::dump::append_only;
use crate::dump::inside::Found;
use crate::error::Result;
use crate::extract::whole;

pub(super) async fn find(directory: &Path, files: &[ShelfFile]) -> Result<Sets> {
    let mut found = Sets::default();
    for head in files.iter().filter(|file| aof::set_name(file.path.file_name()).is_some()) {
        let own = append_only::parent(directory, &head.path);
        let name = head.path.file_name().to_owned();
        let look = off_thread(move || Ok(look(&own, &name)?)).await;
        let members = match look {
            Ok(Some(members)) => members,
            Ok(None) => continue,
            Err(error) => Err(sets::fate(error)?),
        };
        let is_of = |file: &&ShelfFile| {
            let like = head.path.sibling(file.path.file_name()).ok();
            let may_be = aof::may_be_member(head.path.file_name(), file.path.file_name());
            may_be && like.as_ref() == Some(&file.path)
        };
        let newest = |named: &[String]| {
            let of_set = files
                .iter()
                .filter(is_of)
                .filter(|file| named.iter().any(|name| name == file.path.file_name()));
            of_set.filter_map(|file| file.modified).chain(head.modified).max()
        };
        let taken = match &members {
            Ok(named) => {
                found.newest.extend(newest(named).map(|at| (head.path.clone(), at)));
                named.iter().filter_map(|name| head.path.sibling(name).ok()).collect()
            }
            // Of one that is not taken in nothing is a dump for itself.
            Err(_) => files.iter().filter(is_of).map(|file| file.path.clone()).collect::<Vec<_>>(),
        };
        let beside = files.iter().filter(is_of).filter(|file| !taken.contains(&file.path));
        found.aside.extend(beside.map(|file| file.path.clone()));
        found.members.extend(taken);
        found.heads.insert(head.path.clone(), members);
    }
    Ok(found)
}

/// Nothing for a file that is no manifest of such a set; else the other files, or why they are none.
fn look(directory: &Path, name: &str) -> backstay_engine::Result<Option<Result<Vec<String>, Fate>>> {
    if !aof::may_be_manifest(directory, name)? {
        return Ok(None);
    }
    let named: Vec<String> =
        AofManifest::read(directory, name)?.loaded().map(|file| file.name.clone()).collect();
    let damaged = |reason: String| Ok(Some(Err(Fate::Damaged { reason })));
    if let Some(strange) = named.iter().find(|file| !aof::may_be_member(name, file)) {
        return damaged(format!("{name} names {strange}, which no server calls a file of this set"));
    }
    match named.iter().find(|file| !directory.join(file).is_file()) {
        Some(gone) => damaged(format!("{name} names {gone}, which is not there")),
        None => Ok(Some(Ok(named))),
    }
}

impl Adopting<'_> {
    pub(super) async fn read_append_only(&self, head: &ShelfPath) -> Result<(Read, Vec<DumpMember>)> {
        let found = append_only::read(self.run, &self.request.directory, head).await?;
        let members = append_only::members(&found);
        let own = self.run.unless_cancelled(whole(self.shelf, head)).await?;
        let read = Read {
            layers: Vec::new(),
            inside: DumpInside::Unknown,
            archive: None,
            found: Found::Snapshot(SnapshotFacts::AppendOnly(Box::new(found))),
            timescaledb: None,
            names: None,
            raw_bytes: own.raw_bytes,
            sha256: own.sha256,
        };
        Ok((read, members))
    }

    /// Why a set is not taken in that its server may still be at work in: what is taken in is let go
    /// one day, and must be nobody's by then.
    pub(super) async fn in_use(&self, head: &ShelfPath, members: &[DumpMember]) -> Result<Option<Fate>> {
        let directory = append_only::parent(&self.request.directory, head);
        let files: Vec<(PathBuf, u64)> =
            members.iter().map(|member| (directory.join(&member.file), member.stored_bytes)).collect();
        let look = move || {
            let other = |(path, length): &&(PathBuf, u64)| {
                !std::fs::metadata(path).is_ok_and(|now| now.len() == *length)
            };
            let changed = files.iter().find(other);
            Ok(changed.map(|(path, _)| format!("{} changed while it was read", path.display())))
        };
        let copy = "copy the directory, and run `backstay adopt` on the copy";
        if let Some(reason) = off_thread(look).await? {
            return Ok(Some(Fate::Closed { reason: format!("{reason}: {copy}") }));
        }
        let holder = append_only::holder(&self.request.directory, head).await?;
        Ok(holder.map(|holder| {
            let remedy = if holder.is_seen { copy } else { append_only::LOOK };
            Fate::Closed { reason: format!("{holder}: {remedy}") }
        }))
    }
}
