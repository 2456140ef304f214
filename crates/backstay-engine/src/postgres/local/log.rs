//! The log from start to stop, taken along so that a backup restores alone.
//!
//! On a primary the server ends a backup by switching to a new segment, so the
//! last one is complete. A standby cannot do that: its last segment goes on, and
//! behind the stop lies log of others or of years ago, which is replaced by zeros
//! so that replay ends exactly there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use backstay_model::{Lsn, TimelineId};

use super::file::{Content, OpenFile};
use crate::{Error, Result};

/// Which part of the log.
pub(super) struct LogRange {
    pub(super) timeline: TimelineId,
    pub(super) start: Lsn,
    pub(super) stop: Lsn,
    pub(super) segment_size: u64,
    /// The stop is in the middle of a segment that is still written to.
    pub(super) from_standby: bool,
}

impl LogRange {
    /// The numbers of the segments. A stop at the very beginning of a segment
    /// needs nothing of it.
    pub(super) fn segments(&self) -> std::ops::RangeInclusive<u64> {
        let last = Lsn(self.stop.0.saturating_sub(1)).segment(self.segment_size);
        self.start.segment(self.segment_size)..=last
    }

    /// Opens one segment in the directory `pg_wal`.
    pub(super) fn open(&self, pg_wal: &Path, segment: u64) -> Result<OpenFile> {
        let name = self.timeline.segment_name(segment, self.segment_size);
        let real = pg_wal.join(&name);
        let file = match File::open(&real) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::WalMissing { segment: name });
            }
            Err(source) => return Err(Error::Read { path: real, source }),
        };
        let size = file.metadata().map_err(|source| Error::Read { path: real.clone(), source })?.len();
        if size != self.segment_size {
            let reason = format!("{size} bytes instead of {}", self.segment_size);
            return Err(Error::Malformed { path: real, reason });
        }
        let start = Lsn(segment * self.segment_size);
        let zero_after = if self.from_standby { self.stop - start } else { u64::MAX };
        Ok(OpenFile {
            file,
            path: format!("pg_wal/{name}"),
            real,
            size,
            content: Content::Log { segment: name, start, end: self.stop, zero_after },
        })
    }

    /// The history files of this timeline and those before it, by name.
    pub(super) fn histories(&self, pg_wal: &Path) -> Result<Vec<(String, PathBuf)>> {
        let failed = |source| Error::Read { path: pg_wal.to_owned(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(pg_wal).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some(timeline) = name.strip_suffix(".history") else { continue };
            let number = if timeline.len() == 8 { u32::from_str_radix(timeline, 16).ok() } else { None };
            if number.is_some_and(|number| number <= self.timeline.0) {
                found.push((name, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1 << 24;

    fn range(start: u64, stop: u64) -> LogRange {
        LogRange {
            timeline: TimelineId(2),
            start: Lsn(start),
            stop: Lsn(stop),
            segment_size: SEGMENT,
            from_standby: true,
        }
    }

    #[test]
    fn a_stop_at_a_boundary_needs_nothing_of_the_next_segment() {
        assert_eq!(range(0x300_0028, 0x300_0138).segments(), 3..=3);
        assert_eq!(range(0x300_0028, 0x400_0000).segments(), 3..=3);
        assert_eq!(range(0x300_0028, 0x400_0001).segments(), 3..=4);
    }

    #[test]
    fn histories_of_later_timelines_are_not_ours() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["00000002.history", "00000003.history", "000000020000000000000003", "x.history"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let names: Vec<String> =
            range(0, 1).histories(directory.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["00000002.history"]);
    }

    #[test]
    fn a_missing_segment_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = range(0x300_0028, 0x300_0138).open(directory.path(), 3).err().unwrap();
        assert!(error.to_string().contains("000000020000000000000003"), "{error}");
        fs::write(directory.path().join("000000020000000000000003"), "short").unwrap();
        let error = range(0x300_0028, 0x300_0138).open(directory.path(), 3).err().unwrap();
        assert!(error.to_string().contains("5 bytes"), "{error}");
    }
}
