//! The real binary, built and used as a person would use it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process::{cargo, run_quietly};

/// What the chores read of `backstay list --json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Listed {
    pub id: String,
    pub files: u64,
    pub logical_bytes: u64,
    pub stored_bytes: u64,
}

/// A built binary and the configuration it is told to use.
#[derive(Debug, Clone)]
pub struct Backstay {
    program: PathBuf,
    configuration: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// What the tests are built with already.
    Dev,
    /// Fully optimised, where times are shown.
    Release,
}

/// Builds the program and says where it is.
pub fn build(profile: Profile) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package=backstay", "--message-format=json-render-diagnostics"]);
    if profile == Profile::Release {
        eprintln!("building backstay, optimised (a few minutes the first time)");
        command.arg("--release");
    }
    let output = command.stderr(Stdio::inherit()).output().context("build backstay")?;
    if !output.status.success() {
        bail!("build backstay: cargo ended with {}", output.status);
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "backstay")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("find the program that was just built")
}

impl Backstay {
    pub fn new(program: PathBuf, configuration: PathBuf) -> Backstay {
        Backstay { program, configuration }
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.configuration).args(arguments);
        command
    }

    /// All backups of an instance, newest first.
    pub fn list(&self, instance: &str) -> Result<Vec<Listed>> {
        let text = run_quietly(&mut self.command(&["--json", "list", instance]))?;
        serde_json::from_str(&text).context("understand what `backstay list --json` said")
    }
}
