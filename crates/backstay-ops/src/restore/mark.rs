//! The mark of a restore: tells half of a restore from somebody's data, and one that
//! still goes on from one that was interrupted.
//!
//! It lies in every place that a restore fills, from the first byte until everything
//! has reached the disk; the one in the data directory lists the others. Then the
//! control file, which waits for its name, says the same for the data directory, so
//! that nothing of ours is in places that can start. Invariant: a place with a mark
//! was empty before, and belongs to no server. A restore holds a lock on its marks for
//! as long as it lives; the kernel lets the locks go however the restore ends. A file
//! system without locks is no reason to fail: there a living restore cannot be told apart.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tracing::debug;

const MARK: &str = "backstay.restoring";
const CONTROL_FILE_UNTIL_SEALED: &str = "global/pg_control.backstay-restoring";
const CONTROL_FILE: &str = "global/pg_control";

/// What a directory that is not empty holds of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Interrupted,
    /// Somebody writes there now.
    Running,
}

pub(super) fn look(directory: &Path) -> Found {
    let is_there = |name: &str| directory.join(name).exists();
    match () {
        () if [MARK, CONTROL_FILE_UNTIL_SEALED].iter().any(|name| is_held(&directory.join(name))) => {
            Found::Running
        }
        () if is_there(CONTROL_FILE) => Found::Nothing,
        () if is_there(MARK) || is_there(CONTROL_FILE_UNTIL_SEALED) => Found::Interrupted,
        () => Found::Nothing,
    }
}

fn is_held(path: &Path) -> bool {
    File::open(path)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK))
}

/// Every place that holds something of a restore which was interrupted, this one
/// first. One that has been cleared since, and may be in use again, has no mark.
pub(super) fn remains(directory: &Path) -> Vec<PathBuf> {
    if look(directory) != Found::Interrupted {
        return Vec::new();
    }
    let listed = fs::read(directory.join(MARK)).unwrap_or_default();
    let spaces = listed.split(|byte| *byte == 0).map(|path| Path::new(OsStr::from_bytes(path)));
    let left = spaces.filter(|space| space.is_absolute() && is_left(space));
    std::iter::once(directory).chain(left).map(Path::to_owned).collect()
}

/// Whether the place of a tablespace holds what an interrupted restore left, and nothing
/// beside it: a restore makes the mark there, and one directory for the server's version.
/// What else lies there came later, and is somebody's.
pub(super) fn is_left(space: &Path) -> bool {
    let ours = |name: &OsStr| name == MARK || name.as_bytes().starts_with(b"PG_");
    let entries = fs::read_dir(space).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    look(space) == Found::Interrupted
        && entries
            .is_ok_and(|entries| entries.len() <= 2 && entries.iter().all(|entry| ours(&entry.file_name())))
}

/// A place whose mark could not be made or taken away.
#[derive(Debug)]
pub(super) struct NotMarked {
    pub place: PathBuf,
    pub source: io::Error,
}

/// Held by a restore that goes on.
pub(super) struct Mark {
    directory: PathBuf,
    spaces: Vec<PathBuf>,
    _locks: Vec<File>,
}

impl Mark {
    /// Fails with `AlreadyExists` where another restore was faster, and leaves no mark
    /// of its own then.
    pub(super) fn set(directory: &Path, spaces: Vec<PathBuf>) -> Result<Mark, NotMarked> {
        // Before the others: what lists them must not be missing where they are.
        let list: Vec<&[u8]> = spaces.iter().map(|space| space.as_os_str().as_bytes()).collect();
        let mut locks = vec![make(directory, &list.join(&0))?];
        for (number, space) in spaces.iter().enumerate() {
            match make(space, b"") {
                Ok(lock) => locks.push(lock),
                Err(error) => {
                    let ours = spaces[..number].iter().map(PathBuf::as_path);
                    for place in ours.chain([directory]) {
                        let _ = fs::remove_file(place.join(MARK));
                    }
                    return Err(error);
                }
            }
        }
        Ok(Mark { directory: directory.to_owned(), spaces, _locks: locks })
    }

    /// All is on the disk: the control file says the rest of it. The marks are gone for
    /// good before it gets its name.
    pub(super) fn hand_over(mut self) -> Result<Mark, NotMarked> {
        let failed = |place: &Path, source| NotMarked { place: place.to_owned(), source };
        // Some file systems give a lock to those only who may write.
        let file = OpenOptions::new().write(true).open(self.directory.join(CONTROL_FILE_UNTIL_SEALED));
        let file = file.map_err(|source| failed(&self.directory, source))?;
        lock(&file, &self.directory);
        // The one that lists the others goes last.
        for place in self.spaces.iter().chain([&self.directory]) {
            let take_away = || {
                fs::remove_file(place.join(MARK))?;
                File::open(place)?.sync_all()
            };
            take_away().map_err(|source| failed(place, source))?;
        }
        self._locks = vec![file];
        Ok(self)
    }
}

