//! Expire: retention lets backups go, slowly.
//!
//! A backup that no rule keeps is condemned first: nothing new builds on it, and
//! it can still be restored. Only after the grace window does its manifest go,
//! and only when no running backup builds on it and nobody holds it.

use std::collections::HashSet;

use backstay_model::error::Classified;
use backstay_model::policy::{ExpirePlan, LogReason, plan_expire};
use backstay_model::{BackupId, BackupRecord, Finding};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::collect::log::LogPlan;
use crate::collect::{self, LogDeletion};
use crate::context::Context;
use crate::deletion;
use crate::error::{Error, Result};
use crate::hold;
use crate::instance::Instance;
use crate::known::Known;
use crate::log_view::LogView;

/// What `expire` would do.
#[derive(Debug, Clone, Serialize)]
pub struct ExpireOutlook {
    #[serde(flatten)]
    pub plan: ExpirePlan,
    /// Log that no backup needs then: a collection deletes it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogDeletion>,
}

/// What `expire` did.
#[derive(Debug, Clone, Serialize)]
pub struct ExpireReport {
    #[serde(flatten)]
    pub plan: ExpirePlan,
    pub condemned: Vec<BackupId>,
    pub deleted: Vec<BackupId>,
    /// Log that no backup needs any more: a collection deletes it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogDeletion>,
    /// What could not be done yet, and why.
    pub findings: Vec<Finding>,
}

/// What may go at `as_of`, and why the rest stays.
pub async fn plan(context: &Context, instance: &Instance, as_of: Timestamp) -> Result<ExpirePlan> {
    Ok(outlook(context, instance, as_of).await?.plan)
}

/// The same, with the log that goes then.
pub async fn outlook(context: &Context, instance: &Instance, as_of: Timestamp) -> Result<ExpireOutlook> {
    let known = Known::read(context, &instance.id).await?;
    let grace = SignedDuration::try_from(instance.policy.grace).unwrap_or(SignedDuration::MAX);
    let plan = plan_expire(&instance.id, &known.backups, &instance.policy.keep, as_of, grace);
    let mut plan = ExpirePlan { findings: known.findings, ..plan };
    // Without those whose time is over by then.
    let goes: HashSet<&BackupId> = plan.deletable().map(|expired| &expired.id).collect();
    let stays = known.backups.iter().map(|(record, _)| record).filter(|record| !goes.contains(&record.id));
    let stays: Vec<&BackupRecord> = stays.collect();
    let log = log_beside(context, instance, &stays, &known.unreadable).await?;
    plan.findings.extend(log.findings);
    Ok(ExpireOutlook { plan, log: log.deletions })
}

/// The log that goes with them, which a collection deletes.
async fn log_beside(
    context: &Context,
    instance: &Instance,
    stays: &[&BackupRecord],
    unreadable: &[(BackupId, String)],
) -> Result<LogPlan> {
    let view = LogView::of(context, &instance.id, stays.iter().copied()).await?;
    // Whoever cannot be read may need any of it.
    if view.index.is_empty() || !unreadable.is_empty() {
        return Ok(LogPlan::default());
    }
    let mut plan = collect::log::judge(context, &instance.id, &view, stays)?;
    plan.deletions.retain(|deletion| deletion.reason != LogReason::Superseded);
    Ok(plan)
}

pub async fn run(context: &Context, instance: &Instance) -> Result<ExpireReport> {
    let ExpireOutlook { mut plan, log } = outlook(context, instance, context.clock.now()).await?;
    let findings = std::mem::take(&mut plan.findings);
    let mut report = ExpireReport { condemned: Vec::new(), deleted: Vec::new(), log, findings, plan };
    deletion::sweep(context, &instance.id).await?;
    for expired in report.plan.to_condemn() {
        context.check_cancelled()?;
        context.repo.condemn(&instance.id, &expired.id, context.clock.now()).await?;
        report.condemned.push(expired.id.clone());
    }
    for expired in report.plan.deletable() {
        context.check_cancelled()?;
        match delete(context, instance, &expired.id).await? {
            None => report.deleted.push(expired.id.clone()),
            Some(why) => report.findings.push(why),
        }
    }
    Ok(report)
}

/// Deletes one backup; why it stays, if it does.
async fn delete(context: &Context, instance: &Instance, id: &BackupId) -> Result<Option<Finding>> {
    let announced = deletion::announce(context, &instance.id, id).await?;
    // Since the plan was made somebody may have said that it stays.
    let now = context.clock.now();
    let held = hold::of(context, &instance.id).await?.backups.remove(id);
    let why = if let Some(hold) = held.filter(|hold| hold.is_in_force(now)) {
        let remedy = "`backstay hold remove` leaves it to retention again";
        Some(Finding::info(id.as_str(), format!("it stays: {hold}"), remedy))
    } else if !announced.is_in_time() {
        let message = "it stays for now: to look for holds took too long";
        Some(Finding::info(id.as_str(), message, "`backstay expire` tries again"))
    } else {
        match context.repo.delete_condemned(&instance.id, id, instance.policy.grace, now).await {
            Ok(()) => None,
            Err(error @ backstay_repo::Error::StillNeeded { .. }) => Some(Finding::info(
                id.as_str(),
                error.to_string(),
                error
                    .hints()
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| "`backstay expire` tries again".to_owned()),
            )),
            // What was asked for may still be done: the note stays.
            Err(error) => return Err(Error::Repo(error)),
        }
    };
    announced.take_back(context).await?;
    Ok(why)
}
