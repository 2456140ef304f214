//! Log that was given up on purpose: why, when, and from where to where.
//!
//! A gap is noted before anything is given up, so it says what was known then: how far the
//! log had been received, and how far the server had written. Whether log is missing there,
//! and how much, is found from positions, as every hole is; a gap only says why.
//!
//! Refuses to be a hole by itself: where nothing is missing, it says nothing.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::LogSpan;
use crate::lsn::{Lsn, TimelineId};
use crate::size::ByteSize;

/// What made the archive give log up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapReason {
    /// The server held as much for the archive as it may.
    MaxLag,
    /// The server had let go of it, and of the slot that held it.
    SlotLost,
    /// The server had let go of it, and no slot had held it.
    LogGone,
}

/// One decision to go on behind log that was not received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGap {
    pub timeline: TimelineId,
    /// The log was received up to here.
    pub from: Lsn,
    /// The server had written up to here, on a timeline that may have been another one.
    pub server_timeline: TimelineId,
    pub server: Lsn,
    pub at: Timestamp,
    pub reason: GapReason,
    pub slot: String,
    /// What the server held for the archive, where that was known.
    pub held_bytes: Option<u64>,
    /// What it was allowed to hold.
    pub max_lag_bytes: Option<u64>,
}

impl LogGap {
    /// Whether log that is missing there is missing for this. What begins to be missing before
    /// it had been received: nobody decided to lose that.
    pub fn explains(&self, timeline: TimelineId, span: LogSpan) -> bool {
        let first = (self.timeline, self.from.0);
        let behind = (self.server_timeline, self.server.0).max((self.timeline, self.from.0 + 1));
        (first..behind).contains(&(timeline, span.start))
    }
}

impl fmt::Display for LogGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            GapReason::MaxLag => {
                f.write_str("the server held")?;
                if let Some(held) = self.held_bytes {
                    write!(f, " {}", ByteSize(held))?;
                }
                f.write_str(" of log for the archive")?;
                if let Some(limit) = self.max_lag_bytes {
                    write!(f, ", at most {} were allowed (archive.max_lag)", ByteSize(limit))?;
                }
                write!(f, ": its slot {} was dropped at {:.0}", self.slot, self.at)
            }
            GapReason::SlotLost => write!(
                f,
                "the server had let go of the slot {} and of log that nobody had received: the archive went on \
                 behind it at {:.0}",
                self.slot, self.at
            ),
            GapReason::LogGone => write!(
                f,
                "the server had let go of log that nobody had received: the archive went on behind it at {:.0}",
                self.at
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_explains_what_is_missing_from_where_it_began_to_where_the_server_was() {
        let gap = LogGap {
            timeline: TimelineId(2),
            from: Lsn(100),
            server_timeline: TimelineId(3),
            server: Lsn(200),
            at: Timestamp::UNIX_EPOCH,
            reason: GapReason::MaxLag,
            slot: "backstay_orders".to_owned(),
            held_bytes: Some(33 << 20),
            max_lag_bytes: Some(32 << 20),
        };
        let explains =
            |gap: &LogGap, timeline, start, end| gap.explains(TimelineId(timeline), LogSpan { start, end });
        for (timeline, start, end) in [(2, 100, 150), (2, 900, 950), (3, 0, 50), (3, 199, 300)] {
            assert!(explains(&gap, timeline, start, end), "{timeline} {start} {end}");
        }
        for (timeline, start, end) in [(2, 50, 100), (2, 50, 101), (1, 100, 150), (3, 200, 300), (4, 0, 50)] {
            assert!(!explains(&gap, timeline, start, end), "{timeline} {start} {end}");
        }
        // A server that had written nothing more, or was behind.
        let still = LogGap { server_timeline: TimelineId(2), server: Lsn(90), ..gap.clone() };
        assert!(explains(&still, 2, 100, 150) && !explains(&still, 2, 101, 150));
        let told = gap.to_string();
        for word in ["33.0 MiB", "32.0 MiB", "archive.max_lag", "backstay_orders", "1970"] {
            assert!(told.contains(word), "{told}");
        }
    }
}
