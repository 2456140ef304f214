//! The periods of which the newest backup is kept.

use std::fmt;

use jiff::tz::TimeZone;

use crate::id::BackupId;
use crate::record::BackupRecord;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// Each backup is a period of its own.
    Backup,
    Hour,
    Day,
    /// ISO 8601: a week belongs to the year that has its Thursday.
    Week,
    Month,
    Year,
}

/// Equal for two backups of one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PeriodKey {
    Backup(BackupId),
    Time([i16; 4]),
}

impl Period {
    pub const ALL: [Period; 6] =
        [Period::Backup, Period::Hour, Period::Day, Period::Week, Period::Month, Period::Year];

    pub(super) fn key(self, record: &BackupRecord) -> PeriodKey {
        let time = record.finished_at.to_zoned(TimeZone::UTC);
        let (year, month, day) = (time.year(), i16::from(time.month()), i16::from(time.day()));
        PeriodKey::Time(match self {
            Period::Backup => return PeriodKey::Backup(record.id.clone()),
            Period::Hour => [year, month, day, i16::from(time.hour())],
            Period::Day => [year, month, day, 0],
            Period::Week => {
                let week = time.date().iso_week_date();
                [week.year(), i16::from(week.week()), 0, 0]
            }
            Period::Month => [year, month, 0, 0],
            Period::Year => [year, 0, 0, 0],
        })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Period::Backup => "last",
            Period::Hour => "hourly",
            Period::Day => "daily",
            Period::Week => "weekly",
            Period::Month => "monthly",
            Period::Year => "yearly",
        })
    }
}
