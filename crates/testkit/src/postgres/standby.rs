//! A streaming standby of a test server.

use std::time::Duration;

use anyhow::{Context, Result};

use super::query::run;
use super::{Postgres, SUPERUSER};
use crate::workspace::Workspace;

/// Streaming on one machine takes milliseconds; a loaded one may take seconds.
const REPLAY_LIMIT: Duration = Duration::from_secs(60);

impl Postgres {
    /// Copies this server and starts the copy as a standby that follows it.
    ///
    /// # Errors
    /// When `pg_basebackup` or the standby fails.
    pub fn standby(&self) -> Result<Postgres> {
        let workspace = Workspace::new()?;
        let data_directory = workspace.directory("data")?;
        let mut copy = self.tool("pg_basebackup");
        copy.arg("--pgdata").arg(&data_directory);
        copy.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]);
        copy.args(["--username", SUPERUSER, "--create-slot"]);
        copy.args(["--slot", &format!("standby_{}", crate::free_port()?)]);
        run(&mut copy).context("copy the primary for a standby")?;
        let mut standby = Postgres::prepare(workspace, &self.installation, data_directory, self.owner)?;
        standby.command_line.push("listen_addresses=127.0.0.1".to_owned());
        standby.start_first()?;
        Ok(standby)
    }

    /// Waits until this standby has replayed all that the primary has written now.
    ///
    /// # Errors
    /// When it does not catch up within a minute.
    pub fn wait_for_replay_of(&self, primary: &Postgres) -> Result<()> {
        let target = primary.query_value("SELECT pg_current_wal_lsn()")?;
        let question = format!("SELECT pg_last_wal_replay_lsn() >= '{target}'::pg_lsn");
        crate::wait_until(REPLAY_LIMIT, format!("the standby to replay {target}"), || {
            self.query_value(&question).is_ok_and(|answer| answer == "t")
        })
    }

    /// Makes a standby a primary on a new timeline.
    ///
    /// # Errors
    /// When it is none, or does not finish within a minute.
    pub fn promote(&self) -> Result<()> {
        self.sql("SELECT pg_promote(true, 60)")?;
        crate::wait_until(REPLAY_LIMIT, "the end of recovery", || {
            self.query_value("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
        })
    }
}
