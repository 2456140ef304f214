//! Executing a plan: the only code that deletes data.

use std::time::Duration;

use backstay_model::Finding;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::super::run::{RunRecord, Runs};
use super::{CollectionPlan, EndedSession, Look, Reason};
use crate::repo::Repo;
use crate::store::StoreError;
use crate::{Error, Result};

/// Deletions under way at the same time: they wait for the store, not for us.
const CONCURRENT_DELETIONS: usize = 8;
/// An upload that nobody has touched for a day has no writer any more.
const UNFINISHED_AGE: Duration = Duration::from_secs(24 * 3600);

/// The right to execute one plan, once.
#[derive(Debug)]
pub struct Remover<'r> {
    repo: &'r Repo,
    plan: CollectionPlan,
    record: RunRecord,
    runs: Runs,
    failure: Option<Error>,
    now: Timestamp,
    cancel: CancellationToken,
}

/// What a collection did.
#[derive(Debug, Clone, Serialize)]
pub struct CollectReport {
    /// The number of its record under `collections/`.
    pub run: String,
    /// Packs and maps.
    pub deleted_objects: u64,
    pub freed_bytes: u64,
    pub ended: Vec<EndedSession>,
    /// Remains of uploads that never ended.
    pub swept_uploads: u64,
    pub findings: Vec<Finding>,
}

impl<'r> Remover<'r> {
    pub(super) fn new(repo: &'r Repo, look: Look, now: Timestamp, cancel: CancellationToken) -> Self {
        let Look { plan, record, runs, failure } = look;
        Self { repo, plan, record, runs, failure, now, cancel }
    }

    pub fn plan(&self) -> &CollectionPlan {
        &self.plan
    }

    /// Records what was seen, then deletes. Stopped in between, the rest is found
    /// by the next run. Where an instance was left alone because it is damaged, that
    /// error comes back after the work on the others is done.
    pub async fn execute(self) -> Result<CollectReport> {
        let run = self.runs.write(self.repo, &self.record).await?;
        // One kind after the other: data, then intents, then the rest.
        for reason in [
            Reason::Unreferenced,
            Reason::EndedSession,
            Reason::OldTombstone,
            Reason::OldMarker,
            Reason::OldRun,
        ] {
            self.delete_all(reason).await?;
        }
        let age = SignedDuration::try_from(UNFINISHED_AGE).unwrap_or(SignedDuration::MAX);
        let before = self.now.checked_sub(age).unwrap_or(Timestamp::MIN);
        let swept_uploads = self.repo.store().sweep_unfinished(before).await?;
        if let Some(error) = self.failure {
            let (objects, bytes) = (self.plan.unreferenced_objects(), self.plan.freed_bytes());
            tracing::info!(run, objects, bytes, "the instances without damage were collected");
            return Err(error);
        }
        Ok(CollectReport {
            run,
            deleted_objects: self.plan.unreferenced_objects(),
            freed_bytes: self.plan.freed_bytes(),
            ended: self.plan.ended,
            swept_uploads,
            findings: self.plan.findings,
        })
    }

    async fn delete_all(&self, reason: Reason) -> Result<()> {
        let objects = self.plan.deletions.iter().filter(|deletion| deletion.reason == reason);
        // Intents one after the other: the heartbeats of a session before its intent.
        let at_once = if reason == Reason::EndedSession { 1 } else { CONCURRENT_DELETIONS };
        stream::iter(objects.map(|deletion| async {
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            self.repo.store().delete(&deletion.object).await.map_err(|error: StoreError| error.into())
        }))
        .buffered(at_once)
        .try_collect::<Vec<()>>()
        .await
        .map(drop)
    }
}
