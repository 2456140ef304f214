//! How the content of a log is written down: as it is, or with what can be computed again
//! taken out of it (`docs/format.md`, section 11).
//!
//! The one place of the repository that knows how the bytes of a log are built: what is
//! stored has to be readable by whoever has nothing but the repository. Nobody else notices:
//! what goes in comes out, byte by byte, whatever the bytes are.

mod postgres;

use serde::{Deserialize, Serialize};

/// How the content of an object is written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogForm {
    /// As it is.
    #[default]
    Bytes,
    /// Records of PostgreSQL, without what follows from the rest of each: its checksum, where
    /// the one before it began, and what is common to its transaction and the last one.
    PostgresqlRecords,
}

impl LogForm {
    pub(super) fn is_bytes(&self) -> bool {
        *self == LogForm::Bytes
    }

    /// Into what is stored, of content whose first byte belongs to `start`. Takes a millisecond
    /// or more.
    pub(super) fn fold(self, start: u64, content: &mut [u8]) {
        match self {
            LogForm::Bytes => {}
            LogForm::PostgresqlRecords => postgres::fold(start, content),
        }
    }

    /// Out of what is stored.
    pub(super) fn unfold(self, start: u64, content: &mut [u8]) {
        match self {
            LogForm::Bytes => {}
            LogForm::PostgresqlRecords => postgres::unfold(start, content),
        }
    }
}
