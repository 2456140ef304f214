//! A base that a drill could not bring back.
//!
//! What a drill met may have been of the machine it ran on, so the base is taken as any
//! other; but whoever is about to wait for it hears of it first, and of the newest
//! backup that did come back.

use crate::finding::Finding;
use crate::record::BackupRecord;
use crate::summary::BackupMarks;

/// The warning of a base whose last drill failed. `newest_first` holds all backups of the
/// instance.
pub(super) fn finding(
    base: &BackupRecord,
    marks: &BackupMarks,
    newest_first: &[&(BackupRecord, BackupMarks)],
) -> Option<Finding> {
    if marks.drill_sound != Some(false) {
        return None;
    }
    let came_back =
        newest_first.iter().find(|(_, marks)| marks.drill_sound == Some(true) && !marks.is_damaged());
    let (instance, id) = (&base.instance, &base.id);
    let remedy = match came_back {
        Some((other, _)) => format!(
            "`backstay restore {instance} --backup {} --into DIR` restores the newest backup that a drill \
             brought back, which ended {}",
            other.id, other.finished_at
        ),
        None => format!(
            "`backstay drill {instance} --to {}` tries it again; no drill brought another backup back",
            base.finished_at
        ),
    };
    let at = marks.drilled_at.map(|at| format!(" at {at}")).unwrap_or_default();
    Some(Finding::warning(id.as_str(), format!("the drill of this backup{at} was NOT sound"), remedy))
}
