//! Export: a backup or a dump as a plain file of its own, for whoever has no Backstay.
//!
//! Invariant: an export has its name only when every byte of what it came from was read
//! and found good, and every file of it is whole on the disk; whatever goes wrong before
//! leaves nothing behind. What comes out is nobody's afterwards: no list shows it and no
//! retention removes it, so it gets no sidecar.
//!
//! Refuses to write over anything.

use std::path::PathBuf;

use backstay_model::dump::{DumpCipher, DumpCompression, DumpShape};
use backstay_model::{BackupId, Finding, InstanceId};
use serde::Serialize;

mod base;
mod destination;
mod dump;
mod outlet;
mod redis;
mod spool;

pub use base::run as base;
pub use dump::run as dump;

/// What a person may say of one export.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// A directory, or the name of the file.
    pub to: PathBuf,
    /// With its level. Left out, as the policy of the instance's dumps says.
    pub compression: Option<(DumpCompression, Option<i32>)>,
    pub cipher: Option<DumpCipher>,
}

/// One file of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportedFile {
    pub path: String,
    pub raw_bytes: u64,
    pub stored_bytes: u64,
    /// Of the file as it lies there, in hexadecimal digits.
    pub sha256: String,
    /// The file beside it that authenticates an encrypted one.
    pub authentication: Option<String>,
}

/// What `export` tells.
#[derive(Debug, Clone, Serialize)]
pub struct ExportReport {
    pub id: BackupId,
    pub instance: InstanceId,
    /// `dump` or `base`.
    #[serde(rename = "type")]
    pub backup_type: &'static str,
    /// What the file holds, as a person calls it.
    pub of: String,
    #[serde(flatten)]
    pub shape: DumpShape,
    /// The first is the dump, or the data directory.
    pub files: Vec<ExportedFile>,
    pub raw_bytes: u64,
    pub stored_bytes: u64,
    /// Of the first file.
    pub sha256: String,
    pub duration_seconds: f64,
    /// The programs that open it, one after the other.
    pub opened_with: String,
    pub findings: Vec<Finding>,
}
