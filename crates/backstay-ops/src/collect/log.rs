//! The log that no base needs any more, and objects that larger ones hold.
//!
//! The order makes it safe: first the log is listed, then it is asked whether a backup is
//! under way, then every manifest is read. A base that comes afterwards was begun afterwards,
//! and ends behind all that was listed. Of a timeline the oldest goes first and its history
//! last, so that what is left after a stop is as whole as it was.
//!
//! Refuses to judge an instance while a backup of it runs, or when one of its manifests does
//! not open or does not say which log it needs.

use std::collections::BTreeSet;

use backstay_engine::postgres::receive::timeline_of;
use backstay_engine::redis::base::RedisFacts;
use backstay_model::error::Classified;
use backstay_model::plan::window::LoggedBase;
use backstay_model::policy::{LogReason, plan_log, superseded};
use backstay_model::{
    BackupRecord, EngineKind, ErrorKind, Finding, InstanceId, LogId, LogSpan, Lsn, TimelineId,
};
use backstay_repo::layout::{GapPlace, ObjectName};
use backstay_repo::log::{LogObject, SPAN_BYTES_MAX, TimelineLog};
use serde::Serialize;

use crate::context::Context;
use crate::error::Result;
use crate::known::Known;
use crate::log_view::LogView;

/// Objects of one timeline that go, or would.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogDeletion {
    pub instance: InstanceId,
    pub lineage: String,
    pub timeline: TimelineId,
    /// Nothing before this position is left; `null` where all of the timeline goes, and where
    /// only its smaller objects do.
    pub to: Option<Lsn>,
    pub reason: LogReason,
    pub objects: u64,
    pub freed_bytes: u64,
    #[serde(skip)]
    pub(crate) names: Vec<ObjectName>,
}

/// What goes of a timeline beside its bytes.
#[derive(Debug, Default)]
struct Others {
    gaps: Vec<GapPlace>,
    with_history: bool,
}

/// What goes of one instance.
#[derive(Debug, Default)]
pub(crate) struct LogPlan {
    pub deletions: Vec<LogDeletion>,
    pub findings: Vec<Finding>,
}

/// What may go now.
pub(super) async fn plan(context: &Context, instance: &InstanceId) -> Result<LogPlan> {
    let before = context.repo.log_index(instance).await?;
    if before.is_empty() {
        return Ok(LogPlan::default());
    }
    if context.repo.is_being_written(instance).await? {
        return Ok(left(instance, "a backup is under way, or was interrupted"));
    }
    let known = Known::read(context, instance).await?;
    if let Some((id, reason)) = known.unreadable.first() {
        return Ok(left(
            instance,
            &format!("which log backup {id} needs is not known, it cannot be read: {reason}"),
        ));
    }
    let records: Vec<&BackupRecord> = known.backups.iter().map(|(record, _)| record).collect();
    let mut view = LogView::of(context, instance, records.iter().copied()).await?;
    // What has come since is not judged.
    view.index = before;
    judge(context, instance, &view, &records)
}

/// What goes when these are all the backups.
pub(crate) fn judge(
    context: &Context,
    instance: &InstanceId,
    view: &LogView,
    records: &[&BackupRecord],
) -> Result<LogPlan> {
    let mut bases = Vec::new();
    for record in records {
        match LoggedBase::of(record, &view.known) {
            Some(base) => bases.push(base),
            // A snapshot without a place in the stream needs none of it.
            None if is_without_place(record) => {}
            None => {
                let why = format!("which log backup {} needs is not known", record.id);
                return Ok(left(instance, &why));
            }
        }
    }
    let expiries = plan_log(&view.known, &bases);
    let mut plan = LogPlan::default();
    for (log, timeline) in view.index.timelines() {
        let Some(number) = timeline_of(log) else { continue };
        let expiry = expiries.iter().find(|one| one.lineage == log.lineage && one.timeline == number);
        let mut taken = BTreeSet::new();
        if let Some(expiry) = expiry {
            let goes: Vec<LogObject> =
                timeline.objects.iter().copied().filter(|object| expiry.takes(object.span)).collect();
            taken.extend(goes.iter().map(|object| object.span));
            let with_history = expiry.to.is_none() && timeline.has_history;
            let reason = expiry.reason.clone();
            // Why log is missing that nobody needs, nobody asks.
            let gaps = timeline.gaps.iter().copied().filter(|gap| expiry.to.is_none_or(|to| gap.from < to.0));
            let others = Others { gaps: gaps.collect(), with_history };
            plan.add(context, (instance, log, number), &goes, (expiry.to, reason), others)?;
        }
        let smaller = smaller(timeline, &taken);
        plan.add(
            context,
            (instance, log, number),
            &smaller,
            (None, LogReason::Superseded),
            Others::default(),
        )?;
    }
    Ok(plan)
}

/// By where they end: a part of a larger one goes before that, or, left alone by a stop, it would have a
/// hole behind it.
fn in_order(goes: &[LogObject]) -> Vec<LogObject> {
    let mut goes = goes.to_vec();
    goes.sort_unstable_by_key(|object| (object.span.end, object.span.start));
    goes
}

fn is_without_place(record: &BackupRecord) -> bool {
    record.engine == EngineKind::Redis
        && RedisFacts::from_json(&record.facts).is_ok_and(|facts| facts.position().is_none())
}

