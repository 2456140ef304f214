//! Where a log is received from.

use std::collections::BTreeMap;

use backstay_engine::postgres::BackupFacts;
use backstay_engine::postgres::receive::{LogReceiver, log_id, timeline_of};
use backstay_engine::postgres::wal::LogReader;
use backstay_model::log::history::History;
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
        let mut reader = LogReader::of_any_segments(Lsn(span.start)).with_sums();
        if let Err(damage) = reader.push(&bytes, &mut Vec::new()) {
            tracing::warn!(log = %one.log, %damage, "the machine crashed while this was written");
        }
        let good = reader.valid_to().map_or(span.start, |good| good.0.clamp(span.start, span.end));
        spool.truncate(&one.log, one.span, good)?;
    }
    spool.believe()?;
    Ok(())
}

/// Refuses a cluster that is not the one whose log was received, unless a base of it was
/// taken: then a person knows that it is another. Says whether the store knows the cluster at all.
pub(super) async fn refuse_another(
    context: &Context,
    instance: &Instance,
    receiver: &LogReceiver,
    index: &LogIndex,
) -> Result<bool> {
    let found = receiver.identity().system_identifier;
    let lineage = log_id(found, TimelineId(1)).lineage;
    let known = Known::of(context, &instance.id).await?;
    let newest = known.backups.iter().max_by_key(|(record, _)| record.sequence);
    let of_newest = newest.and_then(|(record, _)| BackupFacts::from_json(&record.facts).ok());
    let expected = match of_newest {
        Some(facts) if facts.server.system_identifier != found => facts.server.system_identifier.to_string(),
        Some(_) => return Ok(true),
        None => match index.timelines().map(|(log, _)| &log.lineage).find(|known| **known != lineage) {
            Some(other) => u64::from_str_radix(other, 16).map_or_else(|_| other.clone(), |id| id.to_string()),
            None => return Ok(index.timelines().next().is_some()),
        },
    };
    Err(Error::OtherCluster { instance: instance.id.clone(), found: found.to_string(), expected })
}

/// Where what is there of each timeline ends.
pub(super) fn ends(
    receiver: &LogReceiver,
    spooled: &[SpooledSpan],
    index: &LogIndex,
) -> BTreeMap<TimelineId, Lsn> {
    let server = receiver.identity();
    let lineage = log_id(server.system_identifier, server.timeline).lineage;
    let mut ends: BTreeMap<TimelineId, Lsn> = BTreeMap::new();
    let spooled = spooled.iter().map(|one| (one.log.clone(), one.span.end));
    let stored =
        index.timelines().filter_map(|(log, timeline)| Some((log.clone(), timeline.coverage().end()?)));
    for (log, end) in spooled.chain(stored).filter(|(log, _)| log.lineage == lineage) {
        if let Some(timeline) = timeline_of(&log) {
            let known = ends.entry(timeline).or_default();
            *known = (*known).max(Lsn(end));
        }
    }
    ends
}

/// Behind what is there; where nothing is, where the slot holds the log from.
pub(super) fn choose(
    receiver: &LogReceiver,
    history: &History,
    restart: Lsn,
    spooled: &[SpooledSpan],
    index: &LogIndex,
) -> Result<Beginning> {
    let ends = ends(receiver, spooled, index);
    let server = receiver.identity().timeline;
    Ok(go_on(receiver, history, &ends)?.unwrap_or(Beginning {
        timeline: timeline_at(history, server, restart),
        from: begin_of_segment(restart, receiver.segment_bytes()),
    }))
}

/// On which timeline of the way to where the server is a position lies. A slot that was made on a
/// standby holds log of the timeline before its promotion.
pub(super) fn timeline_at(history: &History, server: TimelineId, at: Lsn) -> TimelineId {
    history.ancestors.iter().find(|(_, switch)| at < *switch).map_or(server, |(timeline, _)| *timeline)
}

/// Behind the newest of what was received (`ends`) that lies on the way to where the server is.
/// What was received of a timeline behind the place where that way left it is of a life that is
/// over, as when a server was lost before its standby had its last commits: then it goes on with
/// the next timeline. `None` when nothing of the way was received.
pub(super) fn go_on(
    receiver: &LogReceiver,
    history: &History,
    ends: &BTreeMap<TimelineId, Lsn>,
) -> Result<Option<Beginning>> {
    let server = receiver.identity();
    let server = Beginning { timeline: server.timeline, from: server.flushed };
    on_the_way(server, history, ends, receiver.segment_bytes())
}

