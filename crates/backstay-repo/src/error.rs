//! The errors of the repository.
//!
//! Each variant is a fact or a verb and its object in the words of the domain;
//! what a caller may act on is its kind.

use std::path::PathBuf;

use backstay_model::error::{Classified, ErrorKind, Fault};
use backstay_model::id::IdError;
use backstay_model::{BackupId, InstanceId};

use crate::dump::DumpError;
use crate::layout::{NameError, ObjectName};
use crate::shelf::ShelfPathError;
use crate::store::StoreError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error(transparent)]
    ShelfPath(#[from] ShelfPathError),
    /// An error of the engine, carried through the pipeline.
    #[error(transparent)]
    Engine(Fault),

    #[error("there is no repository at {location}")]
    NoRepository { location: String },
    #[error("there is a repository at {location} already")]
    RepositoryExists { location: String },
    #[error("the repository is of format {found}, this version knows formats up to {known}")]
    NewerFormat { found: u32, known: u32 },
    #[error("the repository requires {requirements:?}, which this version does not know")]
    UnknownRequirement { requirements: Vec<String> },
    #[error("there is no repository at {location}, but something lies there: {found:?}")]
    PlaceNotEmpty { location: String, found: Vec<String> },
    #[error("the store does not keep its word: {reason}")]
    UnfitStore { reason: String },

    #[error("no key slot of the repository opens with this {secret}")]
    WrongKey { secret: &'static str },
    #[error("the repository is encrypted and no key was given")]
    KeyMissing,
    #[error("the repository is not encrypted, but a key was given")]
    KeyNotNeeded,
    #[error("cannot {action} key file {}", path.display())]
    KeyFile {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not a key file", path.display())]
    NotAKeyFile { path: PathBuf },
    #[error("key slot {slot} does not exist")]
    NoSuchSlot { slot: String },
    #[error("there is a key slot {slot} already")]
    SlotTaken { slot: String },
    #[error("key slot {slot} is the last one: without it nothing could be read again")]
    LastSlot { slot: String },
    #[error("rotating the key would lock out the slots {slots:?}, whose secrets were not given")]
    SlotsWouldBeLost { slots: Vec<String> },
    #[error("the key slots {slots:?} hold a newer generation of the key than the one that was given")]
    NewerGeneration { slots: Vec<String> },
    #[error("key slot {slot} is the only one that holds the newest generation of the key")]
    OnlyNewest { slot: String },
    #[error("the rotation of the key is not finished: the slots {reached:?} hold the new generation")]
    RotationUnfinished {
        reached: Vec<String>,
        #[source]
        source: Box<Error>,
    },
    #[error(
        "another rotation of the key was faster, and this one changed nothing: the slots {keeps:?} stay, {drops:?} are gone"
    )]
    OtherRotation { keeps: Vec<String>, drops: Vec<String> },
    #[error("a rotation of the key is under way")]
    RotationUnderWay,
    #[error("{slot:?} cannot be the name of a key slot")]
    BadSlotName { slot: String },
    #[error("no random numbers from the operating system")]
    NoRandomness,

    #[error("{object} is damaged: {reason}")]
    Damaged { object: String, reason: String },
    /// As good as damaged to whoever stands there, and no proof: a disk or a network that
    /// did not give it back may do so the next time.
    #[error("{object} is as good as damaged: {reason}")]
    Unread { object: String, reason: String },
    #[error("{object} is missing, and {needed_by} needs it")]
    Missing { object: String, needed_by: String },
    #[error("keep the log in the spool at {}", path.display())]
    Spool {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the spool at {} is in use by another process", path.display())]
    SpoolInUse { path: PathBuf },
    #[error("{object} holds other bytes of the log than these")]
    LogDiffers { object: String },
    #[error("there is no backup {backup} of {instance}")]
    NoSuchBackup { instance: InstanceId, backup: BackupId },

    #[error("a backup of {instance} runs already, on {host} since {since}")]
    AlreadyRunning { instance: InstanceId, host: String, since: String, session: BackupId },
    #[error("session {session} of {instance} was declared dead while it was paused; its work does not count")]
    DeclaredDead { instance: InstanceId, session: BackupId },
    #[error("session {session} of {instance} exists already")]
    SessionTaken { instance: InstanceId, session: BackupId },
    #[error("backup {backup} of {instance} is gone, and nothing says that it expired: {witness} knew it")]
    BackupVanished { instance: InstanceId, backup: BackupId, witness: String },
    #[error(
        "the collection would delete {deleted} of {total} data objects, more than the share of {max_percent} %"
    )]
    ShareExceeded { deleted: u64, total: u64, max_percent: u8 },
    #[error("backups of {instance} come and go faster than they can be read")]
    KeepsChanging { instance: InstanceId },
    #[error("backup {backup} of {instance} is not condemned")]
    NotCondemned { instance: InstanceId, backup: BackupId },
    #[error("backup {backup} of {instance} was condemned too short a time ago")]
    GraceNotOver { instance: InstanceId, backup: BackupId },
    #[error("backup {backup} is held by the running session {session}, which builds on it")]
    StillNeeded { backup: BackupId, session: BackupId },

    #[error("cannot write {}", path.display())]
    WriteFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot keep the file table for the moment in {}", directory.display())]
    TemporaryFile {
        directory: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("directory {} is not empty", path.display())]
    DirectoryNotEmpty { path: PathBuf },
    #[error("{} lies in the repository, and a recovery kit there is lost with it", path.display())]
    KitInRepository { path: PathBuf },

    #[error("stopped on request")]
    Cancelled,
    /// A bug: a rule of our own code does not hold.
    #[error("the repository code broke its own rule: {rule}")]
    Broken { rule: String },
}

