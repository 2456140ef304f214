//! Restore: plan, then place → recover → prove.
//!
//! Invariant: nothing is written before the plan has no refusal, and a directory
//! that was only half placed cannot start, because its control file is put in
//! place last.

use std::path::PathBuf;

use backstay_engine::postgres::BackupFacts;
use backstay_engine::postgres::included;
use backstay_engine::postgres::recovery::RecoverySettings;
use backstay_engine::postgres::starting::{Starting, starting};
use backstay_model::drill::{DrillReport, Proof};
use backstay_model::error::Classified;
use backstay_model::plan::restore::{Refusal, RestoreRequest};
use backstay_model::plan::{RestorePlan, plan_recovery};
use backstay_model::{
    BackupId, EngineKind, ErrorKind, InstanceId, RecoveryTarget, Secret, StopOptions, TargetAction,
    VerifyLevel,
};
use backstay_repo::manifest::Manifest;
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::context::{Context, off_thread, workers};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::known::Known;
use crate::notes::Seen;
use crate::wal::FetchProgram;

mod damage;
mod instead;
pub(crate) mod log;
mod mark;
pub(crate) mod place;
pub(crate) mod prove;
mod reached;
pub(crate) mod recover;
pub(crate) mod redis;
pub(crate) mod redis_proof;
mod remains;
mod stream;

pub use instead::{Instead, Offer};
use recover::{Afterlife, LogSupply};
pub use remains::Remains;

/// What a person may say of one restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The newest sound one when none is named.
    pub backup: Option<BackupId>,
    pub target: RecoveryTarget,
    pub stop: StopOptions,
    /// How the restored server gets archived log.
    pub fetch: Option<FetchProgram>,
    pub into: PathBuf,
    /// `(where it lay, its name or its number; where it is put)`.
    pub tablespaces: Vec<(String, PathBuf)>,
    /// The directory is that of a stopped server of Redis, whose files are kept in it under another name.
    pub set_aside: bool,
    /// Start a private server on the directory, prove that it is readable, and stop it.
    pub start: bool,
    /// Damage that the plan meets is not noted, either.
    pub dry_run: bool,
    /// It follows the archive until somebody promotes it, instead of opening.
    pub standby: Option<Standby>,
}

/// How a standby gets what the archive does not have yet.
#[derive(Debug, Clone, Default)]
pub struct Standby {
    /// The server to stream from, in the words of `primary_conninfo`.
    pub primary_conninfo: Option<Secret>,
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
    /// Whether `--start` would have proved it.
    #[serde(skip)]
    pub can_be_proved: bool,
    /// Whether what was put together was compared with a checksum of its source.
    #[serde(skip)]
    pub is_summed_up: bool,
}

/// What would be done, and every reason not to. Looks at the repository and at
/// the target directory, and changes neither, but for a note of damage that it meets.
pub async fn plan(context: &Context, instance: &Instance, options: &RestoreOptions) -> Result<RestorePlan> {
    let request = RestoreRequest {
        instance: instance.id.clone(),
        backup: options.backup.clone(),
        target: options.target.clone(),
        stop: options.stop,
        into: options.into.display().to_string(),
        start: options.start,
        standby: options.standby.is_some(),
    };
    let notes = if options.dry_run { Notes::None } else { Notes::Written };
    let place = place_options(options, None);
    context.progress.enter("plan");
    let mut known = context.unless_cancelled(Known::read(context, &request.instance)).await?;
    known.log = context.unless_cancelled(log::known(context, &request.instance, &known.backups)).await?;
    loop {
        let (mut plan, manifest) = choose_whole(context, &request, &mut known, notes).await?;
        let Some(manifest) = manifest else { return Ok(plan) };
        if manifest.record.engine == EngineKind::Redis {
            redis::look(context, instance, &manifest, options, &mut plan).await?;
            return Ok(plan);
        }
        let facts = BackupFacts::from_json(&manifest.record.facts)?;
        let fit = place::check(context, manifest.clone(), &facts, &place).await;
        if let Some(seen) = fit.as_ref().err().and_then(|error| damage::seen_in(error, &manifest)) {
            meet(context, &request.instance, &mut known, notes, VerifyLevel::Digest, seen).await?;
            continue;
        }
        plan.tablespaces = place::tablespaces(&facts, &place);
        let has_source =
            |standby: &Standby| standby.primary_conninfo.is_some() || !known.log.lineages.is_empty();
        if options.standby.as_ref().is_some_and(|standby| !has_source(standby)) {
            plan.refuse(nothing_to_follow(&instance.id));
        }
        if options.set_aside {
            let message = "--set-aside is not for PostgreSQL".to_owned();
            let hint = "move the old directory away, and give `--into` a new one".to_owned();
            plan.refuse(Refusal::new(ErrorKind::Unsupported, message, vec![hint]));
        }
        let mut checks = vec![fit];
        if options.start {
            checks.push(recover::check(instance, &facts.server));
        }
        for error in checks.into_iter().filter_map(Result::err) {
            if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Internal) {
                return Err(error);
            }
            plan.refuse(Refusal::from_error(&error));
        }
        return Ok(plan);
    }
}

