//! Whether a server answers, how fast, and in which role.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::connect::{Session, column};
use super::facts::{self, Privileges};
use super::settings::PostgresSettings;
use crate::Result;

/// What one look at a server showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// `15.18`.
    pub version: String,
    /// A standby, or a server that is being restored.
    pub in_recovery: bool,
    /// From the first packet to the log-in.
    pub connect_seconds: f64,
    /// One round trip on the open connection.
    pub latency_seconds: f64,
    /// Which of the two ways of taking a backup the role may go.
    pub may_back_up_locally: bool,
    pub may_back_up_remotely: bool,
}

/// Connects, asks, and leaves. An error says why there was no answer.
pub async fn probe(settings: &PostgresSettings) -> Result<Health> {
    let address = settings.address()?;
    let begun = Instant::now();
    let session = Session::open(&address).await?;
    let connected = begun.elapsed();
    facts::version(&session).await?;
    let asked = Instant::now();
    session.query("ask the server for a sign of life", "SELECT 1", &[]).await?;
    let latency = asked.elapsed();
    let statement = "SELECT current_setting('server_version'), pg_is_in_recovery()";
    let row = session.row("read the server's role", statement, &[]).await?;
    let version: String = column(&row, 0)?;
    let privileges = Privileges::read(&session).await?;
    Ok(Health {
        version: version.split_whitespace().next().unwrap_or_default().to_owned(),
        in_recovery: column(&row, 1)?,
        connect_seconds: seconds(connected),
        latency_seconds: seconds(latency),
        may_back_up_locally: privileges.backup_functions,
        may_back_up_remotely: privileges.replication,
    })
}

/// To the microsecond: what is beyond is noise.
fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}
