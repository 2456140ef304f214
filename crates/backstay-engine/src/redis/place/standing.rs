//! The directory of a server that is stopped: whether it is one, and whether a server is at work in
//! it after all.
//!
//! A server has its directory as its working directory, and its append-only files open. Both are
//! seen of every process that this user may look into, in containers of this machine too. A server
//! that this user may not look into is taken for one that works there. What another machine does
//! in the same directory cannot be seen here.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{FileNames, UNFINISHED, room};
use crate::redis::error::RedisError;
use crate::{Error, Result};

/// What the programs of servers are called, wherever they lie.
const SERVERS: [&str; 3] = ["redis-server", "valkey-server", "keydb-server"];

/// Whether it is empty: then nothing has to be set aside.
pub(super) fn is_empty(directory: &Path) -> Result<bool> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(Error::TargetUnusable { path: directory.to_owned(), source }),
    }
}

/// Whether what lies there can be set aside, with so many bytes more beside it. Changes nothing.
///
/// # Errors
///
/// [`RedisError::NothingToSetAside`], [`RedisError::Served`], [`RedisError::MayBeServed`],
/// [`RedisError::RestoreLeft`], [`Error::TargetTooSmall`], [`Error::TargetUnusable`].
pub fn check_stopped(directory: &Path, names: &FileNames, needed: u64) -> Result<()> {
    if is_empty(directory)? {
        return room(directory, needed);
    }
    let unfinished = directory.join(UNFINISHED);
    if unfinished.exists() {
        return Err(RedisError::RestoreLeft { path: unfinished }.into());
    }
    let own = [&names.snapshot, &names.append_only_directory, &names.append_only];
    if !own.iter().any(|name| directory.join(name).exists()) {
        let names = own.map(Clone::clone).to_vec();
        return Err(RedisError::NothingToSetAside { directory: directory.to_owned(), names }.into());
    }
    refuse_served(directory, names)?;
    room(directory, needed)
}

pub(super) fn refuse_served(directory: &Path, names: &FileNames) -> Result<()> {
    let unusable = |source| Error::TargetUnusable { path: directory.to_owned(), source };
    let place = inode(&fs::metadata(directory).map_err(unusable)?);
    let files = files_of(directory, names);
    let processes = fs::read_dir("/proc").map_err(unusable)?;
    for entry in processes.filter_map(io::Result::ok) {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if process == std::process::id() {
            continue;
        }
        let of = || directory.to_owned();
        match look_at(&entry.path(), place, &files) {
            Seen::Elsewhere => {}
            Seen::There(program) => {
                return Err(RedisError::Served { directory: of(), process, program }.into());
            }
            Seen::Closed(program) => {
                return Err(RedisError::MayBeServed { directory: of(), process, program }.into());
            }
        }
    }
    Ok(())
}

/// A process that works with files, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub process: u32,
    pub program: String,
    /// Else it is a server that this user may not look into, and that could have written them.
    pub is_seen: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, into: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder { process, program, is_seen } = self;
        match is_seen {
            true => write!(into, "process {process} ({program}) has files of it open"),
            false => write!(
                into,
                "whether process {process} ({program}) has files of it open cannot be seen: it is of another user"
            ),
        }
    }
}

/// A process that has one of these files open, as a server has the last one that it appends to; or
/// else a server of which that cannot be seen. Blocks.
///
/// # Errors
///
/// [`Error::TargetUnusable`] where nothing is to be seen of processes.
pub fn holder(files: &[PathBuf]) -> Result<Option<Holder>> {
    let there: Vec<Metadata> = files.iter().filter_map(|path| fs::metadata(path).ok()).collect();
    let known: HashSet<Inode> = there.iter().map(inode).collect();
    let mut unseen = None;
    let place = Path::new("/proc");
    let processes =
        fs::read_dir(place).map_err(|source| Error::TargetUnusable { path: place.to_owned(), source })?;
    for entry in processes.filter_map(io::Result::ok) {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if process == std::process::id() {
            continue;
        }
        let holder = |is_seen| Holder { process, program: called(&entry.path()), is_seen };
        match has_open(&entry.path(), &known) {
            Ok(true) => return Ok(Some(holder(true))),
            Err(error) if is_closed(&error) && is_server(&entry.path()) => {
                let may_write = fs::metadata(entry.path()).is_ok_and(|of| may_write(of.uid(), &there));
                unseen = unseen.or(may_write.then(|| holder(false)));
            }
            _ => {}
        }
    }
    Ok(unseen)
}

/// Whether a process of this user could have opened one of these files to write into it, as a server
/// opens its own. Next to a server of another user copies are taken in and let go all the same.
fn may_write(user: u32, files: &[Metadata]) -> bool {
    const BY_OTHERS: u32 = 0o022;
    files.iter().any(|file| user == 0 || file.uid() == user || file.mode() & BY_OTHERS != 0)
}

fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn called(process: &Path) -> String {
    fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned()
}

fn is_server(process: &Path) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    // Servers write their address behind their name; one that a loader started comes behind that.
    let line = String::from_utf8_lossy(&line).into_owned();
    let words = line.split(['\0', ' ']).map(|word| word.rsplit('/').next().unwrap_or(word));
    words.chain([called(process).as_str()]).any(|word| SERVERS.contains(&word))
}

fn has_open(process: &Path, files: &HashSet<Inode>) -> io::Result<bool> {
    let mut open =
        fs::read_dir(process.join("fd"))?.filter_map(|entry| fs::metadata(entry.ok()?.path()).ok());
    Ok(open.any(|file| files.contains(&inode(&file))))
}

/// The device and the number of a file on it: paths differ within a container.
type Inode = (u64, u64);

fn inode(metadata: &Metadata) -> Inode {
    (metadata.dev(), metadata.ino())
}

/// What lies there under the names of a server.
fn files_of(directory: &Path, names: &FileNames) -> HashSet<Inode> {
    let tops = [&names.snapshot, &names.append_only].map(|name| directory.join(name));
    let within = fs::read_dir(directory.join(&names.append_only_directory)).into_iter().flatten();
    let within = within.filter_map(|entry| Some(entry.ok()?.path()));
    let all = tops.into_iter().chain(within).filter_map(|path| fs::metadata(path).ok());
    all.map(|metadata| inode(&metadata)).collect()
}

enum Seen {
    Elsewhere,
    There(String),
    /// It is a server by its name, and more is not to be seen of it.
    Closed(String),
}

/// One that ends meanwhile is not there.
fn look_at(process: &Path, place: Inode, files: &HashSet<Inode>) -> Seen {
    let (called, is_server) = (called(process), is_server(process));
    match fs::metadata(process.join("cwd")) {
        // A shell of somebody who looks around may have it as well.
        Ok(there) if inode(&there) == place && is_server => {
            return Seen::There(called);
        }
        Err(error) if is_closed(&error) && is_server => return Seen::Closed(called),
        _ => {}
    }
    match has_open(process, files) {
        Ok(true) => Seen::There(called),
        Ok(false) => Seen::Elsewhere,
        Err(error) if is_closed(&error) && is_server => Seen::Closed(called),
        Err(_) => Seen::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_server_of_another_user_may_have_what_it_could_have_opened_to_write() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let seen = || [fs::metadata(file.path()).unwrap()];
        let own = seen()[0].uid();
        let other = own + 1;
        assert!(may_write(0, &seen()) && may_write(own, &seen()) && !may_write(other, &seen()));
        for (mode, is_open) in [(0o644, false), (0o664, true), (0o602, true)] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(may_write(other, &seen()), is_open, "{mode:o}");
        }
        assert!(!may_write(0, &[]));
    }
}
