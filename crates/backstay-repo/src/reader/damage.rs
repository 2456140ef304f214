//! What of the stored data could not be used, told by workers and planner of a restore.
//!
//! Keeps three things apart: an object that is damaged, one that was not given back this
//! once, and a store that is away, which says nothing of any object.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use backstay_model::BackupId;
use tokio_util::sync::CancellationToken;

use super::restore::OnDamage;
use super::window::Piece;
use crate::store::{Operation, StoreError};
use crate::{Error, Result};

/// Files named in one finding; all are counted.
const FILES_NAMED: usize = 10;

/// One object that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub object: String,
    pub reason: String,
    /// Some of the files that need it, and how many blocks.
    pub files: BTreeSet<String>,
    pub blocks: u64,
    /// The pack, when it is one.
    pub pack: Option<(BackupId, u32)>,
}

/// What workers and planner report to.
pub(super) struct Report<'a> {
    pub(super) on_damage: OnDamage,
    pub(super) stop: &'a CancellationToken,
    pub(super) failure: Mutex<Option<Error>>,
    pub(super) damage: Mutex<HashMap<(String, String), Damage>>,
}

impl Report<'_> {
    pub(super) fn fail(&self, error: Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() && !(self.stop.is_cancelled() && matches!(error, Error::Cancelled)) {
            *failure = Some(error);
        }
        self.stop.cancel();
    }

    /// Notes damage, or ends the restore. Only what is a fact about stored bytes is
    /// damage: a store that is away is an error either way.
    pub(super) fn damaged(
        &self,
        error: Error,
        pack: Option<(BackupId, u32)>,
        pieces: &[Piece],
    ) -> Result<()> {
        let error = as_damage(error);
        let Some((object, reason)) = damage_in(&error) else { return Err(error) };
        for piece in pieces {
            piece.outlet.skip(u64::from(piece.length));
        }
        if self.on_damage == OnDamage::Stop {
            return Err(error);
        }
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = damage.entry((object.clone(), reason.clone())).or_insert_with(|| Damage {
            object,
            reason,
            files: BTreeSet::new(),
            blocks: 0,
            pack: None,
        });
        if pack.is_some() {
            entry.pack = pack;
        }
        for piece in pieces {
            entry.blocks += piece.hashes.len() as u64;
            if entry.files.len() < FILES_NAMED {
                entry.files.insert(piece.outlet.path().to_owned());
            }
        }
        Ok(())
    }
}

/// The object and what is wrong with it; any other error comes back as it is.
pub(crate) fn facts_of_damage(error: Error) -> Result<(String, String)> {
    damage_in(&error).ok_or(error)
}

/// An error of stored data in its own words; any other as it is. An object that is named
/// and that the store does not have, or cannot read, is damage and not a wrong question.
pub(crate) fn as_damage(error: Error) -> Error {
    match (damage_in(&error), &error) {
        (Some((object, reason)), Error::Store(StoreError::Io { .. }) | Error::Unread { .. }) => {
            Error::Unread { object, reason }
        }
        (Some((object, reason)), _) => Error::Damaged { object, reason },
        (None, _) => error,
    }
}

/// The stored object that an error says is damaged, and what is wrong with it; nothing
/// for an error that is about anything else.
pub fn damage_in(error: &Error) -> Option<(String, String)> {
    let (object, reason) = match error {
        Error::Damaged { object, reason } | Error::Unread { object, reason } => (object, reason.clone()),
        Error::Missing { object, needed_by } => (object, format!("it is missing, and {needed_by} needs it")),
        Error::Store(StoreError::NotFound { object }) => (object, "it is missing".to_owned()),
        Error::Store(StoreError::WrongRange { object, .. }) => {
            (object, "it is shorter than its manifest says".to_owned())
        }
        // A sector that cannot be read is as lost as one that was never written; a
        // store that is away is not, and comes back as `Unavailable`.
        Error::Store(StoreError::Io { operation: Operation::Get | Operation::GetRange, object, cause }) => {
            (object, format!("it cannot be read: {cause}"))
        }
        _ => return None,
    };
    Some((object.clone(), reason))
}
