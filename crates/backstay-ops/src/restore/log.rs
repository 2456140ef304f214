//! The archived log as a plan sees it, and the answers to what it asks.

use backstay_engine::postgres::receive::timeline_of;
use backstay_model::log::history::History;
use backstay_model::plan::restore::{KnownLog, LogQuestion, Search, Sighting, Sought};
use backstay_model::{BackupMarks, BackupRecord, InstanceId, LogId, LogSpan};
use backstay_repo::log::LogGlance;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::log_view::bases;

/// What there is of the log of an instance, for these backups.
pub(crate) async fn known(
    context: &Context,
    instance: &InstanceId,
    backups: &[(BackupRecord, BackupMarks)],
) -> Result<KnownLog> {
    let mut known = KnownLog::default();
    let index = context.repo.log_index(instance).await?;
    if index.is_empty() {
        return Ok(known);
    }
    for (log, timeline) in index.timelines() {
        let Some(number) = timeline_of(log) else { continue };
        let lineage = known.lineages.entry(log.lineage.clone()).or_default();
        let coverage = timeline.coverage();
        if !coverage.spans().is_empty() {
            lineage.timelines.insert(number, coverage);
        }
        let text = match timeline.has_history {
            true => context.repo.log_history(instance, log).await?,
            false => None,
        };
        bases::name_stream(&mut known, log, number, text.as_deref());
        let lineage = known.lineages.entry(log.lineage.clone()).or_default();
        if let Some(text) = text {
            let history = History::parse(&text).map_err(|error| backstay_repo::Error::Damaged {
                object: format!("{instance}/log/{log}"),
                reason: error.to_string(),
            })?;
            lineage.histories.insert(number, history);
        }
        for place in &timeline.gaps {
            // One that does not open says nothing, and what is missing stays missing.
            match context.repo.log_gap(instance, log, *place).await {
                Ok(gap) => lineage.gaps.extend(gap),
                Err(error) => tracing::warn!(%error, "why log was given up is not known"),
            }
        }
    }
    for (record, _) in backups {
        bases::add(&mut known, record);
    }
    Ok(known)
}

/// Looks into the log for what a plan must know.
pub(crate) async fn answer(
    context: &Context,
    instance: &InstanceId,
    question: &LogQuestion,
) -> Result<Sighting> {
    context.progress.enter("look into the log");
    let mut parts = Vec::new();
    for stretch in &question.stretches {
        let timeline = format!("{:08X}", stretch.timeline.0);
        let log = LogId { lineage: question.lineage.clone(), timeline };
        let Some(span) = LogSpan::new(stretch.from.0, stretch.to.0) else { continue };
        let there = context.repo.timeline_log(instance, &log).await?;
        parts.extend(there.covering(span).into_iter().map(|object| (log.clone(), object, span)));
    }
    let mut search = Search::new(question.sought.clone());
    if question.sought == Sought::Last {
        // The last is found soonest from behind.
        for (log, object, span) in parts.into_iter().rev() {
            context.check_cancelled()?;
            let glance = context.repo.glance_at_log(instance, &log, object).await?;
            see(context, &mut search, &glance, span).await?;
            if search.clone().end().before.is_some() {
                break;
            }
        }
        return Ok(search.end());
    }
    // Of those that cannot hold it the last matters, for what ended before it is in that; of the
    // others their times, for a clock may have been set between them.
    let mut passed: Option<(LogGlance, LogSpan)> = None;
    for (log, object, span) in parts {
        context.check_cancelled()?;
        let glance = context.repo.glance_at_log(instance, &log, object).await?;
        let times = glance.head.first_time.zip(glance.head.last_time);
        let Some((first, last)) = times.filter(|_| glance.head.marks > 0) else { continue };
        if search.may_be_within(first, last) {
            if let Some((passed, of)) = passed.take() {
                see(context, &mut search, &passed, of).await?;
            }
            see(context, &mut search, &glance, span).await?;
            if search.is_over() {
                break;
            }
        } else if let Some((earlier, _)) = passed.replace((glance, span))
            && let Some((first, last)) = earlier.head.first_time.zip(earlier.head.last_time)
        {
            search.pass(earlier.head.span.end, first, last);
        }
    }
    if let Some((passed, of)) = passed.filter(|_| !search.is_over()) {
        see(context, &mut search, &passed, of).await?;
    }
    Ok(search.end())
}

/// The marks of one object that lie in a span. Those behind its first position belong to it.
async fn see(context: &Context, search: &mut Search, glance: &LogGlance, span: LogSpan) -> Result<()> {
    for mark in context.repo.marks_of(glance).await.map_err(Error::from)? {
        if span.start < mark.at && mark.at <= span.end {
            search.see(&mark);
        }
    }
    Ok(())
}
