//! The collector: finding what nothing refers to, and deleting it.
//!
//! First a plan, which is a value, then its execution; only a [`Remover`] deletes,
//! and only [`Collection::prepare`] makes one.
//!
//! Refuses: to go on after any error in listing or reading, but for damage, which
//! ends the work on its own instance alone; to delete when a
//! backup that the last run saw is gone without having been condemned; to delete
//! more than a set share at once without having been told so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backstay_model::error::Classified as _;
use backstay_model::{BackupId, Finding, InstanceId};
use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::judge::{DEFAULT_LEASE, Verdict};
use super::process::ProcessIdentity;
use super::run::{RunRecord, Runs};
use crate::description::StoreFacts;
use crate::layout::ObjectName;
use crate::repo::Repo;
use crate::store::StoreError;
use crate::{Error, Result};

mod remover;
mod survey;

pub use remover::{CollectReport, Remover};

/// What ended a dead session stays this long: a writer that was paused for longer
/// could commit to packs that are gone.
const TOMBSTONE_AGE: Duration = Duration::from_secs(365 * 24 * 3600);
/// More than this share of all data objects is not a day's garbage, but perhaps
/// an error that nobody thought of.
const MAX_SHARE_PERCENT: u8 = 50;
/// The share says nothing about a handful: one interrupted first backup is half
/// of a new repository.
const SHARE_FLOOR_OBJECTS: u64 = 16;

/// How to collect.
#[derive(Debug, Clone)]
pub struct CollectOptions {
    /// What the store can do: without create-if-absent a tombstone could overwrite
    /// a manifest, and only sessions whose process is gone are ended.
    pub store: StoreFacts,
    /// Who looks.
    pub process: ProcessIdentity,
    pub now: Timestamp,
    pub lease: Duration,
    pub tombstone_age: Duration,
    pub max_share_percent: u8,
    /// Goes on, with a finding, although a backup vanished.
    pub accept_loss: bool,
}

impl CollectOptions {
    pub fn new(store: StoreFacts, process: ProcessIdentity, now: Timestamp) -> Self {
        Self {
            store,
            process,
            now,
            lease: DEFAULT_LEASE,
            tombstone_age: TOMBSTONE_AGE,
            max_share_percent: MAX_SHARE_PERCENT,
            accept_loss: false,
        }
    }
}

/// Why an object goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A pack or a map that no backup and no running session needs.
    Unreferenced,
    /// The intent of a session that has ended.
    EndedSession,
    OldTombstone,
    /// A marker whose backup was deleted long ago.
    OldMarker,
    OldRun,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deletion {
    pub object: ObjectName,
    pub size_bytes: u64,
    pub reason: Reason,
}

/// A session that was, or in a preview would be, declared dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndedSession {
    pub instance: InstanceId,
    pub session: BackupId,
    pub host: Option<String>,
    pub process_gone: bool,
}

/// What a collection deletes, and what it saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CollectionPlan {
    /// In the order in which they are deleted.
    pub deletions: Vec<Deletion>,
    pub ended: Vec<EndedSession>,
    /// Packs and maps that were looked at.
    pub data_objects: u64,
    pub backups: u64,
    pub running_sessions: u64,
    pub findings: Vec<Finding>,
}

impl CollectionPlan {
    fn unreferenced(&self) -> impl Iterator<Item = &Deletion> {
        self.deletions.iter().filter(|deletion| deletion.reason == Reason::Unreferenced)
    }

    /// Bytes of data that become free.
    pub fn freed_bytes(&self) -> u64 {
        self.unreferenced().map(|deletion| deletion.size_bytes).sum()
    }

    pub fn unreferenced_objects(&self) -> u64 {
        self.unreferenced().count() as u64
    }

    /// Takes over what was found at one instance.
    fn absorb(&mut self, part: CollectionPlan) {
        self.deletions.extend(part.deletions);
        self.ended.extend(part.ended);
        self.data_objects += part.data_objects;
        self.backups += part.backups;
        self.running_sessions += part.running_sessions;
        self.findings.extend(part.findings);
    }

    fn check_share(&self, max_percent: u8) -> Result<()> {
        let deleted = self.unreferenced_objects();
        let total = self.data_objects;
        if deleted > SHARE_FLOOR_OBJECTS && deleted * 100 > total * u64::from(max_percent) {
            return Err(Error::ShareExceeded { deleted, total, max_percent });
        }
        Ok(())
    }
}

