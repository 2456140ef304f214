//! A server whose clock a test sets, as somebody sets that of a machine, or a machine that was
//! asleep finds it set: `libfaketime` sits between the real server and the kernel.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Postgres;
use crate::engines::{REQUIRE_ENGINES, is_required};

const NAME: &str = "faketime";
const LIBRARIES: &str = "/usr/lib";

/// Whether servers with such a clock can be had; says so on standard error when they cannot.
///
/// # Panics
/// When they cannot and [`REQUIRE_ENGINES`] lists `faketime`.
#[allow(clippy::panic, reason = "called by tests only, which report a failure by panicking")]
pub fn require_settable_clock() -> bool {
    if library().is_some() {
        return true;
    }
    if is_required(NAME, std::env::var(REQUIRE_ENGINES).ok().as_deref()) {
        panic!("libfaketime is required by {REQUIRE_ENGINES} but missing: run `cargo xtask servers`");
    }
    eprintln!("SKIPPED: libfaketime is missing, so no server can be given another clock");
    false
}

/// Debian has it in a directory of the machine's architecture.
fn library() -> Option<PathBuf> {
    let directories = fs::read_dir(LIBRARIES).ok()?.flatten();
    directories
        .map(|directory| directory.path().join(NAME).join("libfaketime.so.1"))
        .find(|library| library.is_file())
}

/// Writes down that a clock goes right.
///
/// # Errors
/// When the file cannot be written.
pub fn prepare_clock(clock: &Path) -> Result<()> {
    fs::write(clock, words(0)).context("make a clock")
}

/// The program sees the time of this file from now on. Only what a calendar shows: timeouts go on as
/// they are.
pub fn with_clock(command: &mut Command, clock: &Path) {
    let Some(library) = library() else { return };
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

/// Of one length, so that one write over the other is never half of two.
fn words(hours: i32) -> String {
    format!("{hours:+05}h")
}

/// From now on whoever has this clock sees the time of the machine and so many hours more or less.
///
/// # Errors
/// When it was not prepared.
pub fn set_clock(clock: &Path, hours: i32) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(clock)?;
    file.write_all(words(hours).as_bytes()).context("set a clock")
}

impl Postgres {
    /// From now on the server sees the time of the machine and so many hours more or less.
    ///
    /// # Errors
    /// When the server was not started with [`super::PostgresOptions::with_settable_clock`].
    pub fn set_clock(&self, hours: i32) -> Result<()> {
        let clock = self.clock.as_ref().context("this server has the clock of the machine")?;
        set_clock(clock, hours)
    }
}
