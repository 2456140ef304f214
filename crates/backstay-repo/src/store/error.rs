//! What can go wrong at a store, in the few words that somebody acts on.

use std::error::Error;
use std::fmt;
use std::io;

use backstay_model::ErrorKind;
use backstay_model::error::Classified;

use crate::layout::ObjectName;

type Cause = Box<dyn Error + Send + Sync + 'static>;

/// What was being done, for the text of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Open,
    Put,
    Write,
    Commit,
    Abort,
    Get,
    GetRange,
    List,
    Head,
    Delete,
}

impl Operation {
    /// Whether "there is no such file" answers the question that was asked.
    fn looks_at_one_object(self) -> bool {
        matches!(self, Operation::Get | Operation::GetRange | Operation::Head)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Open => "open",
            Operation::Put => "store",
            Operation::Write => "write",
            Operation::Commit => "complete",
            Operation::Abort => "give up",
            Operation::Get => "read",
            Operation::GetRange => "read a range of",
            Operation::List => "list",
            Operation::Head => "look at",
            Operation::Delete => "delete",
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("object {object} is not in the store")]
    NotFound { object: String },
    #[error("object {object} is in the store already")]
    AlreadyExists { object: String },
    #[error("the store refuses to {operation} {object}")]
    Denied {
        operation: Operation,
        object: String,
        #[source]
        cause: Cause,
    },
    #[error("the store is full: cannot {operation} {object}")]
    Full {
        operation: Operation,
        object: String,
        #[source]
        cause: Cause,
    },
    #[error("the store does not answer: cannot {operation} {object}")]
    Unavailable {
        operation: Operation,
        object: String,
        #[source]
        cause: Cause,
    },
    #[error("object {object} has no {length} bytes at offset {offset}: the store gave {got}")]
    WrongRange { object: String, offset: u64, length: u64, got: u64 },
    #[error("object {object} has {size_bytes} bytes, more than the {max_bytes} it may have")]
    TooLarge { object: String, size_bytes: u64, max_bytes: u64 },
    #[error("object {object} is not what was just written under that name")]
    OtherContent { object: String },
    #[error("cannot {operation} {object}")]
    Io {
        operation: Operation,
        object: String,
        #[source]
        cause: Cause,
    },
    #[error("{operation} of {object} was cancelled")]
    Cancelled { operation: Operation, object: String },
    #[error("store {url:?} is of a kind that this version does not have")]
    UnknownScheme { url: String },
    #[error("{url:?} is not the address of a store: {reason}")]
    InvalidUrl { url: String, reason: String },
}

impl StoreError {
    pub fn not_found(name: &ObjectName) -> Self {
        StoreError::NotFound { object: name.to_string() }
    }

    pub fn already_exists(name: &ObjectName) -> Self {
        StoreError::AlreadyExists { object: name.to_string() }
    }

    pub fn unavailable(operation: Operation, object: impl fmt::Display, cause: impl Into<Cause>) -> Self {
        StoreError::Unavailable { operation, object: object.to_string(), cause: cause.into() }
    }

    /// Sorts an error of the operating system into the kinds above. `AlreadyExists`
    /// is not among them: whether it is the object that exists, the caller knows.
    pub fn from_io(operation: Operation, object: impl fmt::Display, error: io::Error) -> Self {
        let object = object.to_string();
        let cause = error;
        match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if operation.looks_at_one_object() => {
                StoreError::NotFound { object }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::Denied { operation, object, cause: cause.into() }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                StoreError::Full { operation, object, cause: cause.into() }
            }
            io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::StaleNetworkFileHandle
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ResourceBusy => {
                StoreError::Unavailable { operation, object, cause: cause.into() }
            }
            _ => StoreError::Io { operation, object, cause: cause.into() },
        }
    }

    /// Whether the same call may succeed a moment later. Narrower than the kind:
    /// a full disk is `Unavailable` to the user, and asking again is no cure.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Unavailable { .. })
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, StoreError::NotFound { .. })
    }
}

impl Classified for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            StoreError::NotFound { .. } => ErrorKind::NotFound,
            StoreError::AlreadyExists { .. } => ErrorKind::Conflict,
            StoreError::Denied { .. } => ErrorKind::Denied,
            // A full or failing disk does not get better by asking again at once,
            // but it is the store that is away, not the data that is wrong.
            StoreError::Full { .. } | StoreError::Unavailable { .. } | StoreError::Io { .. } => {
                ErrorKind::Unavailable
            }
            StoreError::WrongRange { .. } | StoreError::TooLarge { .. } | StoreError::OtherContent { .. } => {
                ErrorKind::Corrupt
            }
            StoreError::Cancelled { .. } => ErrorKind::Cancelled,
            StoreError::UnknownScheme { .. } => ErrorKind::Unsupported,
            StoreError::InvalidUrl { .. } => ErrorKind::Invalid,
        }
    }

    fn hints(&self) -> Vec<String> {
        let hint = match self {
            StoreError::NotFound { .. } | StoreError::Cancelled { .. } => return Vec::new(),
            StoreError::AlreadyExists { .. } => "`backstay list` shows what the repository holds",
            StoreError::Denied { .. } => {
                "give the user that runs backstay the right to read and write the place named by repository.store"
            }
            StoreError::Full { .. } => {
                "make room at repository.store: `backstay expire --dry-run` shows what may go, `backstay collect` frees it"
            }
            StoreError::Unavailable { .. } | StoreError::Io { .. } => {
                "`backstay config check --connect` tries the place named by repository.store"
            }
            StoreError::WrongRange { .. } | StoreError::TooLarge { .. } => {
                "`backstay verify` names every damaged object and the backups that need it"
            }
            StoreError::OtherContent { .. } => {
                "two repositories may share one place: check repository.store on every host that uses it"
            }
            StoreError::UnknownScheme { .. } | StoreError::InvalidUrl { .. } => {
                "set repository.store to an address such as file:///var/lib/backstay; s3, gs, az and sftp are planned"
            }
        };
        vec![hint.to_owned()]
    }
}
