//! Damage that is met on the way: which stored object it is, and the note of it.
//!
//! Noted as a verification notes it, so that `list`, the next restore and the next
//! backup know. The note is worth something to them and nothing to whoever waits for
//! this restore: one that cannot be written hides no error.

use std::collections::HashSet;

use backstay_model::{Fault, Finding, InstanceId, VerifyLevel};
use backstay_repo::layout::{InstanceLayout, ObjectName};
use backstay_repo::manifest::Manifest;
use backstay_repo::reader::damage_in;
use backstay_repo::store::{Operation, StoreError};
use backstay_repo::verify::Verified;

use crate::context::Context;
use crate::error::Error;
use crate::notes::{self, Seen, Verification};
use crate::verify::damaged_of;

/// What an error says of the stored data of a backup; nothing when it is about
/// anything else. Nor when the disk or the network did not give an object back: once is
/// no proof, and what is noted here keeps the next restore from a backup.
pub(super) fn seen_in(error: &Error, manifest: &Manifest) -> Option<Seen> {
    let (object, reason) = damaged(error).filter(|_| is_proof(error))?;
    Some(seen(object, reason, manifest))
}

fn is_proof(error: &Error) -> bool {
    use backstay_repo::Error as RepoError;
    let unread =
        |error| matches!(error, &RepoError::Store(StoreError::Io { .. }) | &RepoError::Unread { .. });
    !of_the_repository(error).is_some_and(unread)
}

fn damaged(error: &Error) -> Option<(String, String)> {
    damage_in(of_the_repository(error)?)
}

/// The repository's own error: as it is, or carried through the engine, which reads the
/// list of the files.
fn of_the_repository(error: &Error) -> Option<&backstay_repo::Error> {
    if let Error::Repo(error) = error {
        return Some(error);
    }
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    causes.filter_map(|error| error.downcast_ref::<Fault>()).find_map(Fault::carried)
}

/// The same, and beyond it what is as good as damaged to whoever stands there: an object
/// that is not given back, or may not be read. Never noted.
pub(super) fn unusable_in(error: &Error, manifest: &Manifest) -> Option<Seen> {
    let (object, reason) = damaged(error).or_else(|| denied(error))?;
    Some(seen(object, reason, manifest))
}

fn denied(error: &Error) -> Option<(String, String)> {
    match of_the_repository(error)? {
        backstay_repo::Error::Store(StoreError::Denied {
            operation: Operation::Get | Operation::GetRange,
            object,
            cause,
        }) => Some((object.clone(), format!("it may not be read: {cause}"))),
        _ => None,
    }
}

fn seen(object: String, reason: String, manifest: &Manifest) -> Seen {
    let record = &manifest.record;
    let layout = InstanceLayout::new(record.instance.clone());
    let damaged_packs = manifest
        .packs()
        .filter(|(session, pack)| layout.pack(session, pack.number).as_str() == object)
        .map(|(session, pack)| (session.clone(), pack.number))
        .collect();
    let remedy = format!(
        "`backstay backup {}` stores again what the database still has; `backstay verify {}` names \
         everything that is damaged",
        record.instance, record.id
    );
    let findings = vec![Finding::error(object, reason, remedy)];
    let damaged_objects = damaged_of(&needed(manifest), &findings);
    Seen { backup: record.id.clone(), findings, damaged_packs, damaged_objects }
}

/// What a listing before the restore found.
pub(super) fn seen_by(verified: Verified, manifest: &Manifest) -> Seen {
    let findings = verified.report.findings;
    let damaged_objects = damaged_of(&needed(manifest), &findings);
    let damaged_packs = verified.damaged_packs;
    Seen { backup: manifest.record.id.clone(), findings, damaged_packs, damaged_objects }
}

fn needed(manifest: &Manifest) -> HashSet<ObjectName> {
    manifest.needed_objects().into_iter().collect()
}

/// `level` is how deep one has to look to see it again.
pub(super) async fn note(context: &Context, instance: &InstanceId, level: VerifyLevel, seen: Seen) {
    let backup = seen.backup.clone();
    let note = Verification { at: context.clock.now(), level, in_passing: true, backups: vec![seen] };
    if let Err(error) = notes::add_verification(context, instance, &note).await {
        tracing::warn!(%backup, %error, "the damage could not be noted in the repository");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_damaged_or_denied_and_neither_when_the_store_is_away() {
        let object = || "orders/maps/a/0".to_owned();
        let cause = || std::io::Error::other("the disk gives it not back").into();
        let io = |operation| StoreError::Io { operation, object: object(), cause: cause() };
        let refuse = |operation| StoreError::Denied { operation, object: object(), cause: cause() };
        let unavailable = StoreError::unavailable(Operation::Get, object(), "nobody is there");
        for (error, is_damaged, is_denied) in [
            (io(Operation::GetRange), true, false),
            (StoreError::NotFound { object: object() }, true, false),
            (StoreError::WrongRange { object: object(), offset: 0, length: 2, got: 1 }, true, false),
            (refuse(Operation::Get), false, true),
            (refuse(Operation::Put), false, false),
            (io(Operation::List), false, false),
            (unavailable, false, false),
        ] {
            let error = Error::Repo(error.into());
            assert_eq!(
                (damaged(&error).is_some(), denied(&error).is_some()),
                (is_damaged, is_denied),
                "{error}"
            );
            // What was not given back once is told, and not noted.
            let is_io = matches!(error, Error::Repo(backstay_repo::Error::Store(StoreError::Io { .. })));
            assert_eq!(is_proof(&error), !is_io, "{error}");
            for (found, _) in damaged(&error).into_iter().chain(denied(&error)) {
                assert_eq!(found, object());
            }
        }
        assert_eq!(damaged(&Error::Cancelled), None);
    }

    #[test]
    fn damage_is_known_again_behind_the_engine_which_reads_the_list_of_the_files() {
        let stored = backstay_repo::Error::Damaged { object: "orders/maps/a/0".into(), reason: "cut".into() };
        let parts = backstay_engine::Error::Parts { source: Fault::new(stored) };
        assert_eq!(damaged(&Error::Engine(parts)), Some(("orders/maps/a/0".into(), "cut".into())));
        let own = backstay_engine::Error::Malformed { path: "tablespace_map".into(), reason: "cut".into() };
        assert_eq!(damaged(&Error::Engine(own)), None);
    }
}
