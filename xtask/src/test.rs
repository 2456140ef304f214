//! `cargo xtask test`: everything that must hold before a change is accepted.
//!
//! The tests come last, so that the last lines are the test runner's own summary.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use testkit::engines::REQUIRE_ENGINES;

use crate::process::{cargo, find_in_path, show_and_run};
use crate::{guide, reference, servers};

/// What a complete run insists on: none of it may be skipped.
const REQUIRED: &str = "postgresql,timescaledb,redis,rescue,strace,faketime,programs";

#[derive(Args)]
pub struct Options {
    /// Only the tests whose name contains this; the checks before them are left out
    filter: Option<String>,
}

pub fn run(options: &Options) -> Result<()> {
    servers::prepare_all()?;
    if options.filter.is_none() {
        timed("format", || show_and_run(cargo().args(["fmt", "--all", "--check"])))?;
        timed("lints", || {
            show_and_run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
        })?;
        timed("reference", || reference::run(&reference::Options { check: true }))?;
        timed("guide", || guide::run(&guide::Options::default()))?;
    }
    show_and_run(&mut test_command(options.filter.as_deref()))
}

/// nextest where it is there: it runs each test in a process of its own and says
/// at the end what failed.
fn test_command(filter: Option<&str>) -> Command {
    let mut command = cargo();
    if find_in_path("cargo-nextest").is_some() {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    } else {
        command.args(["test", "--workspace", "--no-fail-fast"]);
    }
    command.args(filter).env(REQUIRE_ENGINES, REQUIRED);
    command
}

fn timed(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    work()?;
    eprintln!("{what}: {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}
