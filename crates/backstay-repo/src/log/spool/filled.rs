//! Files that have their full length before they have their bytes.
//!
//! A commit that waits for this spool waits for a flush. Of a file that grew, the system flushes
//! the new length as well, through the journal of the file system; of one that is written over,
//! the bytes alone. So where somebody waits, the file that grows is filled with zeros first, and a
//! mark beside the files says where its bytes end.
//!
//! Invariant: the mark is right whenever this machine has not crashed since, for it is written
//! behind the bytes and never flushed. After a crash of the machine nobody believes it: then the
//! end is found in the bytes, as it always is ([`SpooledSpan::is_certain`](super::SpooledSpan)).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use backstay_model::LogId;

use super::path_of;

const MARK: &str = "growing";
const MARK_BYTES: usize = 96;
const PART: usize = 1 << 20;

/// Where the bytes of the file that grows end.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
}

impl Mark {
    pub fn open(directory: &Path) -> io::Result<Mark> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join(MARK))?;
        Ok(Mark { file })
    }

    pub fn set(&self, log: &LogId, start: u64, end: u64) -> io::Result<()> {
        let text = format!("{} {} {start:016X} {end:016X}", log.lineage, log.timeline);
        let mut bytes = [b' '; MARK_BYTES];
        let place = bytes.get_mut(..text.len()).ok_or(io::ErrorKind::InvalidInput)?;
        place.copy_from_slice(text.as_bytes());
        self.file.write_all_at(&bytes, 0)
    }

    /// Says nothing any more.
    pub fn clear(&self) -> io::Result<()> {
        self.file.write_all_at(&[b' '; MARK_BYTES], 0)
    }

    fn get(&self) -> Option<((LogId, u64), u64)> {
        let mut bytes = [0; MARK_BYTES];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        let text = std::str::from_utf8(&bytes).ok()?;
        let mut words = text.split_ascii_whitespace();
        let log = LogId { lineage: words.next()?.to_owned(), timeline: words.next()?.to_owned() };
        let mut position = || u64::from_str_radix(words.next()?, 16).ok();
        Some(((log, position()?), position()?))
    }
}

