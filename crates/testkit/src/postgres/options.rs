//! How a new cluster is made and configured.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{PASSWORD, SUPERUSER};
use crate::ownership::server_owner;
use crate::servers::Installation;

/// What a test wants to differ from the defaults.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    checksums: bool,
    wal_segment_mib: Option<u32>,
    configuration: Vec<String>,
    pub(super) has_own_clock: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        PostgresOptions {
            checksums: true,
            wal_segment_mib: None,
            configuration: Vec::new(),
            has_own_clock: false,
        }
    }
}

impl PostgresOptions {
    /// A line of `postgresql.conf`; later lines win.
    #[must_use]
    pub fn configure(mut self, line: impl Into<String>) -> Self {
        self.configuration.push(line.into());
        self
    }

    /// A cluster whose pages have no checksums.
    #[must_use]
    pub fn without_checksums(mut self) -> Self {
        self.checksums = false;
        self
    }

    /// A server whose clock [`super::Postgres::set_clock`] sets.
    #[must_use]
    pub fn with_settable_clock(mut self) -> Self {
        self.has_own_clock = true;
        self
    }

    /// Another size of WAL segments than 16 MiB.
    #[must_use]
    pub fn wal_segment_mib(mut self, size: u32) -> Self {
        self.wal_segment_mib = Some(size);
        self
    }

    fn without_fsync_unless_asked(&self) -> bool {
        !self.configuration.iter().any(|line| line.trim_start().starts_with("fsync"))
    }
}

/// Small enough that a dozen servers fit on one machine, with what a backup needs.
const CONFIGURATION: &str = "
# testkit
max_connections = 50
shared_buffers = 32MB
wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
timezone = UTC
log_timezone = UTC
lc_messages = C
log_line_prefix = '%m [%p] %q%u@%d '
";

const ACCESS: &str = "
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
";

pub(super) const ACCESS_FOR_ALL: &str = "local all all trust\nlocal replication all trust\n";

pub(super) fn initialise(
    installation: &Installation,
    options: &PostgresOptions,
    data_directory: &Path,
    scratch: &Path,
) -> Result<()> {
    let password_file = scratch.join("password");
    fs::write(&password_file, PASSWORD)?;
    server_owner()?.take(&password_file)?;
    let mut initdb = installation.tool_as_server("initdb")?;
    initdb
        .arg("--pgdata")
        .arg(data_directory)
        .args(["--username", SUPERUSER, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--auth=trust"])
        .arg("--pwfile")
        .arg(&password_file);
    if options.checksums {
        initdb.arg("--data-checksums");
    }
    if let Some(size) = options.wal_segment_mib {
        initdb.arg(format!("--wal-segsize={size}"));
    }
    super::query::run(&mut initdb).context("make a new cluster")?;

    let path = data_directory.join("postgresql.conf");
    let mut configuration = fs::read_to_string(&path)?;
    configuration.push_str(CONFIGURATION);
    if options.without_fsync_unless_asked() {
        // A test kills processes, not the kernel: nothing is lost, and much time is won.
        configuration.push_str("fsync = off\n");
    }
    for line in &options.configuration {
        configuration.push_str(line);
        configuration.push('\n');
    }
    fs::write(&path, configuration)?;
    fs::write(data_directory.join("pg_hba.conf"), ACCESS)?;
    Ok(())
}
