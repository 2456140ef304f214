//! The directory that a scratch server keeps to itself, and who sees to its end.
//!
//! Invariant: nobody but its owner may enter the directory, and the socket of a server in it
//! has a path that a socket can have.

mod guard;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};

use crate::{Error, Result};

pub(crate) use self::guard::Guard;

/// The path of a socket has at most 107 bytes. The names below this take half of the rest.
const BASE_MAX: usize = 60;

/// A new directory with a short path.
pub(crate) fn private_directory(owner: Option<(u32, u32)>) -> Result<PathBuf> {
    let base = short(std::env::temp_dir());
    let process = std::process::id();
    let mut number = 0u32;
    let path = loop {
        let path = base.join(format!("backstay-{process}-{number}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => break path,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => return Err(Error::Write { path, source }),
        }
    };
    if let Some((user, group)) = owner {
        rustix::fs::chown(&path, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
            .map_err(|error| Error::Write { path: path.clone(), source: error.into() })?;
    }
    Ok(path)
}

fn short(base: PathBuf) -> PathBuf {
    match base.as_os_str().len() <= BASE_MAX {
        true => base,
        false => Path::new("/tmp").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn two_private_directories_are_two() {
        let (one, two) = (private_directory(None).unwrap(), private_directory(None).unwrap());
        assert_ne!(one, two);
        assert_eq!(fs::metadata(&one).unwrap().mode() & 0o777, 0o700);
        for path in [one, two] {
            fs::remove_dir(path).unwrap();
        }
    }

    #[test]
    fn a_place_for_temporary_files_that_is_too_deep_for_a_socket_is_passed_over() {
        let deep = PathBuf::from(format!("/{}", "deep/".repeat(20)));
        assert_eq!(short(deep), Path::new("/tmp"));
        assert_eq!(short("/var/tmp".into()), Path::new("/var/tmp"));
    }
}
