//! Retention's side: condemning a backup, and deleting it later.
//!
//! The marker is stored before the intents are listed. A writer stores its intent
//! before it looks for the marker. So at least one of the two sees the other.
//!
//! Refuses: to take a marker back. Another retention may have looked at the
//! intents already and be about to delete.

use std::collections::HashMap;
use std::time::Duration;

use backstay_model::error::{Classified as _, ErrorKind};
use backstay_model::{BackupId, Finding, InstanceId};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::intent::{PROTOCOL_FORMAT, read, read_listed, sessions, to_json};
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

/// What [`Repo::condemned`] says of a marker whose time cannot be read: no grace
/// that began then is ever over, so the backup stays.
pub const CONDEMNED_AT_UNKNOWN: Timestamp = Timestamp::MAX;

/// The markers of an instance.
#[derive(Debug, Default)]
pub struct Markers {
    /// Every condemned backup, and since when; `None` where the marker does not open.
    pub condemned: HashMap<BackupId, Option<Timestamp>>,
    /// Markers that do not open, and what is no marker at all.
    pub findings: Vec<Finding>,
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

    /// Every condemned backup of an instance and its time.
    pub async fn condemned(&self, instance: &InstanceId) -> Result<HashMap<BackupId, Timestamp>> {
        let markers = self.markers(instance).await?.condemned.into_iter();
        Ok(markers.map(|(backup, at)| (backup, at.unwrap_or(CONDEMNED_AT_UNKNOWN))).collect())
    }

    /// Every marker of an instance. That there is one is all that others act on, so
    /// one that is damaged condemns its backup and stands in nobody's way.
    pub async fn markers(&self, instance: &InstanceId) -> Result<Markers> {
        let layout = InstanceLayout::new(instance.clone());
        let mut markers = Markers::default();
        let listed = self.store().list_all(&layout.all_condemned()).await?;
        self.only_these_are_there(&layout.all_condemned(), listed.iter().map(|object| object.name.clone()))
            .await;
        for meta in listed {
            let Some(id) = layout.session_of_condemned(&meta.name) else {
                markers.findings.push(Finding::warning(
                    meta.name.as_str(),
                    "this object is not the marker of a backup, and is left alone",
                    "give repository.store a place that nothing else writes to",
                ));
                continue;
            };
            match read_listed::<Condemned>(self, &meta).await {
                Ok(Some(marker)) => {
                    markers.condemned.insert(id, Some(marker.at));
                }
                // Cleaned up since the listing.
                Ok(None) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                    markers.findings.push(Finding::warning(
                        meta.name.as_str(),
                        format!("since when retention let the backup go is not known, and it stays: {error}"),
                        format!("`backstay restore` can use {id}; `backstay backup` does not build on it"),
                    ));
                    markers.condemned.insert(id, None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(markers)
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
