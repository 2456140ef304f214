//! `pg_control`: the file that says which cluster a directory is, and how far it is.
//!
//! Its layout differs between versions only behind the fields that are read here.
//! The server writes it in place, so a reader can see half of a write; the file's
//! own checksum tells, and then it is read again.

use std::path::Path;

use backstay_model::{Lsn, TimelineId};
use crc_fast::crc32_iscsi;

use crate::{Error, Result};

/// What we read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlFile {
    pub system_identifier: u64,
    /// Names the directories of this version inside tablespaces.
    pub catalog_version: u32,
    /// Where the last checkpoint's replay begins.
    pub redo: Lsn,
    pub timeline: TimelineId,
}

/// The checksum lies behind the fields, at a place that the version decides: 288
/// in all that are supported, and near it in others. It is looked for, so that
/// another word in the middle of the file makes no difference here.
const CHECKSUM_PLACES: std::ops::Range<usize> = 256..512;

/// A write takes microseconds; so many reads in a row that all fall into one
/// mean that the file is damaged.
const READS: usize = 200;

impl ControlFile {
    /// `None` when the checksum is nowhere right.
    pub fn parse(bytes: &[u8]) -> Option<ControlFile> {
        let end = CHECKSUM_PLACES.end.min(bytes.len().saturating_sub(4));
        let whole = (CHECKSUM_PLACES.start..end)
            .step_by(4)
            .any(|place| bytes[place..place + 4] == crc32_iscsi(&bytes[..place]).to_le_bytes());
        if !whole {
            return None;
        }
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let long = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        Some(ControlFile {
            system_identifier: long(0)?,
            catalog_version: word(12)?,
            redo: Lsn(long(40)?),
            timeline: TimelineId(word(48)?),
        })
    }

    /// The whole file as one consistent piece, and what it says.
    pub fn read(path: &Path) -> Result<(Vec<u8>, ControlFile)> {
        for _ in 0..READS {
            let bytes =
                std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
            if let Some(control) = ControlFile::parse(&bytes) {
                return Ok((bytes, control));
            }
            std::thread::yield_now();
        }
        Err(Error::Malformed { path: path.to_owned(), reason: "its checksum is wrong".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of a control file as version 15 lays it out, made by hand.
    fn control_file() -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        bytes[..8].copy_from_slice(&7_264_000_000_000_000_001u64.to_le_bytes());
        bytes[8..12].copy_from_slice(&1300u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&202_209_061u32.to_le_bytes());
        bytes[40..48].copy_from_slice(&0x300_0028u64.to_le_bytes());
        bytes[48..52].copy_from_slice(&2u32.to_le_bytes());
        let checksum = crc32_iscsi(&bytes[..288]);
        bytes[288..292].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_whole_control_file_tells_its_cluster() {
        let control = ControlFile::parse(&control_file()).unwrap();
        assert_eq!(control.system_identifier, 7_264_000_000_000_000_001);
        assert_eq!(control.catalog_version, 202_209_061);
        assert_eq!(control.redo, Lsn(0x300_0028));
        assert_eq!(control.timeline, TimelineId(2));
    }

    #[test]
    fn half_a_write_is_noticed() {
        let mut bytes = control_file();
        bytes[100] = 1;
        assert_eq!(ControlFile::parse(&bytes), None);
        assert_eq!(ControlFile::parse(&[]), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        assert!(ControlFile::read(file.path()).unwrap_err().to_string().contains("checksum"));
    }
}
