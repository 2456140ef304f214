//! Restore: plan, then place → recover → prove.
//!
//! Invariant: nothing is written before the plan has no refusal, and a directory
//! that was only half placed cannot start, because its control file is put in
//! place last.

use std::path::PathBuf;

use backstay_engine::postgres::BackupFacts;
use backstay_engine::postgres::included;
use backstay_engine::postgres::starting::{Starting, starting};
use backstay_model::drill::{DrillReport, Proof};
use backstay_model::error::Classified;
use backstay_model::plan::restore::{Refusal, RestoreRequest};
use backstay_model::plan::{RestorePlan, plan_restore};
use backstay_model::{BackupId, ErrorKind, RecoveryTarget, VerifyLevel};
use backstay_repo::manifest::Manifest;
use backstay_repo::store::{Operation, StoreError};
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::context::{Context, off_thread, workers};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::known::Known;

mod mark;
pub(crate) mod place;
pub(crate) mod prove;
pub(crate) mod recover;

use recover::Afterlife;

/// What a person may say of one restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The newest sound one when none is named.
    pub backup: Option<BackupId>,
    pub target: RecoveryTarget,
    pub into: PathBuf,
    /// `(where it lay, where it is put)`.
    pub tablespaces: Vec<(PathBuf, PathBuf)>,
    /// Start a private server on the directory, prove that it is readable, and stop it.
    pub start: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    #[serde(flatten)]
    pub plan: RestorePlan,
    pub restored_bytes: u64,
    pub duration_seconds: f64,
    /// From the first byte to a server that answered; `None` when none was started.
    pub recovery_time_seconds: Option<f64>,
    pub proof: Option<Proof>,
    /// How the restored server is started; nothing when this could not be seen.
    pub starting: Option<Starting>,
}

/// What would be done, and every reason not to. Looks at the repository and at
/// the target directory, and changes neither.
pub async fn plan(context: &Context, instance: &Instance, options: &RestoreOptions) -> Result<RestorePlan> {
    let request = RestoreRequest {
        instance: instance.id.clone(),
        backup: options.backup.clone(),
        target: options.target.clone(),
        into: options.into.display().to_string(),
        start: options.start,
    };
    let (mut plan, manifest) = choose(context, &request).await?;
    let Some(manifest) = manifest else { return Ok(plan) };
    let facts = BackupFacts::from_json(&manifest.record.facts)?;
    let place = place_options(options);
    plan.tablespaces = place::tablespaces(&facts, &place);
    let mut checks = vec![place::check(context, manifest, &facts, &place).await];
    if options.start {
        checks.push(recover::check(instance, &facts.server));
    }
    for error in checks.into_iter().filter_map(Result::err) {
        if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Internal) {
            return Err(error);
        }
        plan.refuse(Refusal::from_error(&error));
    }
    Ok(plan)
}

/// The plan as far as the repository decides it, and the manifest of its base.
pub(crate) async fn choose(
    context: &Context,
    request: &RestoreRequest,
) -> Result<(RestorePlan, Option<Manifest>)> {
    context.progress.enter("plan");
    let mut known = context.unless_cancelled(Known::read(context, &request.instance)).await?;
    choose_among(context, request, &mut known).await
}

/// The same among the backups that the caller has left in.
pub(crate) async fn choose_among(
    context: &Context,
    request: &RestoreRequest,
    known: &mut Known,
) -> Result<(RestorePlan, Option<Manifest>)> {
    loop {
        let plan = plan_restore(request, &known.backups, &known.unreadable, known.rates());
        let Some(base) = &plan.base else { return Ok((plan, None)) };
        let manifest = context.repo.manifest(&request.instance, base).await?;
        // An object that is gone is better known now than half-way. The plan is made
        // again with what was seen; each round adds one damaged backup.
        if is_whole(context, known, manifest.clone()).await? {
            return Ok((plan, Some(manifest)));
        }
    }
}

/// Whether every object of a backup is there; what is not is noted in `known`.
async fn is_whole(context: &Context, known: &mut Known, manifest: Manifest) -> Result<bool> {
    let base = manifest.record.id.clone();
    let progress = context.progress.clone();
    let verified =
        context.repo.verify(manifest, VerifyLevel::Existence, workers(), progress, &context.cancel).await?;
    if verified.report.sound {
        return Ok(true);
    }
    if let Some((_, marks)) = known.backups.iter_mut().find(|(record, _)| record.id == base) {
        marks.findings.extend(verified.report.findings);
    }
    Ok(false)
}