impl Error {
    /// The disk of the spool has no room: it may have some again.
    pub fn is_full_spool(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Error::Spool { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    pub fn damaged(object: &ObjectName, reason: impl Into<String>) -> Self {
        Error::Damaged { object: object.to_string(), reason: reason.into() }
    }

    pub fn broken(rule: impl Into<String>) -> Self {
        Error::Broken { rule: rule.into() }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Error::Engine(fault)
    }
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Store(error) => error.kind(),
            Error::Id(error) => error.kind(),
            Error::Dump(error) => error.kind(),
            Error::ShelfPath(error) => error.kind(),
            Error::Engine(fault) => fault.kind(),
            Error::RotationUnfinished { source, .. } => source.kind(),
            Error::NoRepository { .. } | Error::NoSuchSlot { .. } | Error::NoSuchBackup { .. } => {
                ErrorKind::NotFound
            }
            Error::RepositoryExists { .. }
            | Error::PlaceNotEmpty { .. }
            | Error::SlotTaken { .. }
            | Error::LastSlot { .. }
            | Error::SlotsWouldBeLost { .. }
            | Error::NewerGeneration { .. }
            | Error::OnlyNewest { .. }
            | Error::OtherRotation { .. }
            | Error::RotationUnderWay
            | Error::AlreadyRunning { .. }
            | Error::DeclaredDead { .. }
            | Error::SessionTaken { .. }
            | Error::ShareExceeded { .. }
            | Error::NotCondemned { .. }
            | Error::GraceNotOver { .. }
            | Error::StillNeeded { .. }
            | Error::DirectoryNotEmpty { .. }
            | Error::KitInRepository { .. }
            | Error::SpoolInUse { .. }
            | Error::LogDiffers { .. } => ErrorKind::Conflict,
            Error::NewerFormat { .. } | Error::UnknownRequirement { .. } | Error::UnfitStore { .. } => {
                ErrorKind::Unsupported
            }
            Error::WrongKey { .. } | Error::KeyMissing => ErrorKind::Denied,
            Error::Name(_) | Error::KeyNotNeeded | Error::NotAKeyFile { .. } | Error::BadSlotName { .. } => {
                ErrorKind::Invalid
            }
            Error::KeyFile { source, .. }
            | Error::Spool { source, .. }
            | Error::WriteFile { source, .. }
            | Error::TemporaryFile { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                std::io::ErrorKind::AlreadyExists => ErrorKind::Conflict,
                _ => ErrorKind::Unavailable,
            },
            Error::NoRandomness | Error::KeepsChanging { .. } => ErrorKind::Unavailable,
            Error::Damaged { .. }
            | Error::Unread { .. }
            | Error::Missing { .. }
            | Error::BackupVanished { .. } => ErrorKind::Corrupt,
            Error::Cancelled => ErrorKind::Cancelled,
            Error::Broken { .. } => ErrorKind::Internal,
        }
    }

    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Error::Store(error) => return error.hints(),
            Error::Id(error) => return error.hints(),
            Error::Dump(error) => return error.hints(),
            Error::ShelfPath(error) => return error.hints(),
            Error::Engine(fault) => return fault.hints(),
            Error::Cancelled | Error::Broken { .. } | Error::Name(_) | Error::NoRandomness => {
                return Vec::new();
            }
            Error::NoRepository { .. } => {
                "`backstay init` makes one there; if there should be one, see whether repository.store is mounted and spelt right"
            }
            Error::RepositoryExists { .. } => "set repository.store to another place, or use the one there",
            Error::PlaceNotEmpty { .. } => {
                "set repository.store to an empty place; if a repository lost its backstay.json, put the one of the recovery kit back"
            }
            Error::NewerFormat { .. } | Error::UnknownRequirement { .. } => {
                "`backstay --version` must be at least that of the program which wrote the repository"
            }
            Error::UnfitStore { .. } => "set repository.store to a store that honours create-if-absent",
            Error::WrongKey { .. } => {
                "set repository.key to the key of this repository; `backstay key list` shows its slots"
            }
            Error::KeyMissing => {
                "set repository.key, for instance to { file = \"/etc/backstay/repository.key\" }"
            }
            Error::KeyNotNeeded => "remove repository.key from the configuration",
            Error::KeyFile { .. } => "set repository.key to a file that the user running backstay can read",
            Error::NotAKeyFile { .. } => {
                "set repository.key to the file that `backstay init` wrote: one line beginning with backstay-key-1"
            }
            Error::NoSuchSlot { .. } | Error::BadSlotName { .. } => "`backstay key list` shows the slots",
            Error::SlotTaken { .. } => {
                "give `backstay key add` another name; `backstay key list` shows those taken"
            }
            Error::LastSlot { .. } => "`backstay key add` makes another slot first",
            Error::SlotsWouldBeLost { .. } => {
                "give the secrets of these slots to `backstay key rotate`, or name the slots with --drop"
            }
            Error::NewerGeneration { .. } => {
                "`backstay key rotate` with the secrets of all slots finishes the rotation; then try again"
            }
            Error::OnlyNewest { .. } => "`backstay key rotate` with the secrets of all slots comes first",
            Error::OtherRotation { .. } => {
                "`backstay key list` shows the slots that there are; `backstay key rotate` with their secrets draws one more generation"
            }
            Error::RotationUnderWay => {
                "wait for it; if it was interrupted, `backstay key rotate` with the same slots finishes it"
            }
            Error::RotationUnfinished { .. } => {
                "every secret still opens everything; `backstay key rotate` with the secrets of all slots finishes it"
            }
            Error::Damaged { object, .. } if object.starts_with("keys/") => {
                return vec![format!(
                    "copy {object} from the recovery kit to its place in the store; repository.recovery_kit says where the kit lies"
                )];
            }
            Error::Damaged { object, .. } if object.starts_with("rotations/") => {
                return vec![format!(
                    "delete {object} from the store by hand, every secret still opens everything; then `backstay key rotate` with the secrets of all slots"
                )];
            }
            Error::Spool { .. } => {
                "make room in the directory that `archive.spool` names, or name another; `df` shows the space"
            }
            Error::SpoolInUse { .. } => "end the other `backstay archive` of this instance",
            Error::LogDiffers { .. } => {
                "two servers archive as one instance: give each its own section `[instance.…]`; `backstay verify` \
                 says what is stored"
            }
            Error::Damaged { .. } | Error::Unread { .. } | Error::Missing { .. } => {
                "`backstay verify --level digest` names everything that is damaged and what it costs"
            }
            Error::NoSuchBackup { .. } => "`backstay list` shows the backups",
            Error::AlreadyRunning { .. } => {
                "wait for it; if that process is gone, `backstay collect` declares it dead"
            }
            Error::DeclaredDead { .. } => "run `backstay backup` again",
            Error::SessionTaken { .. } => "run `backstay backup` again",
            Error::BackupVanished { .. } => {
                "see whether repository.store shows an old copy, or who deleted there; `backstay verify` shows what is left, `backstay collect --accept-loss` goes on"
            }
            Error::ShareExceeded { .. } => {
                "look at `backstay collect --dry-run`, then allow it with `backstay collect --max-share 100`"
            }
            Error::KeepsChanging { .. } => "run `backstay collect` again when no `backstay expire` runs",
            Error::NotCondemned { .. } => "`backstay expire` condemns what no rule of retention keeps",
            Error::GraceNotOver { .. } => "run `backstay expire` again when policy.grace is over",
            Error::StillNeeded { .. } => "run `backstay collect` again after that backup has ended",
            Error::TemporaryFile { directory, .. } => {
                return vec![format!(
                    "make room in {}, or set `TMPDIR` to a directory with room for 100 bytes for each file of the database",
                    directory.display()
                )];
            }
            Error::WriteFile { .. } | Error::DirectoryNotEmpty { .. } => {
                "give `backstay init --kit` or `backstay key kit --to` an empty directory that can be written"
            }
            Error::KitInRepository { .. } => {
                "give `backstay key kit --to` a directory outside of the repository, on another disk at best"
            }
        };
        vec![hint.to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Error> {
        let instance: InstanceId = "orders".parse().unwrap();
        let backup: BackupId = "20261121T024300Z-7q3f".parse().unwrap();
        let session = backup.clone();
        let path = PathBuf::from("/etc/backstay/repository.key");
        let location = "file:///srv".to_owned();
        let io = || std::io::Error::other("io");
        let slot = "initial".to_owned();
        vec![
            Error::NoRepository { location: location.clone() },
            Error::RepositoryExists { location: location.clone() },
            Error::PlaceNotEmpty { location, found: vec!["orders".into()] },
            Error::NewerFormat { found: 2, known: 1 },
            Error::UnknownRequirement { requirements: vec!["x".into()] },
            Error::UnfitStore { reason: "it forgets".into() },
            Error::WrongKey { secret: "key file" },
            Error::KeyMissing,
            Error::KeyNotNeeded,
            Error::KeyFile { action: "read", path: path.clone(), source: io() },
            Error::NotAKeyFile { path: path.clone() },
            Error::NoSuchSlot { slot: slot.clone() },
            Error::SlotTaken { slot: slot.clone() },
            Error::LastSlot { slot: slot.clone() },
            Error::SlotsWouldBeLost { slots: vec![slot.clone()] },
            Error::NewerGeneration { slots: vec![slot.clone()] },
            Error::OnlyNewest { slot: slot.clone() },
            Error::RotationUnfinished {
                reached: vec![slot.clone()],
                source: Box::new(Error::SlotTaken { slot: slot.clone() }),
            },
            Error::OtherRotation { keeps: vec![slot.clone()], drops: Vec::new() },
            Error::RotationUnderWay,
            Error::BadSlotName { slot },
            Error::Damaged { object: "a".into(), reason: "b".into() },
            Error::Unread { object: "a".into(), reason: "b".into() },
            Error::Missing { object: "a".into(), needed_by: "b".into() },
            Error::LogDiffers { object: "a".into() },
            Error::Spool { path: path.clone(), source: io() },
            Error::SpoolInUse { path: path.clone() },
            Error::NoSuchBackup { instance: instance.clone(), backup: backup.clone() },
            Error::AlreadyRunning {
                instance: instance.clone(),
                host: "h".into(),
                since: "s".into(),
                session: session.clone(),
            },
            Error::DeclaredDead { instance: instance.clone(), session: session.clone() },
            Error::SessionTaken { instance: instance.clone(), session: session.clone() },
            Error::BackupVanished {
                instance: instance.clone(),
                backup: backup.clone(),
                witness: "backup a".into(),
            },
            Error::KeepsChanging { instance: instance.clone() },
            Error::NotCondemned { instance: instance.clone(), backup: backup.clone() },
            Error::GraceNotOver { instance, backup: backup.clone() },
            Error::ShareExceeded { deleted: 9, total: 10, max_percent: 50 },
            Error::StillNeeded { backup, session },
            Error::WriteFile { path: path.clone(), source: io() },
            Error::TemporaryFile { directory: path.clone(), source: io() },
            Error::DirectoryNotEmpty { path: path.clone() },
            Error::KitInRepository { path },
            Error::Damaged { object: "keys/a".into(), reason: "b".into() },
            Error::Damaged { object: "rotations/2".into(), reason: "b".into() },
        ]
    }

    #[test]
    fn every_error_says_what_to_do_in_words_that_can_be_followed() {
        for error in samples() {
            let hints = error.hints();
            assert!(!hints.is_empty(), "{error}");
            for hint in hints {
                assert!(!hint.ends_with('.'), "{hint}");
                let names_something = hint.contains('`') || hint.contains("repository.");
                assert!(names_something, "{error}: {hint}");
            }
            let text = error.to_string();
            assert!(!text.ends_with('.'), "{text}");
        }
    }
}
