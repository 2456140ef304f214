//! Status: health, what can be reached, and the objectives beside what was measured.
//!
//! A server that is away does not make the status fail: that is the hour at which
//! somebody asks for it.

use std::path::PathBuf;

use backstay_engine::postgres::BackupFacts;
use backstay_model::drill::DrillReport;
use backstay_model::status::{ArchiveStatus, Health, Hole, InstanceStatus, LastDrill};
use backstay_model::{BackupRecord, BackupSummary, FindingLevel, LagLimit, Position};
use jiff::{SignedDuration, Timestamp};

use crate::context::Context;
use crate::error::Result;
use crate::future::is_from_the_future;
use crate::instance::{EngineSettings, Instance};
use crate::known::Known;
use crate::log_view::LogView;
use crate::log_view::bases::state_at;

mod idle;
pub(crate) mod reach;
mod source;

use reach::Reach;
use source::Probed;

/// What the configuration says of the archive of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveExpected {
    pub slot: String,
    /// Somebody wrote down how the log is to be archived.
    pub is_configured: bool,
    /// How much the server may hold for it.
    pub max_lag: Option<LagLimit>,
    /// Where an archive of this machine keeps a stream before it is stored.
    pub spool: Option<PathBuf>,
}

/// `expected` is `None` where no log of this engine can be archived.
pub async fn run(
    context: &Context,
    instance: &Instance,
    expected: Option<&ArchiveExpected>,
) -> Result<InstanceStatus> {
    if !matches!(instance.engine, EngineSettings::Redis(_)) {
        instance.postgres()?;
    }
    let known = Known::of(context, &instance.id).await?;
    let newest_first = known.newest_first();
    let last_backup = newest_first.first().map(|(record, marks)| BackupSummary::new(record, marks.clone()));
    let sound: Vec<&BackupRecord> =
        newest_first.iter().filter(|(_, marks)| !marks.is_damaged()).map(|(record, _)| record).collect();
    let oldest_first: Vec<&BackupRecord> = sound.iter().rev().copied().collect();
    let view = LogView::of(context, &instance.id, oldest_first.iter().copied()).await?;
    let mut reach = reach::look(context, &instance.id, &view, &oldest_first).await?;
    let now = context.clock.now();
    // Behind the look at the store: what the server has written since counts as missing.
    let probed = match &instance.engine {
        EngineSettings::Redis(settings) => source::probe_redis(settings).await,
        _ => source::probe(instance.postgres()?, expected).await,
    };
    let mut archive = source::archive(&probed, &reach, expected, now);
    if let (Some(stream), Some(spool)) =
        (&probed.stream, expected.and_then(|expected| expected.spool.as_ref()))
    {
        idle::settle(context, &mut archive, stream, spool).await?;
    }
    reach.holes.extend(open_hole(&archive, &reach));

    let recovery_point_age_seconds = recovery_point_age(&sound, &reach, &archive, now);
    let last_drill = known.proofs.last().map(LastDrill::from);
    let objectives = instance.policy.objectives.compare(recovery_point_age_seconds, last_drill.as_ref());
    let newest = newest_first.first().map(|(record, _)| record);
    let looked =
        Looked { instance, known: &known, view: &view, newest, reach: &reach, archive: &archive, now };
    let (health, health_reason) = looked.health(probed);
    context.check_cancelled()?;
    Ok(InstanceStatus {
        instance: instance.id.clone(),
        engine: instance.kind(),
        health,
        health_reason,
        recovery_windows: reach.windows,
        holes: reach.holes,
        recovery_point_age_seconds,
        archive,
        last_backup,
        last_drill,
        objectives,
    })
}

