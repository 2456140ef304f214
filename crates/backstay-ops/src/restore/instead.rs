//! What can be restored instead of a backup whose stored data failed half-way.
//!
//! Invariant: a backup that needs the object which failed is never offered, and the
//! command that is offered can be typed as it stands.

use std::ffi::OsStr;
use std::path::Path;

use backstay_engine::postgres::BackupFacts;
use backstay_engine::postgres::starting::shell_word;
use backstay_model::{BackupId, BackupRecord, RecoveryTarget, TargetAction, TargetTimeline};
use jiff::Timestamp;

use super::{RestoreOptions, place};
use crate::context::Context;
use crate::error::Result;
use crate::known::Known;
use crate::notes::Seen;

/// What a person may do who wanted a backup that could not be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instead {
    /// The stored data is not at fault, and another backup would fare no better; or the
    /// others could not be looked at.
    Unsaid,
    Other(Box<Offer>),
    /// The stored data is at fault, and no other backup does without it.
    Nothing,
}

/// A backup that does without what failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub backup: BackupId,
    pub finished_at: Timestamp,
    /// Whether it was taken before the one that failed.
    pub is_older: bool,
    /// Everything behind `backstay restore`.
    pub arguments: String,
}

/// The newest older backup that is not known to be damaged and does without what was
/// seen; when there is none, the next newer one.
pub(super) async fn choose(
    context: &Context,
    options: &RestoreOptions,
    failed: &BackupRecord,
    seen: &Seen,
    with_log: bool,
) -> Result<Instead> {
    let instance = &failed.instance;
    let mut known = Known::read(context, instance).await?;
    known.add(context, instance, seen).await?;
    let sound = known.newest_first().into_iter().filter(|(_, marks)| !marks.is_damaged());
    let (older, newer): (Vec<_>, Vec<_>) = sound
        .map(|(record, _)| record)
        .filter(|record| record.id != failed.id)
        .partition(|record| record.order() < failed.order());
    let newest_older = older.first().map(|record| (*record, true));
    let Some((record, is_older)) = newest_older.or(newer.last().map(|record| (*record, false))) else {
        return Ok(Instead::Nothing);
    };
    Ok(Instead::Other(Box::new(Offer {
        backup: record.id.clone(),
        finished_at: record.finished_at,
        is_older,
        // A base that is newer need not reach it.
        arguments: arguments(record, options, with_log && is_older),
    })))
}

/// What was asked for, with this backup in place of the one that failed.
fn arguments(record: &BackupRecord, options: &RestoreOptions, with_log: bool) -> String {
    let mut words = vec![record.instance.to_string(), "--backup".to_owned(), record.id.to_string()];
    // With log of the archive the same point can be reached; without it, any other target
    // was the end of the backup that failed.
    if options.target == RecoveryTarget::Immediate || with_log {
        words.extend(["--to".to_owned(), shell_word(OsStr::new(&options.target.to_string())).into_owned()]);
    }
    if with_log {
        if options.stop.exclusive {
            words.push("--exclusive".to_owned());
        }
        if options.stop.timeline != TargetTimeline::default() {
            words.extend(["--target-timeline".to_owned(), options.stop.timeline.to_string()]);
        }
        if options.stop.action != TargetAction::default() {
            words.extend(["--target-action".to_owned(), options.stop.action.to_string()]);
        }
    }
    words.extend(["--into".to_owned(), word(&options.into)]);
    let facts = BackupFacts::from_json(&record.facts);
    let spaces = facts.map(|facts| facts.server.tablespaces).unwrap_or_default();
    for (old, new) in &options.tablespaces {
        // One that this backup does not have would be refused.
        if spaces.iter().any(|space| place::names(old, space)) {
            let moved = format!("{old}={}", new.display());
            words.extend(["--tablespace".to_owned(), word(Path::new(&moved))]);
        }
    }
    for (option, is_given) in [("--set-aside", options.set_aside), ("--start", options.start)] {
        words.extend(is_given.then(|| option.to_owned()));
    }
    words.join(" ")
}

fn word(path: &Path) -> String {
    shell_word(OsStr::new(path)).into_owned()
}