fn on_the_way(
    server: Beginning,
    history: &History,
    ends: &BTreeMap<TimelineId, Lsn>,
    segment_bytes: u64,
) -> Result<Option<Beginning>> {
    let behind = |timeline: TimelineId, end: Lsn| Error::ServerBehind {
        received: format!("{timeline}@{end}"),
        server: format!("{}@{}", server.timeline, server.from),
    };
    match ends.last_key_value() {
        Some((timeline, end)) if *timeline > server.timeline => return Err(behind(*timeline, *end)),
        Some((timeline, end)) if *timeline == server.timeline && *end > server.from => {
            return Err(behind(*timeline, *end));
        }
        Some((timeline, end)) if *timeline == server.timeline => {
            return Ok(Some(Beginning { timeline: *timeline, from: *end }));
        }
        _ => {}
    }
    let mut next = server.timeline;
    for (timeline, switch) in history.ancestors.iter().rev() {
        match ends.get(timeline) {
            Some(end) if end > switch => {
                let from = begin_of_segment(*switch, segment_bytes);
                return Ok(Some(Beginning { timeline: next, from }));
            }
            Some(end) => return Ok(Some(Beginning { timeline: *timeline, from: *end })),
            None => next = *timeline,
        }
    }
    Ok(None)
}

/// A segment is kept as a whole under the name of its timeline.
pub(super) fn begin_of_segment(position: Lsn, segment_bytes: u64) -> Lsn {
    Lsn(position.0 / segment_bytes * segment_bytes)
}

/// The name of the log that goes on.
pub(super) fn log_of(receiver: &LogReceiver, timeline: TimelineId) -> LogId {
    log_id(receiver.identity().system_identifier, timeline)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 16 << 20;

    fn at(timeline: u32, position: u64) -> Beginning {
        Beginning { timeline: TimelineId(timeline), from: Lsn(position) }
    }

    /// Where the log goes on for a server on timeline 4, which came by 1 and 3.
    fn goes_on(received: &[(u32, u64)]) -> Result<Option<Beginning>> {
        let history = History::parse("1\t0/2000100\tx\n3\t0/5000100\tx\n").unwrap();
        let ends = received.iter().map(|(timeline, end)| (TimelineId(*timeline), Lsn(*end))).collect();
        on_the_way(at(4, 0x700_0000), &history, &ends, SEGMENT)
    }

    #[test]
    fn the_log_goes_on_behind_what_was_received_of_the_way() {
        for (received, goes) in [
            (&[][..], None),
            (&[(1, 0x100_0000)], Some(at(1, 0x100_0000))),
            (&[(1, 0x200_0100)], Some(at(1, 0x200_0100))),
            (&[(1, 0x200_0100), (3, 0x300_0000)], Some(at(3, 0x300_0000))),
            (&[(1, 0x200_0100), (4, 0x600_0000)], Some(at(4, 0x600_0000))),
            // More than the way has of that timeline: the next one goes on.
            (&[(1, 0x200_0101)], Some(at(3, 0x200_0000))),
            (&[(1, 0x400_0000), (3, 0x500_0101)], Some(at(4, 0x500_0000))),
            // A life beside the way.
            (&[(1, 0x200_0100), (2, 0x600_0000)], Some(at(1, 0x200_0100))),
            (&[(1, 0x200_0101), (2, 0x600_0000)], Some(at(3, 0x200_0000))),
            (&[(2, 0x600_0000)], None),
        ] {
            assert_eq!(goes_on(received).unwrap(), goes, "{received:x?}");
        }
    }

    #[test]
    fn a_position_lies_on_the_timeline_that_wrote_it() {
        let history = History::parse("1\t0/2000100\tx\n3\t0/5000100\tx\n").unwrap();
        for (at, timeline) in [
            (0x100_0000, 1),
            (0x200_00FF, 1),
            (0x200_0100, 3),
            (0x500_00FF, 3),
            (0x500_0100, 4),
            (0x900_0000, 4),
        ] {
            assert_eq!(timeline_at(&history, TimelineId(4), Lsn(at)), TimelineId(timeline), "{at:x}");
        }
    }

    #[test]
    fn a_server_behind_what_was_received_is_refused() {
        for received in [&[(4, 0x700_0001)][..], &[(5, 0x100)]] {
            assert!(matches!(goes_on(received), Err(Error::ServerBehind { .. })), "{received:x?}");
        }
    }
}
