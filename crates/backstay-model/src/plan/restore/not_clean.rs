//! A base with which something was wrong before it was stored.
//!
//! Pages whose checksums were wrong when they were copied come back as they were: the
//! restore does what it promised, and the database is as broken as it was. So it is
//! taken, never in silence, and the last backup from before is named.

use crate::finding::{Finding, FindingLevel};
use crate::record::BackupRecord;
use crate::summary::BackupMarks;

/// Errors that are told one by one; `backstay show` has them all.
const NAMED: usize = 3;

/// The warning of a base that is not clean. `newest_first` holds all backups of the
/// instance.
pub(super) fn finding(base: &BackupRecord, newest_first: &[&(BackupRecord, BackupMarks)]) -> Option<Finding> {
    if base.is_clean() {
        return None;
    }
    let errors = base.findings.iter().filter(|finding| finding.level == FindingLevel::Error);
    let named: Vec<String> =
        errors.clone().take(NAMED).map(|error| format!("{}: {}", error.subject, error.message)).collect();
    let count = errors.count();
    let more = if count > NAMED { format!("; and {} more", count - NAMED) } else { String::new() };
    let (errors, come) = match count {
        1 => ("1 error was".to_owned(), "comes"),
        _ => (format!("{count} errors were"), "come"),
    };
    let clean = newest_first
        .iter()
        .find(|(record, marks)| record.order() < base.order() && record.is_clean() && !marks.is_damaged());
    let (instance, id) = (&base.instance, &base.id);
    let remedy = match clean {
        Some((clean, _)) => format!(
            "`backstay restore {instance} --backup {} --into DIR` restores the newest backup before without \
             such errors, which ended {}; `backstay show {id}` names them all",
            clean.id, clean.finished_at
        ),
        None => {
            format!("`backstay show {id}` names them all; no sound backup before it is without such errors")
        }
    };
    Some(Finding::warning(
        id.as_str(),
        format!(
            "{errors} found while this backup was taken, and {come} back with it: {}{more}",
            named.join("; ")
        ),
        remedy,
    ))
}
