//! The words of Backstay, and every decision that needs no input or output.
//!
//! Ids, positions, backup records, restore plans, retention and error kinds live
//! here, so that a plan can be tested as a value and the crates above share one
//! vocabulary (`GLOSSARY.md`).
//!
//! What this crate refuses: it opens no file and no connection, reads no clock,
//! no environment and no random number. The traits in [`parts`] describe reading
//! and writing; nothing here does either.

pub mod drill;
pub mod dump;
pub mod error;
pub mod finding;
pub mod hold;
pub mod id;
pub mod log;
pub mod lsn;
pub mod parts;
pub mod plan;
pub mod policy;
pub mod position;
pub mod progress;
pub mod rate;
pub mod record;
pub mod secret;
pub mod size;
pub mod status;
pub mod summary;
pub mod target;
pub mod verify;

pub use error::{ErrorKind, Fault};
pub use finding::{Finding, FindingLevel};
pub use hold::Hold;
pub use id::{BackupId, InstanceId, RepositoryId};
pub use log::{
    Coverage, GapReason, LagLevel, LagLimit, LogGap, LogId, LogMark, LogMarkKind, LogSpan, OnMaxLag,
};
pub use lsn::{Lsn, TimelineId};
pub use position::Position;
pub use progress::{Progress, ProgressReading};
pub use rate::{ByteRate, Pacer};
pub use record::{BackupRecord, BackupType, EngineKind};
pub use secret::Secret;
pub use size::ByteSize;
pub use summary::{BackupMarks, BackupSummary, Condemned};
pub use target::{RecoveryTarget, StopOptions, TargetAction, TargetTimeline};
pub use verify::{VerifyLevel, VerifyReport};
