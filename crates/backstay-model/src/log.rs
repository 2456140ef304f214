//! The log of a database, in words that fit every engine: bytes from one position to
//! another, on one timeline of one lineage, with marks at which a recovery can stop.
//!
//! A *lineage* is all that came from one `initdb`: its name is the system identifier of
//! PostgreSQL. A *timeline* is one way that it went. Positions count the bytes of a
//! timeline, and only those of one lineage are comparable.
//!
//! Invariant: what is covered is found from positions alone. A name, a number of files or
//! a time says nothing about holes.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod coverage;
mod gap;
pub mod history;
mod lag;

pub use coverage::Coverage;
pub use gap::{GapReason, LogGap};
pub use lag::{LagLevel, LagLimit, OnMaxLag};

/// One timeline of one lineage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// Sixteen hexadecimal digits for PostgreSQL.
    pub lineage: String,
    /// Eight hexadecimal digits for PostgreSQL.
    pub timeline: String,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.lineage, self.timeline)
    }
}

/// Bytes of a log: from the first to behind the last. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogSpan {
    pub start: u64,
    pub end: u64,
}

impl LogSpan {
    /// `None` when there would be nothing in it.
    pub fn new(start: u64, end: u64) -> Option<LogSpan> {
        (start < end).then_some(LogSpan { start, end })
    }

    pub fn length(&self) -> u64 {
        self.end - self.start
    }

    pub fn overlaps(&self, other: &LogSpan) -> bool {
        self.start < other.end && other.start < self.end
    }

    pub fn contains(&self, other: &LogSpan) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// What both hold.
    pub fn common(&self, other: &LogSpan) -> Option<LogSpan> {
        LogSpan::new(self.start.max(other.start), self.end.min(other.end))
    }
}

/// A place in a log at which a recovery can be told to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMark {
    /// Behind the record: replay to here has it.
    pub at: u64,
    /// By the clock of the server.
    pub time: Timestamp,
    #[serde(flatten)]
    pub kind: LogMarkKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum LogMarkKind {
    /// A transaction became visible.
    Commit {
        transaction: u64,
    },
    Abort {
        transaction: u64,
    },
    /// `pg_create_restore_point`.
    Point {
        name: String,
    },
    /// A moment between two commands, of engines whose commands have no time.
    Instant,
}
