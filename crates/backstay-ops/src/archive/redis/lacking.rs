//! Whether a base leads to where a stream goes on.
//!
//! Behind a full synchronisation one is taken at once. Where this program was killed before that
//! had ended, the server goes on with the stream all the same: without another base, nothing that
//! is received there could be restored to.

use backstay_engine::redis::sync::StreamPlace;
use backstay_model::plan::window::windows;
use backstay_model::{BackupRecord, InstanceId, LogId};

use super::resume::Resume;
use super::{STORE_LIMIT, Spool, StreamArchive};
use crate::archive::base::{Bases, WantedBase};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::known::Known;
use crate::log_view::LogView;

/// One look, for a stream that goes on from here.
struct Look {
    context: Context,
    instance: InstanceId,
    spool: Spool,
    bases: Bases,
    log: LogId,
    place: StreamPlace,
}

impl StreamArchive<'_> {
    /// Somebody may have been killed before the base was there behind which this stream began.
    pub(super) fn want_base_where_none_leads(&self, goes_on: &Resume) -> impl Future<Output = ()> + use<> {
        let look = Look {
            context: self.context.clone(),
            instance: self.instance.id.clone(),
            spool: self.spool.clone(),
            bases: self.bases.clone(),
            log: goes_on.log.clone(),
            place: goes_on.place(),
        };
        async move {
            if let Err(error) = look.context.unless_cancelled(look.want_where_none_leads()).await {
                tracing::warn!(%error, "it is not known whether a base leads to the stream");
            }
        }
    }
}

impl Look {
    async fn want_where_none_leads(&self) -> Result<()> {
        // One that is still under way may be the one that leads there: it began over an earlier
        // connection. And none begins while this is decided.
        let _turn = self.bases.turn().await?;
        let looking = lacks_base(&self.context, &self.instance, &self.spool, &self.log);
        let silent = |_| Err(Error::StoreSilent { seconds: STORE_LIMIT.as_secs() });
        if tokio::time::timeout(STORE_LIMIT, looking).await.unwrap_or_else(silent)? {
            let StreamPlace { replication_id, offset } = self.place.clone();
            self.bases.want(WantedBase::Stream { replication_id, offset });
        }
        Ok(())
    }
}

/// For a stream that goes on in this log, with what lies in the spool.
async fn lacks_base(context: &Context, instance: &InstanceId, spool: &Spool, log: &LogId) -> Result<bool> {
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
