//! The plan of a restore: which base, how much, how long, and every reason to refuse.
//!
//! Invariant: a plan without a base has at least one refusal, and a plan is only
//! executed when it has none. A base never ends after the target. A newer backup
//! that is passed over because it is damaged is always named in a finding.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Classified, ErrorKind};
use crate::finding::Finding;
use crate::id::{BackupId, InstanceId};
use crate::log::{LogMark, LogMarkKind};
use crate::lsn::{Lsn, TimelineId};
use crate::record::BackupRecord;
use crate::summary::BackupMarks;
use crate::target::{RecoveryTarget, StopOptions, TargetAction};

mod clock;
mod judge;
mod log;
mod not_clean;
mod not_proved;
mod reach;
mod same_offset;
mod steps;
mod stream;
mod unreached;

pub use log::{
    BaseLog, BasePoint, KnownLog, LineageLog, LogQuestion, Search, SetBack, Sighting, Sought, Stretch,
};
use reach::NoChoice;

/// What a person asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRequest {
    pub instance: InstanceId,
    pub backup: Option<BackupId>,
    pub target: RecoveryTarget,
    pub stop: StopOptions,
    /// The directory, as it is to be shown.
    pub into: String,
    /// Whether the server is to be started and asked.
    pub start: bool,
    /// Whether it is to follow the archive, and to open for nobody who writes.
    pub standby: bool,
}

/// What earlier restores of this instance measured; `None` where nobody did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MeasuredRates {
    pub place_bytes_per_second: Option<f64>,
    pub recover_seconds: Option<f64>,
}

/// One reason not to do it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub kind: ErrorKind,
    pub message: String,
    pub hints: Vec<String>,
}

impl Refusal {
    pub fn new(kind: ErrorKind, message: impl Into<String>, hints: Vec<String>) -> Self {
        Self { kind, message: message.into(), hints }
    }

    /// The refusal that an error of a preflight amounts to, with its causes.
    pub fn from_error(error: &dyn Classified) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            message.push_str(": ");
            message.push_str(&source.to_string());
            cause = source.source();
        }
        Self { kind: error.kind(), message, hints: error.hints() }
    }
}

/// The instant and the position that the restored server will show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    pub time: Timestamp,
    pub position: Option<String>,
    /// The last that will be there, where the log behind the base holds one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transaction: Option<EndOfTransaction>,
    /// The first that will not, where the target lies before one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stops_before: Option<EndOfTransaction>,
}

/// A transaction that was committed or rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndOfTransaction {
    pub transaction: u64,
    /// By the clock of the server.
    pub time: Timestamp,
    /// Behind the record of its end.
    pub position: Lsn,
}

impl EndOfTransaction {
    /// Nothing, where a mark is of another kind.
    pub fn of(mark: &LogMark) -> Option<EndOfTransaction> {
        match mark.kind {
            LogMarkKind::Commit { transaction } | LogMarkKind::Abort { transaction } => {
                Some(EndOfTransaction { transaction, time: mark.time, position: Lsn(mark.at) })
            }
            LogMarkKind::Point { .. } | LogMarkKind::Instant => None,
        }
    }
}

/// A stretch of the log to be replayed after the base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRange {
    pub timeline: TimelineId,
    pub from: Lsn,
    pub to: Lsn,
    pub bytes: u64,
}

/// How a server is to be recovered with log of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    pub lineage: String,
    pub segment_bytes: u64,
    /// The base brings the segments up to here itself.
    pub own_to: Lsn,
    /// The one to follow.
    pub timeline: TimelineId,
    pub target: RecoveryTarget,
    pub exclusive: bool,
    pub action: TargetAction,
    /// Where the replay will have come to: for the latest state at least so far.
    pub to: Lsn,
    /// What a time, a transaction or a name was found to be.
    pub stop: Option<LogMark>,
    /// The last transaction whose end will have been replayed, where the log holds one.
    pub last: Option<LogMark>,
}

/// A tablespace, and where its files go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespacePlace {
    pub name: String,
    /// Where it lay when the backup was taken.
    pub old: String,
    pub new: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestorePlan {
    pub instance: InstanceId,
    pub target: RecoveryTarget,
    pub reached: Option<Reached>,
    pub base: Option<BackupId>,
    /// What is replayed behind the base: its own log, from its start to its stop, is part of it.
    pub log: Vec<LogRange>,
    /// How that is done; nothing where there is no such log.
    #[serde(skip)]
    pub recovery: Option<Recovery>,
    pub files: u64,
    pub bytes: u64,
    pub expected_seconds: f64,
    /// Those that lie outside of the data directory.
    #[serde(default)]
    pub tablespaces: Vec<TablespacePlace>,
    pub steps: Vec<String>,
    pub refusals: Vec<Refusal>,
    /// What the person should know although it is no reason to refuse.
    pub findings: Vec<Finding>,
}

impl RestorePlan {
    pub fn is_refused(&self) -> bool {
        !self.refusals.is_empty()
    }

    pub fn refuse(&mut self, refusal: Refusal) {
        self.refusals.push(refusal);
    }
}

/// Plans a restore from what the repository knows of the instance. `unreadable`
/// holds backups whose manifest is there and does not open, with the reason.
///
/// # Errors
///
/// What must be looked up in the log first. With the answer among those of `log` the
/// same call gets further.
pub fn plan_recovery(
    request: &RestoreRequest,
    backups: &[(BackupRecord, BackupMarks)],
    unreadable: &[(BackupId, String)],
    log: &KnownLog,
    rates: MeasuredRates,
) -> Result<RestorePlan, Box<LogQuestion>> {
    let mut plan = RestorePlan {
        instance: request.instance.clone(),
        target: request.target.clone(),
        reached: None,
        base: None,
        log: Vec::new(),
        recovery: None,
        files: 0,
        bytes: 0,
        expected_seconds: 0.0,
        tablespaces: Vec::new(),
        steps: Vec::new(),
        refusals: Vec::new(),
        findings: Vec::new(),
    };
    let mut newest_first: Vec<_> =
        backups.iter().filter(|(record, _)| record.instance == request.instance).collect();
    newest_first.sort_by(|(a, _), (b, _)| b.order().cmp(&a.order()));

    match reach::choose_base(request, &newest_first, unreadable, log) {
        Ok(choice) => {
            plan.findings = choice.findings;
            if let Some(way) = choice.way {
                plan.findings.extend(way.clock);
                (plan.reached, plan.log) = (Some(way.reached), way.log);
                plan.recovery = Some(way.recovery);
            }
            steps::describe(&mut plan, request, choice.base, rates);
        }
        Err(NoChoice::Refused(refusal)) => plan.refuse(refusal),
        Err(NoChoice::Asks(question)) => return Err(question),
    }
    Ok(plan)
}

#[cfg(test)]
pub(super) mod tests;
