//! The one error of this crate.
//!
//! A variant says what was being done or what is the case; the cause is its
//! `source` and is printed by the edge. Every error a person can mend has a hint
//! that names the statement, the command or the setting that mends it.

mod hints;

use std::fmt;
use std::io;
use std::path::PathBuf;

use backstay_model::error::Classified;
use backstay_model::{ByteSize, ErrorKind, Fault, Lsn, TimelineId};

use crate::postgres::client_programs::Failure;

type Source = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("read the setting `{setting}`: {reason}")]
    Setting { setting: &'static str, reason: String },

    #[error("connect to the server at {server}")]
    Connect {
        server: String,
        #[source]
        source: Source,
    },
    #[error("connect to the server at {server}: no answer within {seconds} s")]
    ConnectTimeout { server: String, seconds: u64 },
    #[error("the server at {server} offers no TLS, and `sslmode={mode}` asks for it")]
    TlsRefused { server: String, mode: &'static str },
    #[error("agree on TLS with the server at {server}")]
    Tls {
        server: String,
        #[source]
        source: Source,
    },
    #[error("log in to the server at {server} as {user}")]
    Login {
        server: String,
        user: String,
        #[source]
        source: Box<ServerMessage>,
    },

    #[error("{action}")]
    Server {
        /// Verb and object: `start the backup`.
        action: &'static str,
        #[source]
        source: ServerMessage,
    },
    #[error("the connection to the server ended: {action}")]
    ConnectionLost {
        action: &'static str,
        #[source]
        source: Source,
    },
    #[error("the server did not answer within {seconds} s: {action}")]
    Timeout { action: &'static str, seconds: u64 },
    #[error("the server spoke out of turn: {reason}")]
    Protocol { reason: String },

    #[error("role {role} lacks {}", .missing.join(", "))]
    Privilege {
        role: String,
        missing: Vec<String>,
        /// The statements that help, ready to be run.
        grants: Vec<String>,
    },
    #[error("PostgreSQL {version} is not supported; 13 to 18 are")]
    UnsupportedVersion { version: String },
    #[error(
        "tablespace {} lies inside of the data directory: a backup may lack it, and a copy does not start with it",
        .names.join(", ")
    )]
    TablespacesInside { names: Vec<String> },
    #[error("the server was restarted during the backup")]
    Restarted,
    #[error(
        "the standby or its primary was promoted during the backup: timeline {started} at its start, {stopped} at its end"
    )]
    Promoted { started: TimelineId, stopped: TimelineId },
    #[error("the server no longer has the log segment {segment}, which the backup needs")]
    WalMissing { segment: String },

    #[error("the log does not go on where it ended: {expected} was to come, {found} came")]
    LogGap { expected: Lsn, found: Lsn },
    #[error("the replication slot {slot} is a {kind} one")]
    SlotKind { slot: String, kind: String },
    #[error("the replication slot {slot} is in use by another receiver")]
    SlotInUse {
        slot: String,
        #[source]
        source: Box<ServerMessage>,
    },

    #[error("{received} files came, and they are not the {listed} that the server's manifest lists")]
    ManifestMismatch { received: u64, listed: u64 },

    #[error(
        "data directory {path} is of another server: system identifier {found}, the server has {expected}"
    )]
    ForeignDirectory { path: PathBuf, found: u64, expected: u64 },
    #[error("data directory {path} is not the running server's: it knows nothing of its last checkpoint")]
    StaleDirectory { path: PathBuf },
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not what it should be: {reason}")]
    Malformed { path: PathBuf, reason: String },

    #[error("target directory {path} is not empty")]
    TargetNotEmpty { path: PathBuf },
    #[error("a server runs in target directory {path}, or died there: it has a postmaster.pid")]
    TargetRunning { path: PathBuf },
    #[error("target directory {path} cannot be made")]
    TargetUnusable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} has {} free, {} are needed", ByteSize(*free), ByteSize(*needed))]
    TargetTooSmall { path: PathBuf, needed: u64, free: u64 },
    #[error("no tablespace of the backup lies at {location}")]
    TablespaceUnknown { location: String },
    #[error("write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("find the program `{program}` of PostgreSQL {major}")]
    ProgramMissing { program: &'static str, major: u32 },
    #[error(
        "find `pg_dump` of PostgreSQL {major} or newer{}",
        .newest.as_ref().map(|version| format!("; the newest here is {version}")).unwrap_or_default()
    )]
    ClientMissing { major: u32, newest: Option<String> },
    #[error("{program} {ended}; it said: {said}")]
    ClientProgram {
        program: &'static str,
        /// `ended with exit code 1`.
        ended: String,
        /// Its first error, or its last lines.
        said: String,
        why: Failure,
    },
    #[error("no {what} is called {name}")]
    NothingMatches {
        what: &'static str,
        name: String,
        /// What is called something like it.
        near: Vec<String>,
    },
    #[error("{reason}")]
    DumpChoice { reason: String, hint: &'static str },
    /// `psql` would do what the dump says on this machine, or elsewhere on the server.
    #[error("{}", in_statements(*line, command, *is_guess))]
    CommandInStatements {
        line: Option<u64>,
        /// Where it was read by us.
        command: String,
        /// It may be none, and a `psql` that could tell is not here.
        is_guess: bool,
    },
    #[error("read the snapshot: {reason}")]
    Snapshot { reason: String },
    #[error("choose what to take of the archive: {reason}")]
    SnapshotStrange { reason: String },
    #[error("read the archive: {reason}")]
    Archive { reason: String },
    #[error("the archive has version {found}, which is newer than what is known")]
    ArchiveTooNew { found: String },
    #[error("database {name} is there already")]
    DatabaseExists { name: String },
    #[error(
        "database {name} lets no connections in: a swap that was killed leaves it so, and one that runs as well"
    )]
    DatabaseShut {
        name: String,
        /// What was to take its place.
        temporary: Vec<String>,
    },
    #[error("swap database {name}; it may still let no connections in")]
    SwapHalfDone {
        name: String,
        #[source]
        source: Box<Error>,
    },
    #[error("database {name} cannot be renamed: {}", .by.join(", "))]
    SwapBlocked {
        name: String,
        /// `replication slot x`.
        by: Vec<String>,
    },
    #[error("{path} has {} free, and a dump in the directory format may need {}", ByteSize(*free), ByteSize(*needed))]
    SpoolTooSmall { path: PathBuf, needed: u64, free: u64 },
    #[error("write to the spool at {path}")]
    SpoolUnwritable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("draw a random number")]
    NoRandomness,
    #[error("run {program}")]
    Program {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} did not end within {seconds} s")]
    ProgramTimeout { program: &'static str, seconds: u64 },
    #[error("the scratch server did not {what}; its log ends with: {log}")]
    Scratch { what: &'static str, log: String },
    #[error("the scratch server did not {what}: somebody ended it ({status})")]
    ScratchEnded { what: &'static str, status: String },

    #[error("read the facts of a backup")]
    Facts {
        #[source]
        source: serde_json::Error,
    },
    #[error("read the parent of the backup")]
    Parent {
        #[source]
        source: Fault,
    },

    #[error("read the list of a backup's files")]
    Parts {
        #[source]
        source: backstay_model::Fault,
    },
    #[error(transparent)]
    Redis(#[from] crate::redis::RedisError),
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// What `tokio-postgres` says, sorted into what the server refused and what
    /// the connection did.
    pub fn sql(action: &'static str, source: tokio_postgres::Error) -> Self {
        match source.as_db_error() {
            Some(error) => ServerMessage::from(error).during(action),
            None => Error::ConnectionLost { action, source: Box::new(source) },
        }
    }

    /// Whether the server ended this to let somebody else go on: the same may well succeed
    /// when it is begun anew.
    pub fn is_deadlock(&self) -> bool {
        match self {
            Error::ClientProgram { why, .. } => *why == Failure::Deadlock,
            Error::Server { source, .. } => source.code == "40P01",
            _ => false,
        }
    }
}

/// An `ErrorResponse` of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMessage {
    /// SQLSTATE.
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl ServerMessage {
    /// The error of a statement that was refused with this message.
    pub fn during(self, action: &'static str) -> Error {
        Error::Server { action, source: self }
    }

    /// The name of a segment of the log in the text, whose words are of any language.
    pub(crate) fn log_segment(&self) -> Option<String> {
        let is_segment = |word: &&str| {
            word.len() == 24 && word.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
        };
        let mut words = self.message.split(|c: char| !c.is_ascii_alphanumeric());
        words.find(is_segment).map(str::to_owned)
    }

    fn kind(&self) -> ErrorKind {
        match self.code.as_str() {
            // Password, authorisation, privilege.
            "28P01" | "28000" | "42501" => ErrorKind::Denied,
            // Function or parameter unknown, feature not supported.
            "42883" | "42704" | "0A000" => ErrorKind::Unsupported,
            // A file that the server cannot read or write.
            code if code.starts_with("58") => ErrorKind::Unavailable,
            // Out of connections, slots or disk; shutting down; starting up.
            code if code.starts_with("53") || code.starts_with("57P") || code.starts_with("08") => {
                ErrorKind::Unavailable
            }
            // Object not in prerequisite state, query cancelled, lock not available.
            "55000" | "55006" | "55P03" | "57014" => ErrorKind::Conflict,
            "3D000" => ErrorKind::NotFound,
            "XX001" | "XX002" => ErrorKind::Corrupt,
            _ => ErrorKind::Internal,
        }
    }
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerMessage {}

impl From<&tokio_postgres::error::DbError> for ServerMessage {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        Self {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        }
    }
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Setting { .. }
            | Error::TlsRefused { .. }
            | Error::Tls { .. }
            | Error::ForeignDirectory { .. }
            | Error::StaleDirectory { .. }
            | Error::TablespaceUnknown { .. } => ErrorKind::Invalid,
            Error::Connect { .. }
            | Error::ConnectTimeout { .. }
            | Error::ConnectionLost { .. }
            | Error::Timeout { .. }
            | Error::Restarted => ErrorKind::Unavailable,
            Error::Login { source, .. } => source.kind(),
            Error::Server { source, .. } => source.kind(),
            Error::Privilege { .. } => ErrorKind::Denied,
            Error::UnsupportedVersion { .. }
            | Error::TablespacesInside { .. }
            | Error::ProgramMissing { .. }
            | Error::ClientMissing { .. } => ErrorKind::Unsupported,
            Error::ClientProgram { why, .. } => why.kind(),
            Error::NothingMatches { .. } => ErrorKind::NotFound,
            Error::DumpChoice { .. } | Error::CommandInStatements { .. } => ErrorKind::Invalid,
            Error::SpoolTooSmall { .. } | Error::DatabaseExists { .. } | Error::SwapBlocked { .. } => {
                ErrorKind::Conflict
            }
            Error::DatabaseShut { .. } => ErrorKind::Conflict,
            Error::SwapHalfDone { source, .. } => source.kind(),
            Error::Archive { .. } | Error::Snapshot { .. } => ErrorKind::Corrupt,
            Error::ArchiveTooNew { .. } | Error::SnapshotStrange { .. } => ErrorKind::Unsupported,
            Error::SlotInUse { .. } | Error::SlotKind { .. } => ErrorKind::Conflict,
            Error::Promoted { .. } | Error::TargetNotEmpty { .. } | Error::TargetRunning { .. } => {
                ErrorKind::Conflict
            }
            Error::TargetTooSmall { .. } => ErrorKind::Conflict,
            Error::WalMissing { .. } | Error::LogGap { .. } | Error::ManifestMismatch { .. } => {
                ErrorKind::Unavailable
            }
            Error::Read { source, .. }
            | Error::TargetUnusable { source, .. }
            | Error::SpoolUnwritable { source, .. }
            | Error::Write { source, .. } => io_kind(source),
            Error::Program { source, .. } => io_kind(source),
            Error::Malformed { .. } | Error::Facts { .. } => ErrorKind::Corrupt,
            Error::Scratch { .. } | Error::ScratchEnded { .. } | Error::ProgramTimeout { .. } => {
                ErrorKind::Unavailable
            }
            Error::Parent { source } => source.kind(),
            Error::Parts { source } => source.kind(),
            Error::Redis(error) => error.kind(),
            Error::Cancelled => ErrorKind::Cancelled,
            Error::Protocol { .. } | Error::NoRandomness => ErrorKind::Internal,
        }
    }

    fn hints(&self) -> Vec<String> {
        hints::of(self)
    }
}

fn in_statements(line: Option<u64>, command: &str, is_guess: bool) -> String {
    let place = line.map_or_else(|| "a line".to_owned(), |line| format!("line {line}"));
    let words = if command.is_empty() { String::new() } else { format!(", `{command}`,") };
    let connects = matches!(command, "\\connect" | "\\c");
    match () {
        () if connects => format!(
            "{place} of the dump{words} chooses a database itself, as `pg_dump --create` writes it: its rows would not \
             come into the one that is named"
        ),
        () if is_guess => format!("{place} of the dump{words} may hold a command to `psql`"),
        () => format!("{place} of the dump{words} is a command to `psql`, and no statement"),
    }
}

/// What a caller can do about an error of the file system.
fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::Conflict,
        io::ErrorKind::NotADirectory => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    }
}
