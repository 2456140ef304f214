//! What goes wrong in an operation.
//!
//! Errors of the engine and of the repository pass through as they are, with
//! their kind and their hints; the variants of its own are what only an operation
//! can know.

use std::path::PathBuf;

use backstay_model::error::{Classified, ErrorKind};
use backstay_model::id::IdError;
use backstay_model::plan::Refusal;
use backstay_model::{BackupId, ByteSize, InstanceId};

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
        /// A sound backup that ended before, when the stored data is at fault.
        instead: Option<BackupId>,
        #[source]
        source: Box<Error>,
    },
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
            Error::Refused { refusal } => refusal.kind,
            Error::NoSuchBackup { .. } => ErrorKind::NotFound,
            Error::RestoreFailed { source, .. } => source.kind(),
            Error::DrillDirectory { source, .. } | Error::Remove { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                    ErrorKind::Denied
                }
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Unavailable,
            },
            Error::DrillTooSmall { .. } => ErrorKind::Conflict,
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
            Error::Refused { refusal } => refusal.hints.clone(),
            Error::NoSuchBackup { .. } => vec!["`backstay list` shows the ids of all backups".to_owned()],
            Error::RestoreFailed { instance, into, instead, source, .. } => {
                let mut hints = source.hints();
                if let Some(instead) = instead {
                    hints.insert(
                        0,
                        format!(
                            "`backstay restore {instance} --backup {instead} --into {}` restores the one before",
                            into.display()
                        ),
                    );
                }
                hints
                    .push(format!("empty the directory before the next attempt: `rm -r {}`", into.display()));
                hints
            }
            Error::DrillDirectory { .. } | Error::DrillTooSmall { .. } => {
                vec![
                    "set drill.directory to a directory with enough space that backstay can write".to_owned(),
                ]
            }
            Error::Remove { path, .. } => vec![format!("`rm -r {}` removes what is left", path.display())],
            Error::NoKeys => {
                vec!["`backstay init` makes an encrypted repository unless told `--no-encryption`".to_owned()]
            }
            Error::Cancelled | Error::Broken { .. } => Vec::new(),
        }
    }
}

impl Error {
    pub(crate) fn broken(rule: impl Into<String>) -> Self {
        Error::Broken { rule: rule.into() }
    }
}
