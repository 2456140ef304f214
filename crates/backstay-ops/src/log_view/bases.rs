//! Whose log a base is replayed with, by what its engine says of it.

use backstay_engine::postgres::BackupFacts;
use backstay_engine::postgres::receive::log_id;
use backstay_engine::redis::base::RedisFacts;
use backstay_model::plan::KnownLog;
use backstay_model::plan::restore::{BaseLog, BasePoint, LineageLog};
use backstay_model::{BackupRecord, EngineKind, LogId, Lsn, Position, TimelineId};
use jiff::Timestamp;

use super::streams;

/// Adds a base to what is known, of a log whose lineages are known already. One whose facts do not
/// open is restored with its own log, or not at all.
pub(crate) fn add(known: &mut KnownLog, record: &BackupRecord) {
    match record.engine {
        EngineKind::Postgresql => {
            let Ok(facts) = BackupFacts::from_json(&record.facts) else { return };
            let base = BaseLog {
                lineage: log_id(facts.server.system_identifier, facts.timeline).lineage,
                segment_bytes: facts.server.wal_segment_size,
                ends_its_segment: !facts.from_standby,
            };
            known.bases.insert(record.id.clone(), base);
        }
        EngineKind::Redis => {
            let Ok(facts) = RedisFacts::from_json(&record.facts) else { return };
            // No stream goes on behind one that does not say where it stands.
            let Some(Position::Stream { replication_id: id, offset }) = facts.position() else { return };
            let named = |log: &LineageLog| {
                // The newest, where somebody who had less of it began it a second time.
                let mut newest_first = log.replication_ids.iter().rev();
                newest_first.find(|(_, of)| **of == id).map(|(timeline, _)| *timeline)
            };
            let found = known.lineages.iter().find_map(|(lineage, log)| Some((lineage, named(log)?)));
            let (lineage, timeline) = match found {
                Some((lineage, timeline)) => (lineage.clone(), timeline),
                None => (id.clone(), TimelineId(1)),
            };
            // Bytes are asked for, and no segments.
            let base = BaseLog { lineage, segment_bytes: 1, ends_its_segment: true };
            known.bases.insert(record.id.clone(), base);
            let made_at = facts.made_at(record.finished_at);
            known.points.insert(record.id.clone(), BasePoint { timeline, at: Lsn(offset), made_at });
        }
        EngineKind::Influxdb => {}
    }
}

/// Whose state a backup is: a snapshot that of its beginning, however long it took to send.
pub(crate) fn state_at(record: &BackupRecord) -> Timestamp {
    match record.engine {
        EngineKind::Redis => RedisFacts::from_json(&record.facts)
            .map_or(record.finished_at, |facts| facts.made_at(record.finished_at)),
        EngineKind::Postgresql | EngineKind::Influxdb => record.finished_at,
    }
}

/// How servers call the stream of a timeline, where it is one.
pub(crate) fn name_stream(known: &mut KnownLog, log: &LogId, timeline: TimelineId, text: Option<&str>) {
    if let Some(history) = streams::history_of(log, text) {
        let lineage = known.lineages.entry(log.lineage.clone()).or_default();
        lineage.replication_ids.insert(timeline, history.replication_id);
    }
}
