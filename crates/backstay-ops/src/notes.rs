//! What operations leave behind about backups: verifications and proofs.
//!
//! Notes are sealed documents beside the backups, created once and never
//! changed. They are not the truth about a backup, only about what was seen of
//! it: losing one costs a measurement and no data.

use backstay_model::drill::DrillReport;
use backstay_model::{BackupId, Finding, InstanceId, VerifyLevel};
use backstay_repo::layout::{InstanceLayout, NameError, ObjectName, Prefix};
use backstay_repo::store::StoreError;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::{Error, Result};

mod prune;

pub(crate) use prune::{outdated, prune};

/// Notes of one second that may exist: two verifications started together draw
/// different numbers, and nobody starts more than this.
const NOTES_OF_ONE_SECOND: u32 = 64;

/// What a verification saw of the backups it looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verification {
    pub at: Timestamp,
    pub level: VerifyLevel,
    /// Seen by a restore, which stops at the first damage it meets: it says nothing of the
    /// rest of the backup, and verifies none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_passing: bool,
    /// Every backup that was looked at, the sound ones with nothing to say.
    pub backups: Vec<Seen>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub backup: BackupId,
    pub findings: Vec<Finding>,
    /// Packs that must not be built on: the session and the number of each.
    pub damaged_packs: Vec<(BackupId, u32)>,
    /// Names of packs and maps that are damaged, for every other backup that needs
    /// them. The first notes have none.
    #[serde(default)]
    pub damaged_objects: Vec<String>,
}

pub(crate) async fn add_verification(
    context: &Context,
    instance: &InstanceId,
    note: &Verification,
) -> Result<()> {
    let layout = InstanceLayout::new(instance.clone());
    add(context, note, note.at, |id| layout.finding(id)).await
}

pub(crate) async fn add_proof(context: &Context, report: &DrillReport) -> Result<()> {
    let layout = InstanceLayout::new(report.instance.clone());
    add(context, report, report.at, |id| layout.proof(id)).await
}

/// All verifications of an instance, in the order of their time.
pub(crate) async fn verifications(context: &Context, instance: &InstanceId) -> Result<Vec<Verification>> {
    Ok(named_verifications(context, instance).await?.into_iter().map(|(_, note)| note).collect())
}

/// All proofs of an instance, in the order of their time.
pub(crate) async fn proofs(context: &Context, instance: &InstanceId) -> Result<Vec<DrillReport>> {
    Ok(named_proofs(context, instance).await?.into_iter().map(|(_, note)| note).collect())
}

async fn named_verifications(
    context: &Context,
    instance: &InstanceId,
) -> Result<Vec<(ObjectName, Verification)>> {
    let mut notes: Vec<(ObjectName, Verification)> =
        all(context, &InstanceLayout::new(instance.clone()).findings()).await?;
    notes.sort_by(|(a, one), (b, other)| (one.at, a).cmp(&(other.at, b)));
    Ok(notes)
}

async fn named_proofs(context: &Context, instance: &InstanceId) -> Result<Vec<(ObjectName, DrillReport)>> {
    let mut notes: Vec<(ObjectName, DrillReport)> =
        all(context, &InstanceLayout::new(instance.clone()).proofs()).await?;
    notes.sort_by(|(a, one), (b, other)| (one.at, a).cmp(&(other.at, b)));
    Ok(notes)
}

async fn add<T: Serialize>(
    context: &Context,
    note: &T,
    at: Timestamp,
    name: impl Fn(&str) -> Result<ObjectName, NameError>,
) -> Result<()> {
    let json = serde_json::to_vec(note).map_err(|error| Error::broken(error.to_string()))?;
    for number in 0..NOTES_OF_ONE_SECOND {
        let name = name(BackupId::new(at, number).as_str()).map_err(backstay_repo::Error::from)?;
        match context.repo.put_document(&name, &json).await {
            Ok(()) => return Ok(()),
            Err(backstay_repo::Error::Store(StoreError::AlreadyExists { .. })) => {}
            Err(error) => return Err(Error::Repo(error)),
        }
    }
    Err(Error::broken(format!("{NOTES_OF_ONE_SECOND} notes were made within one second")))
}

/// A note that does not open is left out and logged: it must not stand in the
/// way of a restore.
async fn all<T: DeserializeOwned>(context: &Context, under: &Prefix) -> Result<Vec<(ObjectName, T)>> {
    let listed = context.repo.store().list_all(under).await.map_err(backstay_repo::Error::from)?;
    let mut notes = Vec::with_capacity(listed.len());
    for meta in listed {
        let json = match context.repo.get_document(&meta.name).await {
            Ok(json) => json,
            Err(backstay_repo::Error::Store(StoreError::NotFound { .. })) => continue,
            Err(error @ backstay_repo::Error::Damaged { .. }) => {
                tracing::warn!(note = %meta.name, %error, "left a note out that does not open");
                continue;
            }
            Err(error) => return Err(Error::Repo(error)),
        };
        match serde_json::from_slice(&json) {
            Ok(note) => notes.push((meta.name, note)),
            Err(error) => tracing::warn!(note = %meta.name, %error, "left a note out that does not read"),
        }
    }
    Ok(notes)
}
