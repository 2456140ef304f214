//! Drill: restore for real, start, question, measure, remove.
//!
//! Invariant: a drill never touches the source but to read, its server listens
//! nowhere but on a private socket, it writes nowhere but in its directory, and it
//! leaves nothing behind unless told to, whether it ends well, badly or on request.
//! What a drill left that was killed is removed by the next one. A drill that shows
//! that a backup cannot be brought back is a report like any other, and noted; one
//! that could not look is an error, and changes no note.

mod course;
mod instant;
mod leftovers;
mod redis;

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use backstay_engine::postgres::BackupFacts;
use backstay_model::drill::DrillReport;
use backstay_model::error::Classified as _;
use backstay_model::plan::{RestorePlan, RestoreRequest};
use backstay_model::{ErrorKind, Finding, InstanceId, RecoveryTarget, StopOptions};
use backstay_repo::manifest::Manifest;
use jiff::{SignedDuration, Timestamp};

use crate::clock::Stopwatch;
use crate::context::{Context, off_thread};
use crate::error::{Error, Result};
use crate::instance::{EngineSettings, Instance, only_postgres};
use crate::known::Known;
use crate::notes;
use crate::restore::place::{self, Where};
use crate::restore::recover::{Afterlife, LogSupply};
use crate::restore::{self, prove, recover};
use crate::status::with_causes;
use crate::wal::FetchProgram;

use course::Course;
use instant::Draw;
use leftovers::Alive;

pub use course::could_not_look;

/// What a person may say of one drill.
#[derive(Debug, Clone)]
pub struct DrillOptions {
    /// Any instant of the archived log when none is said, or the latest state where there
    /// is no such log.
    pub target: Option<RecoveryTarget>,
    /// Where to restore to; a directory of its own is made below.
    pub directory: PathBuf,
    /// Leave the restored directory there.
    pub keep: bool,
    /// How the restored server gets archived log.
    pub fetch: Option<FetchProgram>,
}

/// The scratch server runs as the owner of its files, who must be able to pass
/// through; nothing but the data directory, which is private, lies inside.
const DIRECTORY_MODE: u32 = 0o711;

pub async fn run(context: &Context, instance: &Instance, options: &DrillOptions) -> Result<DrillReport> {
    let at = context.clock.now();
    let left = leftovers::sweep(&instance.id, &options.directory).await;
    let scratch = make_directory(&options.directory, &instance.id, at)?;
    let mut kept_at = None;
    let alive = Alive::mark(&scratch)?;
    let mut course = Course::default();
    let drilled = drill(context, instance, options, &scratch, &mut course).await;
    let drilled = drilled.or_else(|error| match context.cancel.is_cancelled() {
        // Whatever broke off then, broke off because of that.
        true => Err(Error::Cancelled),
        false => course.take_in(error),
    });
    // Half of a copy is of no use to anybody.
    let removed = if options.keep && drilled.is_ok() && course.place_seconds.is_some() {
        kept_at = Some(scratch.join(DATA).display().to_string());
        alive.hand_over().map_err(|source| Error::Remove { path: scratch.clone(), source })
    } else {
        let removed = remove(scratch.clone()).await;
        drop(alive);
        removed
    };
    drilled?;
    let report = course.report(&instance.id, at);
    let mut report = report.ok_or_else(|| Error::broken("a drill has ended without a backup"))?;
    report.findings.extend(left);
    report.kept_at = kept_at;
    if let Err(error) = removed {
        // The proof stands; the space it takes is a nuisance that must be said, and so
        // is a copy to be kept that the next drill would take for a dead one's.
        report.findings.push(Finding::warning(
            scratch.display().to_string(),
            format!("what the drill restored could not be removed: {error}"),
            format!("`rm -r {}` removes it", scratch.display()),
        ));
    }
    context.progress.enter("note the proof");
    if let Err(error) = notes::add_proof(context, &report).await {
        if error.kind() == ErrorKind::Cancelled {
            return Err(error);
        }
        // What was seen is worth telling, and most of all when it was bad.
        report.findings.push(Finding::warning(
            instance.id.as_str(),
            format!("this drill could not be noted in the repository: {}", with_causes(&error)),
            "see whether backstay may write to repository.store, and run `backstay drill` again",
        ));
    }
    Ok(report)
}

const DATA: &str = "data";

/// What the drill restores, and where.
async fn plan(
    context: &Context,
    instance: &Instance,
    options: &DrillOptions,
    scratch: &Path,
    course: &mut Course,
) -> Result<(RestorePlan, Manifest, Where, Option<LogSupply>)> {
    let mut request = RestoreRequest {
        instance: instance.id.clone(),
        backup: None,
        target: options.target.clone().unwrap_or_default(),
        stop: StopOptions::default(),
        into: scratch.join(DATA).display().to_string(),
        start: true,
        standby: false,
    };
    let drawn = options.target.is_none();
    let (plan, manifest, facts) = choose(context, &mut request, drawn, course).await?;
    recover::check(instance, &facts.server)?;
    // The places of the tablespaces are in use by the source.
    let moved = facts.server.tablespaces.iter();
    let moved = moved.map(|space| (space.oid.to_string(), scratch.join(format!("tablespace-{}", space.oid))));
    let supply = LogSupply::of(&instance.id, plan.recovery.as_ref(), &facts.server, options.fetch.as_ref())?;
    let recovery = supply.as_ref().map(LogSupply::settings);
    let place = Where { directory: scratch.join(DATA), moved: moved.collect(), recovery };
    Ok((plan, manifest, place, supply))
}

