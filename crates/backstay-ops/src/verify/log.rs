//! The archived log, against the bases that need it, its timelines and their histories.
//!
//! Positions say what is missing, histories which way a restore goes, and every object is
//! opened: its head must say what its name says, and the records at its edges must go on
//! where those of its neighbours end. With `digest`, every byte of it.
//!
//! Refuses to take a log that has not been received yet for one that is missing: only what
//! has log behind it is a hole.

use std::collections::BTreeSet;

use backstay_engine::postgres::receive::timeline_of;
use backstay_engine::redis::sync::is_replication_id;
use backstay_model::log::history::History;
use backstay_model::plan::restore::LineageLog;
use backstay_model::plan::window::{PositionHole, windows};
use backstay_model::{
    BackupId, BackupRecord, Finding, FindingLevel, InstanceId, LogId, LogSpan, Lsn, Position, TimelineId,
    VerifyLevel, VerifyReport,
};
use backstay_repo::layout::InstanceLayout;
use backstay_repo::log::LogObject;

use super::unseen;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::known::Known;
use crate::log_view::marks::Seeker;
use crate::log_view::{LogView, holes, log_of};

mod objects;
mod stream;
mod switch;

/// An object that cannot be believed, and why.
struct Damaged {
    log: LogId,
    object: LogObject,
    reason: String,
}

/// Looks at all that an instance has of its log; `unsound` are backups that do not count.
pub(super) async fn look(
    context: &Context,
    instance: &InstanceId,
    level: VerifyLevel,
    unsound: &BTreeSet<BackupId>,
    report: &mut VerifyReport,
) -> Result<()> {
    let subject = format!("{instance}/log");
    match look_at(context, instance, level, unsound, report).await {
        Err(Error::Repo(error)) => {
            report.not_seen(unseen(&subject, error)?);
            Ok(())
        }
        done => done,
    }
}

async fn look_at(
    context: &Context,
    instance: &InstanceId,
    level: VerifyLevel,
    unsound: &BTreeSet<BackupId>,
    report: &mut VerifyReport,
) -> Result<()> {
    let known = Known::of(context, instance).await?;
    let newest_first = known.newest_first();
    let sound =
        newest_first.iter().filter(|(record, marks)| !marks.is_damaged() && !unsound.contains(&record.id));
    let oldest_first: Vec<&BackupRecord> = sound.rev().map(|(record, _)| record).collect();
    let view = LogView::of(context, instance, oldest_first.iter().copied()).await?;
    if view.index.is_empty() {
        return Ok(());
    }
    let looking = Looking { context, instance, view: &view, oldest_first: &oldest_first, level };
    looking.histories(report)?;
    looking.holes(report).await?;
    for damaged in looking.objects(report).await? {
        let finding = looking.finding_of(&damaged)?;
        report.found(finding);
    }
    if level == VerifyLevel::Digest {
        looking.switches(report).await?;
    }
    Ok(())
}

struct Looking<'a> {
    context: &'a Context,
    instance: &'a InstanceId,
    view: &'a LogView,
    oldest_first: &'a [&'a BackupRecord],
    level: VerifyLevel,
}

