//! An offset that lies in more than one stream.
//!
//! A server that begins another stream counts anew, or goes on from where it was. The number alone
//! says nothing then, and the state of the wrong stream looks as good as the other: whoever asks
//! says which.

use super::log::{KnownLog, LineageLog};
use super::{Refusal, RestoreRequest};
use crate::error::ErrorKind;
use crate::log::Coverage;
use crate::record::BackupRecord;
use crate::summary::BackupMarks;
use crate::target::RecoveryTarget;

/// What to say where another stream than that of `chosen` passed the target as well: also where
/// that has a hole there, for it may be the one that is meant.
pub(super) fn refusal(
    request: &RestoreRequest,
    chosen: &BackupRecord,
    newest_first: &[&(BackupRecord, BackupMarks)],
    log: &KnownLog,
) -> Option<Refusal> {
    let RecoveryTarget::Offset(wanted) = request.target else { return None };
    let stream = |record: &BackupRecord| log.bases.get(&record.id).map(|base| &base.lineage);
    let own = stream(chosen);
    let passed = |record: &BackupRecord| {
        let Some((stream, point)) = stream(record).zip(log.points.get(&record.id)) else { return false };
        let end = log.lineages.get(stream).and_then(end).unwrap_or(0).max(point.at.0);
        own != Some(stream) && point.at.0 <= wanted && wanted <= end
    };
    let other = newest_first.iter().find(|(record, marks)| !marks.is_damaged() && passed(record));
    other.map(|(other, _)| in_both(request, chosen, other))
}

fn end(lineage: &LineageLog) -> Option<u64> {
    lineage.timelines.values().filter_map(Coverage::end).max()
}

fn in_both(request: &RestoreRequest, one: &BackupRecord, other: &BackupRecord) -> Refusal {
    let (target, instance) = (&request.target, &request.instance);
    let hint = |record: &BackupRecord| {
        let id = &record.id;
        let of = record.stop_position.as_ref().map(|at| format!(", which is {at}")).unwrap_or_default();
        format!(
            "`backstay restore {instance} --to {target} --backup {id}` restores it in the stream of {id}{of}"
        )
    };
    Refusal::new(
        ErrorKind::Invalid,
        format!(
            "{target} of {instance} lies in more than one stream: that of backup {} and that of {}",
            one.id, other.id
        ),
        vec![hint(one), hint(other)],
    )
}

#[cfg(test)]
mod tests {
    use super::super::log::{BaseLog, BasePoint};
    use super::super::tests::{record, request};
    use super::*;
    use crate::log::LogSpan;
    use crate::lsn::{Lsn, TimelineId};

    #[test]
    fn a_stream_that_passed_the_offset_counts_with_its_holes_and_one_that_did_not_does_not() {
        let mut log = KnownLog::default();
        let backups = [1, 2].map(|number| (record(number), BackupMarks::default()));
        for ((record, _), name) in backups.iter().zip(["one", "other"]) {
            let base = BaseLog { lineage: name.to_owned(), segment_bytes: 1, ends_its_segment: true };
            log.bases.insert(record.id.clone(), base);
            let point = BasePoint { timeline: TimelineId(1), at: Lsn(100), made_at: record.finished_at };
            log.points.insert(record.id.clone(), point);
        }
        let spans = [(100, 200), (300, 400)].map(|(start, end)| LogSpan { start, end });
        let lineage =
            LineageLog { timelines: [(TimelineId(1), spans.into_iter().collect())].into(), ..<_>::default() };
        log.lineages.insert("other".to_owned(), lineage);
        let newest_first: Vec<_> = backups.iter().collect();
        let refused = |to: &str| refusal(&request(to), &backups[0].0, &newest_first, &log).is_some();
        for to in ["offset:100", "offset:250", "offset:400"] {
            assert!(refused(to), "{to}");
        }
        for to in ["offset:99", "offset:401", "latest"] {
            assert!(!refused(to), "{to}");
        }
    }
}
