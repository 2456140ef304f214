//! The programs that are compared, each used at its best.

mod backstay;
mod base_backup;
mod copy;
mod pgbackrest;
mod restic;

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use testkit::Postgres;

pub use backstay::{LocalBackstay, RemoteBackstay};
pub use base_backup::PgBaseBackup;
pub use copy::Copy;
pub use pgbackrest::PgBackRest;
pub use restic::Restic;

/// One way to back up a cluster. A command that is `None` does not exist there.
pub trait Tool {
    /// As the table shows it.
    fn name(&self) -> &'static str;

    /// A version and how it is used, for the notes.
    fn description(&self) -> Result<String>;

    /// Makes an empty repository in an empty directory. Not measured.
    fn begin(&mut self, server: &Postgres, place: &Path) -> Result<()>;

    fn full(&mut self) -> Result<Command>;

    /// Backs up what changed since the last backup.
    fn increment(&mut self) -> Result<Option<Command>>;

    /// Restores the last backup into an absent directory.
    fn restore(&mut self, into: &Path) -> Result<Option<Command>>;

    /// What it has stored by now.
    fn stored_bytes(&self) -> Result<u64>;
}
