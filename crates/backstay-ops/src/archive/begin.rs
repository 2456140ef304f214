//! Where a log is received from.

use std::collections::BTreeMap;

use backstay_engine::postgres::BackupFacts;
use backstay_engine::postgres::receive::{LogReceiver, log_id, timeline_of};
use backstay_engine::postgres::wal::LogReader;
use backstay_model::{LogId, LogSpan, Lsn, TimelineId};
use backstay_repo::log::LogIndex;
use backstay_repo::log::spool::{LogSpool, SpooledSpan};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::known::Known;

/// The first position, and on which timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    pub timeline: TimelineId,
    pub from: Lsn,
}

/// After a crash of the machine, the end of each span in the spool may hold what was never
/// received: it is believed as far as it reads as log.
pub(super) fn look_after_a_crash(spool: &mut LogSpool) -> Result<()> {
    if spool.spans().iter().all(|one| one.is_certain) {
        return Ok(());
    }
    for one in spool.spans() {
        let span = LogSpan { start: one.last_file, end: one.span.end };
        let bytes = spool.read(&one.log, span)?;
        let mut reader = LogReader::new(Lsn(span.start), super::CUT_BYTES, None);
        if let Err(damage) = reader.push(&bytes, &mut Vec::new()) {
            tracing::warn!(log = %one.log, %damage, "the machine crashed while this was written");
        }
        let good = reader.valid_to().map_or(span.start, |good| good.0.clamp(span.start, span.end));
        spool.truncate(&one.log, good)?;
    }
    spool.believe()?;
    Ok(())
}

/// Refuses a cluster that is not the one whose log was received, unless a base of it was
/// taken: then a person knows that it is another.
pub(super) async fn refuse_another(
    context: &Context,
    instance: &Instance,
    receiver: &LogReceiver,
    index: &LogIndex,
) -> Result<()> {
    let found = receiver.identity().system_identifier;
    let lineage = log_id(found, TimelineId(1)).lineage;
    let known = Known::of(context, &instance.id).await?;
    let newest = known.backups.iter().max_by_key(|(record, _)| record.sequence);
    let of_newest = newest.and_then(|(record, _)| BackupFacts::from_json(&record.facts).ok());
    let expected = match of_newest {
        Some(facts) if facts.server.system_identifier != found => facts.server.system_identifier.to_string(),
        Some(_) => return Ok(()),
        None => match index.timelines().map(|(log, _)| &log.lineage).find(|known| **known != lineage) {
            Some(other) => u64::from_str_radix(other, 16).map_or_else(|_| other.clone(), |id| id.to_string()),
            None => return Ok(()),
        },
    };
    Err(Error::OtherCluster { instance: instance.id.clone(), found: found.to_string(), expected })
}

/// Behind what is there; where nothing is, where the slot holds the log from.
pub(super) fn choose(
    receiver: &LogReceiver,
    restart: Lsn,
    spooled: &[SpooledSpan],
    index: &LogIndex,
) -> Result<Beginning> {
    let server = receiver.identity();
    let lineage = log_id(server.system_identifier, server.timeline).lineage;
    let mut ends: BTreeMap<TimelineId, u64> = BTreeMap::new();
    let spooled = spooled.iter().map(|one| (one.log.clone(), one.span.end));
    let stored =
        index.timelines().filter_map(|(log, timeline)| Some((log.clone(), timeline.coverage().end()?)));
    for (log, end) in spooled.chain(stored).filter(|(log, _)| log.lineage == lineage) {
        if let Some(timeline) = timeline_of(&log) {
            let known = ends.entry(timeline).or_default();
            *known = (*known).max(end);
        }
    }
    let Some((timeline, end)) = ends.pop_last() else {
        let segment = receiver.segment_bytes();
        let from = Lsn(restart.0 / segment * segment);
        return Ok(Beginning { timeline: server.timeline, from });
    };
    let from = Lsn(end);
    if timeline > server.timeline || (timeline == server.timeline && from > server.flushed) {
        return Err(Error::ServerBehind {
            received: format!("{timeline}@{from}"),
            server: format!("{}@{}", server.timeline, server.flushed),
        });
    }
    Ok(Beginning { timeline, from })
}

/// The name of the log that goes on.
pub(super) fn log_of(receiver: &LogReceiver, timeline: TimelineId) -> LogId {
    log_id(receiver.identity().system_identifier, timeline)
}
