//! Backstay in both ways, with its defaults.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use testkit::Postgres;

use super::Tool;
use crate::backstay::Backstay;
use crate::bench::measure::bytes_below;
use crate::process::run_quietly;

/// Reads the data directory.
pub struct LocalBackstay(Instance);

/// Receives the cluster through the replication protocol.
pub struct RemoteBackstay(Instance);

struct Instance {
    program: PathBuf,
    place: PathBuf,
    backstay: Option<Backstay>,
}

impl Instance {
    fn new(program: &Path) -> Instance {
        Instance { program: program.to_owned(), place: PathBuf::new(), backstay: None }
    }

    fn begin(&mut self, server: &Postgres, place: &Path, local: bool) -> Result<()> {
        self.place = place.to_owned();
        let backstay = Backstay::new(self.program.clone(), place.join("backstay.toml"));
        let store = format!("file://{}", self.repository().display());
        run_quietly(&mut backstay.command(&["init", "--store", &store]))?;
        let mut settings = fs::read_to_string(backstay.configuration())?;
        settings.push_str(&format!(
            "\n[instance.bench]\nengine = \"postgresql\"\nurl = \"{}\"\n",
            server.socket_url()
        ));
        if local {
            settings.push_str(&format!("data_directory = \"{}\"\n", server.data_directory().display()));
        }
        fs::write(backstay.configuration(), settings)?;
        self.backstay = Some(backstay);
        Ok(())
    }

    fn repository(&self) -> PathBuf {
        self.place.join("repository")
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let backstay = self.backstay.as_ref().context("use Backstay before its repository was made")?;
        Ok(backstay.command(arguments))
    }

    fn description(&self, way: &str) -> Result<String> {
        let version = run_quietly(Command::new(&self.program).arg("--version"))?;
        Ok(format!("{}, {way}, encrypted, all settings at their defaults", version.trim()))
    }

    fn restore(&self, into: &Path) -> Result<Option<Command>> {
        self.command(&["restore", "bench", "--into", &into.to_string_lossy()]).map(Some)
    }
}

impl Tool for LocalBackstay {
    fn name(&self) -> &'static str {
        "Backstay"
    }

    fn description(&self) -> Result<String> {
        self.0.description("reading the data directory")
    }

    fn begin(&mut self, server: &Postgres, place: &Path) -> Result<()> {
        self.0.begin(server, place, true)
    }

    fn full(&mut self) -> Result<Command> {
        self.0.command(&["backup", "bench", "--full"])
    }

    fn increment(&mut self) -> Result<Option<Command>> {
        self.0.command(&["backup", "bench"]).map(Some)
    }

    fn restore(&mut self, into: &Path) -> Result<Option<Command>> {
        self.0.restore(into)
    }

    fn stored_bytes(&self) -> Result<u64> {
        bytes_below(&self.0.repository())
    }
}

impl Tool for RemoteBackstay {
    fn name(&self) -> &'static str {
        "Backstay, remote"
    }

    fn description(&self) -> Result<String> {
        self.0.description("over the replication protocol")
    }

    fn begin(&mut self, server: &Postgres, place: &Path) -> Result<()> {
        self.0.begin(server, place, false)
    }

    fn full(&mut self) -> Result<Command> {
        self.0.command(&["backup", "bench", "--full"])
    }

    fn increment(&mut self) -> Result<Option<Command>> {
        self.0.command(&["backup", "bench"]).map(Some)
    }

    /// The same as of a local backup: both are of one kind.
    fn restore(&mut self, _into: &Path) -> Result<Option<Command>> {
        Ok(None)
    }

    fn stored_bytes(&self) -> Result<u64> {
        bytes_below(&self.0.repository())
    }
}

impl LocalBackstay {
    pub fn new(program: &Path) -> LocalBackstay {
        LocalBackstay(Instance::new(program))
    }
}

impl RemoteBackstay {
    pub fn new(program: &Path) -> RemoteBackstay {
        RemoteBackstay(Instance::new(program))
    }
}