/// How old the newest instant is that can be restored to. Where the store has all that the
/// server has written, nothing would be lost however long ago the last commit was.
fn recovery_point_age(
    sound: &[&BackupRecord],
    reach: &Reach,
    archive: &ArchiveStatus,
    now: Timestamp,
) -> Option<f64> {
    if reach.is_open_ended && source::is_up_to_date(archive) {
        return Some(0.0);
    }
    let newest = sound.first().filter(|record| !is_from_the_future(record, now))?;
    let tolerated = now.checked_add(SignedDuration::from_secs(5)).unwrap_or(now);
    let reached = reach.windows.iter().map(|window| window.to).filter(|to| *to <= tolerated);
    let point = reached.chain([state_at(newest)]).max()?;
    Some(now.duration_since(point).as_secs_f64().max(0.0))
}

/// Behind what is stored, the server has nothing any more that would follow.
fn open_hole(archive: &ArchiveStatus, reach: &Reach) -> Option<Hole> {
    let lost = archive.slot.as_ref().filter(|slot| slot.wal_status.as_deref() == Some("lost"));
    // A slot that is well holds what follows, whatever was to be given up.
    let gap = reach.open_gap.as_ref().filter(|_| lost.is_some() || archive.slot.is_none());
    let (timeline, lsn, why) = match (gap, lost) {
        (Some(gap), _) => (gap.timeline, gap.from, gap.to_string()),
        (None, Some(slot)) => {
            let stored = reach.stored.filter(|_| archive.lag_bytes.is_some_and(|lag| lag > 0));
            let why =
                format!("the slot {} is lost: the server let go of log before it was received", slot.name);
            stored.map(|(timeline, lsn)| (timeline, lsn, why))?
        }
        (None, None) => return None,
    };
    Some(Hole {
        from: reach.newest_commit.or(gap.map(|gap| gap.at))?,
        to: None,
        why,
        given_up_at: gap.map(|gap| gap.at),
        timeline,
        from_position: Position::Wal { timeline, lsn }.to_string(),
        to_position: None,
        backup: None,
        reachable_from: None,
    })
}

/// Everything that a health is made of.
struct Looked<'a> {
    instance: &'a Instance,
    known: &'a Known,
    view: &'a LogView,
    newest: Option<&'a BackupRecord>,
    reach: &'a Reach,
    archive: &'a ArchiveStatus,
    now: Timestamp,
}

impl Looked<'_> {
    /// With the first reason that there is, the gravest first.
    fn health(&self, probed: Probed) -> (Health, Option<String>) {
        if probed.health != Health::Ok {
            return (probed.health, probed.health_reason);
        }
        let Looked { instance, known, newest, reach, archive, now, .. } = self;
        let facts = newest.and_then(|record| BackupFacts::from_json(&record.facts).ok());
        let is_another = facts.zip(probed.system_identifier);
        let is_another = is_another.is_some_and(|(facts, found)| facts.server.system_identifier != found);
        let error = known.findings.iter().find(|finding| finding.level == FindingLevel::Error);
        let unsound = known.proofs.last().filter(|proof| !proof.sound);
        let reasons = [
            is_another.then(|| "the server is another cluster than the one in the last backup".to_owned()),
            error.map(|finding| finding.message.clone()),
            reach.stopped.as_ref().map(|reason| {
                format!("{reason}; `backstay backup {}` makes a base from which the log goes on", instance.id)
            }),
            archive.fault(instance.id.as_str()),
            self.damaged_history(),
            unsound.map(of_failed_drill),
            newest.filter(|record| is_from_the_future(record, *now)).map(|record| {
                format!("{} is from the future, so nobody knows how old it is: a clock is wrong", record.id)
            }),
        ];
        match reasons.into_iter().flatten().next() {
            Some(reason) => (Health::Degraded, Some(reason)),
            None => (Health::Ok, None),
        }
    }

    fn damaged_history(&self) -> Option<String> {
        let (_, object, reason) = self.view.damaged_histories.first()?;
        Some(format!("where a timeline came from is not known, {object} does not open: {reason}"))
    }
}

/// What the last drill says, which outweighs every sound one before it.
fn of_failed_drill(proof: &DrillReport) -> String {
    let fault = proof.fault().map(|fault| format!(": {fault}")).unwrap_or_default();
    format!("the drill of backup {} at {} was NOT sound{fault}", proof.backup, proof.at)
}

pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
