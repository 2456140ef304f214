//! PostgreSQL's own: `pg_basebackup`, its increments, and `pg_combinebackup`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use testkit::ownership::server_owner;
use testkit::{Installation, Postgres};

use super::Tool;
use crate::bench::measure::bytes_below;
use crate::process::run_quietly;

pub struct PgBaseBackup {
    installation: Installation,
    connection: String,
    place: PathBuf,
    backups: u32,
}

impl PgBaseBackup {
    pub fn new(installation: &Installation) -> PgBaseBackup {
        PgBaseBackup {
            installation: installation.clone(),
            connection: String::new(),
            place: PathBuf::new(),
            backups: 0,
        }
    }

    fn directory(&self, number: u32) -> PathBuf {
        self.place.join(number.to_string())
    }

    fn back_up(&mut self, parent: Option<u32>) -> Result<Command> {
        self.backups += 1;
        let mut command = self.installation.tool_as_server("pg_basebackup")?;
        command.arg("--dbname").arg(&self.connection).arg("--pgdata").arg(self.directory(self.backups));
        command.args(["--checkpoint=fast", "--wal-method=stream"]);
        if let Some(parent) = parent {
            command.arg("--incremental").arg(self.directory(parent).join("backup_manifest"));
        }
        Ok(command)
    }
}

impl Tool for PgBaseBackup {
    fn name(&self) -> &'static str {
        "pg_basebackup"
    }

    fn description(&self) -> Result<String> {
        let version = run_quietly(self.installation.tool("pg_basebackup").arg("--version"))?;
        Ok(format!(
            "{}, plain files, neither compressed nor encrypted; increments with summarize_wal, restored by pg_combinebackup",
            version.trim()
        ))
    }

    fn begin(&mut self, server: &Postgres, place: &Path) -> Result<()> {
        self.place = place.to_owned();
        self.backups = 0;
        self.connection = server.socket_url();
        server_owner()?.take(place)
    }

    fn full(&mut self) -> Result<Command> {
        self.back_up(None)
    }

    fn increment(&mut self) -> Result<Option<Command>> {
        self.back_up(Some(self.backups)).map(Some)
    }

    fn restore(&mut self, into: &Path) -> Result<Option<Command>> {
        fs::create_dir(into).context("make the directory to restore to")?;
        server_owner()?.take(into)?;
        let mut command = self.installation.tool_as_server("pg_combinebackup")?;
        command.args((1..=self.backups).map(|number| self.directory(number)));
        command.arg("--output").arg(into);
        Ok(Some(command))
    }

    fn stored_bytes(&self) -> Result<u64> {
        bytes_below(&self.place)
    }
}
