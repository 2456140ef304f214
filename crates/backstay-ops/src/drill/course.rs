//! What a drill has done so far, and what its failure says.
//!
//! Two failures must never be mixed up: one shows that the backup cannot be brought
//! back, and is a proof like any other, only a bad one; the other means that nobody
//! could look, and leaves what was proved before as it stands.

use backstay_engine::Error as EngineError;
use backstay_engine::error::ServerMessage;
use backstay_model::drill::{Check, DrillReport};
use backstay_model::error::Classified;
use backstay_model::plan::{RestoreRequest, plan_recovery};
use backstay_model::{BackupId, ErrorKind, Finding, InstanceId, RecoveryTarget};
use backstay_repo::Error as RepoError;
use backstay_repo::store::StoreError;
use jiff::Timestamp;

use crate::error::Error;
use crate::known::Known;
use crate::status::with_causes;

/// What is known while a drill goes on; whatever ends it, this much can be told.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// To where; the latest state before anything else is chosen.
    pub target: RecoveryTarget,
    /// Of which backup; nothing before one is chosen.
    pub backup: Option<BackupId>,
    pub place_seconds: Option<f64>,
    pub restored_bytes: u64,
    pub recover_seconds: Option<f64>,
    pub prove_seconds: Option<f64>,
    pub checks: Vec<Check>,
    pub findings: Vec<Finding>,
}

impl Course {
    /// Takes a failure in as a check that did not hold, when it is the backup's. Any
    /// other comes back.
    pub fn take_in(&mut self, error: Error) -> Result<(), Error> {
        let Some(backup) = self.backup.as_ref().filter(|_| blames_the_backup(&error)) else {
            return Err(error);
        };
        let found = match (self.place_seconds, self.recover_seconds) {
            (None, _) => Check::equal("stored data", "whole", "damaged"),
            (_, None) => Check::equal("recovery", "recovered", "no server that answers"),
            _ => Check::equal("questions", "answered", "not to the end"),
        };
        self.checks.push(found);
        let (subject, message) = told(&error, backup);
        let remedy = error.hints().into_iter().next();
        let remedy = remedy.unwrap_or_else(|| "run `backstay backup` again, and drill that one".to_owned());
        self.findings.push(Finding::error(subject, message, remedy));
        Ok(())
    }

    /// `None` when no backup was chosen.
    pub fn report(self, instance: &InstanceId, at: Timestamp) -> Option<DrillReport> {
        Some(DrillReport {
            instance: instance.clone(),
            backup: self.backup?,
            target: self.target,
            at,
            // A newer backup that is damaged is a finding of the plan and makes the
            // drill unsound: what was asked for is not what could be had.
            sound: DrillReport::judge(&self.checks, &self.findings),
            place_seconds: self.place_seconds,
            recover_seconds: self.recover_seconds,
            prove_seconds: self.prove_seconds,
            recovery_time_seconds: self.place_seconds.zip(self.recover_seconds).map(|(a, b)| a + b),
            restored_bytes: self.restored_bytes,
            checks: self.checks,
            findings: self.findings,
            kept_at: None,
        })
    }
}

/// Whether an error of a drill says nothing about the backups, only that nobody saw
/// them. What was asked for wrongly, what is not there and what somebody stopped keep
/// their own codes.
pub fn could_not_look(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Invalid | ErrorKind::Unrecoverable | ErrorKind::Cancelled => false,
        // No backup at all; anything else that is missing here is missing to look with.
        ErrorKind::NotFound => !matches!(error, Error::Refused { .. }),
        _ => true,
    }
}

/// The backup that a plan refuses because it is damaged: the newest that the target
/// asks for, or, where none opens at all, the newest that is there.
pub(super) fn refused_as_damaged(request: &RestoreRequest, known: &Known) -> Option<BackupId> {
    let is_refused = |id: &BackupId| {
        let alone = RestoreRequest { backup: Some(id.clone()), ..request.clone() };
        let plan = plan_recovery(&alone, &known.backups, &known.unreadable, &known.log, known.rates());
        // One about which a question is open is none that was refused.
        let refusal = plan.ok().and_then(|plan| plan.refusals.into_iter().next());
        refusal.is_some_and(|refusal| refusal.kind == ErrorKind::Corrupt)
    };
    let mut newest_first = known.newest_first().into_iter().map(|(record, _)| &record.id);
    let unreadable = || known.unreadable.iter().map(|(id, _)| id).max();
    newest_first.find(|id| is_refused(id)).or_else(unreadable).cloned()
}

