//! Makes the entries of a backup, each new, each with its owner and mode.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use backstay_model::Fault;
use backstay_model::parts::{FileSpec, ParentFile, PartKind, PartTarget, PartWriter};
use rustix::fs::{Advice, FallocateFlags, Gid, Uid};
use rustix::io::Errno;

use super::super::rules;
use super::PlacePlan;
use super::stretch::Stretches;
use crate::{Error, Result};

/// Files of at least as many bytes get their space when they are made.
const RESERVED_FROM: u64 = 1 << 20;
/// `BTRFS_SUPER_MAGIC` of `linux/magic.h`.
const BTRFS_MAGIC: rustix::fs::FsWord = 0x9123_683e;

/// What `pg_control` is called until everything else is on the disk.
pub(super) const CONTROL_FILE_UNTIL_SEALED: &str = "global/pg_control.backstay-restoring";

/// Mode of directories that nobody recorded: the server refuses to start on a
/// directory that others may read.
const DIRECTORY_MODE: u32 = 0o700;
/// Mode of directories above the data, where they have to be made.
const ABOVE_MODE: u32 = 0o755;

/// A restore that is being written.
pub struct PlaceTarget {
    pub(super) plan: PlacePlan,
    /// Only root may give files away.
    pub(super) may_give_away: bool,
    /// Every place, open since before the first byte: the kernel reports a failed
    /// write-back once, to those who had the file system open when it happened.
    pub(super) places: Vec<(PathBuf, File)>,
}

impl PlaceTarget {
    pub(super) fn new(plan: PlacePlan) -> Result<PlaceTarget> {
        let may_give_away = rustix::process::geteuid().is_root();
        let mut target = PlaceTarget { plan, may_give_away, places: Vec::new() };
        let mut opened = Vec::new();
        for place in target.plan.places() {
            let failed = |source| Error::TargetUnusable { path: place.to_owned(), source };
            // The directories above are nobody's secret: closed, they would keep the
            // owner of the data out of what we are about to give him.
            if let Some(above) = place.parent() {
                DirBuilder::new().recursive(true).mode(ABOVE_MODE).create(above).map_err(failed)?;
            }
            DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(place).map_err(failed)?;
            opened.push((place.to_owned(), File::open(place).map_err(failed)?));
            target.adopt_place(place)?;
        }
        target.places = opened;
        Ok(target)
    }

    /// The recorded owner of the whole, on a directory that is no part of it.
    fn adopt_place(&self, place: &Path) -> Result<()> {
        let failed = |source| Error::TargetUnusable { path: place.to_owned(), source };
        let mode = self.plan.owner.as_ref().map_or(DIRECTORY_MODE, |owner| owner.mode);
        // The server accepts 0700 and 0750.
        fs::set_permissions(place, Permissions::from_mode(mode & 0o750 | DIRECTORY_MODE)).map_err(failed)?;
        match &self.plan.owner {
            Some(owner) => self.give_away(place, owner.user_id, owner.group_id),
            None => Ok(()),
        }
    }

    /// Gives every directory to the owner of the data, when the backup did not
    /// know one from the beginning.
    pub(super) fn give_places_to(&self, user_id: u32, group_id: u32) -> Result<()> {
        self.plan.places().try_for_each(|place| self.give_away(place, user_id, group_id))
    }

    pub(super) fn give_away(&self, path: &Path, user_id: u32, group_id: u32) -> Result<()> {
        if !self.may_give_away {
            return Ok(());
        }
        rustix::fs::chown(path, Some(Uid::from_raw(user_id)), Some(Gid::from_raw(group_id)))
            .map_err(|error| Error::Write { path: path.to_owned(), source: error.into() })
    }

    /// Where a part comes to lie.
    pub(super) fn real(&self, path: &str) -> Result<PathBuf> {
        let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || path.is_empty() {
            let reason = "a part of the backup has a path that leads outside".to_owned();
            return Err(Error::Malformed { path: path.into(), reason });
        }
        if path == rules::CONTROL_FILE {
            return Ok(self.plan.directory.join(CONTROL_FILE_UNTIL_SEALED));
        }
        if let Some((number, inside)) = rules::tablespace_containing(path)
            && let Some(location) = self.plan.tablespaces.get(&number)
        {
            return Ok(location.join(inside));
        }
        Ok(self.plan.directory.join(path))
    }

