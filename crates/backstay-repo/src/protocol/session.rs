//! A writer's side of the protocol: intent, second look, heartbeats, end.
//!
//! Refuses: to begin while another backup of the instance runs; to build on a
//! parent that was condemned or is gone at the second look.

use std::sync::Arc;

use backstay_model::{BackupId, InstanceId};
use jiff::{SignedDuration, Timestamp};

use super::intent::{Heartbeat, Intent, PROTOCOL_FORMAT, SessionKind, last_sign, sessions, to_json};
use super::judge::DEFAULT_LEASE;
use super::process::ProcessIdentity;
use crate::layout::InstanceLayout;
use crate::manifest::Manifest;
use crate::repo::Repo;
use crate::store::StoreError;
use crate::{Error, Result};

/// What a session says before it does anything.
#[derive(Debug, Clone)]
pub struct SessionStart {
    pub id: BackupId,
    /// Backups to build on, the best first.
    pub parents: Vec<BackupId>,
    pub kind: SessionKind,
    pub process: ProcessIdentity,
    pub now: Timestamp,
}

/// A session whose intent is stored. Dropped without [`close`](Session::close), it
/// looks like one whose process died, and a collector ends it.
#[derive(Debug)]
pub struct Session {
    repo: Arc<Repo>,
    layout: InstanceLayout,
    id: BackupId,
    heartbeat: u32,
}

impl Session {
    /// Stores the intent, gives way to a backup that runs already, and then looks
    /// at the parents: the first one that still is a backup and is not condemned
    /// comes back with its manifest.
    pub async fn begin(
        repo: &Arc<Repo>,
        instance: &InstanceId,
        start: SessionStart,
    ) -> Result<(Session, Option<Manifest>)> {
        let layout = InstanceLayout::new(instance.clone());
        let intent = Intent {
            format: PROTOCOL_FORMAT,
            session: start.id.clone(),
            parents: start.parents,
            kind: start.kind,
            process: start.process,
            started_at: start.now,
        };
        match repo.put_document(&layout.intent(&start.id, 0), &to_json(&intent)?).await {
            Ok(()) => {}
            Err(Error::Store(StoreError::AlreadyExists { .. })) => {
                return Err(Error::SessionTaken { instance: instance.clone(), session: start.id });
            }
            Err(error) => return Err(error),
        }
        let mut session = Session { repo: Arc::clone(repo), layout, id: start.id, heartbeat: 0 };
        match session.check_in(&intent, start.now).await {
            Ok(parent) => Ok((session, parent)),
            Err(error) => {
                // Nothing was written yet that the intent would have to protect. When
                // even this fails, a collector finds the intent.
                if session.close().await.is_err() {
                    tracing::debug!(session = %session.id, "the intent stays until a collection");
                }
                Err(error)
            }
        }
    }

    async fn check_in(&mut self, intent: &Intent, now: Timestamp) -> Result<Option<Manifest>> {
        self.give_way(intent, now).await?;
        self.second_look(&intent.parents).await
    }

    pub fn id(&self) -> &BackupId {
        &self.id
    }

    /// Of two that begin at the same time the earlier id goes on; one that has
    /// given a heartbeat runs already, whatever its id. Two that slip past each
    /// other are two good backups, only more than was wanted.
    async fn give_way(&mut self, ours: &Intent, now: Timestamp) -> Result<()> {
        for (id, other) in sessions(&self.repo, &self.layout).await? {
            let Some(intent) = &other.intent else { continue };
            if id == self.id || (id > self.id && other.heartbeat == 0) {
                continue;
            }
            if ours.process.sees_gone(&intent.process) == Some(true) {
                continue;
            }
            if self.repo.store().exists(&self.layout.backup(&id)).await? {
                continue;
            }
            // Clocks of two machines: if they lie, two backups run, or one waits.
            let last = last_sign(&self.repo, &self.layout, intent, other.heartbeat).await?;
            let lease = SignedDuration::try_from(DEFAULT_LEASE).unwrap_or(SignedDuration::MAX);
            if now.duration_since(last) > lease {
                continue;
            }
            return Err(Error::AlreadyRunning {
                instance: self.layout.instance().clone(),
                host: intent.process.host.clone(),
                since: intent.started_at.to_string(),
                session: id,
            });
        }
        self.heartbeat(now).await
    }

    /// The marker first, then the manifest: a marker may be cleaned up after its
    /// backup is deleted, and then it is the manifest that is missing.
    async fn second_look(&self, parents: &[BackupId]) -> Result<Option<Manifest>> {
        for parent in parents {
            if self.repo.store().exists(&self.layout.condemned(parent)).await? {
                tracing::info!(%parent, "the parent was condemned meanwhile");
                continue;
            }
            match self.repo.manifest(self.layout.instance(), parent).await {
                Ok(manifest) => return Ok(Some(manifest)),
                Err(Error::NoSuchBackup { .. }) => tracing::info!(%parent, "the parent is gone"),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Says that the session lives. To be called well within the lease; one that
    /// is late may find itself declared dead at its commit.
    pub async fn heartbeat(&mut self, now: Timestamp) -> Result<()> {
        let beat = Heartbeat { format: PROTOCOL_FORMAT, at: now };
        let next = self.heartbeat + 1;
        let name = self.layout.intent(&self.id, next);
        match self.repo.put_document(&name, &to_json(&beat)?).await {
            // An earlier try arrived after all: the name is ours alone.
            Ok(()) | Err(Error::Store(StoreError::AlreadyExists { .. })) => {}
            Err(error) => return Err(error),
        }
        let previous = std::mem::replace(&mut self.heartbeat, next);
        if previous > 0
            && let Err(error) = self.repo.store().delete(&self.layout.intent(&self.id, previous)).await
        {
            // The new one is what others look at; the old one goes with the intent.
            tracing::debug!(session = %self.id, previous, %error, "an old heartbeat stays");
        }
        Ok(())
    }

    /// Removes the intent. Right after the commit succeeded, after it was found
    /// that the session had been declared dead, and when no commit was tried.
    /// Wrong after a commit of unknown outcome: the manifest may still arrive, and
    /// until then only the intent protects what it refers to.
    pub async fn close(&mut self) -> Result<()> {
        let mut intents = self.repo.store().list_all(&self.layout.intents_of(&self.id)).await?;
        // The intent goes last, so that what is left is never taken for no session.
        intents.sort_by(|a, b| b.name.cmp(&a.name));
        for meta in intents {
            self.repo.store().delete(&meta.name).await?;
        }
        Ok(())
    }
}
