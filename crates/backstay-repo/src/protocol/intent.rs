//! What a running session says of itself, and all of them as a store shows them.

use std::collections::BTreeMap;

use backstay_model::{BackupId, InstanceId};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::process::ProcessIdentity;
use crate::layout::{InstanceLayout, ObjectName};
use crate::repo::Repo;
use crate::store::{ObjectMeta, StoreError};
use crate::{Error, Result};

/// Of intents, heartbeats, markers and collections alike.
pub(super) const PROTOCOL_FORMAT: u32 = 1;

/// What a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionKind {
    Backup,
}

/// `intents/<session>/0`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub(super) format: u32,
    pub session: BackupId,
    /// Backups that it may build on. Retention leaves them alone.
    pub parents: Vec<BackupId>,
    pub kind: SessionKind,
    pub process: ProcessIdentity,
    pub started_at: Timestamp,
}

/// `intents/<session>/<n>` for every n but 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Heartbeat {
    pub format: u32,
    pub at: Timestamp,
}

/// A session that has objects under `intents/`.
#[derive(Debug, Clone)]
pub(super) struct ListedSession {
    /// `None` when only heartbeats are left of it: it was being cleaned up.
    pub intent: Option<Intent>,
    /// The highest heartbeat, 0 for none.
    pub heartbeat: u32,
    pub objects: Vec<ObjectName>,
}

pub(super) fn to_json(document: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|error| Error::broken(error.to_string()))
}

/// Reads a document of the protocol; `None` when it is not there any more. One
/// that is not understood is an error: what it forbids is not known.
pub(super) async fn read<T: DeserializeOwned>(repo: &Repo, name: &ObjectName) -> Result<Option<T>> {
    understood(name, repo.get_document(name).await)
}

/// The same for one that was listed just now and never changes.
pub(super) async fn read_listed<T: DeserializeOwned>(repo: &Repo, listed: &ObjectMeta) -> Result<Option<T>> {
    understood(&listed.name, repo.listed_document(listed).await)
}

fn understood<T: DeserializeOwned>(name: &ObjectName, document: Result<Vec<u8>>) -> Result<Option<T>> {
    let json = match document {
        Ok(json) => json,
        Err(Error::Store(StoreError::NotFound { .. })) => return Ok(None),
        Err(error) => return Err(error),
    };
    let wrong = |error: serde_json::Error| Error::damaged(name, error.to_string());
    let value: serde_json::Value = serde_json::from_slice(&json).map_err(wrong)?;
    let found = value.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if found > u64::from(PROTOCOL_FORMAT) {
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        return Err(Error::NewerFormat { found, known: PROTOCOL_FORMAT });
    }
    serde_json::from_value(value).map(Some).map_err(wrong)
}

/// All sessions of an instance that have an intent, by their ids.
pub(super) async fn sessions(
    repo: &Repo,
    layout: &InstanceLayout,
) -> Result<BTreeMap<BackupId, ListedSession>> {
    let mut sessions: BTreeMap<BackupId, ListedSession> = BTreeMap::new();
    let mut listing = repo.store().list(&layout.intents()).await?;
    while let Some(page) = listing.next_page().await? {
        for meta in page {
            let Some(part) = layout.intent_of(&meta.name) else {
                return Err(Error::damaged(&meta.name, "it is not the name of an intent"));
            };
            let session = sessions.entry(part.session).or_insert_with(|| ListedSession {
                intent: None,
                heartbeat: 0,
                objects: Vec::new(),
            });
            session.heartbeat = session.heartbeat.max(part.number);
            session.objects.push(meta.name);
        }
    }
    for (id, session) in &mut sessions {
        session.intent = read::<Intent>(repo, &layout.intent(id, 0)).await?;
        session.objects.sort();
    }
    Ok(sessions)
}

impl Repo {
    /// Whether a backup of this instance may be under way: its session has an intent, and
    /// neither a manifest nor a tombstone. Asked before the backups are listed, one that ends
    /// in between is among these.
    pub async fn is_being_written(&self, instance: &InstanceId) -> Result<bool> {
        let layout = InstanceLayout::new(instance.clone());
        for session in sessions(self, &layout).await?.into_keys() {
            if !self.store().exists(&layout.backup(&session)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// When the last sign of the session was given, by its own clock.
pub(super) async fn last_sign(
    repo: &Repo,
    layout: &InstanceLayout,
    intent: &Intent,
    heartbeat: u32,
) -> Result<Timestamp> {
    if heartbeat == 0 {
        return Ok(intent.started_at);
    }
    let beat: Option<Heartbeat> = read(repo, &layout.intent(&intent.session, heartbeat)).await?;
    Ok(beat.map_or(intent.started_at, |beat| beat.at))
}