/// One look at a repository with the intent to clean up.
#[derive(Debug)]
pub struct Collection<'r> {
    repo: &'r Repo,
    options: CollectOptions,
    cancel: CancellationToken,
}

/// What a look at all instances came to.
struct Look {
    plan: CollectionPlan,
    record: RunRecord,
    runs: Runs,
    /// Why some instance was left alone.
    failure: Option<Error>,
}

/// Whether the look may end sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing is written. Sessions that look dead are taken for ended.
    Preview,
    Prepare,
}

impl<'r> Collection<'r> {
    pub fn new(repo: &'r Repo, options: CollectOptions, cancel: CancellationToken) -> Self {
        Self { repo, options, cancel }
    }

    /// What a collection would do. Writes and deletes nothing. An instance that is
    /// damaged is a finding, and nothing of it would go.
    pub async fn preview(&self) -> Result<CollectionPlan> {
        Ok(self.preview_with_failure().await?.0)
    }

    /// The same, with what [`Remover::execute`] would return in the end for an instance
    /// that was left alone.
    pub async fn preview_with_failure(&self) -> Result<(CollectionPlan, Option<Error>)> {
        let look = self.look(Mode::Preview).await?;
        Ok((look.plan, look.failure))
    }

    /// Ends the sessions that look dead and plans the deletions.
    pub async fn prepare(&self) -> Result<Remover<'r>> {
        let look = self.look(Mode::Prepare).await?;
        look.plan.check_share(self.options.max_share_percent)?;
        Ok(Remover::new(self.repo, look, self.options.now, self.cancel.clone()))
    }

    async fn look(&self, mode: Mode) -> Result<Look> {
        let runs = Runs::read(self.repo).await?;
        let mut plan = CollectionPlan::default();
        let (mut seen, mut failure, mut looked_at) = (BTreeMap::new(), None, 0_u64);
        // An instance that is gone altogether is one that the last run saw.
        let mut instances: BTreeSet<InstanceId> = self.repo.instances().await?.into_iter().collect();
        instances.extend(runs.last.iter().flat_map(|(_, record)| record.instances.keys().cloned()));
        for instance in instances {
            let mut part = CollectionPlan::default();
            match survey::look_at(self, mode, &instance, &runs, &mut part).await {
                Ok(of_instance) => {
                    seen.insert(instance, of_instance);
                    plan.absorb(part);
                    looked_at += 1;
                }
                // No object belongs to two instances: the others can be judged.
                Err(error) if is_damage(&error) => {
                    plan.findings.push(untouched(&instance, &error));
                    plan.ended.extend(part.ended);
                    // The next run still asks for what the last one saw.
                    seen.extend(runs.seen(&instance).map(|before| (instance, before.clone())));
                    failure.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = failure.take_if(|_| looked_at == 0) {
            return Err(error);
        }
        plan.deletions.extend(runs.outdated().into_iter().map(|object| Deletion {
            object,
            size_bytes: 0,
            reason: Reason::OldRun,
        }));
        // Data before the intents of its session: a crash in between leaves the
        // session visible as one that ended.
        plan.deletions.sort_by_key(|deletion| deletion.reason);
        let host = self.options.process.host.clone();
        let mut record = RunRecord::new(self.options.now, host, seen);
        record.deletions = plan.unreferenced_objects();
        record.bytes = plan.freed_bytes();
        Ok(Look { plan, record, runs, failure })
    }

    fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Whether this store lets us end a session of that verdict.
    fn may_end(&self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Lives => false,
            Verdict::ProcessGone => true,
            Verdict::Silent => self.options.store.create_if_absent,
        }
    }
}

/// What is wrong with stored bytes, and not with the way to them.
fn is_damage(error: &Error) -> bool {
    matches!(
        error,
        Error::Damaged { .. }
            | Error::NewerFormat { .. }
            | Error::Store(StoreError::WrongRange { .. } | StoreError::TooLarge { .. })
    )
}

fn untouched(instance: &InstanceId, error: &Error) -> Finding {
    Finding::error(
        instance.as_str(),
        format!("nothing of it is deleted: {error}"),
        error.hints().into_iter().next().unwrap_or_else(|| "`backstay verify` names what is damaged".into()),
    )
}
