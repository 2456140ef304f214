//! Which backup the next one is compared with.
//!
//! A parent must describe the same cluster in the same units, must be whole, and
//! must not be on its way out: the repository refuses to build on a condemned
//! backup, and a block that is damaged in the parent must be stored again.

use crate::id::BackupId;
use crate::record::BackupRecord;
use crate::summary::BackupMarks;

/// Why a backup is not the parent. Told at the end of a backup that had to be full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassedOver {
    Condemned,
    Damaged,
    /// Another system identifier, block size or major version.
    OtherCluster,
}

/// The newest usable backup, and those newer ones that were not usable.
///
/// `same_cluster` compares the facts of a record with those of the server, in
/// the words of its engine.
pub fn choose_parent(
    candidates: &[(BackupRecord, BackupMarks)],
    same_cluster: impl Fn(&BackupRecord) -> bool,
) -> (Option<&BackupRecord>, Vec<(BackupId, PassedOver)>) {
    let mut newest_first: Vec<_> = candidates.iter().collect();
    newest_first.sort_by(|(a, _), (b, _)| b.order().cmp(&a.order()));
    let mut passed_over = Vec::new();
    for (record, marks) in newest_first {
        let reason = if marks.condemned.is_some() {
            PassedOver::Condemned
        } else if marks.is_damaged() {
            PassedOver::Damaged
        } else if !same_cluster(record) {
            PassedOver::OtherCluster
        } else {
            return (Some(record), passed_over);
        };
        passed_over.push((record.id.clone(), reason));
    }
    (None, passed_over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Finding;
    use crate::plan::restore::tests::record;

    #[test]
    fn the_parent_is_the_newest_backup_that_is_whole_kept_and_of_the_same_cluster() {
        let damaged = BackupMarks {
            findings: vec![Finding::error("orders/packs/1", "is missing", "`backstay backup`")],
            ..BackupMarks::default()
        };
        let condemned =
            BackupMarks { condemned: Some(crate::Condemned { at: None }), ..BackupMarks::default() };
        let noted = BackupMarks {
            findings: vec![Finding::warning("orders", "slow", "`backstay status`")],
            ..BackupMarks::default()
        };
        let candidates = [
            (record(1), BackupMarks::default()),
            (record(2), noted),
            (record(5), damaged),
            (record(3), BackupMarks::default()),
            (record(4), condemned),
        ];
        let (parent, passed_over) = choose_parent(&candidates, |record| record.id != candidates[3].0.id);
        assert_eq!(parent.map(|parent| &parent.id), Some(&candidates[1].0.id));
        let reasons: Vec<_> = passed_over.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons, [PassedOver::Damaged, PassedOver::Condemned, PassedOver::OtherCluster]);
    }

    #[test]
    fn without_a_usable_backup_there_is_no_parent() {
        assert_eq!(choose_parent(&[], |_| true), (None, Vec::new()));
        let candidates = [(record(1), BackupMarks::default())];
        assert_eq!(choose_parent(&candidates, |_| false).0, None);
    }
}
