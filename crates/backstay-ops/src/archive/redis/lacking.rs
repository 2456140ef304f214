//! Whether a base leads to where a stream goes on.
//!
//! Behind a full synchronisation one is taken at once. Where this program was killed before that
//! had ended, the server goes on with the stream all the same: without another base, nothing that
//! is received there could be restored to.
//!
//! A store that is away just then says nothing about it, and the stream may go on over this one
//! connection for weeks: it is asked until it answers.

use std::time::Duration;

use backstay_engine::postgres::receive::timeline_of;
use backstay_engine::redis::sync::StreamPlace;
use backstay_model::log::history::History;
use backstay_model::plan::window::windows;
use backstay_model::{BackupRecord, InstanceId, LogId};

use super::resume::Resume;
use super::{STORE_LIMIT, Spool, StreamArchive};
use crate::archive::base::{Bases, WantedBase};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::known::Known;
use crate::log_view::{LogView, bases};

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

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
    /// Somebody may have been killed before the base was there behind which this stream began. Looks
    /// until the store says so or not, and is to be dropped when the stream ends.
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
            let mut wait = RETRY_FIRST;
            while let Err(error) = look.context.unless_cancelled(look.want_where_none_leads()).await {
                if look.context.cancel.is_cancelled() {
                    return;
                }
                tracing::warn!(%error, "it is not known whether a base leads to the stream");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_LAST);
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

/// For a stream that goes on in this log, with what lies in the spool: all of it may still be there
/// when a store has just come back.
async fn lacks_base(context: &Context, instance: &InstanceId, spool: &Spool, log: &LogId) -> Result<bool> {
    // Before the store is asked: what goes there meanwhile is seen twice, and not missed.
    let (spooled, histories) = spool.with(|spool| Ok((spool.spans(), spool.histories()?))).await?;
    let known = Known::of(context, instance).await?;
    let newest_first = known.newest_first();
    let oldest_first: Vec<&BackupRecord> = newest_first
        .iter()
        .rev()
        .filter(|(_, marks)| !marks.is_damaged())
        .map(|(record, _)| record)
        .collect();
    let mut view = LogView::of(context, instance, oldest_first.iter().copied()).await?;
    let of_this = histories.iter().filter(|(of, _)| of.lineage == log.lineage);
    // The store may have been away when another server went on with the stream.
    for (of, text) in of_this {
        let text = String::from_utf8_lossy(text);
        let (Some(timeline), Ok(history)) = (timeline_of(of), History::parse(&text)) else { continue };
        bases::name_stream(&mut view.known, of, timeline, Some(&text));
        view.known.lineages.entry(of.lineage.clone()).or_default().histories.insert(timeline, history);
    }
    oldest_first.iter().for_each(|record| bases::add(&mut view.known, record));
    let lineage = view.known.lineages.entry(log.lineage.clone()).or_default();
    for one in spooled.iter().filter(|one| one.log.lineage == log.lineage) {
        let Some(timeline) = timeline_of(&one.log) else { continue };
        let there = lineage.timelines.entry(timeline).or_default();
        *there = there.spans().iter().copied().chain([one.span]).collect();
    }
    let bases = view.bases(oldest_first.iter().copied());
    let bases = bases.get(log.lineage.as_str()).map(Vec::as_slice).unwrap_or_default();
    let newest = windows(view.lineage(&log.lineage), bases).newest;
    Ok(newest.is_none_or(|newest| newest.stopped_by_hole))
}
