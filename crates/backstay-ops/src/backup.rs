//! Backup: facts → rights → parent → copy → commit.
//!
//! Invariant: whatever goes wrong before the commit leaves no visible backup.

/// What a person may say of one backup.
#[derive(Debug, Clone, Copy, Default)]
pub struct BackupOptions {
    /// Compare with no earlier backup: read and store everything.
    pub full: bool,
    /// Level of zstd.
    pub compression_level: Option<i32>,
}