fn nothing_to_follow(instance: &InstanceId) -> Refusal {
    let hints = vec![
        "`--primary-conninfo 'host=…'` names the server that it streams from".to_owned(),
        format!("`backstay archive {instance}` makes an archive that it can follow"),
    ];
    let message = format!("no log of {instance} is archived: a standby would have nothing to follow");
    Refusal::new(ErrorKind::Unrecoverable, message, hints)
}

/// Whether damage that a plan meets leaves a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notes {
    Written,
    None,
}

/// The plan as far as the repository decides it, and the manifest of its base, among
/// the backups that the caller has left in.
pub(crate) async fn choose_among(
    context: &Context,
    request: &RestoreRequest,
    known: &mut Known,
) -> Result<(RestorePlan, Option<Manifest>)> {
    choose_whole(context, request, known, Notes::Written).await
}

async fn choose_whole(
    context: &Context,
    request: &RestoreRequest,
    known: &mut Known,
    notes: Notes,
) -> Result<(RestorePlan, Option<Manifest>)> {
    loop {
        let planned = plan_recovery(request, &known.backups, &known.unreadable, &known.log, known.rates());
        let plan = match planned {
            Ok(plan) => plan,
            Err(question) => {
                let answer = log::answer(context, &request.instance, &question).await?;
                known.log.answers.push((*question, answer));
                continue;
            }
        };
        let Some(base) = &plan.base else { return Ok((plan, None)) };
        let manifest = context.repo.manifest(&request.instance, base).await?;
        // An object that is gone is better known now than half-way. The plan is made
        // again with what was seen; each round adds one damaged backup.
        let progress = context.progress.clone();
        let level = VerifyLevel::Existence;
        let listed =
            context.repo.verify(manifest.clone(), level, workers(), progress, &context.cancel).await?;
        if listed.report.sound {
            return Ok((plan, Some(manifest)));
        }
        let seen = damage::seen_by(listed, &manifest);
        meet(context, &request.instance, known, notes, level, seen).await?;
    }
}

/// Damage that a plan meets: known from now on, to it and to others.
async fn meet(
    context: &Context,
    instance: &InstanceId,
    known: &mut Known,
    notes: Notes,
    level: VerifyLevel,
    seen: Seen,
) -> Result<()> {
    known.add(context, instance, &seen).await?;
    if notes == Notes::Written {
        damage::note(context, instance, level, seen).await;
    }
    Ok(())
}

