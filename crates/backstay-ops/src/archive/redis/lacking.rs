//! Whether a base leads to where a stream goes on.
//!
//! Behind a full synchronisation one is taken at once. Where this program was killed before that
//! had ended, the server goes on with the stream all the same: without another base, nothing that
//! is received there could be restored to.

use backstay_model::plan::window::windows;
use backstay_model::{BackupRecord, InstanceId, LogId};

use super::Spool;
use crate::context::Context;
use crate::error::Result;
use crate::known::Known;
use crate::log_view::LogView;

/// For a stream that goes on in this log, with what lies in the spool.
pub(super) async fn lacks_base(
    context: &Context,
    instance: &InstanceId,
    spool: &Spool,
    log: &LogId,
) -> Result<bool> {
    let spooled = spool.with(|spool| Ok(spool.spans())).await?;
    let known = Known::of(context, instance).await?;
    let newest_first = known.newest_first();
    let oldest_first: Vec<&BackupRecord> = newest_first
        .iter()
        .rev()
        .filter(|(_, marks)| !marks.is_damaged())
        .map(|(record, _)| record)
        .collect();
    let mut view = LogView::of(context, instance, oldest_first.iter().copied()).await?;
    let lineage = view.known.lineages.entry(log.lineage.clone()).or_default();
    for one in spooled.iter().filter(|one| one.log.lineage == log.lineage) {
        let Some(timeline) = backstay_engine::postgres::receive::timeline_of(&one.log) else { continue };
        let there = lineage.timelines.entry(timeline).or_default();
        *there = there.spans().iter().copied().chain([one.span]).collect();
    }
    let bases = view.bases(oldest_first.iter().copied());
    let bases = bases.get(log.lineage.as_str()).map(Vec::as_slice).unwrap_or_default();
    let newest = windows(view.lineage(&log.lineage), bases).newest;
    Ok(newest.is_none_or(|newest| newest.stopped_by_hole))
}
