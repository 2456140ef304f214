//! pgBackRest with everything on that makes it fast and small: two processes,
//! zstd, bundling, block increments; encrypted, since ours is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use testkit::Postgres;
use testkit::ownership::server_owner;
use testkit::servers::find_program;

use super::Tool;
use crate::bench::measure::bytes_below;
use crate::process::run_quietly;

pub struct PgBackRest {
    program: PathBuf,
    place: PathBuf,
}

impl PgBackRest {
    pub fn find() -> Result<PgBackRest> {
        let program =
            find_program("trixie", "pgbackrest").context("find pgbackrest: run `cargo xtask servers`")?;
        Ok(PgBackRest { program, place: PathBuf::new() })
    }

    fn configuration(&self) -> PathBuf {
        self.place.join("pgbackrest.conf")
    }

    fn repository(&self) -> PathBuf {
        self.place.join("repository")
    }

    /// Run as the server's user, as it is meant to be: the server archives through it.
    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .arg(format!("--config={}", self.configuration().display()))
            .arg("--stanza=bench")
            .args(arguments)
            .current_dir("/");
        server_owner()?.apply(&mut command);
        Ok(command)
    }

    fn settings(&self, server: &Postgres) -> String {
        let below = |name: &str| self.place.join(name).display().to_string();
        format!(
            "[global]\n\
             repo1-path={}\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=benchmark\nrepo1-bundle=y\nrepo1-block=y\n\
             repo1-retention-full=99\ncompress-type=zst\ncompress-level=3\nprocess-max=2\nstart-fast=y\n\
             log-level-console=warn\nlog-level-file=off\nlog-path={}\nlock-path={}\nspool-path={}\n\
             [bench]\npg1-path={}\npg1-port={}\npg1-socket-path={}\npg1-user=postgres\n",
            self.repository().display(),
            below("log"),
            below("lock"),
            below("spool"),
            server.data_directory().display(),
            server.port(),
            server.socket_directory().display()
        )
    }
}

impl Tool for PgBackRest {
    fn name(&self) -> &'static str {
        "pgBackRest"
    }

    fn description(&self) -> Result<String> {
        let version = run_quietly(Command::new(&self.program).arg("version"))?;
        Ok(format!(
            "{}, zst level 3, aes-256-cbc, process-max 2, bundling and block increments on; what it archives \
             (continuously, in the server's time) is counted neither in its time nor in its bytes",
            version.trim()
        ))
    }

    fn begin(&mut self, server: &Postgres, place: &Path) -> Result<()> {
        self.place = place.to_owned();
        let owner = server_owner()?;
        for name in ["repository", "log", "lock", "spool"] {
            fs::create_dir(place.join(name))?;
        }
        fs::write(self.configuration(), self.settings(server))?;
        owner.take_all(place)?;
        run_quietly(&mut self.command(&["stanza-create"])?)?;
        let archive = format!(
            "archive_command = '{} --config={} --stanza=bench archive-push %p'",
            self.program.display(),
            self.configuration().display()
        );
        server.append_configuration(&[&archive])?;
        server.reload()?;
        run_quietly(&mut self.command(&["check"])?)?;
        Ok(())
    }

    fn full(&mut self) -> Result<Command> {
        self.command(&["--type=full", "backup"])
    }

    fn increment(&mut self) -> Result<Option<Command>> {
        self.command(&["--type=incr", "backup"]).map(Some)
    }

    fn restore(&mut self, into: &Path) -> Result<Option<Command>> {
        fs::create_dir(into)?;
        server_owner()?.take(into)?;
        self.command(&[&format!("--pg1-path={}", into.display()), "restore"]).map(Some)
    }

    fn stored_bytes(&self) -> Result<u64> {
        bytes_below(&self.repository().join("backup"))
    }
}