/// Does what the plan says. The plan must be of the same options.
pub async fn run(
    context: &Context,
    instance: &Instance,
    options: &RestoreOptions,
    plan: RestorePlan,
) -> Result<RestoreReport> {
    if let Some(refusal) = plan.refusals.first() {
        return Err(Error::Refused { refusal: refusal.clone() });
    }
    let base = plan.base.clone().ok_or_else(|| Error::broken("a plan without refusals has no base"))?;
    let clock = Stopwatch::start();
    let manifest = context.repo.manifest(&instance.id, &base).await?;
    let placed = match place::run(context, manifest, &place_options(options)).await {
        Ok(placed) => placed,
        Err(error) => return Err(failed(context, instance, options, base, error).await),
    };
    let mut report = RestoreReport {
        plan,
        restored_bytes: placed.bytes,
        duration_seconds: 0.0,
        recovery_time_seconds: None,
        proof: None,
        starting: None,
    };
    report.plan.findings.extend(placed.findings.iter().cloned());
    report.plan.findings.extend(included::at_restore(&placed.facts.server, &placed.directory));
    if options.start {
        let server = recover::start(context, instance, &placed, Afterlife::Used).await?;
        report.recovery_time_seconds = Some(clock.seconds());
        let (checks, findings) = prove::run(context, server, &placed, Afterlife::Used).await?;
        let sound = DrillReport::judge(&checks, &findings);
        report.plan.findings.extend(findings);
        report.proof = Some(Proof { at: context.clock.now(), sound, checks });
    }
    report.duration_seconds = clock.seconds();
    let bin_directory = instance.postgres().bin_directory.clone();
    let look = move || Ok(starting(&placed.directory, &placed.facts.server, bin_directory.as_deref())?);
    // What was asked for is done, whether or not this can be said.
    report.starting = off_thread(look).await.ok();
    Ok(report)
}

fn place_options(options: &RestoreOptions) -> place::Where {
    place::Where {
        directory: options.into.clone(),
        moved: options
            .tablespaces
            .iter()
            .map(|(old, new)| (old.to_string_lossy().into_owned(), new.clone()))
            .collect(),
    }
}

/// Whether another backup may do what this one could not. An object that is gone,
/// that the disk does not give back or that we may not read is as good as damaged
/// to whoever stands there; a store that is away holds no other backup either.
fn is_of_stored_data(error: &Error) -> bool {
    let unreadable = match error {
        Error::Repo(backstay_repo::Error::Store(error)) => matches!(
            error,
            StoreError::NotFound { .. }
                | StoreError::Denied { operation: Operation::Get | Operation::GetRange, .. }
                | StoreError::Io { operation: Operation::Get | Operation::GetRange, .. }
        ),
        _ => false,
    };
    unreadable || error.kind() == ErrorKind::Corrupt
}

/// The error of a restore that had begun. When the stored data is at fault, a
/// sound backup that ended before is offered.
async fn failed(
    context: &Context,
    instance: &Instance,
    options: &RestoreOptions,
    backup: BackupId,
    source: Error,
) -> Error {
    if matches!(source.kind(), ErrorKind::Conflict | ErrorKind::Invalid) {
        // Refused before the first byte: what is in the directory is not ours.
        return source;
    }
    let mut instead = None;
    if is_of_stored_data(&source)
        && let Ok(known) = Known::read(context, &instance.id).await
    {
        let mut sound = known
            .newest_first()
            .into_iter()
            .filter(|(record, marks)| !marks.is_damaged() && record.id < backup);
        instead = sound.next().map(|(record, _)| record.id.clone());
    }
    Error::RestoreFailed {
        instance: instance.id.clone(),
        backup,
        into: options.into.clone(),
        instead,
        remains: mark::remains(&options.into),
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_backup_is_offered_when_an_object_cannot_be_read_and_not_when_the_store_is_away() {
        let store = |error: StoreError| is_of_stored_data(&Error::Repo(error.into()));
        let object = || "orders/maps/a/0".to_owned();
        let cause = || std::io::Error::other("the disk gives it not back").into();
        assert!(store(StoreError::Io { operation: Operation::GetRange, object: object(), cause: cause() }));
        assert!(store(StoreError::Denied { operation: Operation::Get, object: object(), cause: cause() }));
        assert!(store(StoreError::NotFound { object: object() }));
        assert!(store(StoreError::WrongRange { object: object(), offset: 0, length: 2, got: 1 }));
        assert!(!store(StoreError::Unavailable {
            operation: Operation::Get,
            object: object(),
            cause: cause()
        }));
        assert!(!store(StoreError::Io { operation: Operation::List, object: object(), cause: cause() }));
        assert!(!is_of_stored_data(&Error::Cancelled));
    }
}