/// Takes from what was found by the lengths of files what is not of the log, where `is_certain`.
/// The mark says nothing afterwards: whoever goes on may not use one.
pub(super) fn cut_at_mark(
    directory: &Path,
    files: &mut BTreeMap<(LogId, u64), u64>,
    is_certain: bool,
) -> io::Result<()> {
    let mark = match OpenOptions::new().read(true).write(true).open(directory.join(MARK)) {
        Ok(file) => Mark { file },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let marked = mark.get().filter(|_| is_certain);
    if let Some((key, marked)) = marked
        && let Some(end) = files.get_mut(&key).filter(|end| marked < **end)
    {
        // For good, before the mark says nothing.
        let path = path_of(directory, &key.0, key.1);
        if marked <= key.1 {
            files.remove(&key);
            std::fs::remove_file(path)?;
        } else {
            *end = marked;
            let file = OpenOptions::new().write(true).open(path)?;
            file.set_len(marked - key.1)?;
            file.sync_all()?;
        }
    }
    mark.clear()
}

/// Room that is left for others.
const LEFT_BYTES: u64 = 64 << 20;

/// Gives a file this length, with zeros behind `from`, for good; the length it had where there is
/// little room.
pub(super) fn fill(file: &File, from: u64, to: u64) -> io::Result<bool> {
    let disk = rustix::fs::fstatvfs(file)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < to - from + LEFT_BYTES {
        return Ok(false);
    }
    let zeros = vec![0; PART.min((to - from) as usize)];
    let filled = (|| {
        let mut at = from;
        while at < to {
            let part = zeros.len().min((to - at) as usize);
            file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
        file.sync_all()
    })();
    let Err(error) = filled else { return Ok(true) };
    // Whatever it was, no zeros stay behind the bytes.
    file.set_len(from)?;
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Ok(false),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use backstay_model::LogSpan;
    use tempfile::TempDir;

    use super::super::LogSpool;
    use super::*;

    const CUT: u64 = 4096;

    fn log() -> LogId {
        LogId { lineage: "65F0A1B2C3D4E5F6".to_owned(), timeline: "00000001".to_owned() }
    }

    fn bytes(start: u64, end: u64) -> Vec<u8> {
        (start..end).map(|at| (at % 251) as u8 + 1).collect()
    }

    /// What a process that is killed now leaves to the next.
    fn as_left(place: &TempDir) -> (TempDir, LogSpool) {
        let copy = TempDir::new().unwrap();
        let all = format!("{}/.", place.path().display());
        assert!(Command::new("cp").args(["-a", &all]).arg(copy.path()).status().unwrap().success());
        let spool = LogSpool::open(copy.path(), CUT).unwrap();
        (copy, spool)
    }

    fn spans(spool: &LogSpool) -> Vec<(u64, u64)> {
        spool.spans().into_iter().map(|one| (one.span.start, one.span.end)).collect()
    }

    fn lengths(place: &TempDir) -> Vec<u64> {
        let directory = place.path().join(&log().lineage).join(&log().timeline);
        let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().flatten().collect();
        files.sort_by_key(std::fs::DirEntry::file_name);
        files.iter().map(|file| file.metadata().unwrap().len()).collect()
    }

    #[test]
    fn a_killed_process_leaves_its_bytes_and_none_of_the_zeros_behind_them() {
        let place = TempDir::new().unwrap();
        let mut spool = LogSpool::open(place.path(), CUT).unwrap();
        spool.fill_ahead(true).unwrap();
        let mut at = 100;
        for length in [1, 500, 3000, 495, 1, 5000, 7] {
            spool.append(&log(), at, &bytes(at, at + length)).unwrap();
            spool.flush().unwrap();
            at += length;
            assert!(lengths(&place).last().unwrap().is_multiple_of(CUT - 100) || lengths(&place).len() > 1);
            let (copy, mut left) = as_left(&place);
            assert_eq!(spans(&left), [(100, at)]);
            assert_eq!(left.read(&log(), LogSpan { start: 100, end: at }).unwrap(), bytes(100, at));
            assert_eq!(lengths(&copy).iter().sum::<u64>(), at - 100);
            left.append(&log(), at, &bytes(at, at + 10)).unwrap();
            assert_eq!(left.read(&log(), LogSpan { start: 100, end: at + 10 }).unwrap(), bytes(100, at + 10));
        }
        // Behind a gap another file grows, and the one before ends where its bytes end.
        spool.append(&log(), 50_000, &bytes(50_000, 50_010)).unwrap();
        let (_copy, left) = as_left(&place);
        assert_eq!(spans(&left), [(100, at), (50_000, 50_010)]);
        drop(spool);
        assert_eq!(lengths(&place), [CUT - 100, CUT, at - 2 * CUT, 10]);
    }

    #[test]
    fn one_that_was_made_and_has_no_bytes_yet_is_nothing() {
        let place = TempDir::new().unwrap();
        let mut spool = LogSpool::open(place.path(), CUT).unwrap();
        spool.fill_ahead(true).unwrap();
        spool.append(&log(), 0, &bytes(0, 10)).unwrap();
        spool.mark.as_ref().unwrap().set(&log(), 0, 0).unwrap();
        let (copy, left) = as_left(&place);
        assert_eq!(spans(&left), []);
        assert!(lengths(&copy).is_empty());
    }

    #[test]
    fn after_a_crash_of_the_machine_nobody_believes_the_mark() {
        let place = TempDir::new().unwrap();
        let mut spool = LogSpool::open(place.path(), CUT).unwrap();
        spool.fill_ahead(true).unwrap();
        spool.append(&log(), 0, &bytes(0, 10)).unwrap();
        std::fs::write(place.path().join("boot"), "another boot\n").unwrap();
        let (_copy, left) = as_left(&place);
        assert_eq!((spans(&left), left.spans()[0].is_certain), (vec![(0, CUT)], false));
    }

    #[test]
    fn whoever_goes_on_without_a_mark_keeps_what_it_takes() {
        let place = TempDir::new().unwrap();
        let mut spool = LogSpool::open(place.path(), CUT).unwrap();
        spool.fill_ahead(true).unwrap();
        spool.append(&log(), 0, &bytes(0, 100)).unwrap();
        drop(spool);
        let mut spool = LogSpool::open(place.path(), CUT).unwrap();
        spool.append(&log(), 100, &bytes(100, 200)).unwrap();
        let (_copy, left) = as_left(&place);
        assert_eq!(spans(&left), [(0, 200)]);
    }
}
