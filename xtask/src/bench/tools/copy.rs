//! `cp -a`: what the disk itself takes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use testkit::Postgres;

use super::Tool;
use crate::bench::measure::bytes_below;

#[derive(Default)]
pub struct Copy {
    place: PathBuf,
    data_directory: PathBuf,
}

impl Tool for Copy {
    fn name(&self) -> &'static str {
        "cp -a"
    }

    fn description(&self) -> Result<String> {
        Ok("over the files of the running server: not a consistent copy, and nothing is synced".to_owned())
    }

    fn begin(&mut self, server: &Postgres, place: &Path) -> Result<()> {
        self.place = place.to_owned();
        self.data_directory = server.data_directory().to_owned();
        Ok(())
    }

    fn full(&mut self) -> Result<Command> {
        let mut command = Command::new("cp");
        command.arg("-a").arg(&self.data_directory).arg(self.place.join("copy"));
        Ok(command)
    }

    fn increment(&mut self) -> Result<Option<Command>> {
        Ok(None)
    }

    fn restore(&mut self, into: &Path) -> Result<Option<Command>> {
        let mut command = Command::new("cp");
        command.arg("-a").arg(self.place.join("copy")).arg(into);
        Ok(Some(command))
    }

    fn stored_bytes(&self) -> Result<u64> {
        bytes_below(&self.place)
    }
}
