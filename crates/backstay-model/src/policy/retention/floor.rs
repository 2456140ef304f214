//! The floor under retention: what no rule and no mistake lets go.
//!
//! Responsible for the last sound backup, the last one without wrong pages and
//! the minimum. Knows nothing of periods; refuses nothing.

use jiff::Timestamp;

use super::KeepReason;
use crate::record::BackupRecord;
use crate::summary::BackupMarks;

/// What stays whatever the rules say. A backup that was condemned is counted after
/// all that were not: when those turn out to be damaged, it is what is left, and
/// only its deletion is withheld.
pub(super) struct Floor<'a> {
    sound: Vec<&'a BackupRecord>,
    /// Damage does not take a backup's place away: it may be found to be less than
    /// it looked, and what was kept before the finding is kept after it.
    pub all: Vec<&'a BackupRecord>,
}

impl<'a> Floor<'a> {
    pub fn of(newest_first: &[&'a (BackupRecord, BackupMarks)], as_of: Timestamp) -> Self {
        let mut order: Vec<_> =
            newest_first.iter().copied().filter(|(record, _)| record.finished_at <= as_of).collect();
        order.sort_by_key(|(_, marks)| marks.condemned.is_some());
        let sound = order.iter().filter(|(_, marks)| !marks.is_damaged()).map(|(record, _)| record);
        Self { sound: sound.collect(), all: order.iter().map(|(record, _)| record).collect() }
    }

    pub fn reasons(&self, minimum: u32) -> Vec<(&'a BackupRecord, KeepReason)> {
        let mut kept = Vec::new();
        for set in [&self.sound, &self.all] {
            let nth_newest = (1..=minimum).zip(set);
            kept.extend(nth_newest.map(|(nth, record)| (*record, KeepReason::Minimum { nth, of: minimum })));
        }
        kept.extend(self.sound.first().map(|newest| (*newest, KeepReason::LastSound)));
        for set in [&self.sound, &self.all] {
            if set.first().is_some_and(|newest| !newest.is_clean()) {
                let clean = set.iter().find(|record| record.is_clean());
                kept.extend(clean.map(|record| (*record, KeepReason::LastClean)));
            }
        }
        kept
    }
}
