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
}

impl Position {
    pub fn timeline(&self) -> Option<TimelineId> {
        match self {
            Position::Wal { timeline, .. } => Some(*timeline),
        }
    }

    pub fn lsn(&self) -> Option<Lsn> {
        match self {
            Position::Wal { lsn, .. } => Some(*lsn),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Wal { timeline, lsn } => write!(f, "{timeline}@{lsn}"),
        }
    }
}