/// The base of a drill. One in whose log a tablespace is made is passed over: replay
/// writes to the place it had, wherever the rest was put.
async fn choose(
    context: &Context,
    request: &mut RestoreRequest,
    is_drawn: bool,
    course: &mut Course,
) -> Result<(RestorePlan, Manifest, BackupFacts)> {
    context.progress.enter("plan");
    let mut known = context.unless_cancelled(Known::read(context, &request.instance)).await?;
    let log = restore::log::known(context, &request.instance, &known.backups);
    known.log = context.unless_cancelled(log).await?;
    // What the last drill said is no news to this one.
    known.backups.iter_mut().for_each(|(_, marks)| marks.drill_sound = None);
    let said = Some(&request.target).filter(|_| !is_drawn);
    let mut draw = context.unless_cancelled(Draw::of(context, &request.instance, &known, said)).await?;
    if is_drawn {
        draw.next(request)?;
    }
    let mut newest_passed = None;
    let mut passed = Vec::new();
    loop {
        course.target = request.target.clone();
        let (mut plan, manifest) = restore::choose_among(context, request, &mut known).await?;
        if let Some(refusal) = plan.refusals.first() {
            if refusal.kind == ErrorKind::Unrecoverable && !draw.is_over() {
                draw.next(request)?;
                continue;
            }
            let refused = Error::Refused { refusal: refusal.clone() };
            course.backup = course::refused_as_damaged(request, &known);
            return Err(newest_passed.unwrap_or(refused));
        }
        let manifest = manifest.ok_or_else(|| Error::broken("a plan without refusals has no base"))?;
        only_postgres(&manifest.record)?;
        let backup = manifest.record.id.clone();
        course.backup = Some(backup.clone());
        let facts = BackupFacts::from_json(&manifest.record.facts)?;
        let Some(late) = facts.late_tablespaces.first() else {
            plan.findings.extend(passed);
            return Ok((plan, manifest, facts));
        };
        known.backups.retain(|(record, _)| record.id != backup);
        course.backup = None;
        passed.push(Finding::warning(
            format!("backup {backup}"),
            format!(
                "was passed over for an older one: tablespace {} was made while it ran, and a drill of it \
                 would write to {}",
                late.name, late.location
            ),
            "run `backstay backup` again, and drill that one",
        ));
        newest_passed.get_or_insert_with(|| Error::DrillOutside {
            backup,
            name: late.name.clone(),
            path: PathBuf::from(&late.location),
        });
    }
}

async fn drill(
    context: &Context,
    instance: &Instance,
    options: &DrillOptions,
    scratch: &Path,
    course: &mut Course,
) -> Result<()> {
    if let EngineSettings::Redis(settings) = &instance.engine {
        return redis::drill(context, instance, settings, options, scratch, course).await;
    }
    let (plan, manifest, place, supply) = plan(context, instance, options, scratch, course).await?;
    course.findings = plan.findings;
    let placed = place::run(context, manifest, &place).await.map_err(of_a_drill)?;
    course.backup = Some(placed.record.id.clone());
    (course.place_seconds, course.restored_bytes) = (Some(placed.seconds), placed.bytes);

    let watch = Stopwatch::start();
    let server = recover::start(context, instance, &placed, supply.as_ref(), Afterlife::Discarded).await?;
    course.recover_seconds = Some(watch.seconds());
    let watch = Stopwatch::start();
    let (checks, findings) =
        prove::run(context, server, &placed, supply.as_ref(), Afterlife::Discarded).await?;
    course.prove_seconds = Some(watch.seconds());
    course.checks = checks;
    course.findings.splice(0..0, findings);
    Ok(())
}

/// The words of a restore name `--into`; a drill has a setting instead.
fn of_a_drill(error: Error) -> Error {
    match error {
        Error::Engine(backstay_engine::Error::TargetTooSmall { path, needed, free }) => {
            Error::DrillTooSmall { path, free, needed }
        }
        other => other,
    }
}

/// Drills that may begin in one second under one name: two repositories may protect
/// instances of the same name, and drill below the same directory.
const AT_ONCE: i64 = 60;

fn make_directory(below: &Path, instance: &InstanceId, at: Timestamp) -> Result<PathBuf> {
    let mut seconds = 0;
    loop {
        let named_at = at.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(at);
        let scratch = below.join(leftovers::name(instance, named_at));
        let failed = |source| Error::DrillDirectory { path: scratch.clone(), source };
        // Above it nothing is made: a setting that is mistyped must not fill another disk.
        match std::fs::DirBuilder::new().mode(DIRECTORY_MODE).create(&scratch) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && seconds < AT_ONCE => seconds += 1,
            Err(source) => return Err(failed(source)),
            // The mask of the process may have taken away what the server's user needs.
            Ok(()) => {
                std::fs::set_permissions(&scratch, Permissions::from_mode(DIRECTORY_MODE)).map_err(failed)?;
                return Ok(scratch);
            }
        }
    }
}

async fn remove(scratch: PathBuf) -> Result<()> {
    off_thread(move || match std::fs::remove_dir_all(&scratch) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Remove { path: scratch, source })
        }
        _ => Ok(()),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drills_of_one_name_that_begin_together_do_not_meet() {
        let below = tempfile::tempdir().unwrap();
        let (instance, at) = ("orders".parse().unwrap(), "2026-11-21T02:00:00Z".parse().unwrap());
        let one = make_directory(below.path(), &instance, at).unwrap();
        let other = make_directory(below.path(), &instance, at).unwrap();
        assert_ne!(one, other);
        assert!(make_directory(&below.path().join("mistyped"), &instance, at).is_err());
    }
}