    fn make(&self, file: &ParentFile) -> Result<Option<Box<dyn PartWriter>>> {
        let spec = &file.spec;
        let linked = rules::tablespace_of(&spec.path).and_then(|oid| self.plan.tablespaces.get(&oid));
        if let Some(location) = linked {
            self.link(spec, location)?;
            return Ok(None);
        }
        let real = self.real(&spec.path)?;
        match &spec.kind {
            PartKind::Directory => self.make_directory(&real, spec).map(|()| None),
            PartKind::Symlink(target) => {
                self.make_parents(&real, spec)?;
                let failed = |source| Error::Write { path: real.clone(), source };
                symlink(target, &real).map_err(failed)?;
                Ok(None)
            }
            PartKind::File(shape) => {
                let file = self.make_file(&real, spec)?;
                let failed = |source| Error::Write { path: real.clone(), source };
                give_length(&file, shape.size).map_err(failed)?;
                self.dress(&file, &real, spec)?;
                Ok(Some(Box::new(Placed { file, real, stretches: Stretches::of(shape.size) })))
            }
        }
    }

    /// `pg_tblspc/16385`, which leads to where the tablespace is now.
    fn link(&self, spec: &FileSpec, location: &Path) -> Result<()> {
        let link = self.plan.directory.join(&spec.path);
        self.make_parents(&link, spec)?;
        symlink(location, &link).map_err(|source| Error::Write { path: link.clone(), source })?;
        if self.plan.owner.is_none() {
            self.give_away(location, spec.user_id, spec.group_id)?;
        }
        Ok(())
    }

    fn make_file(&self, real: &Path, spec: &FileSpec) -> Result<File> {
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(real);
        let opened = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_parents(real, spec)?;
                create()
            }
            other => other,
        };
        opened.map_err(|source| Error::Write { path: real.to_owned(), source })
    }

    fn make_directory(&self, real: &Path, spec: &FileSpec) -> Result<()> {
        self.make_parents(real, spec)?;
        let failed = |source| Error::Write { path: real.to_owned(), source };
        match fs::create_dir(real) {
            Ok(()) => {}
            // A part inside it came first.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && real.is_dir() => {}
            Err(source) => return Err(failed(source)),
        }
        fs::set_permissions(real, Permissions::from_mode(spec.mode & 0o7777)).map_err(failed)?;
        self.give_away(real, spec.user_id, spec.group_id)
    }

    /// Directories above a part that have not come, with the owner of the part.
    fn make_parents(&self, real: &Path, spec: &FileSpec) -> Result<()> {
        let Some(parent) = real.parent() else { return Ok(()) };
        if parent.is_dir() {
            return Ok(());
        }
        self.make_parents(parent, spec)?;
        match DirBuilder::new().mode(DIRECTORY_MODE).create(parent) {
            Ok(()) => self.give_away(parent, spec.user_id, spec.group_id),
            // Another thread was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(source) => Err(Error::Write { path: parent.to_owned(), source }),
        }
    }

    fn dress(&self, file: &File, real: &Path, spec: &FileSpec) -> Result<()> {
        let failed = |source| Error::Write { path: real.to_owned(), source };
        let mode = spec.mode & 0o7777;
        if mode != 0o600 {
            file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        }
        if self.may_give_away {
            let (user, group) = (Uid::from_raw(spec.user_id), Gid::from_raw(spec.group_id));
            rustix::fs::fchown(file, Some(user), Some(group)).map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }
}

impl PartTarget for PlaceTarget {
    fn create(&self, file: &ParentFile) -> Result<Option<Box<dyn PartWriter>>, Fault> {
        self.make(file).map_err(Fault::new)
    }
}

/// Gives an empty file its length.
///
/// A large one gets its space with it: what is written in no order then lies in one
/// piece on the disk, the file system does not account for each page, and a disk that
/// is too full says so before the bytes come. Not every file system can do it, and
/// btrfs compresses nothing in space that was reserved.
fn give_length(file: &File, length: u64) -> io::Result<()> {
    let compresses = || rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type == BTRFS_MAGIC);
    if length < RESERVED_FROM || compresses() {
        return file.set_len(length);
    }
    let reserve = || rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length);
    match rustix::io::retry_on_intr(reserve) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(length),
        other => other.map_err(Into::into),
    }
}

struct Placed {
    file: File,
    real: PathBuf,
    stretches: Stretches,
}

impl Placed {
    /// Starts the write-back of a range without waiting for it, so that the disk works
    /// while we decompress; left alone, everything would wait for the one `syncfs` of the
    /// end. It is advice: whether it was taken does not matter, and an error of the
    /// write-back itself comes back from `syncfs`.
    fn push(&self, range: Range<u64>) {
        // No length would mean the rest of the file.
        if let length @ Some(_) = NonZeroU64::new(range.end - range.start) {
            let _ = rustix::fs::fadvise(&self.file, range.start, length, Advice::DontNeed);
        }
    }
}

impl PartWriter for Placed {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|source| Fault::new(Error::Write { path: self.real.clone(), source }))?;
        self.stretches.written(offset, bytes.len() as u64, |complete| self.push(complete));
        Ok(())
    }

    /// Durability comes for all files at once, in `seal`.
    fn finish(&self) -> Result<(), Fault> {
        self.stretches.rest(|begun| self.push(begun));
        Ok(())
    }
}