impl Looking<'_> {
    fn layout(&self) -> InstanceLayout {
        InstanceLayout::new(self.instance.clone())
    }

    fn history_name(&self, log: &LogId) -> Result<String> {
        let name = self.layout().log_history(log).map_err(backstay_repo::Error::from)?;
        Ok(name.to_string())
    }

    /// The size of a segment, as the bases of a lineage say it.
    fn segment_bytes(&self, lineage: &str) -> Option<u64> {
        // A stream has none.
        if is_replication_id(lineage) {
            return None;
        }
        let bases = self.view.known.bases.values();
        bases.filter(|base| base.lineage == lineage).map(|base| base.segment_bytes).next()
    }

    /// Each timeline but the first came from another, and that must be known of it and be
    /// the same in all that came after.
    fn histories(&self, report: &mut VerifyReport) -> Result<()> {
        let remedy = format!(
            "`backstay archive {0}` fetches it while the server has it; `backstay backup {0}` makes a base that needs none",
            self.instance
        );
        for (_, object, reason) in &self.view.damaged_histories {
            let message = format!("where the timeline came from is not known: {reason}");
            report.found(Finding::error(object, message, &remedy));
        }
        for (object, reason) in &self.view.damaged_gaps {
            let message = format!("why log was given up is not known: {reason}");
            let remedy = format!("`backstay status {}` shows what is missing there", self.instance);
            report.found(Finding::warning(object, message, remedy));
        }
        for (log, timeline) in self.view.index.timelines() {
            let Some(number) = timeline_of(log).filter(|number| number.0 > 1) else { continue };
            let name = self.history_name(log)?;
            if !timeline.has_history && !timeline.objects.is_empty() {
                let message = format!(
                    "where timeline {number} came from is not stored: only bases that were taken on it are \
                     restored with its log"
                );
                report.found(Finding::error(&name, message, &remedy));
            }
            let lineage = self.view.lineage(&log.lineage);
            let Some(history) = lineage.histories.get(&number) else { continue };
            for contradiction in contradictions(lineage, number, history) {
                report.found(Finding::error(&name, contradiction, &remedy));
            }
            let first = timeline.objects.first().map(|object| object.span.start);
            let (segment, switch) = (self.segment_bytes(&log.lineage), history.ancestors.last());
            if let (Some(first), Some(segment), Some((_, switch))) = (first, segment, switch)
                && first < switch.0 / segment * segment
            {
                let message = format!(
                    "timeline {number} has log from {} on, and began only at {switch} as its history says",
                    Lsn(first)
                );
                report.found(Finding::error(&name, message, &remedy));
            }
        }
        Ok(())
    }

    /// What keeps restores from log that is there.
    async fn holes(&self, report: &mut VerifyReport) -> Result<()> {
        let bases = self.view.bases(self.oldest_first.iter().copied());
        for (name, bases) in &bases {
            let (context, instance, index) = (self.context, self.instance, &self.view.index);
            let seeker = Seeker { context, instance, index, lineage: name };
            let lineage = self.view.lineage(name);
            for hole in windows(lineage, bases).holes {
                let why = holes::why(&seeker, lineage, &hole).await?;
                let place = |at: u64| match lineage.position(hole.timeline, Lsn(at)) {
                    Position::Wal { lsn, .. } => lsn.to_string(),
                    Position::Stream { offset, .. } => offset.to_string(),
                };
                let span = format!("{} to {}", place(hole.span.start), place(hole.span.end));
                let message =
                    format!("the log from {span} is missing: {why}; {}", self.reach(lineage, &hole));
                let subject = format!("{}/log/{}", self.instance, log_of(name, hole.timeline));
                let is_decided = lineage.gap(hole.timeline, hole.span).is_some();
                let level = match hole.again {
                    Some(_) if is_decided => FindingLevel::Info,
                    Some(_) => FindingLevel::Warning,
                    None => FindingLevel::Error,
                };
                report.found(Finding { level, subject, message, remedy: self.remedy(&hole) });
            }
        }
        Ok(())
    }

    fn reach(&self, lineage: &LineageLog, hole: &PositionHole) -> String {
        let before = match &hole.last {
            Some(_) => {
                format!("restores reach {}", lineage.position(hole.timeline, Lsn(hole.span.start)))
            }
            None => "no restore needs what is before it".to_owned(),
        };
        let ended = |id: &BackupId| {
            let record = self.oldest_first.iter().find(|record| record.id == *id);
            record.map(|record| format!(", which ended {}", record.finished_at)).unwrap_or_default()
        };
        match &hole.again {
            Some(id) => format!("{before}, and what lies behind it again from backup {id} on{}", ended(id)),
            None => format!("{before}, and nothing behind it"),
        }
    }

    fn remedy(&self, hole: &PositionHole) -> String {
        let instance = self.instance;
        match hole.again {
            Some(_) => format!("`backstay status {instance}` shows every instant that can be restored to"),
            None => format!("`backstay backup {instance}` makes a base from which the log goes on"),
        }
    }

    /// Everything that is listed is looked at; what cannot be believed comes back.
    async fn objects(&self, report: &mut VerifyReport) -> Result<Vec<Damaged>> {
        let mut all = Vec::new();
        for (log, timeline) in self.view.index.timelines() {
            let links = objects::Links {
                is_stream: is_replication_id(&log.lineage),
                segment_bytes: self.segment_bytes(&log.lineage),
                system: u64::from_str_radix(&log.lineage, 16).ok(),
            };
            let (context, instance) = (self.context, self.instance);
            let looked = objects::look(context, instance, log, &timeline.objects, links, self.level, report);
            all.extend(looked.await?);
        }
        Ok(all)
    }

    /// With what can still be restored to.
    fn finding_of(&self, damaged: &Damaged) -> Result<Finding> {
        let Damaged { log, object, reason } = damaged;
        let name = self.layout().log_object(log, object.span).map_err(backstay_repo::Error::from)?;
        let others = self.view.index.timeline(log).into_iter().flat_map(|timeline| &timeline.objects);
        let others: Vec<LogSpan> =
            others.map(|other| other.span).filter(|span| *span != object.span).collect();
        let left: backstay_model::Coverage = others.into_iter().collect();
        if left.contains(&object.span) {
            let message = format!("{reason}; other objects hold the same log");
            let remedy =
                format!("remove this object at the store, and `backstay wal fetch` takes the others: {name}");
            return Ok(Finding::error(name.as_str(), message, remedy));
        }
        let mut lineage = self.view.lineage(&log.lineage).clone();
        let timeline = timeline_of(log).unwrap_or(TimelineId(1));
        lineage.timelines.insert(timeline, left);
        let bases = self.view.bases(self.oldest_first.iter().copied());
        let found = windows(&lineage, bases.get(log.lineage.as_str()).map(Vec::as_slice).unwrap_or_default());
        let is_here = |hole: &&PositionHole| hole.timeline == timeline && hole.span.overlaps(&object.span);
        let instance = self.instance;
        Ok(match found.holes.iter().find(is_here) {
            Some(hole) => Finding::error(
                name.as_str(),
                format!("{reason}; {}", self.reach(&lineage, hole)),
                self.remedy(hole),
            ),
            None => {
                let end = found.windows.iter().rev().find(|window| window.timeline == timeline);
                let reach = match end.filter(|window| window.to.0 <= object.span.start) {
                    Some(window) => format!("restores reach {}", lineage.position(timeline, window.to)),
                    None => "no backup that is there needs it".to_owned(),
                };
                let remedy = format!("`backstay backup {instance}` makes a base that does not need it");
                Finding::error(name.as_str(), format!("{reason}; {reach}"), remedy)
            }
        })
    }
}

/// A timeline and its ancestors must tell the same of those before them.
fn contradictions(lineage: &LineageLog, number: TimelineId, history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for (place, (ancestor, _)) in history.ancestors.iter().enumerate() {
        let Some(of_ancestor) = lineage.histories.get(ancestor) else { continue };
        if of_ancestor.ancestors != history.ancestors[..place] {
            found.push(format!(
                "the histories of timelines {ancestor} and {number} do not agree on what was before {ancestor}"
            ));
        }
    }
    if history.ancestors.last().is_some_and(|(last, _)| *last >= number) {
        found.push(format!("timeline {number} came from one that is younger than itself"));
    }
    found
}
