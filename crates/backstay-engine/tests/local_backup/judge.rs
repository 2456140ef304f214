//! A server of each version to back up, and PostgreSQL's own judges of what came back.

use std::path::Path;
use std::process::Command;

use testkit::{Installation, Postgres, PostgresOptions, PostgresVersion, StopMode, require_postgres};

/// Runs a test on each version of PostgreSQL that is there.
pub fn on_each_version(test: impl Fn(&Installation)) {
    for version in PostgresVersion::ALL {
        if let Some(installation) = require_postgres(version) {
            test(&installation);
        }
    }
}

pub fn start(installation: &Installation) -> Postgres {
    Postgres::start_new(installation, &PostgresOptions::default()).unwrap()
}

pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Every judge that PostgreSQL itself brings along.
pub fn judge(installation: &Installation, server: &Postgres, restored: &Path, look: impl FnOnce(&Postgres)) {
    run(server.tool("pg_verifybackup").arg("-n").arg(restored));
    let mut copy = Postgres::start_on(installation, restored).unwrap();
    look(&copy);
    run(copy.tool("pg_amcheck").args(["--all", "--install-missing"]));
    copy.stop(StopMode::Fast).unwrap();
    if server.query_value("SHOW data_checksums").unwrap() == "on" {
        run(copy.tool("pg_checksums").arg("--check").arg(restored));
    }
}