fn make(place: &Path, content: &[u8]) -> Result<File, NotMarked> {
    let failed = |source| NotMarked { place: place.to_owned(), source };
    let mut file = File::create_new(place.join(MARK)).map_err(failed)?;
    lock(&file, place);
    file.write_all(content).map_err(failed)?;
    Ok(file)
}

fn lock(file: &File, directory: &Path) {
    let locked = match flock(file, FlockOperation::NonBlockingLockExclusive) {
        // Somebody looks whether we live, for a moment: nobody else holds a lock on it.
        Err(Errno::WOULDBLOCK) => flock(file, FlockOperation::LockExclusive),
        other => other,
    };
    if let Err(error) = locked {
        debug!(directory = %directory.display(), %error, "the mark of the restore cannot be locked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(directory: &Path) -> Result<Mark, NotMarked> {
        Mark::set(directory, Vec::new())
    }

    #[test]
    fn a_restore_that_goes_on_is_told_from_one_that_was_interrupted() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        assert_eq!(look(directory), Found::Nothing);
        let mark = set(directory).unwrap();
        assert_eq!(look(directory), Found::Running);
        let second = set(directory).map(drop).unwrap_err();
        assert_eq!(second.source.kind(), io::ErrorKind::AlreadyExists);
        drop(mark);
        assert_eq!(look(directory), Found::Interrupted);

        fs::remove_file(directory.join(MARK)).unwrap();
        let mark = set(directory).unwrap();
        fs::create_dir(directory.join("global")).unwrap();
        fs::write(directory.join(CONTROL_FILE_UNTIL_SEALED), "").unwrap();
        let mark = mark.hand_over().unwrap();
        assert!(!directory.join(MARK).exists());
        assert_eq!(look(directory), Found::Running, "it gets its name");
        drop(mark);
        assert_eq!(look(directory), Found::Interrupted);
        fs::write(directory.join(CONTROL_FILE), "").unwrap();
        assert_eq!(look(directory), Found::Nothing, "it is somebody's cluster");
    }

    #[test]
    fn a_place_that_somebody_uses_since_is_never_named() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        drop(make(place, b"").unwrap());
        assert!(is_left(place));
        fs::create_dir(place.join("PG_15_202209061")).unwrap();
        assert!(is_left(place));
        fs::create_dir(place.join("PG_16_202307071")).unwrap();
        assert!(!is_left(place), "a tablespace of another version");
        fs::remove_dir(place.join("PG_16_202307071")).unwrap();
        fs::write(place.join("notes.txt"), "").unwrap();
        assert!(!is_left(place), "somebody's file");
    }

    fn house() -> (tempfile::TempDir, [PathBuf; 3]) {
        let root = tempfile::tempdir().unwrap();
        let places = ["data", "one place", "another"].map(|name| root.path().join(name));
        places.iter().for_each(|place| fs::create_dir(place).unwrap());
        fs::create_dir(places[0].join("global")).unwrap();
        fs::write(places[0].join(CONTROL_FILE_UNTIL_SEALED), "").unwrap();
        (root, places)
    }

    #[test]
    fn the_remains_are_every_place_that_still_has_its_mark() {
        let (_root, [data, one, another]) = house();
        let mark = Mark::set(&data, vec![one.clone(), another.clone()]).unwrap();
        assert_eq!(remains(&data), Vec::<PathBuf>::new(), "it goes on");
        assert_eq!(look(&one), Found::Running);
        drop(mark);
        assert_eq!(remains(&data), [data.clone(), one.clone(), another.clone()]);
        // Somebody has cleared it, and another restore has made a server's of it.
        fs::remove_file(one.join(MARK)).unwrap();
        fs::create_dir(one.join("PG_15_202209061")).unwrap();
        assert_eq!(remains(&data), [data, another]);
    }

    #[test]
    fn no_mark_stays_in_what_can_start_or_where_another_was_faster() {
        let (_root, [data, one, another]) = house();
        let spaces = vec![one.clone(), another.clone()];
        let marks = || [&data, &one, &another].map(|place| place.join(MARK).exists());
        let mark = Mark::set(&data, spaces.clone()).unwrap();
        let held = mark.hand_over().unwrap();
        assert_eq!(marks(), [false; 3]);
        drop(held);
        let faster = set(&another).unwrap();
        let error = Mark::set(&data, spaces).map(drop).unwrap_err();
        assert_eq!((&error.place, error.source.kind()), (&another, io::ErrorKind::AlreadyExists));
        assert_eq!(marks(), [false, false, true]);
        drop(faster);
    }
}
