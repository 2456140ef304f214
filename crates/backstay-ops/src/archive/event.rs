//! What is told of an archive while it runs.

use backstay_model::{BackupId, Finding, LagLevel, LagLimit, LogGap, LogId, LogSpan};
use jiff::Timestamp;

/// What an archive does, as it happens.
#[derive(Debug, Clone, PartialEq)]
pub enum ArchiveEvent {
    /// The log comes in, from this position on.
    Began {
        log: LogId,
        from: u64,
    },
    /// Another timeline goes on from here.
    Timeline {
        log: LogId,
        from: u64,
    },
    /// The server does not go on behind this position, and sends everything anew.
    Broken {
        from: u64,
        /// It began another stream, as after a restart. Else it has let go of what follows.
        is_another: bool,
    },
    /// What a person should know of the server that it comes from.
    Told {
        finding: Finding,
    },
    /// The store has it.
    Sent {
        log: LogId,
        span: LogSpan,
    },
    /// Commits of the server wait for this archive or not, as far as it says.
    Commits {
        wait: bool,
        is_intended: bool,
        names: String,
    },
    /// The server or the store is away, or does not let us in: it is tried again.
    Waiting {
        reason: String,
        /// What would end it, where somebody can do something.
        hints: Vec<String>,
    },
    /// What the server holds for the archive has come to another level.
    Lag {
        level: LagLevel,
        held_bytes: u64,
        limit: LagLimit,
    },
    /// A connection that is away for longer than this finds that the server has forgotten what
    /// follows.
    Headroom {
        seconds: f64,
        backlog_bytes: u64,
        bytes_per_second: f64,
    },
    /// The spool has no room: nothing is acknowledged until it has some.
    SpoolFull {
        reason: String,
    },
    /// And it has.
    SpoolHasRoom,
    /// Log was given up, and the server let go of it.
    GapOpened {
        gap: LogGap,
    },
    /// A base is under way: behind a gap, or as the beginning of a stream.
    BaseBegun {
        is_behind_gap: bool,
    },
    BaseTaken {
        id: BackupId,
        finished_at: Timestamp,
    },
    /// It is tried again.
    BaseFailed {
        reason: String,
        hints: Vec<String>,
    },
}

/// Whoever wants to know what an archive does.
pub trait ArchiveWatcher: Send + Sync {
    fn see(&self, event: ArchiveEvent);
}
