//! A client of the replication protocol, since no driver speaks it whole.
//!
//! Responsible for the conversation with a walsender: how it begins ([`login`]),
//! single commands ([`command`]), base backups ([`base_backup`]) and the log as it is
//! written ([`stream`]), over frames ([`wire`]) whose codec is that of `postgres-protocol`.
//!
//! Invariant: every wait has a limit, and an error of the server leaves the
//! connection ready for the next command.
//!
//! Refuses to know what the bytes of a backup mean, and logical replication.

mod base_backup;
mod command;
mod login;
mod reply;
mod stream;
mod transport;
mod wire;

use std::time::Duration;

pub use base_backup::{BackupEvent, BackupOptions, BaseBackup, Tablespace};
pub use command::{SlotPosition, SystemIdentity, TimelineHistory};
pub use stream::{LogStream, StandbyReport, StreamEvent};

use self::wire::Wire;
use super::settings::{Address, CHECKPOINT_LIMIT, STATEMENT_LIMIT};
use crate::error::ServerMessage;
use crate::{Error, Result};

/// How long a copy may be silent. A server reads a disk between two frames, and a
/// disk of a cloud that hangs may come back after minutes.
const SILENCE_LIMIT: Duration = Duration::from_secs(5 * 60);

/// How long a conversation may wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the answer to a command.
    pub statement: Duration,
    /// For the beginning of a base backup: checkpoint, summaries, sizes.
    pub backup_start: Duration,
    /// Between two frames of a copy.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { statement: STATEMENT_LIMIT, backup_start: CHECKPOINT_LIMIT, silence: SILENCE_LIMIT }
    }
}

/// A connection in replication mode. It closes when it is dropped; the server
/// then gives up what it was sending, and temporary slots go.
pub struct Walsender {
    wire: Wire,
    limits: Limits,
    version: String,
    major: u32,
    is_bound: bool,
}

impl Walsender {
    /// Connects to the first of the address's servers that answers.
    pub async fn connect(address: &Address) -> Result<Self> {
        Self::connect_within(address, Limits::default()).await
    }

    pub async fn connect_within(address: &Address, limits: Limits) -> Result<Self> {
        let (wire, greeting) = transport::connect(address).await?;
        let digits: String = greeting.version.chars().take_while(char::is_ascii_digit).collect();
        let major = digits.parse().map_err(|_| Error::Protocol {
            reason: format!("{:?} is no version of a server", greeting.version),
        })?;
        if !super::SUPPORTED_MAJORS.contains(&major) {
            return Err(Error::UnsupportedVersion { version: greeting.version });
        }
        Ok(Self { wire, limits, version: greeting.version, major, is_bound: greeting.is_bound })
    }

    /// As the server says it, `17.2 (Debian 17.2-1)`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether the log-in was bound to the certificate of the server, so that nobody
    /// between could have passed it on.
    pub fn is_channel_bound(&self) -> bool {
        self.is_bound
    }

    /// What the server warned of since this was asked last.
    pub fn take_warnings(&mut self) -> Vec<ServerMessage> {
        std::mem::take(&mut self.wire.warnings)
    }

    /// `17`.
    pub fn major(&self) -> u32 {
        self.major
    }
}

/// Whether the server said no to one command, so that another one may be tried.
pub(crate) fn refusal(error: &Error) -> Option<&ServerMessage> {
    match error {
        Error::Server { source, .. } => Some(source),
        _ => None,
    }
}
