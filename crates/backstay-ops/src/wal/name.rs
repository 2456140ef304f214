//! What PostgreSQL calls the files of its log.

use std::str::FromStr;

use backstay_model::TimelineId;

/// A file of `pg_wal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFileName {
    /// `000000010000000000000003`; the number is the second and the third part together,
    /// as they are written.
    Segment { timeline: TimelineId, segment: u64 },
    /// The last one of a timeline that another one goes on from: `….partial`.
    Partial { timeline: TimelineId, segment: u64 },
    /// `00000002.history`.
    History { timeline: TimelineId },
    /// What `pg_backup_stop` leaves: `….00000028.backup`.
    Backup { timeline: TimelineId },
}

impl LogFileName {
    /// The number of a segment among all, from what the name says of it. `None` where no
    /// segment of that size has such a name.
    pub fn number(written: u64, segment_bytes: u64) -> Option<u64> {
        let per_log = 0x1_0000_0000u64.checked_div(segment_bytes)?;
        let (high, low) = (written >> 32, written & 0xffff_ffff);
        (low < per_log).then(|| high * per_log + low)
    }

    /// The segment behind this one; `None` behind anything else.
    pub fn next(&self, segment_bytes: u64) -> Option<LogFileName> {
        let LogFileName::Segment { timeline, segment } = self else { return None };
        let per_log = 0x1_0000_0000u64.checked_div(segment_bytes)?;
        let next = Self::number(*segment, segment_bytes)?.checked_add(1)?;
        Some(LogFileName::Segment {
            timeline: *timeline,
            segment: ((next / per_log) << 32) | (next % per_log),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a file of the log")]
pub struct LogFileNameError(String);

impl FromStr for LogFileName {
    type Err = LogFileNameError;

    fn from_str(text: &str) -> Result<Self, LogFileNameError> {
        let wrong = || LogFileNameError(text.to_owned());
        let digits = |part: &str, count: usize| {
            let is_digit = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
            let good = part.len() == count && part.bytes().all(is_digit);
            good.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        };
        let (stem, ending) = text.split_once('.').map_or((text, None), |(stem, rest)| (stem, Some(rest)));
        let timeline = |digits: u64| u32::try_from(digits).map(TimelineId).map_err(|_| wrong());
        if ending == Some("history") {
            return Ok(LogFileName::History { timeline: timeline(digits(stem, 8).ok_or_else(wrong)?)? });
        }
        let (first, rest) = stem.split_at_checked(8).ok_or_else(wrong)?;
        let timeline = timeline(digits(first, 8).ok_or_else(wrong)?)?;
        let segment = digits(rest, 16).ok_or_else(wrong)?;
        match ending {
            None => Ok(LogFileName::Segment { timeline, segment }),
            Some("partial") => Ok(LogFileName::Partial { timeline, segment }),
            Some(rest) => {
                let offset = rest.strip_suffix(".backup").ok_or_else(wrong)?;
                digits(offset, 8).map(|_| LogFileName::Backup { timeline }).ok_or_else(wrong)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_file_is_known_by_its_name_and_nothing_else_is() {
        let timeline = TimelineId(0x1a);
        for (text, name) in [
            ("0000001A0000000100000003", LogFileName::Segment { timeline, segment: 0x1_0000_0003 }),
            ("0000001A0000000100000003.partial", LogFileName::Partial { timeline, segment: 0x1_0000_0003 }),
            ("0000001A.history", LogFileName::History { timeline }),
            ("0000001A0000000100000003.00000028.backup", LogFileName::Backup { timeline }),
        ] {
            assert_eq!(text.parse(), Ok(name), "{text}");
        }
        for wrong in [
            "",
            "0000001A",
            "0000001a0000000100000003",
            "0000001A0000000100000003.gz",
            "0000001A.backup",
            "0000001A0000000100000003.28.backup",
            "ä0000001",
            "+000001A0000000100000003",
        ] {
            assert!(wrong.parse::<LogFileName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_number_of_a_segment_counts_all_of_its_size() {
        let size = 16 << 20;
        assert_eq!(LogFileName::number(3, size), Some(3));
        assert_eq!(LogFileName::number(0x1_0000_0003, size), Some(259));
        assert_eq!(LogFileName::number(0x100, size), None);
        assert_eq!(LogFileName::number(0x2_0000_0003, 1 << 30), Some(11));
        for lsn in [0u64, 0x3000028, 0xff00_0000, 0x16_B374_D848] {
            let name = TimelineId(1).segment_name(lsn / size, size);
            let Ok(LogFileName::Segment { segment, .. }) = name.parse() else { panic!("{name}") };
            assert_eq!(LogFileName::number(segment, size), Some(lsn / size));
        }
    }

    #[test]
    fn behind_a_segment_comes_the_next_in_the_numbers_of_its_size() {
        let next = |text: &str, segment_bytes| {
            text.parse::<LogFileName>().unwrap().next(segment_bytes).map(|name| match name {
                LogFileName::Segment { timeline, segment } => format!("{:08X}{segment:016X}", timeline.0),
                other => format!("{other:?}"),
            })
        };
        for (text, segment_bytes, behind) in [
            ("0000001A0000000100000003", 16 << 20, Some("0000001A0000000100000004")),
            ("0000001A00000001000000FF", 16 << 20, Some("0000001A0000000200000000")),
            ("0000001A00000001000000FF", 1 << 20, Some("0000001A0000000100000100")),
            ("0000001A0000000100000003", 1 << 30, Some("0000001A0000000200000000")),
            ("0000001A0000000100000004", 1 << 30, None),
            ("0000001A.history", 16 << 20, None),
        ] {
            assert_eq!(next(text, segment_bytes).as_deref(), behind, "{text}");
        }
    }
}
