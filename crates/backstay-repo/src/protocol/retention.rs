//! Retention's side: condemning a backup, and deleting it later.
//!
//! The marker is stored before the intents are listed. A writer stores its intent
//! before it looks for the marker. So at least one of the two sees the other.
//!
//! Refuses: to take a marker back. Another retention may have looked at the
//! intents already and be about to delete.

use std::collections::HashMap;
use std::time::Duration;

use backstay_model::{BackupId, InstanceId};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::intent::{PROTOCOL_FORMAT, read, sessions, to_json};
use crate::layout::InstanceLayout;
use crate::repo::Repo;
use crate::store::StoreError;
use crate::{Error, Result};

/// Between the marker and the deletion: a condemned backup can still be restored.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// `condemned/<session>`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Condemned {
    pub format: u32,
    pub at: Timestamp,
}

impl Repo {
    /// Marks a backup: nothing new builds on it from now on. A backup that is
    /// condemned already stays so since its first time.
    pub async fn condemn(&self, instance: &InstanceId, backup: &BackupId, now: Timestamp) -> Result<()> {
        // Of a backup that is not there a marker would only be a riddle.
        self.manifest(instance, backup).await?;
        let name = InstanceLayout::new(instance.clone()).condemned(backup);
        let marker = Condemned { format: PROTOCOL_FORMAT, at: now };
        match self.put_document(&name, &to_json(&marker)?).await {
            Ok(()) | Err(Error::Store(StoreError::AlreadyExists { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Every marker of an instance and its time.
    pub async fn condemned(&self, instance: &InstanceId) -> Result<HashMap<BackupId, Timestamp>> {
        let layout = InstanceLayout::new(instance.clone());
        let mut condemned = HashMap::new();
        for meta in self.store().list_all(&layout.all_condemned()).await? {
            let Some(id) = layout.session_of_condemned(&meta.name) else {
                return Err(Error::damaged(&meta.name, "it is not the name of a marker"));
            };
            if let Some(marker) = read::<Condemned>(self, &meta.name).await? {
                condemned.insert(id, marker.at);
            }
        }
        Ok(condemned)
    }

    /// Deletes the manifest of a backup whose grace is over, unless a session that
    /// has not ended names it (`StillNeeded`: come again). The marker stays.
    pub async fn delete_condemned(
        &self,
        instance: &InstanceId,
        backup: &BackupId,
        grace: Duration,
        now: Timestamp,
    ) -> Result<()> {
        let layout = InstanceLayout::new(instance.clone());
        let Some(marker) = read::<Condemned>(self, &layout.condemned(backup)).await? else {
            return Err(Error::NotCondemned { instance: instance.clone(), backup: backup.clone() });
        };
        let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
        if now.duration_since(marker.at) < grace {
            return Err(Error::GraceNotOver { instance: instance.clone(), backup: backup.clone() });
        }
        for (session, listed) in sessions(self, &layout).await? {
            let names = listed.intent.is_some_and(|intent| intent.parents.contains(backup));
            // Its own manifest lists all that it took from the parent; a tombstone
            // means that it never will.
            if names && !self.store().exists(&layout.backup(&session)).await? {
                return Err(Error::StillNeeded { backup: backup.clone(), session });
            }
        }
        // Only a backup: what ended a dead session must outlive all its writers.
        match self.manifest(instance, backup).await {
            Ok(_) | Err(Error::Damaged { .. }) => Ok(self.store().delete(&layout.backup(backup)).await?),
            Err(Error::NoSuchBackup { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