/// Whether the repository has a base of the instance, or this one.
pub async fn has_base(context: &Context, instance: &InstanceId, backup: Option<&BackupId>) -> Result<bool> {
    let known = context.unless_cancelled(Known::read(context, instance)).await?;
    // One that does not open is one.
    let readable = known.backups.iter().map(|(record, _)| &record.id);
    let mut all = readable.chain(known.unreadable.iter().map(|(id, _)| id));
    Ok(match backup {
        None => all.next().is_some(),
        Some(backup) => all.any(|id| id == backup),
    })
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
    if manifest.record.engine == EngineKind::Redis {
        return redis::run(context, instance, manifest, options, plan).await;
    }
    let facts = BackupFacts::from_json(&manifest.record.facts)?;
    let (recovery, fetch) = (plan.recovery.as_ref(), options.fetch.as_ref());
    let supply = LogSupply::of(&instance.id, recovery, &facts.server, fetch)?;
    let settings = match &options.standby {
        Some(Standby { primary_conninfo: primary }) => {
            Some(recover::of_a_standby(&instance.id, recovery, &facts.server, fetch, primary.as_ref())?)
        }
        None => supply.as_ref().map(LogSupply::settings),
    };
    // One that was proved and has opened needs no more log.
    let asks_later = match &supply {
        Some(supply) => !options.start || supply.recovery.action == TargetAction::Pause,
        None => options.standby.is_some(),
    };
    let place = place_options(options, settings);
    let placed = match place::run(context, manifest.clone(), &place).await {
        Ok(placed) => placed,
        Err(error) => return Err(failed(context, options, &manifest, supply.is_some(), error).await),
    };
    let mut report = RestoreReport {
        plan,
        restored_bytes: placed.bytes,
        duration_seconds: 0.0,
        recovery_time_seconds: None,
        proof: None,
        starting: None,
        can_be_proved: true,
        is_summed_up: false,
    };
    report.plan.findings.extend(placed.findings.iter().cloned());
    report.plan.findings.extend(included::at_restore(&placed.facts.server, &placed.directory));
    if let Some(program) = options.fetch.as_ref().filter(|_| asks_later) {
        report.plan.findings.extend(recover::called_by_another(&placed.directory, program));
    }
    if options.start {
        let server = recover::start(context, instance, &placed, supply.as_ref(), Afterlife::Used).await?;
        report.recovery_time_seconds = Some(clock.seconds());
        let (checks, findings) =
            prove::run(context, server, &placed, supply.as_ref(), Afterlife::Used).await?;
        let sound = DrillReport::judge(&checks, &findings);
        report.plan.findings.extend(findings);
        report.proof = Some(Proof { at: context.clock.now(), sound, checks });
    }
    report.duration_seconds = clock.seconds();
    let bin_directory = instance.postgres()?.bin_directory.clone();
    let look = move || Ok(starting(&placed.directory, &placed.facts.server, bin_directory.as_deref())?);
    // What was asked for is done, whether or not this can be said.
    report.starting = off_thread(look).await.ok();
    Ok(report)
}

fn place_options(options: &RestoreOptions, recovery: Option<RecoverySettings>) -> place::Where {
    place::Where { directory: options.into.clone(), moved: options.tablespaces.clone(), recovery }
}

/// The error of a restore that had begun. When the stored data is at fault, a backup
/// that does without it is offered.
async fn failed(
    context: &Context,
    options: &RestoreOptions,
    manifest: &Manifest,
    with_log: bool,
    source: Error,
) -> Error {
    if matches!(source.kind(), ErrorKind::Conflict | ErrorKind::Invalid) {
        // Refused before the first byte: what is in the directory is not ours.
        return source;
    }
    let record = &manifest.record;
    let instead = match damage::unusable_in(&source, manifest) {
        // A store that is away holds no other backup, either.
        None => Instead::Unsaid,
        Some(seen) => {
            let chosen = instead::choose(context, options, record, &seen, with_log).await;
            chosen.unwrap_or(Instead::Unsaid)
        }
    };
    let (instance, backup) = (record.instance.clone(), record.id.clone());
    let (into, source) = (options.into.clone(), Box::new(source));
    if record.engine == EngineKind::Redis {
        let left = backstay_engine::redis::place::remains(&into);
        let remains = Remains::of(left.into_iter().collect()).into();
        return Error::SnapshotNotPlaced { instance, backup, into, instead, remains, source };
    }
    let remains = Remains::of(mark::remains(&options.into)).into();
    Error::RestoreFailed { instance, backup, into, instead, remains, source }
}
