//! Verify: look at what is stored, and remember what is damaged so that the next
//! backup stores it again.
//!
//! Holds a reader of the repository, never a writer; only the note of what was
//! seen is added. Refuses to mix up "this is bad" with "I could not look".

use std::collections::HashSet;
use std::sync::Arc;

use backstay_model::error::Classified;
use backstay_model::{BackupId, ErrorKind, Finding, FindingLevel, InstanceId, VerifyLevel, VerifyReport};
use backstay_repo::layout::{InstanceLayout, ObjectName};
use backstay_repo::verify::{VerifyRun, unreadable_manifest};

use crate::context::{Context, workers};
use crate::error::{Error, Result};
use crate::notes::{self, Seen, Verification};

mod log;

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    All,
    Instance(InstanceId),
    Backup(BackupId),
}

pub async fn run(context: &Context, subject: &Subject, level: VerifyLevel) -> Result<VerifyReport> {
    match subject {
        Subject::All => {
            let mut report = VerifyReport::new("all");
            for instance in context.repo.instances().await? {
                report.absorb(all_of(context, &instance, level).await?);
            }
            Ok(report)
        }
        Subject::Instance(instance) => all_of(context, instance, level).await,
        Subject::Backup(backup) => one(context, backup, level).await,
    }
}

async fn all_of(context: &Context, instance: &InstanceId, level: VerifyLevel) -> Result<VerifyReport> {
    let mut report = VerifyReport::new(instance.as_str());
    let ids = match context.repo.commit_ids(instance).await {
        Ok(ids) => ids,
        Err(error) => {
            report.not_seen(unseen(instance.as_str(), error)?);
            return Ok(report);
        }
    };
    let run = VerifyRun::default();
    let mut seen = Vec::new();
    let mut found = 0;
    // Newest first: what a restore would take is known first, if somebody stops us.
    for id in ids.iter().rev() {
        found += usize::from(look(context, &run, instance, id, level, &mut report, &mut seen).await?);
    }
    match context.repo.markers(instance).await {
        Ok(markers) => markers.findings.into_iter().for_each(|finding| report.found(finding)),
        Err(error) => report.not_seen(unseen(instance.as_str(), error)?),
    }
    match context.repo.vanished(instance, context.clock.now()).await {
        Ok(findings) => findings.into_iter().for_each(|finding| report.found(finding)),
        Err(error) => report.not_seen(unseen(instance.as_str(), error)?),
    }
    if level >= VerifyLevel::Structure {
        let errors = |seen: &&Seen| seen.findings.iter().any(|finding| finding.level == FindingLevel::Error);
        let unsound = seen.iter().filter(errors).map(|seen| seen.backup.clone()).collect();
        log::look(context, instance, level, &unsound, &mut report).await?;
    }
    if found == 0 {
        report.found(Finding::info(
            instance.as_str(),
            "there is no backup to verify",
            format!("`backstay backup {instance}` makes one"),
        ));
    }
    remember(context, instance, level, seen, &mut report).await;
    Ok(report)
}

async fn one(context: &Context, backup: &BackupId, level: VerifyLevel) -> Result<VerifyReport> {
    let mut report = VerifyReport::new(backup.as_str());
    for instance in context.repo.instances().await? {
        let mut seen = Vec::new();
        let run = VerifyRun::default();
        if look(context, &run, &instance, backup, level, &mut report, &mut seen).await? {
            remember(context, &instance, level, seen, &mut report).await;
            return Ok(report);
        }
    }
    Err(Error::NoSuchBackup { backup: backup.clone() })
}

/// Looks at one backup; `false` when there is none of this id.
async fn look(
    context: &Context,
    run: &VerifyRun,
    instance: &InstanceId,
    id: &BackupId,
    level: VerifyLevel,
    report: &mut VerifyReport,
    seen: &mut Vec<Seen>,
) -> Result<bool> {
    context.check_cancelled()?;
    let layout = InstanceLayout::new(instance.clone());
    let subject = format!("{instance}/{id}");
    let manifest = match context.repo.manifest(instance, id).await {
        Ok(manifest) => manifest,
        Err(backstay_repo::Error::NoSuchBackup { .. }) => return Ok(false),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            let finding = unreadable_manifest(&layout, id, &error);
            seen.push(Seen {
                backup: id.clone(),
                findings: vec![finding.clone()],
                damaged_packs: Vec::new(),
                damaged_objects: Vec::new(),
            });
            report.found(finding);
            return Ok(true);
        }
        Err(error) => {
            report.not_seen(unseen(&subject, error)?);
            return Ok(true);
        }
    };
    context.progress.begin(&format!("verify {id}"), manifest.record.statistics.logical_bytes);
    let progress = Arc::clone(&context.progress);
    let needed: HashSet<ObjectName> = manifest.needed_objects().into_iter().collect();
    match context.repo.verify_in(run, manifest, level, workers(), progress, &context.cancel).await {
        Ok(verified) => {
            seen.push(Seen {
                backup: id.clone(),
                findings: verified.report.findings.clone(),
                damaged_packs: verified.damaged_packs,
                damaged_objects: damaged_of(&needed, &verified.report.findings),
            });
            report.absorb(verified.report);
        }
        Err(error) => report.not_seen(unseen(&subject, error)?),
    }
    Ok(true)
}

/// The objects of a backup that its verification found damaged.
pub(crate) fn damaged_of(needed: &HashSet<ObjectName>, findings: &[Finding]) -> Vec<String> {
    let errors = findings.iter().filter(|finding| finding.level == FindingLevel::Error);
    let subjects: HashSet<&str> = errors.map(|finding| finding.subject.as_str()).collect();
    let mut damaged: Vec<String> = needed
        .iter()
        .map(ObjectName::as_str)
        .filter(|name| subjects.contains(name))
        .map(str::to_owned)
        .collect();
    damaged.sort();
    damaged
}

/// What could not be looked at, for errors that mean just that; the others end
/// the verification.
fn unseen(subject: &str, error: backstay_repo::Error) -> Result<Finding> {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Denied => {
            let remedy = error.hints().into_iter().next();
            let remedy = remedy.unwrap_or_else(|| "`backstay verify` looks again".to_owned());
            Ok(Finding::warning(subject, format!("could not be looked at: {error}"), remedy))
        }
        _ => Err(Error::Repo(error)),
    }
}

/// The note is worth something to later operations, and nothing to the answer.
async fn remember(
    context: &Context,
    instance: &InstanceId,
    level: VerifyLevel,
    backups: Vec<Seen>,
    report: &mut VerifyReport,
) {
    if backups.is_empty() {
        return;
    }
    let note = Verification { at: context.clock.now(), level, in_passing: false, backups };
    if let Err(error) = notes::add_verification(context, instance, &note).await {
        report.found(Finding::info(
            instance.as_str(),
            format!("what was seen could not be noted in the repository: {error}"),
            "see whether backstay may write to repository.store",
        ));
    }
}
