//! restic, as people use it who have it already: over the files of the data
//! directory. A copy of a running server made so is not consistent by itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use testkit::Postgres;

use super::Tool;
use crate::bench::measure::bytes_below;
use crate::process::{find_in_path, run_quietly};
use crate::setup::packages;

pub struct Restic {
    program: PathBuf,
    place: PathBuf,
    data_directory: PathBuf,
}

impl Restic {
    pub fn find() -> Result<Restic> {
        if find_in_path("restic").is_none() {
            packages::install(&["restic"])?;
        }
        let program = find_in_path("restic").context("find restic, which was just installed")?;
        Ok(Restic { program, place: PathBuf::new(), data_directory: PathBuf::new() })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("RESTIC_PASSWORD", "benchmark")
            .env("RESTIC_REPOSITORY", self.place.join("repository"))
            .env("RESTIC_CACHE_DIR", self.place.join("cache"))
            .args(arguments);
        command
    }

    fn back_up(&self) -> Command {
        let mut command = self.command(&["backup", "--quiet", "--exclude=postmaster.pid"]);
        command.arg(&self.data_directory);
        command
    }
}

impl Tool for Restic {
    fn name(&self) -> &'static str {
        "restic"
    }

    fn description(&self) -> Result<String> {
        let version = run_quietly(Command::new(&self.program).arg("version"))?;
        Ok(format!(
            "{}, over the files of the running server: not a consistent copy by itself",
            version.trim()
        ))
    }

    fn begin(&mut self, server: &Postgres, place: &Path) -> Result<()> {
        self.place = place.to_owned();
        self.data_directory = server.data_directory().to_owned();
        run_quietly(&mut self.command(&["init"])).map(drop)
    }

    fn full(&mut self) -> Result<Command> {
        Ok(self.back_up())
    }

    fn increment(&mut self) -> Result<Option<Command>> {
        Ok(Some(self.back_up()))
    }

    fn restore(&mut self, into: &Path) -> Result<Option<Command>> {
        let mut command = self.command(&["restore", "--quiet", "latest", "--target"]);
        command.arg(into);
        Ok(Some(command))
    }

    fn stored_bytes(&self) -> Result<u64> {
        bytes_below(&self.place.join("repository"))
    }
}
