//! Restore: plan, then place → recover → prove.
//!
//! Invariant: nothing is written before the plan has no refusal, and a directory
//! that was only half placed cannot start, because its control file is put in
//! place last.

use std::path::PathBuf;

use backstay_model::drill::Proof;
use backstay_model::plan::RestorePlan;
use backstay_model::{BackupId, RecoveryTarget};
use serde::Serialize;

/// What a person may say of one restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The newest sound one when none is named.
    pub backup: Option<BackupId>,
    pub target: RecoveryTarget,
    pub into: PathBuf,
    /// `(where it lay, where it is put)`.
    pub tablespaces: Vec<(PathBuf, PathBuf)>,
    /// Start a private server on the directory, prove that it is readable, and stop it.
    pub start: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    #[serde(flatten)]
    pub plan: RestorePlan,
    pub restored_bytes: u64,
    pub duration_seconds: f64,
    /// From the first byte to a server that answered; `None` when none was started.
    pub recovery_time_seconds: Option<f64>,
    pub proof: Option<Proof>,
}
