//! What a collector saw, kept for the next one: so that a backup which vanished
//! is noticed, and silence can be measured by one clock over two runs.

use std::collections::{BTreeMap, BTreeSet};

use backstay_model::{BackupId, InstanceId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::intent::{PROTOCOL_FORMAT, read, to_json};
use super::judge::Observation;
use crate::layout::{self, ObjectName};
use crate::repo::Repo;
use crate::store::StoreError;
use crate::{Error, Result};

/// Records that are kept: one for each day of a season, for a person to read.
pub(super) const RUNS_KEPT: usize = 100;

/// `collections/<run>`. Runs are numbered, since the latest by a clock that was
/// wrong once would stay the latest for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RunRecord {
    pub format: u32,
    pub at: Timestamp,
    pub host: String,
    pub instances: BTreeMap<InstanceId, Seen>,
    /// What was about to be deleted.
    pub deletions: u64,
    pub bytes: u64,
}

/// What the run saw of one instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub backups: Vec<BackupId>,
    pub sessions: BTreeMap<BackupId, SeenSession>,
    /// Sessions that it declared dead.
    pub ended: Vec<BackupId>,
    /// Backups that are gone without a reason, and a person knows: of this run and
    /// of those before.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub accepted: BTreeSet<BackupId>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SeenSession {
    pub heartbeat: u32,
    pub since: Timestamp,
}

impl From<&SeenSession> for Observation {
    fn from(seen: &SeenSession) -> Self {
        Observation { heartbeat: seen.heartbeat, since: seen.since }
    }
}

/// The last run, and all of them by their numbers.
#[derive(Debug, Default)]
pub(super) struct Runs {
    pub last: Option<(String, RunRecord)>,
    pub names: BTreeMap<u64, ObjectName>,
}

impl Runs {
    pub async fn read(repo: &Repo) -> Result<Runs> {
        let mut names = BTreeMap::new();
        for meta in repo.store().list_all(&layout::collections()).await? {
            let Ok(number) = meta.name.file_name().parse::<u64>() else {
                return Err(Error::damaged(&meta.name, "it is not the name of a collection"));
            };
            names.insert(number, meta.name);
        }
        // Another collector may be cleaning up the oldest; the newest stays.
        let mut last = None;
        if let Some((number, name)) = names.last_key_value() {
            last = read::<RunRecord>(repo, name).await?.map(|record| (number.to_string(), record));
        }
        Ok(Runs { last, names })
    }

    pub fn backups_of(&self, instance: &InstanceId) -> &[BackupId] {
        self.seen(instance).map_or(&[], |seen| &seen.backups)
    }

    pub fn observation(&self, instance: &InstanceId, session: &BackupId) -> Option<Observation> {
        self.seen(instance)?.sessions.get(session).map(Observation::from)
    }

    pub fn seen(&self, instance: &InstanceId) -> Option<&Seen> {
        self.last.as_ref()?.1.instances.get(instance)
    }

    /// Those beyond the number that is kept, the one to be written counted.
    pub fn outdated(&self) -> Vec<ObjectName> {
        let surplus = (self.names.len() + 1).saturating_sub(RUNS_KEPT);
        self.names.values().take(surplus).cloned().collect()
    }

    /// Stores the record under the next free number.
    pub async fn write(&self, repo: &Repo, record: &RunRecord) -> Result<String> {
        let mut number = self.names.last_key_value().map_or(0, |(last, _)| *last);
        loop {
            number += 1;
            let name = layout::collection(&format!("{number:010}"))?;
            match repo.put_document(&name, &to_json(record)?).await {
                Ok(()) => return Ok(number.to_string()),
                // Another collector runs at the same time, which is allowed.
                Err(Error::Store(StoreError::AlreadyExists { .. })) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The losses of an instance that a person accepted.
pub(crate) async fn accepted_losses(repo: &Repo, instance: &InstanceId) -> Result<BTreeSet<BackupId>> {
    let runs = Runs::read(repo).await?;
    Ok(runs.seen(instance).map(|seen| seen.accepted.clone()).unwrap_or_default())
}

impl RunRecord {
    pub fn new(at: Timestamp, host: String, instances: BTreeMap<InstanceId, Seen>) -> Self {
        Self { format: PROTOCOL_FORMAT, at, host, instances, deletions: 0, bytes: 0 }
    }
}
