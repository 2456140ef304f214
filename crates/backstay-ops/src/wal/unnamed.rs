//! A file that has no name yet.
//!
//! It lies on the file system of the place that it is for, and goes with whoever has it open: a
//! process that is killed leaves nothing behind in the directory of a server. Blocks.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use backstay_repo::large_write;
use rustix::fs::{AtFlags, CWD, OFlags};

pub(super) struct Unnamed(File);

impl Unnamed {
    /// # Errors
    ///
    /// Where the file system has no such files, or no room.
    pub fn write(directory: &Path, bytes: &[u8]) -> io::Result<Unnamed> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600).custom_flags(OFlags::TMPFILE.bits() as i32);
        let file = options.open(directory)?;
        large_write::write_all_at(&file, bytes, 0)?;
        Ok(Unnamed(file))
    }

    /// Gives it this name, in the place of whatever has it.
    pub fn name(self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let open = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        Ok(rustix::fs::linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_nowhere_until_it_has_its_name_and_takes_that_of_another() {
        let place = tempfile::TempDir::new().unwrap();
        let there = || std::fs::read_dir(place.path()).unwrap().count();
        let file = Unnamed::write(place.path(), b"one").unwrap();
        drop(Unnamed::write(place.path(), b"two").unwrap());
        assert_eq!(there(), 0);
        let path = place.path().join("RECOVERYXLOG");
        std::fs::write(&path, b"before").unwrap();
        file.name(&path).unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), there()), (b"one".to_vec(), 1));
        assert!(Unnamed::write(&path, b"three").is_err());
    }
}