/// Whether a failure shows that what is stored cannot be brought back. A store that is
/// away, a full disk or a missing right show nothing of the kind.
fn blames_the_backup(error: &Error) -> bool {
    match error {
        Error::Engine(error) => is_of_the_copy(error),
        // As in a verification: what is gone is as good as damaged. What the disk or the
        // network did not give back may come the next time.
        Error::Repo(RepoError::Store(StoreError::NotFound { .. })) => true,
        Error::Repo(RepoError::Store(StoreError::Io { .. }) | RepoError::Unread { .. }) => false,
        Error::Repo(_) | Error::Refused { .. } => error.kind() == ErrorKind::Corrupt,
        // The plan had promised the way: what is archived is not what it says.
        Error::LogHole { .. } | Error::TargetNotReached { .. } => true,
        _ => false,
    }
}

/// The same of the engine. No server but the one on the copy is asked in a drill.
fn is_of_the_copy(error: &EngineError) -> bool {
    match error {
        EngineError::Scratch { what, log } => {
            !what.ends_with("in time") && !OF_THE_MACHINE.iter().any(|word| log.contains(word))
        }
        EngineError::Login { source, .. } => !is_of_the_machine(source),
        EngineError::Server { source, .. } => !is_of_the_machine(source),
        // It had answered, and broke off when it was asked more.
        EngineError::Connect { .. } | EngineError::ConnectionLost { .. } => true,
        _ => error.kind() == ErrorKind::Corrupt,
    }
}

/// What a server writes in its log that did not get the room it needs, in the words of
/// the C library; that was killed, as the kernel does where memory ends; or that does not
/// find here the library of an extension.
const OF_THE_MACHINE: [&str; 6] = [
    "No space left on device",
    "Disk quota exceeded",
    "Cannot allocate memory",
    "was terminated by signal 9",
    "could not access file \"",
    "could not load library \"",
];

/// Out of memory, disk or connections; an error of the disk below the copy; somebody
/// who ended a statement or the server.
fn is_of_the_machine(said: &ServerMessage) -> bool {
    said.code.starts_with("53") || ["58030", "57014", "57P01"].contains(&said.code.as_str())
}

/// What it is about, and what is wrong with it.
fn told(error: &Error, backup: &BackupId) -> (String, String) {
    let of_backup = format!("backup {backup}");
    match error {
        Error::Repo(RepoError::Damaged { object, reason }) => (object.clone(), reason.clone()),
        Error::Engine(EngineError::Scratch { what, log }) => {
            (of_backup, format!("the server on the copy did not {what}: {}", gravest(log)))
        }
        _ => (of_backup, with_causes(error)),
    }
}

/// The line of a log that says why a server ended; all of them, when none does.
fn gravest(log: &str) -> String {
    let behind = |word: &str| {
        // What it says to whoever knocks meanwhile is no reason.
        let lines = log.lines().rev().filter(|line| !line.contains(NOT_YET));
        lines.filter_map(|line| line.find(word).and_then(|at| line.get(at..))).map(one_line).next()
    };
    // A process that panics is killed by its own signal, so its last words come first;
    // when one died without a word, the others only say that it did.
    behind("PANIC: ").or_else(|| died(log)).or_else(|| behind("FATAL: ")).unwrap_or_else(|| log.to_owned())
}

/// Of a process that was killed, with what it was doing, where the server knows.
fn died(log: &str) -> Option<String> {
    let mut lines = log.lines().skip_while(|line| !line.contains(DIED));
    let (_, died) = lines.next()?.split_once("LOG: ")?;
    let doing = lines.next().and_then(|line| line.split_once("DETAIL: "));
    let doing = doing.map(|(_, doing)| format!("; {}", one_line(doing))).unwrap_or_default();
    Some(one_line(died) + &doing)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a server writes of a process of its own that did not end by itself.
const DIED: &str = " was terminated by signal ";
/// How every refusal of a server begins that is not ready: it starts up, recovers or
/// shuts down.
const NOT_YET: &str = "the database system is ";

#[cfg(test)]
mod tests;
