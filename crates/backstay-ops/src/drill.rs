//! Drill: restore for real, start, question, measure, remove.
//!
//! Invariant: a drill never touches the source but to read, its server listens
//! nowhere but on a private socket, and it leaves nothing behind unless told to.

use std::path::PathBuf;

use backstay_model::RecoveryTarget;

/// What a person may say of one drill.
#[derive(Debug, Clone)]
pub struct DrillOptions {
    pub target: RecoveryTarget,
    /// Where to restore to; a directory of its own is made below.
    pub directory: PathBuf,
    /// Leave the restored directory there.
    pub keep: bool,
}