/// Those that a complete cut holds as well. The last two cuts are left alone: somebody who
/// listed the log a moment ago reads their parts.
fn smaller(timeline: &TimelineLog, taken: &BTreeSet<LogSpan>) -> Vec<LogObject> {
    let end = timeline.coverage().end().unwrap_or(0);
    let settled = end.saturating_sub(2 * SPAN_BYTES_MAX);
    let left = timeline.objects.iter().map(|object| object.span).filter(|span| !taken.contains(span));
    let left: Vec<LogSpan> = left.collect();
    let within: BTreeSet<LogSpan> =
        superseded(&left).into_iter().filter(|span| span.end <= settled).collect();
    timeline.objects.iter().copied().filter(|object| within.contains(&object.span)).collect()
}

impl LogPlan {
    fn add(
        &mut self,
        context: &Context,
        (instance, log, timeline): (&InstanceId, &LogId, TimelineId),
        goes: &[LogObject],
        (to, reason): (Option<Lsn>, LogReason),
        others: Others,
    ) -> Result<()> {
        if goes.is_empty() && others.gaps.is_empty() && !others.with_history {
            return Ok(());
        }
        let mut names = Vec::with_capacity(goes.len() + 1);
        let goes = in_order(goes);
        for object in &goes {
            names.push(context.repo.log_object_name(instance, log, object.span)?);
        }
        for place in others.gaps {
            names.push(context.repo.log_gap_name(instance, log, place)?);
        }
        if others.with_history {
            names.push(context.repo.log_history_name(instance, log)?);
        }
        self.deletions.push(LogDeletion {
            instance: instance.clone(),
            lineage: log.lineage.clone(),
            timeline,
            to,
            reason,
            objects: names.len() as u64,
            freed_bytes: goes.iter().map(|object| object.size_bytes).sum(),
            names,
        });
        Ok(())
    }
}

/// Deletes it. A part of a larger object goes only when that one opens as a whole.
pub(super) async fn carry_out(context: &Context, instance: &InstanceId, plan: &mut LogPlan) -> Result<()> {
    for deletion in &mut plan.deletions {
        if deletion.reason == LogReason::Superseded {
            let damaged = keep_without_whole(context, instance, deletion).await?;
            plan.findings.extend(damaged);
        }
        let stop = || match context.cancel.is_cancelled() {
            true => Err(backstay_repo::Error::Cancelled),
            false => Ok(()),
        };
        context.repo.delete_log(&deletion.names, stop).await?;
    }
    plan.deletions.retain(|deletion| !deletion.names.is_empty());
    Ok(())
}

/// Takes those parts out of a deletion whose larger object cannot be read.
async fn keep_without_whole(
    context: &Context,
    instance: &InstanceId,
    deletion: &mut LogDeletion,
) -> Result<Vec<Finding>> {
    let log = LogId { lineage: deletion.lineage.clone(), timeline: format!("{:08X}", deletion.timeline.0) };
    let listed = context.repo.timeline_log(instance, &log).await?;
    let parts = superseded(&listed.objects.iter().map(|object| object.span).collect::<Vec<_>>());
    let parts: BTreeSet<LogSpan> = parts.into_iter().collect();
    let (mut findings, mut names, mut freed) = (Vec::new(), Vec::new(), 0);
    for whole in listed.objects.iter().filter(|object| !parts.contains(&object.span)) {
        let mut within = Vec::new();
        for part in
            listed.objects.iter().filter(|part| parts.contains(&part.span) && whole.span.contains(&part.span))
        {
            let name = context.repo.log_object_name(instance, &log, part.span)?;
            if deletion.names.contains(&name) && !names.contains(&name) {
                within.push((name, part.size_bytes));
            }
        }
        if within.is_empty() {
            continue;
        }
        context.check_cancelled()?;
        match context.repo.read_log_span(instance, &log, whole.span).await {
            Ok(_) => {
                freed += within.iter().map(|(_, bytes)| bytes).sum::<u64>();
                names.extend(within.into_iter().map(|(name, _)| name));
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let name = context.repo.log_object_name(instance, &log, whole.span)?;
                let message = format!("{error}; smaller objects that hold the same stay");
                let remedy = format!("`backstay verify {instance}` says what can be restored to");
                findings.push(Finding::error(name.as_str(), message, remedy));
            }
            Err(error) => return Err(error.into()),
        }
    }
    (deletion.objects, deletion.freed_bytes, deletion.names) = (names.len() as u64, freed, names);
    Ok(findings)
}

pub(super) fn left(instance: &InstanceId, why: &str) -> LogPlan {
    let finding = Finding::info(
        instance.as_str(),
        format!("nothing of its log goes: {why}"),
        "`backstay collect` looks again",
    );
    LogPlan { deletions: Vec::new(), findings: vec![finding] }
}

#[cfg(test)]
mod tests {
    use backstay_model::Coverage;

    use super::*;

    #[test]
    fn wherever_a_deletion_stops_what_is_left_has_no_hole() {
        let spans = [(0, 40), (0, 100), (40, 70), (70, 90), (100, 130), (100, 200), (130, 190), (190, 260)];
        let object = |(start, end)| LogObject { span: LogSpan { start, end }, size_bytes: 1 };
        let goes = in_order(&spans.map(object));
        for gone in 0..goes.len() {
            let left: Coverage = goes[gone..].iter().map(|object| object.span).collect();
            assert_eq!((left.holes(), left.end()), (Vec::new(), Some(260)), "behind {gone}");
        }
    }
}
