//! How far a log goes, in the words of its engine.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lsn::{Lsn, TimelineId};

/// A point in an instance's log. Only positions of one engine and one log are
/// comparable, so there is no `Ord`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// PostgreSQL: a timeline and a log sequence number, `1@0/3000028`.
    Wal { timeline: TimelineId, lsn: Lsn },
    /// Redis: bytes of the replication stream that has this id.
    Stream { replication_id: String, offset: u64 },
}

/// Digits of a replication id that tell it from others for a person.
const SHORT: usize = 8;

impl Position {
    pub fn timeline(&self) -> Option<TimelineId> {
        match self {
            Position::Wal { timeline, .. } => Some(*timeline),
            Position::Stream { .. } => None,
        }
    }

    pub fn lsn(&self) -> Option<Lsn> {
        match self {
            Position::Wal { lsn, .. } => Some(*lsn),
            Position::Stream { .. } => None,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Wal { timeline, lsn } => write!(f, "{timeline}@{lsn}"),
            Position::Stream { replication_id, offset } => {
                write!(f, "{}@{offset}", replication_id.get(..SHORT).unwrap_or(replication_id))
            }
        }
    }
}
