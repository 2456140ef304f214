//! A drill of Redis: restored to an offset at which the source had said how full it was, started on
//! its own, and compared with that.

use backstay_engine::redis::RedisSettings;
use backstay_engine::redis::base::RedisFacts;
use backstay_engine::redis::place;
use backstay_engine::redis::programs::RedisPrograms;
use backstay_model::plan::RestoreRequest;
use backstay_model::{BackupId, BackupRecord, EngineKind, RecoveryTarget, StopOptions, TargetTimeline};

use std::path::Path;

use super::course::{self, Course};
use super::instant::{Draw, chance};
use super::{DATA, DrillOptions, of_a_drill};
use crate::archive::redis::instants::SpanFacts;
use crate::clock::Stopwatch;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::known::Known;
use crate::restore::redis::Standing;
use crate::restore::{self, redis, redis_proof};

pub(super) async fn drill(
    context: &Context,
    instance: &Instance,
    settings: &RedisSettings,
    options: &DrillOptions,
    scratch: &Path,
    course: &mut Course,
) -> Result<()> {
    let into = scratch.join(DATA);
    let mut request = RestoreRequest {
        instance: instance.id.clone(),
        backup: None,
        target: options.target.clone().unwrap_or_default(),
        stop: StopOptions::default(),
        into: into.display().to_string(),
        start: true,
        standby: false,
    };
    context.progress.enter("plan");
    let mut known = context.unless_cancelled(Known::read(context, &instance.id)).await?;
    let log = restore::log::known(context, &instance.id, &known.backups);
    known.log = context.unless_cancelled(log).await?;
    // What the last drill said is no news to this one.
    known.backups.iter_mut().for_each(|(_, marks)| marks.drill_sound = None);
    let said = options.target.as_ref();
    let mut draw = context.unless_cancelled(Draw::of(context, &instance.id, &known, said)).await?;
    if said.is_none() {
        match context.unless_cancelled(witnessed(context, instance)).await? {
            Some((lineage, offset)) => {
                request.target = RecoveryTarget::Offset(offset);
                request.backup = base_before(&known, &lineage, offset);
            }
            None => draw_instant(&mut draw, &mut request)?,
        }
    }
    let (mut plan, manifest) = loop {
        course.target = request.target.clone();
        let (plan, manifest) = restore::choose_among(context, &request, &mut known).await?;
        let Some(refusal) = plan.refusals.first() else { break (plan, manifest) };
        if refusal.kind == backstay_model::ErrorKind::Unrecoverable && !draw.is_over() {
            request.backup = None;
            draw_instant(&mut draw, &mut request)?;
            continue;
        }
        course.backup = course::refused_as_damaged(&request, &known);
        return Err(Error::Refused { refusal: refusal.clone() });
    };
    let manifest = manifest.ok_or_else(|| Error::broken("a plan without refusals has no base"))?;
    if manifest.record.engine != EngineKind::Redis {
        return Err(Error::broken("a backup is of another engine than its instance"));
    }
    course.backup = Some(manifest.record.id.clone());
    // Whoever cannot start it need not read it first.
    let source = RedisFacts::from_json(&manifest.record.facts)?.server;
    let programs = RedisPrograms::find(&source, settings.bin_directory.as_deref()).await?;
    let watch = Stopwatch::start();
    let replayed: u64 = plan.log.iter().map(|range| range.bytes).sum();
    let needed = manifest.record.statistics.logical_bytes + replayed;
    place::check(&into, needed).map_err(Error::from).map_err(of_a_drill)?;
    let placed =
        redis::place(context, manifest, &into, Standing::Empty, &mut plan).await.map_err(of_a_drill)?;
    (course.place_seconds, course.restored_bytes) = (Some(watch.seconds()), placed.bytes);
    let expected = redis_proof::expected_at(context, &plan, &placed).await?;
    course.findings = plan.findings;
    course.findings.extend(programs.finding(&source));
    let watch = Stopwatch::start();
    let mut server = redis_proof::start(context, settings, &placed).await?;
    course.recover_seconds = Some(watch.seconds());
    let watch = Stopwatch::start();
    let proof = redis_proof::ask(context, &mut server, &expected).await?;
    server.stop().await?;
    course.prove_seconds = Some(watch.seconds());
    course.checks = proof.checks;
    course.findings.splice(0..0, proof.findings);
    Ok(())
}

/// Of a server that says little some have none: the source is counted every ten seconds.
const LOOKS: usize = 64;

/// All timelines of a stream are one way.
fn draw_instant(draw: &mut Draw, request: &mut RestoreRequest) -> Result<()> {
    draw.next(request)?;
    request.stop.timeline = TargetTimeline::Latest;
    Ok(())
}

/// An offset at which the source said how full it was, of an object that chance chose. Whether a base
/// leads there, the plan says.
async fn witnessed(context: &Context, instance: &Instance) -> Result<Option<(String, u64)>> {
    let index = context.repo.log_index(&instance.id).await?;
    let objects: Vec<_> = index
        .timelines()
        .flat_map(|(log, timeline)| timeline.objects.iter().map(move |object| (log, *object)))
        .collect();
    let Some(first) = chance()?.checked_rem(objects.len() as u64) else { return Ok(None) };
    // Not every object has one: the next that has is as good.
    for (log, object) in objects.iter().cycle().skip(first as usize).take(objects.len().min(LOOKS)) {
        let glance = context.repo.glance_at_log(&instance.id, log, *object).await?;
        let facts = serde_json::from_value::<SpanFacts>(glance.head.facts);
        let witnesses = facts.map(|facts| facts.witnesses).unwrap_or_default();
        if let Some(witness) = witnesses.last() {
            return Ok(Some((log.lineage.clone(), witness.offset)));
        }
    }
    Ok(None)
}

/// The newest sound base of a stream before an offset: the number alone may lie in another one too.
fn base_before(known: &Known, lineage: &str, offset: u64) -> Option<BackupId> {
    let of_stream = |record: &BackupRecord| {
        let is_its = known.log.bases.get(&record.id).is_some_and(|base| base.lineage == lineage);
        is_its && known.log.points.get(&record.id).is_some_and(|point| point.at.0 <= offset)
    };
    let newest_first = known.newest_first();
    let mut sound = newest_first.iter().filter(|(_, marks)| !marks.is_damaged());
    sound.find(|(record, _)| of_stream(record)).map(|(record, _)| record.id.clone())
}
