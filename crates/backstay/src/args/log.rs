//! What a person, and a server in its `archive_command` and `restore_command`, may say of
//! the log.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct ArchiveArguments {
    /// The instances; all when none is named
    #[arg(value_name = "INSTANCE")]
    pub instances: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum WalVerb {
    /// Write a file of the archived log to a path: exit 1 only where the archive is known to end before it, 126 for
    /// whatever else keeps it away
    Fetch(WalFetchArguments),
    /// Store a file of the log: exit 0 only when it is durable in the store
    Push(WalPushArguments),
}

#[derive(Debug, Args)]
pub struct WalFetchArguments {
    /// What the server asks for, `%f`
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where it is to be, `%p`
    #[arg(value_name = "DEST")]
    pub to: PathBuf,
    /// The instance
    #[arg(long, value_name = "INSTANCE")]
    pub instance: String,
    /// Of the cluster; `backstay restore` writes it into restore_command
    #[arg(long, value_name = "NUMBER")]
    pub system_identifier: u64,
    /// The size of a segment
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    pub segment_bytes: u64,
}

#[derive(Debug, Args)]
pub struct WalPushArguments {
    /// The path that the server names, `%p`
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The instance; may be left out where the configuration has one
    #[arg(long, value_name = "INSTANCE")]
    pub instance: Option<String>,
}
