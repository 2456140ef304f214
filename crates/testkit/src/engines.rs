//! Whether a test may go without its server.

use std::path::PathBuf;

use crate::servers::{self, Installation, PostgresVersion};

/// Names the engines whose absence fails a test, separated by commas.
pub const REQUIRE_ENGINES: &str = "REQUIRE_ENGINES";
const TIMESCALEDB: &str = "timescaledb";

/// The installation a test needs, or `None` after saying on standard error that
/// the test is skipped.
///
/// # Panics
/// When it is missing and [`REQUIRE_ENGINES`] lists `postgresql`: a green run
/// that tested nothing is worse than a red one.
#[allow(clippy::panic, reason = "called by tests only, which report a failure by panicking")]
pub fn require_postgres(version: PostgresVersion) -> Option<Installation> {
    match servers::find(version) {
        Some(installation) => Some(installation),
        None if is_required("postgresql", std::env::var(REQUIRE_ENGINES).ok().as_deref()) => {
            panic!(
                "PostgreSQL {version} is required by {REQUIRE_ENGINES} but missing: run `cargo xtask servers`"
            )
        }
        None => {
            eprintln!(
                "SKIPPED: PostgreSQL {version} is not here; `cargo xtask servers` prepares it, \
                 {REQUIRE_ENGINES}=postgresql makes this a failure"
            );
            None
        }
    }
}

/// A PostgreSQL 17 that has TimescaleDB, or `None` after saying that the test is skipped.
///
/// # Panics
/// When the server is missing and [`REQUIRE_ENGINES`] lists `postgresql`, or the extension
/// and it lists `timescaledb`.
#[allow(clippy::panic, reason = "called by tests only, which report a failure by panicking")]
pub fn require_timescaledb() -> Option<Installation> {
    let installation = require_postgres(PostgresVersion::V17)?;
    if installation.has_extension(TIMESCALEDB) {
        return Some(installation);
    }
    if is_required(TIMESCALEDB, std::env::var(REQUIRE_ENGINES).ok().as_deref()) {
        panic!(
            "TimescaleDB is required by {REQUIRE_ENGINES} but missing in this PostgreSQL 17: run `cargo xtask servers`"
        );
    }
    eprintln!("SKIPPED: this PostgreSQL 17 has no TimescaleDB; `cargo xtask servers` prepares one that has");
    None
}

/// The Python that runs the rescue script, or `None` after saying that the test is skipped.
///
/// # Panics
/// When it is missing and [`REQUIRE_ENGINES`] lists `rescue`.
#[allow(clippy::panic, reason = "called by tests only, which report a failure by panicking")]
pub fn require_rescue_python() -> Option<PathBuf> {
    match servers::rescue_python() {
        Some(python) => Some(python),
        None if is_required("rescue", std::env::var(REQUIRE_ENGINES).ok().as_deref()) => {
            panic!(
                "the rescue script's Python is required by {REQUIRE_ENGINES} but missing: run `cargo xtask servers`"
            )
        }
        None => {
            eprintln!("SKIPPED: the rescue script's Python is not here; `cargo xtask servers` prepares it");
            None
        }
    }
}

/// Whether all of these programs, which other people open dumps with, are here; says that
/// the test is skipped when one is not.
///
/// # Panics
/// When one is missing and [`REQUIRE_ENGINES`] lists `programs`.
#[allow(clippy::panic, reason = "called by tests only, which report a failure by panicking")]
pub fn require_programs(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_here = |program: &&str| std::env::split_paths(&path).any(|place| place.join(program).is_file());
    let missing: Vec<&str> = programs.iter().filter(|program| !is_here(program)).copied().collect();
    if missing.is_empty() {
        return true;
    }
    if is_required("programs", std::env::var(REQUIRE_ENGINES).ok().as_deref()) {
        panic!("{missing:?} are required by {REQUIRE_ENGINES} but missing: run `cargo xtask servers`");
    }
    eprintln!("SKIPPED: {missing:?} are not here; `cargo xtask servers` installs them");
    false
}

pub(crate) fn is_required(engine: &str, list: Option<&str>) -> bool {
    list.is_some_and(|list| list.split(',').any(|name| name.trim() == engine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_engines_are_required() {
        assert!(is_required("postgresql", Some("redis, postgresql")));
        assert!(!is_required("postgresql", Some("redis,postgresql-17")));
        assert!(!is_required("postgresql", Some("")));
        assert!(!is_required("postgresql", None));
    }
}
