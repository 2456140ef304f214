//! What a base backup leaves behind besides its parts: facts and findings.
//!
//! The source of a backup is given away to the repository's writer, so its facts
//! come out through a handle that both hold. They are complete only when the
//! source has returned its last step; before that there is nothing to take.

use std::sync::{Arc, Mutex, PoisonError};

use backstay_model::{Finding, Lsn, Position, TimelineId};
use serde::{Deserialize, Serialize};

use super::facts::{Owner, ServerFacts, Tablespace};
use crate::{Error, Result};

/// Everything the engine knows of one finished backup. It is stored as the
/// `facts` of the backup's record, and a restore is made from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupFacts {
    pub way: Way,
    pub server: ServerFacts,
    /// Taken from a server in recovery.
    pub from_standby: bool,
    /// Where replay must begin.
    pub start_lsn: Lsn,
    /// Where the copy is consistent.
    pub stop_lsn: Lsn,
    /// Of the start and of the stop: a backup that crosses a switch is refused.
    pub timeline: TimelineId,
    /// The label the server was given.
    pub label: String,
    /// Owner and mode of the data directory, where they could be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Made while the backup ran: replaying its log links them to these places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late_tablespaces: Vec<Tablespace>,
}

/// How the files were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From the data directory.
    Local,
    /// Through the replication protocol.
    Remote,
}

impl BackupFacts {
    pub fn start_position(&self) -> Position {
        Position::Wal { timeline: self.timeline, lsn: self.start_lsn }
    }

    pub fn stop_position(&self) -> Position {
        Position::Wal { timeline: self.timeline, lsn: self.stop_lsn }
    }

    /// As the record of a backup stores them.
    pub fn to_json(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self).map_err(|error| Error::Facts { source: error })
    }

    /// From the record of a backup.
    pub fn from_json(facts: &serde_json::Value) -> Result<Self> {
        Self::deserialize(facts).map_err(|error| Error::Facts { source: error })
    }
}

/// Where the source of a backup leaves its facts. Cheap to clone.
#[derive(Clone, Default)]
pub struct Outcome(Arc<Mutex<Left>>);

#[derive(Default)]
struct Left {
    facts: Option<BackupFacts>,
    findings: Vec<Finding>,
}

/// Findings that are listed one by one; what goes beyond is counted by those who
/// raise them, because a broken disk can make as many as it has pages.
const FINDINGS_MAX: usize = 500;

impl Outcome {
    pub fn new() -> Self {
        Self::default()
    }

    /// Said by the source, after its last step.
    pub fn finish(&self, facts: BackupFacts) {
        self.lock().facts = Some(facts);
    }

    /// Said by the source and its extents, at any time.
    pub fn find(&self, finding: Finding) {
        let mut left = self.lock();
        if left.findings.len() < FINDINGS_MAX {
            left.findings.push(finding);
        }
    }

    /// The facts, once the source has returned its last step.
    pub fn facts(&self) -> Option<BackupFacts> {
        self.lock().facts.clone()
    }

    pub fn findings(&self) -> Vec<Finding> {
        self.lock().findings.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Left> {
        // Nothing in here can be half-changed by a panic of another thread.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
