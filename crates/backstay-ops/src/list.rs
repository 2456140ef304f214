//! List and show: the backups that exist, newest first.

use backstay_model::{BackupId, BackupMarks, BackupRecord, BackupSummary, Finding, InstanceId};
use jiff::Timestamp;
use serde::Serialize;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::known::Known;

/// Everything about one backup.
#[derive(Debug, Clone, Serialize)]
pub struct BackupDetail {
    #[serde(flatten)]
    pub summary: BackupSummary,
    /// What the engine noted: settings, identifiers, tablespaces.
    pub facts: serde_json::Value,
}

/// What `list` tells.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    pub backups: Vec<BackupSummary>,
    /// Backups that are there and cannot be read, and markers of retention that cannot.
    pub findings: Vec<Finding>,
}

/// The backups of one instance, or of all that the repository holds.
pub async fn run(context: &Context, instance: Option<&InstanceId>) -> Result<Listing> {
    let instances = match instance {
        Some(one) => vec![one.clone()],
        None => context.repo.instances().await?,
    };
    let mut listing = Listing::default();
    let mut in_order = Vec::new();
    for instance in instances {
        context.check_cancelled()?;
        let known = Known::of(context, &instance).await?;
        in_order.extend(listed_as(&known));
        listing.findings.extend(known.findings);
        listing.findings.extend(known.unreadable.into_iter().map(|(id, reason)| {
            Finding::error(
                format!("{instance}/{id}"),
                format!("this backup cannot be read: {reason}"),
                format!("`backstay verify {instance}` names everything that is damaged"),
            )
        }));
    }
    in_order.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| other.id.cmp(&one.id)));
    listing.backups = in_order.into_iter().map(|(_, summary)| summary).collect();
    Ok(listing)
}

/// The backups of an instance, with the times by which they stand among those of
/// others: one that was taken later never stands below one taken before it.
fn listed_as(known: &Known) -> Vec<((Timestamp, u64), BackupSummary)> {
    let mut latest = Timestamp::MIN;
    let oldest_first = known.newest_first().into_iter().rev();
    oldest_first
        .map(|(record, marks)| {
            latest = latest.max(record.finished_at);
            ((latest, record.sequence), BackupSummary::new(record, marks.clone()))
        })
        .collect()
}

pub async fn show(context: &Context, backup: &BackupId) -> Result<BackupDetail> {
    let (record, marks) = find(context, backup).await?;
    Ok(BackupDetail { summary: BackupSummary::new(&record, marks), facts: record.facts })
}

/// A backup by its id alone, whatever instance it is of.
pub(crate) async fn find(context: &Context, backup: &BackupId) -> Result<(BackupRecord, BackupMarks)> {
    for instance in context.repo.instances().await? {
        context.check_cancelled()?;
        match context.repo.manifest(&instance, backup).await {
            Ok(_) => {}
            Err(backstay_repo::Error::NoSuchBackup { .. }) => continue,
            Err(error) => return Err(Error::Repo(error)),
        }
        let known = Known::of(context, &instance).await?;
        if let Some(found) = known.backups.into_iter().find(|(record, _)| record.id == *backup) {
            return Ok(found);
        }
    }
    Err(Error::NoSuchBackup { backup: backup.clone() })
}
