//! Second names for files: hard links, copies where there are none, and pointers.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::shelf::ShelfPath;
use crate::store::disk::tree::{Tree, UNFINISHED, file_name, sync};
use crate::store::{Operation, StoreError};

/// The piece in which a file is copied.
const COPY_BYTES: usize = 1 << 20;

fn failed(path: &ShelfPath, error: impl Into<io::Error>) -> StoreError {
    StoreError::from_io(Operation::Put, path, error.into())
}

fn taken(path: &ShelfPath) -> StoreError {
    StoreError::AlreadyExists { object: path.to_string() }
}

pub(super) fn link(tree: &Arc<Tree>, from: &ShelfPath, to: &ShelfPath) -> Result<(), StoreError> {
    // Also says that it is a file and no directory, and no pipe that looks like one.
    let (source, size_bytes) = tree.open_object(Operation::Get, from)?;
    let root = tree.root().map_err(|error| failed(from, error))?;
    let directory = tree.directory_of(to.as_str()).map_err(|error| failed(to, error))?;
    // Through a pointer, the file that it points at: a link to a link would follow it to
    // another file one day.
    match rustix::fs::linkat(root, from.as_str(), &directory, to.file_name(), AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => return sync(&directory).map_err(|error| failed(to, error)),
        Err(Errno::EXIST) => return Err(taken(to)),
        // No links here, none to the files of others, none more to this file, or another
        // file system: the bytes can be had all the same.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::XDEV | Errno::MLINK) => {}
        Err(error) => return Err(failed(to, error)),
    }
    let mut copy = tree.begin(Operation::Put, to)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    while offset < size_bytes {
        let piece = &mut buffer[..COPY_BYTES.min((size_bytes - offset) as usize)];
        source.read_exact_at(piece, offset).map_err(|error| failed(from, error))?;
        copy.write_at(offset, piece)?;
        offset += piece.len() as u64;
    }
    copy.publish()
}

pub(super) fn point(tree: &Arc<Tree>, name: &ShelfPath, target: &ShelfPath) -> Result<(), StoreError> {
    // Makes the shelf and `.unfinished` where they are missing, and draws a name there.
    let unfinished = tree.begin(Operation::Put, name)?;
    let root = tree.root().map_err(|error| failed(name, error))?;
    let directory = tree.directory_of(name.as_str()).map_err(|error| failed(name, error))?;
    match rustix::fs::statat(&directory, name.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) if FileType::from_raw_mode(there.st_mode) != FileType::Symlink => return Err(taken(name)),
        Ok(_) | Err(Errno::NOENT) => {}
        Err(error) => return Err(failed(name, error)),
    }
    let temporary = format!("{UNFINISHED}/{}-link", file_name(unfinished.temporary()));
    rustix::fs::symlinkat(name.relative_to(target), root, &*temporary)
        .map_err(|error| failed(name, error))?;
    let named = rustix::fs::renameat(root, &*temporary, &directory, name.file_name());
    if let Err(error) = named {
        // It has no name that anybody looks at, and is swept otherwise.
        let _ = rustix::fs::unlinkat(root, &*temporary, AtFlags::empty());
        return Err(failed(name, error));
    }
    sync(&directory).map_err(|error| failed(name, error))
}
