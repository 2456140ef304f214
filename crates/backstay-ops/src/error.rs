//! What goes wrong in an operation.
//!
//! Errors of the engine and of the repository pass through as they are, with
//! their kind and their hints; the variants of its own are what only an operation
//! can know.

use std::ffi::OsStr;
use std::path::PathBuf;

use backstay_engine::postgres::facts::quoted_identifier;
use backstay_engine::postgres::starting::shell_word;
use backstay_model::error::{Classified, ErrorKind};
use backstay_model::id::IdError;
use backstay_model::plan::Refusal;
use backstay_model::{BackupId, ByteSize, EngineKind, InstanceId, Lsn, TimelineId};

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
    #[error("the log of {instance} has a hole on timeline {timeline}, from {from} to {to}")]
    LogHole { instance: InstanceId, timeline: TimelineId, from: Lsn, to: Lsn },
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
    SlotLost { slot: String },
    #[error("what the server sends is not its log")]
    LogDamaged {
        #[source]
        source: backstay_engine::postgres::wal::LogDamage,
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
        remains: Remains,
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
    #[error("{file} holds statements, of which nothing can be chosen or left out")]
    NoChoiceInStatements { file: String },
    #[error("{file} is no dump of one PostgreSQL database: {what}")]
    NotReloadable { file: String, what: String },
    #[error("{file} is no dump of PostgreSQL, and only these are exported: it is one of {}", .engine.name())]
    NotExportable { file: String, engine: EngineKind, instance: InstanceId, id: BackupId },
    #[error("database {database} is not in {file}, and these are: {}", .databases.join(", "))]
    NotInDump { file: String, database: String, databases: Vec<String> },
    #[error("there is no dump of {instance} on {shelf}")]
    NothingToExtract { instance: InstanceId, shelf: String },
    #[error("{} servers cannot be reached by this version", .engine.name())]
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
            Error::LogHole { .. } => ErrorKind::Unrecoverable,
            Error::NotThisLog { .. } => ErrorKind::Invalid,
            Error::NoBaseYet { .. } => ErrorKind::NotFound,
            Error::ReadLogFile { source, .. } | Error::WriteLogFile { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Unavailable,
            },
            Error::OtherCluster { .. } => ErrorKind::Invalid,
            Error::ServerBehind { .. } => ErrorKind::Conflict,
            Error::SlotLost { .. } => ErrorKind::Unrecoverable,
            Error::LogDamaged { .. } => ErrorKind::Corrupt,
            Error::Refused { refusal } => refusal.kind,
            Error::NoSuchBackup { .. } => ErrorKind::NotFound,
            Error::RestoreFailed { source, .. } | Error::HalfRestored { source, .. } => source.kind(),
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
        match self {
            Error::Engine(error) => error.hints(),
            Error::Repo(error) => error.hints(),
            Error::Id(error) => error.hints(),
            Error::LogHole { instance, .. } => vec![format!(
                "`backstay status {instance}` shows the instants that can be reached on both sides of it"
            )],
            Error::NotThisLog { .. } => {
                vec!["`archive_command` gives it the path that the server names: `backstay wal push %p`".to_owned()]
            }
            Error::NoBaseYet { instance } => vec![format!("run `backstay backup {instance}` first")],
            Error::ReadLogFile { .. } | Error::WriteLogFile { .. } => {
                vec!["run it as the owner of the data directory, with the path that the server gives as `%p`".to_owned()]
            }
            Error::OtherCluster { instance, .. } => vec![
                "give another cluster a section `[instance.…]` of its own".to_owned(),
                format!("where it took the place of the old one, `backstay backup {instance}` begins with it; the old \
                         backups and their log stay"),
            ],
            Error::ServerBehind { .. } => vec![
                "this server was brought back to an earlier state without a new timeline: give it a section \
                 `[instance.…]` of its own, or restore it with `backstay restore --to`"
                    .to_owned(),
            ],
            Error::SlotLost { slot } => vec![
                format!("`SELECT pg_drop_replication_slot('{slot}')` lets `backstay archive` begin again, with a hole \
                         in the log; then take a base with `backstay backup`"),
                "raise `max_slot_wal_keep_size` of the server, or end what kept the archive away".to_owned(),
            ],
            Error::LogDamaged { .. } => vec![
                "`pg_waldump` at the server says whether its log reads there; `backstay backup` takes a new base"
                    .to_owned(),
            ],
            Error::Refused { refusal } => refusal.hints.clone(),
            Error::NoSuchBackup { .. } => vec!["`backstay list` shows the ids of all backups".to_owned()],
            Error::RestoreFailed { instance, instead, remains, source, .. } => {
                let mut hints = source.hints();
                match instead {
                    Instead::Unsaid => {}
                    Instead::Other(offer) => hints.insert(0, offer_hint(offer, remains)),
                    Instead::Nothing => hints.insert(
                        0,
                        format!(
                            "no other backup of {instance} does without what failed; `backstay backup {instance}` \
                             stores again what the database still has"
                        ),
                    ),
                }
                // A backup that is offered is offered with what makes room for it.
                if !remains.is_empty() && !matches!(instead, Instead::Other(_)) {
                    hints
                        .push(format!("clear what it left before the next attempt: `{}`", remains.command()));
                }
                hints
            }
            Error::RestoreInterrupted { remains, elsewhere, .. } => vec![
                format!("`{}` clears it, then restore again{}", remains.command(), unless_used(remains)),
                format!("or choose another directory with `{elsewhere}`"),
            ],
            // No command: what clears a directory destroys what is being written.
            Error::RestoreRunning { elsewhere, .. } => {
                vec![format!("wait until it ends, or choose another directory with `{elsewhere}`")]
            }
            // What lies there may be a living server's: it is never to be moved or removed.
            Error::TablespaceNotEmpty { location, .. } => {
                let old = shell_word(OsStr::new(location));
                vec![format!("give it another place with `--tablespace {old}=NEW`")]
            }
            // `--tablespace` cannot move it: its place stands in the log.
            Error::LateTablespaceNotEmpty { .. } => {
                vec!["run `backstay backup` again and restore that one".to_owned()]
            }
            Error::DrillOutside { .. } => {
                vec!["run `backstay backup` again, and drill that one".to_owned()]
            }
            Error::DrillDirectory { .. } | Error::DrillTooSmall { .. } => {
                vec![
                    "set drill.directory to a directory with enough space that backstay can write".to_owned(),
                ]
            }
            Error::Remove { path, .. } => vec![format!("`rm -r {}` removes what is left", path.display())],
            Error::WriteKit { .. } => {
                vec!["`backstay key kit --to DIR` writes it to another place".to_owned()]
            }
            Error::NoShelf => vec![
                "set `dump.to` to a directory, such as \"file:///var/backups\", or give `--to DIR`".to_owned(),
            ],
            Error::ShelfAddress { .. } => {
                vec!["set `dump.to` to a directory, such as \"file:///var/backups\"".to_owned()]
            }
            Error::DumpsMeet { .. } => vec![
                "put {database} into `dump.name`, or name one database with `--database`".to_owned(),
            ],
            Error::DumpNameTaken { .. } => vec![
                "put the time of day into `dump.name`, as in {time:%Y%m%d_%H%M%S}, or run `backstay dump` later"
                    .to_owned(),
            ],
            Error::DumpNameOfStranger { instance, path, shelf } => {
                let shelf = crate::dump::shelved::full(shelf, "");
                let directory = shell_word(OsStr::new(shelf.trim_end_matches('/'))).into_owned();
                let file = format!("{shelf}{path}");
                let file = shell_word(OsStr::new(&file)).into_owned();
                vec![
                    format!(
                        "a `backstay dump` that was killed before it was done leaves such a file, whole: \
                         `backstay adopt {directory} --instance {instance}` reads it and takes it in"
                    ),
                    format!("or move it away, `mv {file} {file}.old`, and dump again"),
                ]
            }
            Error::DumpShape { hint, .. } => vec![(*hint).to_owned()],
            Error::PartsOfSeveral { .. } => {
                vec!["name one database with `--database`".to_owned()]
            }
            Error::HoldOver { .. } => {
                vec!["give `--until` a time that is to come, or leave it out".to_owned()]
            }
            Error::BeingDeleted { backup, .. } => vec![
                format!("the hold is noted: `backstay hold add {backup}` again in a minute says whether it came in time"),
                "what a run of `backstay expire` has begun that was killed counts for an hour".to_owned(),
            ],
            Error::ExportPlace { .. } => {
                vec!["give `--to` a directory that is there or ends with `/`, or the name of a file that is not hidden".to_owned()]
            }
            Error::ExportTaken { .. } => {
                vec!["give `--to` another name, or move the file that has it with `mv`".to_owned()]
            }
            Error::ExportUnseen { path, .. } | Error::ExportWrite { path, .. } => vec![format!(
                "see whether backstay may write there and whether there is room: `df -h {}`",
                shell_word(path.parent().unwrap_or(path).as_os_str())
            )],
            Error::NoDump { instance, .. } => vec![
                format!("`backstay dump {instance}` takes one"),
                "name the database of the dump with `--database`".to_owned(),
            ],
            Error::DumpNotGood { instead: Some(dump), .. } => {
                vec![format!("`--backup {dump}` restores the newest good one of the same database")]
            }
            Error::DumpNotGood { instead: None, .. } => {
                vec!["`backstay verify` names what is damaged; `backstay dump` takes a new one".to_owned()]
            }
            Error::NoChoiceInStatements { .. } => vec![
                "restore all of it with `--into-database` into a new database, and copy the tables from there".to_owned(),
                "dumps in the custom format (`dump.format`) can be chosen from".to_owned(),
            ],
            Error::NotExportable { instance, id, .. } => vec![format!(
                "`backstay restore {instance} --backup {id} --into DIR` opens it, and writes it to a directory"
            )],
            Error::NotReloadable { .. } => {
                vec!["`backstay list --type dump` shows the dumps of databases".to_owned()]
            }
            Error::NotInDump { .. } => {
                vec!["name one of them with `--database`".to_owned()]
            }
            Error::NothingToExtract { instance, .. } => {
                vec![format!("`backstay adopt DIR --instance {instance}` takes in what others left")]
            }
            Error::EngineNotReached { instance, .. } => vec![format!(
                "dumps that others took of {instance} work: `backstay adopt`, `list`, `show`, `verify`, `expire`, and \
                 `backstay restore {instance} --into DIR`"
            )],
            Error::SomeTablesThere { .. } => vec![
                "restore those that are there and those that are not one after the other, with `--table`".to_owned(),
            ],
            Error::SwapOfParts { .. } => vec![
                "restore it with `--into-database`, or name a dump of the whole database with `--backup`".to_owned(),
            ],
            Error::HookFailed { name, .. } => {
                vec![format!("mend the command, or take `{name}` out of the instance's `hooks`")]
            }
            Error::SwapNotSound { .. } => vec![
                "`backstay restore … --into-database` keeps what is restored, to be looked at".to_owned(),
            ],
            Error::Spool { .. } | Error::SpoolWrite { .. } | Error::SpoolTooSmall { .. } => vec![
                "set `dump.spool` to a directory that backstay can write, with enough space: `df` shows it".to_owned(),
            ],
            Error::HalfRestored { database, source } => {
                let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted_identifier(database));
                let mut hints = vec![format!("run `{drop}` when the server answers again")];
                hints.extend(source.hints());
                hints
            }
            Error::Layout(error) => error.hints(),
            Error::Shelf { .. } => vec![
                "see whether backstay may read and write everything in the directory of `dump.to`, and whether its \
                 disk is well: `dmesg`"
                    .to_owned(),
            ],
            Error::VerificationUnreadable { .. } => {
                vec!["`backstay verify` looks at every dump, and writes a new one".to_owned()]
            }
            Error::NoKeys => {
                vec!["`backstay init` makes an encrypted repository unless told `--no-encryption`".to_owned()]
            }
            Error::Cancelled | Error::Broken { .. } => Vec::new(),
        }
    }
}

/// The whole way to a backup that is offered, as one line for a shell.
fn offer_hint(offer: &Offer, remains: &Remains) -> String {
    let clear = if remains.is_empty() { String::new() } else { format!("{} && ", remains.command()) };
    let which = if offer.is_older { "the newest one before" } else { "the next one after" };
    format!(
        "`{clear}backstay restore {}` restores {which} that does not need what failed, of {}",
        offer.arguments, offer.finished_at
    )
}

/// A tablespace may be made in a place that holds our mark: PostgreSQL does not mind.
fn unless_used(remains: &Remains) -> &'static str {
    match remains.are_several() {
        true => "; first see that no server has begun to use one of these places",
        false => "",
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
