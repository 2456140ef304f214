//! What a person, and a server in its `archive_command` and `restore_command`, may say of
//! the log.

use std::path::PathBuf;

use backstay_model::{Lsn, StopOptions, TargetAction, TargetTimeline};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct ArchiveArguments {
    /// The instances; all when none is named
    #[arg(value_name = "INSTANCE")]
    pub instances: Vec<String>,
    /// Where the server has let go of log that was not received: note the hole in the repository, go on behind it, and
    /// take a new base. Once; after that, archive.on_max_lag says what happens
    #[arg(long, requires = "instances")]
    pub accept_gap: bool,
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
    #[arg(long, value_name = "INSTANCE", required_unless_present = "desk")]
    pub instance: Option<String>,
    /// Of the cluster; `backstay restore` writes it into restore_command
    #[arg(long, value_name = "NUMBER", required_unless_present = "desk")]
    pub system_identifier: Option<u64>,
    /// The size of a segment
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    pub segment_bytes: u64,
    /// The directory brought the log up to here itself: where the archive does not have it, it is absent
    #[arg(long, value_name = "LSN")]
    pub own_to: Option<Lsn>,
    /// The recovery stops here at the latest: a hole behind it is an absence
    #[arg(long, value_name = "LSN")]
    pub needed_to: Option<Lsn>,
    /// The recovery follows this one: of the timelines before it counts what it came from
    #[arg(long, value_name = "NUMBER", conflicts_with = "standby")]
    pub timeline: Option<u32>,
    /// A standby asks: whatever keeps the file away is told, and it is asked for again
    #[arg(long, conflicts_with = "desk")]
    pub standby: bool,
    /// Ask the program that started the server, instead of the repository
    #[arg(long, value_name = "SOCKET", hide = true, conflicts_with_all = ["instance", "system_identifier"])]
    pub desk: Option<PathBuf>,
    /// Stay, and answer the calls behind this one
    #[arg(long, value_name = "SOCKET", hide = true, conflicts_with = "desk")]
    pub attend: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct WalPushArguments {
    /// The path that the server names, `%p`
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The instance; may be left out where the configuration has one
    #[arg(long, value_name = "INSTANCE")]
    pub instance: Option<String>,
    /// Stay, and answer the calls behind this one
    #[arg(long, value_name = "SOCKET", hide = true)]
    pub attend: Option<PathBuf>,
}

/// How a recovery stops at its target.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct StopArguments {
    /// Stop before what --to names, instead of behind it
    #[arg(long, requires = "to", requires = "into")]
    pub exclusive: bool,
    /// The timeline to follow: current (that of the backup), latest or a number
    #[arg(long, value_name = "TIMELINE", default_value_t = TargetTimeline::Latest, requires = "into")]
    pub target_timeline: TargetTimeline,
    /// What the server does at the target: promote (open for writing) or pause
    #[arg(long, value_name = "ACTION", default_value_t = TargetAction::Promote, value_parser = action, requires = "into")]
    pub target_action: TargetAction,
}

impl From<StopArguments> for StopOptions {
    fn from(said: StopArguments) -> StopOptions {
        StopOptions { exclusive: said.exclusive, timeline: said.target_timeline, action: said.target_action }
    }
}

fn action(text: &str) -> Result<TargetAction, String> {
    match text {
        "promote" => Ok(TargetAction::Promote),
        "pause" => Ok(TargetAction::Pause),
        _ => Err("it is promote or pause".to_owned()),
    }
}
