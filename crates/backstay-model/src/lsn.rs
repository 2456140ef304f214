//! PostgreSQL's own coordinates: log sequence numbers, timelines, segment names.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Classified, ErrorKind};

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a log sequence number such as 0/3000028")]
pub struct LsnError(String);

impl Classified for LsnError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// A byte position in the write-ahead log, written `0/3000028` as PostgreSQL does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

impl Lsn {
    /// The number of the segment that holds this byte.
    pub const fn segment(self, segment_size: u64) -> u64 {
        self.0 / segment_size
    }

    /// The offset of this byte in its segment.
    pub const fn offset(self, segment_size: u64) -> u64 {
        self.0 % segment_size
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({self})")
    }
}

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, LsnError> {
        let wrong = || LsnError(text.to_owned());
        let half = |part: &str| {
            if part.is_empty() || part.len() > 8 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            u64::from_str_radix(part, 16).map_err(|_| wrong())
        };
        let (high, low) = text.split_once('/').ok_or_else(wrong)?;
        Ok(Lsn(half(high)? << 32 | half(low)?))
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> String {
        lsn.to_string()
    }
}

impl TryFrom<String> for Lsn {
    type Error = LsnError;

    fn try_from(text: String) -> Result<Self, LsnError> {
        text.parse()
    }
}

impl Sub for Lsn {
    type Output = u64;

    /// Bytes between two positions; zero when the order is the other way round.
    fn sub(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Lsn {
    type Output = Lsn;

    fn add(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }
}

/// A timeline: it changes when a server is promoted or recovers to a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

impl TimelineId {
    /// The file name of a segment: `000000010000000000000003`.
    pub fn segment_name(self, segment: u64, segment_size: u64) -> String {
        let per_log = 0x1_0000_0000 / segment_size;
        format!("{:08X}{:08X}{:08X}", self.0, segment / per_log, segment % per_log)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_reads_and_prints_as_postgresql_does() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn.0, 0x16_B374_D848);
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert_eq!("0/0".parse::<Lsn>().unwrap(), Lsn(0));
        for bad in ["", "0", "0/", "/0", "0/123456789", "0/+1", "g/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_segment_name_rolls_over_at_four_gibibytes() {
        let size = 16 << 20;
        assert_eq!(
            TimelineId(1).segment_name(Lsn(0x3000028).segment(size), size),
            "000000010000000000000003"
        );
        assert_eq!(TimelineId(2).segment_name(256, size), "000000020000000100000000");
        let large = 1 << 30;
        assert_eq!(TimelineId(1).segment_name(5, large), "000000010000000100000001");
    }
}
