//! What belongs to a base backup, decided from names alone.
//!
//! These are the server's own rules for `BASE_BACKUP`, so that both ways in give
//! the same set of files. Everything here is a function of a relative path: no
//! file is opened, and a table of examples is the test.

use std::collections::HashSet;

/// What happens to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Copy,
    /// The directory is part of the backup, nothing inside it is.
    Empty,
    /// Not part of the backup.
    Skip,
}

/// Directories that the server fills anew at every start.
const EMPTIED: [&str; 8] = [
    "pg_wal",
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
];

/// Files at the top that describe the running server, an older backup or an
/// older recovery, and would mislead a restored one.
const SKIPPED_AT_TOP: [&str; 10] = [
    "postmaster.pid",
    "postmaster.opts",
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    "backup_manifest.tmp",
    "recovery.signal",
    "standby.signal",
];

/// The file that makes a directory startable: copied last, restored last.
pub const CONTROL_FILE: &str = "global/pg_control";

/// Directories under `pg_wal` that a server expects, by major version.
pub fn wal_directories(major: u32) -> &'static [&'static str] {
    if major >= 17 { &["pg_wal/archive_status", "pg_wal/summaries"] } else { &["pg_wal/archive_status"] }
}

/// The verdict over one path, with what its directory holds decided by
/// [`Unlogged`].
pub fn verdict(path: &str) -> Verdict {
    let name = name_of(path);
    if name.starts_with("pgsql_tmp") || name.starts_with("pg_internal.init") {
        return Verdict::Skip;
    }
    if EMPTIED.contains(&path) {
        return Verdict::Empty;
    }
    // Temporary files of the statistics system and of atomic writes.
    if SKIPPED_AT_TOP.contains(&path) || path == "global/pg_control.backstay-restoring" {
        return Verdict::Skip;
    }
    match relation_directory(path) {
        Some(_) if is_temporary_relation(name) => Verdict::Skip,
        _ => Verdict::Copy,
    }
}

/// A file of a relation: `16384`, `16384.2`, `16384_fsm.1`, `16384_init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationFile {
    pub number: u32,
    pub fork: Fork,
    /// Which of the files of this fork.
    pub segment: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    Main,
    FreeSpaceMap,
    VisibilityMap,
    /// What an unlogged relation is reset to.
    Init,
}

/// Whether a path is a relation's file: by its directory and its name.
pub fn relation_file(path: &str) -> Option<RelationFile> {
    relation_directory(path)?;
    relation_name(name_of(path))
}

fn relation_name(name: &str) -> Option<RelationFile> {
    let (stem, segment) = match name.split_once('.') {
        Some((stem, segment)) => (stem, decimal(segment)?),
        None => (name, 0),
    };
    let (number, fork) = match stem.split_once('_') {
        None => (stem, Fork::Main),
        Some((number, "fsm")) => (number, Fork::FreeSpaceMap),
        Some((number, "vm")) => (number, Fork::VisibilityMap),
        Some((number, "init")) => (number, Fork::Init),
        Some(_) => return None,
    };
    Some(RelationFile { number: decimal(number)?, fork, segment })
}

/// `t3_16384`: of a session's temporary table.
fn is_temporary_relation(name: &str) -> bool {
    let Some((backend, rest)) = name.strip_prefix('t').and_then(|rest| rest.split_once('_')) else {
        return false;
    };
    decimal(backend).is_some() && relation_name(rest).is_some()
}

/// The directory of a path, when relations live in it: `global`, `base/<database>`
/// or `pg_tblspc/<tablespace>/PG_…/<database>`.
fn relation_directory(path: &str) -> Option<&str> {
    let (directory, _) = path.rsplit_once('/')?;
    is_relation_directory(directory).then_some(directory)
}

/// Whether relations live in this directory.
pub fn is_relation_directory(directory: &str) -> bool {
    let mut parts = directory.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("global"), None, ..) => true,
        (Some("base"), Some(database), None, ..) => decimal(database).is_some(),
        (Some("pg_tblspc"), Some(space), Some(version), Some(database), None) => {
            decimal(space).is_some() && version.starts_with("PG_") && decimal(database).is_some()
        }
        _ => false,
    }
}

/// A tablespace's own entry: `pg_tblspc/16385`.
pub fn tablespace_of(path: &str) -> Option<u32> {
    decimal(path.strip_prefix("pg_tblspc/")?)
}

/// The tablespace a path lies in: `pg_tblspc/16385/PG_15_202209061/5/1234`.
pub fn tablespace_containing(path: &str) -> Option<(u32, &str)> {
    let (number, inside) = path.strip_prefix("pg_tblspc/")?.split_once('/')?;
    Some((decimal(number)?, inside))
}

/// Digits only, as the server writes an object's number.
fn decimal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// The unlogged relations of one directory. Recovery resets them to their init
/// fork, so that is all of them that is worth copying.
#[derive(Debug, Default)]
pub struct Unlogged(HashSet<u32>);

impl Unlogged {
    /// From the names in a directory in which relations live.
    pub fn among<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let init = |name| match relation_name(name)? {
            RelationFile { number, fork: Fork::Init, .. } => Some(number),
            _ => None,
        };
        Self(names.filter_map(init).collect())
    }

    /// Whether this name is one of the forks that are left out.
    pub fn drops(&self, name: &str) -> bool {
        match relation_name(name) {
            Some(file) => file.fork != Fork::Init && self.0.contains(&file.number),
            None => false,
        }
    }
}

/// Whether the pages of a file can be checked: only relations have pages.
pub fn has_pages(path: &str) -> bool {
    relation_file(path).is_some()
}

/// The unit of change of a file: the server's page for relations, a large one for
/// the log, which never changes once it is written, and for large strange files.
pub fn unit_of(path: &str, size: u64, page: u32) -> u32 {
    const LARGE_FILE: u64 = 1 << 20;
    const LARGE_UNIT: u32 = 128 << 10;
    if relation_file(path).is_some() {
        page
    } else if path.starts_with("pg_wal/") || size > LARGE_FILE {
        LARGE_UNIT
    } else {
        8192
    }
}

#[cfg(test)]
mod tests;
