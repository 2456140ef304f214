//! One coarse, prescriptive kind per error, and the one table that turns a kind
//! into an exit code, an HTTP status and a decision to retry.
//!
//! The precise variants are private to the crate that raises them; what a caller
//! may act on is the kind.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a caller can do about an error. Two errors share a kind exactly when
/// everybody would act the same way on both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// Configuration or arguments are wrong.
    Invalid,
    /// No such instance, backup or target.
    NotFound,
    /// A lease is held, a directory is not empty, the operation already runs.
    Conflict,
    /// Rights are missing at the database or the store.
    Denied,
    /// The server, the store or the network is away.
    Unavailable,
    /// This engine or version cannot do it.
    Unsupported,
    /// Stored data contradicts itself.
    Corrupt,
    /// The target lies outside the recovery window, or the chain is broken.
    Unrecoverable,
    /// Somebody asked to stop.
    Cancelled,
    /// A bug.
    Internal,
}

impl ErrorKind {
    /// Every kind, in the order of the table in `ARCHITECTURE.md`.
    pub const ALL: [ErrorKind; 10] = [
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::Denied,
        ErrorKind::Unavailable,
        ErrorKind::Unsupported,
        ErrorKind::Corrupt,
        ErrorKind::Unrecoverable,
        ErrorKind::Cancelled,
        ErrorKind::Internal,
    ];

    /// The exit code of the program. Codes are a contract: they are only added to.
    pub const fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Internal => 1,
            ErrorKind::Invalid => 2,
            ErrorKind::NotFound => 3,
            ErrorKind::Conflict => 4,
            ErrorKind::Denied => 5,
            ErrorKind::Unavailable => 6,
            ErrorKind::Unsupported => 7,
            ErrorKind::Corrupt => 8,
            ErrorKind::Unrecoverable => 9,
            ErrorKind::Cancelled => 10,
        }
    }

    /// The HTTP status of an API answer.
    pub const fn http_status(self) -> u16 {
        match self {
            ErrorKind::Invalid => 400,
            ErrorKind::NotFound => 404,
            ErrorKind::Conflict => 409,
            ErrorKind::Denied => 502,
            ErrorKind::Unavailable => 503,
            ErrorKind::Unsupported | ErrorKind::Unrecoverable => 422,
            ErrorKind::Corrupt | ErrorKind::Internal => 500,
            // The client closed the request; there is no one to read the status.
            ErrorKind::Cancelled => 499,
        }
    }

    /// Whether the same call may succeed when it is simply made again.
    pub const fn is_retryable(self) -> bool {
        matches!(self, ErrorKind::Unavailable)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::Invalid => "invalid",
            ErrorKind::NotFound => "not-found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Denied => "denied",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Unrecoverable => "unrecoverable",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Internal => "internal",
        })
    }
}

/// What every error of the workspace can say of itself, so that the edge renders
/// any of them the same way: `error:`, `caused by:`, `hint:`.
pub trait Classified: Error + Send + Sync + 'static {
    fn kind(&self) -> ErrorKind;

    /// Each hint names a command or a setting, and has no full stop at its end.
    fn hints(&self) -> Vec<String> {
        Vec::new()
    }
}

/// An error that crosses the wall between two crates which do not know each
/// other: the engine's, carried through the repository's pipeline, or the other
/// way round. It keeps the kind and the hints and shows the text of what it holds.
#[derive(Debug)]
pub struct Fault(Box<dyn Classified>);

impl Fault {
    pub fn new(error: impl Classified) -> Self {
        Fault(Box::new(error))
    }

    pub fn kind(&self) -> ErrorKind {
        self.0.kind()
    }

    pub fn hints(&self) -> Vec<String> {
        self.0.hints()
    }

    /// The error that was carried, for whoever knows both sides of the wall.
    pub fn carried<E: Error + 'static>(&self) -> Option<&E> {
        let carried: &(dyn Error + 'static) = &*self.0;
        carried.downcast_ref()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Fault {
    // The held error is the fault itself, not its cause: its text is already ours.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl<E: Classified> From<E> for Fault {
    fn from(error: E) -> Self {
        Fault::new(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_distinct_and_below_the_range_of_verify() {
        let mut codes: Vec<u8> = ErrorKind::ALL.iter().map(|k| k.exit_code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        assert!(codes.iter().all(|c| (1..20).contains(c)));
    }

    #[test]
    fn the_text_of_a_kind_is_its_json() {
        for kind in ErrorKind::ALL {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
        }
    }
}
