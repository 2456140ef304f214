//! What goes wrong in an operation.
//!
//! Errors of the engine and of the repository pass through as they are, with
//! their kind and their hints; the variants of its own are what only an operation
//! can know.

mod hints;

use std::path::PathBuf;

use backstay_model::error::{Classified, ErrorKind};
use backstay_model::id::IdError;
use backstay_model::plan::Refusal;
use backstay_model::{BackupId, ByteSize, EngineKind, InstanceId, Lsn, RecoveryTarget, TimelineId};

use crate::restore::{Instead, Offer, Remains};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Engine(#[from] backstay_engine::Error),
    #[error(transparent)]
    Repo(#[from] backstay_repo::Error),
    #[error(transparent)]
    Id(#[from] IdError),

    #[error(
        "the server of {instance} is another cluster (system identifier {found}) than the one whose log is archived ({expected})"
    )]
    OtherCluster { instance: InstanceId, found: String, expected: String },
    #[error("the dump lost a deadlock with others {times} times, and is given up")]
    DumpDeadlocks {
        times: u32,
        #[source]
        source: Box<backstay_engine::Error>,
    },
    #[error("the log of {instance} has a hole on timeline {timeline}, from {from} to {to}")]
    LogHole { instance: InstanceId, timeline: TimelineId, from: Lsn, to: Lsn },
    #[error("the recovery of {instance} ended before {target}: the log does not hold it")]
    TargetNotReached {
        instance: InstanceId,
        target: RecoveryTarget,
        #[source]
        source: Box<backstay_engine::Error>,
    },
    #[error("{} is not what its name says: {reason}", path.display())]
    NotThisLog { path: PathBuf, reason: String },
    #[error("there is no base of {instance}, so nobody knows which cluster's log it is")]
    NoBaseYet { instance: InstanceId },
    #[error("read {}", path.display())]
    ReadLogFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("write {}", path.display())]
    WriteLogFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the server is at {server}, and its log was received to {received}")]
    ServerBehind { received: String, server: String },
    #[error("the server has given up the replication slot {slot}, and log that was held for it is gone")]
    SlotLost { instance: InstanceId, slot: String },
    #[error("the server has let go of log that was not received: it does not have the segment {segment}")]
    LogGone { instance: InstanceId, segment: String },
    #[error("log cannot be given up: nobody would know why it is missing: {reason}")]
    GapNotNoted { reason: String },
    #[error("{} holds a stream, and nothing in it says any more where that begins", spool.display())]
    StreamUnknown { spool: PathBuf },
    #[error("the store does not answer within {seconds} s")]
    StoreSilent { seconds: u64 },
    #[error("what the server sends is not its log")]
    LogDamaged {
        #[source]
        source: backstay_engine::postgres::wal::LogDamage,
    },

    #[error("what the server sends is no stream of commands")]
    StreamBroken {
        #[source]
        source: backstay_engine::redis::commands::BrokenStream,
    },

    /// The plan says no; the first of its reasons.
    #[error("{}", refusal.message)]
    Refused { refusal: Refusal },
    #[error("there is no backup {backup} in the repository")]
    NoSuchBackup { backup: BackupId },
    #[error("the restore of backup {backup} failed; what lies in {} cannot start", into.display())]
    RestoreFailed {
        instance: InstanceId,
        backup: BackupId,
        into: PathBuf,
        instead: Instead,
        remains: Box<Remains>,
        #[source]
        source: Box<Error>,
    },
    /// Of Redis, where a place that is left half done may serve a server still, with what it had.
    #[error("the restore of backup {backup} into {} was not finished", into.display())]
    SnapshotNotPlaced {
        instance: InstanceId,
        backup: BackupId,
        into: PathBuf,
        instead: Instead,
        remains: Box<Remains>,
        #[source]
        source: Box<Error>,
    },
    #[error("target directory {} is not empty: an interrupted restore lies in it", into.display())]
    RestoreInterrupted {
        into: PathBuf,
        remains: Remains,
        /// The argument that leads a restore to another place.
        elsewhere: String,
    },
    #[error("target directory {} is not empty: another restore is writing there", into.display())]
    RestoreRunning { into: PathBuf, elsewhere: String },
    #[error("the place {} of tablespace {name} is not empty", path.display())]
    TablespaceNotEmpty { name: String, location: String, path: PathBuf },
    #[error("the place {} of tablespace {name}, which was made while the backup ran, is not empty", path.display())]
    LateTablespaceNotEmpty { name: String, path: PathBuf },
    #[error(
        "backup {backup} cannot be drilled: tablespace {name} was made while it ran, and would be written to {}, outside of the drill's directory",
        path.display()
    )]
    DrillOutside { backup: BackupId, name: String, path: PathBuf },
    #[error("make a directory for the drill in {}", path.display())]
    DrillDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} has {} free, the drill needs {}", path.display(), ByteSize(*free), ByteSize(*needed))]
    DrillTooSmall { path: PathBuf, free: u64, needed: u64 },
    #[error("remove {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("write the recovery kit at {}", path.display())]
    WriteKit {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("nobody said where dumps go")]
    NoShelf,
    #[error("dumps cannot go to {to:?}: {reason}")]
    ShelfAddress { to: String, reason: &'static str },
    #[error("{one} and {other} would both be called {path}")]
    DumpsMeet { path: String, one: String, other: String },
    #[error("{path} is there already in {shelf}")]
    DumpNameTaken { path: String, shelf: String },
    #[error("{path} is there already in {shelf}, and nothing says what it is: it has no sidecar")]
    DumpNameOfStranger { instance: InstanceId, path: String, shelf: String },
    #[error("{reason}")]
    DumpShape { reason: &'static str, hint: &'static str },
    #[error("tables and schemas are chosen of one database, and {count} were named")]
    PartsOfSeveral { count: usize },
    #[error("look after the dumps in {shelf}")]
    Shelf {
        shelf: String,
        #[source]
        source: backstay_repo::store::StoreError,
    },
    #[error("nobody knows which dumps are damaged: {path} cannot be read: {reason}")]
    VerificationUnreadable { path: String, reason: String },
    #[error("make the directory {} for a dump on its way", path.display())]
    Spool {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("write to {} for a dump on its way", path.display())]
    SpoolWrite {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("half of a restore is left in database {database}, which could not be dropped")]
    HalfRestored {
        database: String,
        #[source]
        source: Box<Error>,
    },
    #[error("{} has {} free, and {} are needed there for a while", path.display(), ByteSize(*free), ByteSize(*needed))]
    SpoolTooSmall { path: PathBuf, free: u64, needed: u64 },
    #[error("a hold until {until} would be over already")]
    HoldOver { until: jiff::Timestamp },
    #[error("backup {backup} may be deleted yet: a run of `backstay expire` began with it at {since}")]
    BeingDeleted { backup: BackupId, since: jiff::Timestamp },
    #[error("nothing can be exported to {}: {reason}", path.display())]
    ExportPlace { path: PathBuf, reason: String },
    #[error("{} is there already, and an export replaces nothing", path.display())]
    ExportTaken { path: PathBuf },
    #[error("look at {}", path.display())]
    ExportUnseen {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("write the export {}", path.display())]
    ExportWrite {
        path: PathBuf,
        #[source]
        source: backstay_repo::store::StoreError,
    },
    #[error("there is no dump of database {database} of {instance} in {shelf}")]
    NoDump { instance: InstanceId, database: String, shelf: String },
    #[error("dump {file} is {fault}")]
    DumpNotGood { file: String, fault: &'static str, instead: Option<BackupId> },
    #[error("{file} holds statements, of which owners and grants cannot be left out")]
    NoChoiceInStatements { file: String },
    #[error("{file} is no dump of one PostgreSQL database: {what}")]
    NotReloadable { file: String, what: String },
    #[error("{file} is no dump of PostgreSQL, and only these are exported: it is one of {}", .engine.name())]
    NotExportable { file: String, engine: EngineKind, instance: InstanceId, id: BackupId },
    #[error("database {database} is not in {file}, and these are: {}", .databases.join(", "))]
    NotInDump { file: String, database: String, databases: Vec<String> },
    #[error("there is no dump of {instance} on {shelf}")]
    NothingToExtract { instance: InstanceId, shelf: String },
    #[error("this command does not work with {} servers in this version", .engine.name())]
    EngineNotReached { engine: EngineKind, instance: InstanceId },
    #[error("some of the tables are in database {database} and some are not")]
    SomeTablesThere { database: String },
    #[error(
        "dump {dump} holds parts of a database, which cannot take the place of the whole database {name}"
    )]
    SwapOfParts { dump: BackupId, name: String },
    #[error("{name} failed, and nothing was changed: `{command}` {reason}")]
    HookFailed { name: &'static str, command: String, reason: String },
    #[error("what was restored did not take the place of {name}, and is dropped again: {reason}")]
    SwapNotSound { name: String, reason: String },
    #[error(transparent)]
    Layout(#[from] backstay_model::dump::layout::LayoutError),
    #[error("the repository is not encrypted, so it has no keys")]
    NoKeys,
    #[error("stopped on request")]
    Cancelled,
    /// A bug: a rule of our own code does not hold.
    #[error("the operation broke its own rule: {rule}")]
    Broken { rule: String },
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Engine(error) => error.kind(),
            Error::Repo(error) => error.kind(),
            Error::Id(error) => error.kind(),
            Error::DumpDeadlocks { source, .. } => source.kind(),
            Error::LogHole { .. } | Error::TargetNotReached { .. } => ErrorKind::Unrecoverable,
            Error::NotThisLog { .. } => ErrorKind::Invalid,
            Error::NoBaseYet { .. } => ErrorKind::NotFound,
            Error::ReadLogFile { source, .. } | Error::WriteLogFile { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Unavailable,
            },
            Error::OtherCluster { .. } => ErrorKind::Invalid,
            Error::ServerBehind { .. } => ErrorKind::Conflict,
            Error::SlotLost { .. } | Error::LogGone { .. } => ErrorKind::Unrecoverable,
            Error::GapNotNoted { .. } | Error::StoreSilent { .. } => ErrorKind::Unavailable,
            Error::LogDamaged { .. } | Error::StreamBroken { .. } | Error::StreamUnknown { .. } => {
                ErrorKind::Corrupt
            }
            Error::Refused { refusal } => refusal.kind,
            Error::NoSuchBackup { .. } => ErrorKind::NotFound,
            Error::RestoreFailed { source, .. }
            | Error::SnapshotNotPlaced { source, .. }
            | Error::HalfRestored { source, .. } => source.kind(),
            Error::RestoreInterrupted { .. }
            | Error::RestoreRunning { .. }
            | Error::TablespaceNotEmpty { .. }
            | Error::LateTablespaceNotEmpty { .. }
            | Error::DrillOutside { .. } => ErrorKind::Conflict,
            Error::DrillDirectory { source, .. }
            | Error::Remove { source, .. }
            | Error::Spool { source, .. }
            | Error::SpoolWrite { source, .. }
            | Error::ExportUnseen { source, .. }
            | Error::WriteKit { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                    ErrorKind::Denied
                }
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Unavailable,
            },
            Error::DrillTooSmall { .. }
            | Error::DumpNameTaken { .. }
            | Error::DumpNameOfStranger { .. }
            | Error::ExportTaken { .. }
            | Error::BeingDeleted { .. }
            | Error::SpoolTooSmall { .. }
            | Error::SomeTablesThere { .. }
            | Error::HookFailed { .. }
            | Error::SwapNotSound { .. } => ErrorKind::Conflict,
            Error::NoDump { .. } => ErrorKind::NotFound,
            Error::DumpNotGood { .. } => ErrorKind::Corrupt,
            Error::NotReloadable { .. } | Error::NotExportable { .. } | Error::EngineNotReached { .. } => {
                ErrorKind::Unsupported
            }
            Error::NotInDump { .. } | Error::NothingToExtract { .. } => ErrorKind::NotFound,
            Error::NoShelf
            | Error::ShelfAddress { .. }
            | Error::DumpsMeet { .. }
            | Error::DumpShape { .. }
            | Error::NoChoiceInStatements { .. }
            | Error::SwapOfParts { .. }
            | Error::ExportPlace { .. }
            | Error::HoldOver { .. }
            | Error::PartsOfSeveral { .. } => ErrorKind::Invalid,
            Error::Layout(error) => error.kind(),
            Error::Shelf { source, .. } | Error::ExportWrite { source, .. } => source.kind(),
            Error::VerificationUnreadable { .. } => ErrorKind::Corrupt,
            Error::NoKeys => ErrorKind::Unsupported,
            Error::Cancelled => ErrorKind::Cancelled,
            Error::Broken { .. } => ErrorKind::Internal,
        }
    }

    fn hints(&self) -> Vec<String> {
        hints::of(self)
    }
}

impl Error {
    /// The store whose calls failed was a shelf: hints would name that of the repository,
    /// which has nothing to do with dumps.
    pub(crate) fn of_shelf(self, shelf: &str) -> Self {
        match self {
            Error::Repo(backstay_repo::Error::Store(source)) => {
                Error::Shelf { shelf: shelf.to_owned(), source }
            }
            Error::HalfRestored { database, source } => {
                Error::HalfRestored { database, source: Box::new(source.of_shelf(shelf)) }
            }
            other => other,
        }
    }

    pub(crate) fn broken(rule: impl Into<String>) -> Self {
        Error::Broken { rule: rule.into() }
    }
}

#[cfg(test)]
mod tests;
