//! How far a recovery is to go: `latest`, `immediate`, a time, an LSN, a
//! transaction or a named restore point.
//!
//! Refuses times without an offset: `14:30` means two instants to two people, and
//! PostgreSQL accepts abbreviations of time zones that it then takes for others.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Classified, ErrorKind};
use crate::lsn::Lsn;

mod stop;

pub use stop::{StopOptions, TargetAction, TargetTimeline};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RecoveryTarget {
    /// As far as the log goes.
    #[default]
    Latest,
    /// The first consistent point: the end of the base.
    Immediate,
    Time(Timestamp),
    Lsn(Lsn),
    Xid(u64),
    Name(String),
    /// Bytes of the stream of Redis.
    Offset(u64),
}

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{0:?} has no offset from UTC, so it is not an instant")]
    NoOffset(String),
    #[error("{0:?} is not a recovery target")]
    Unknown(String),
    #[error("{0:?} is not a timeline")]
    Timeline(String),
}

impl Classified for TargetError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hints(&self) -> Vec<String> {
        vec![match self {
            TargetError::NoOffset(text) => format!("`--to {}Z` is that time in UTC", text.replace(' ', "T")),
            TargetError::Unknown(_) => {
                "`--to` takes latest, immediate, a time such as 2026-05-03T14:30:00Z, lsn:0/3000028, xid:1234, name:before-deploy or, for Redis, offset:12345".into()
            }
            TargetError::Timeline(_) => "`--target-timeline` takes current, latest or a number such as 2".into(),
        }]
    }
}

/// The longest name of a restore point: PostgreSQL's MAXFNAMELEN less its end.
const NAME_MAX: usize = 63;

impl FromStr for RecoveryTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let unknown = || TargetError::Unknown(text.to_owned());
        match text {
            "latest" => return Ok(RecoveryTarget::Latest),
            "immediate" => return Ok(RecoveryTarget::Immediate),
            _ => {}
        }
        if let Some(lsn) = text.strip_prefix("lsn:") {
            return lsn.parse().map(RecoveryTarget::Lsn).map_err(|_| unknown());
        }
        if let Some(xid) = text.strip_prefix("xid:") {
            return xid.parse().map(RecoveryTarget::Xid).map_err(|_| unknown());
        }
        if let Some(name) = text.strip_prefix("name:") {
            let good = (1..=NAME_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
            return if good { Ok(RecoveryTarget::Name(name.to_owned())) } else { Err(unknown()) };
        }
        if let Some(offset) = text.strip_prefix("offset:") {
            return offset.parse().map(RecoveryTarget::Offset).map_err(|_| unknown());
        }
        match text.parse::<Timestamp>() {
            Ok(time) => Ok(RecoveryTarget::Time(time)),
            Err(_) if text.parse::<jiff::civil::DateTime>().is_ok() => {
                Err(TargetError::NoOffset(text.to_owned()))
            }
            Err(_) => Err(unknown()),
        }
    }
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoveryTarget::Latest => f.write_str("latest"),
            RecoveryTarget::Immediate => f.write_str("immediate"),
            RecoveryTarget::Time(time) => write!(f, "{time}"),
            RecoveryTarget::Lsn(lsn) => write!(f, "lsn:{lsn}"),
            RecoveryTarget::Xid(xid) => write!(f, "xid:{xid}"),
            RecoveryTarget::Name(name) => write!(f, "name:{name}"),
            RecoveryTarget::Offset(offset) => write!(f, "offset:{offset}"),
        }
    }
}

impl From<RecoveryTarget> for String {
    fn from(target: RecoveryTarget) -> String {
        target.to_string()
    }
}

impl TryFrom<String> for RecoveryTarget {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_back_as_they_print() {
        for text in
            ["latest", "immediate", "2026-05-03T14:30:00Z", "lsn:0/3000028", "xid:1234", "name:before-deploy"]
        {
            assert_eq!(text.parse::<RecoveryTarget>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_time_is_an_instant_whatever_its_offset_and_separator() {
        let utc: RecoveryTarget = "2026-05-03T14:30:00Z".parse().unwrap();
        for same in ["2026-05-03 14:30:00Z", "2026-05-03T16:30:00+02:00"] {
            assert_eq!(same.parse::<RecoveryTarget>().unwrap(), utc, "{same}");
        }
    }

    #[test]
    fn a_time_without_an_offset_is_refused_and_the_hint_completes_it() {
        let error = "2026-05-03 14:30:00".parse::<RecoveryTarget>().unwrap_err();
        assert!(matches!(error, TargetError::NoOffset(_)));
        assert_eq!(error.hints(), ["`--to 2026-05-03T14:30:00Z` is that time in UTC"]);
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for bad in ["", "yesterday", "lsn:3000028", "xid:-1", "name:", "LATEST", "2026-13-01T00:00:00Z"] {
            assert!(matches!(bad.parse::<RecoveryTarget>(), Err(TargetError::Unknown(_))), "{bad:?}");
        }
        assert!(
            "offset:-1".parse::<RecoveryTarget>().is_err() && "offset:".parse::<RecoveryTarget>().is_err()
        );
    }
}
