//! The Python in which the rescue script runs. The script needs three packages, of
//! which Debian has only two, so they come into an environment of their own.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use testkit::servers::{MARKER, RESCUE_PYTHON, cache_directory, rescue_python};

use super::{packages, remove_tree};
use crate::process::run_quietly;

const PACKAGES: [&str; 3] = ["cryptography", "zstandard", "blake3"];

/// Debian's own Python: another one found first may be a shim that needs its home.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// What Debian has to bring before the environment can be made.
pub fn missing_packages() -> &'static [&'static str] {
    let able = || run_quietly(Command::new(SYSTEM_PYTHON).args(["-c", "import venv, ensurepip"])).is_ok();
    if rescue_python().is_some() || able() { &[] } else { &["python3", "python3-venv", "ca-certificates"] }
}

pub fn prepare() -> Result<()> {
    if rescue_python().is_some() {
        return Ok(());
    }
    let missing = missing_packages();
    if !missing.is_empty() {
        packages::install(missing)?;
    }
    // Not made elsewhere and renamed: an environment has its own path inside.
    let place = cache_directory().join(RESCUE_PYTHON);
    remove_tree(&place)?;
    eprintln!("making a Python environment for the rescue script");
    run_quietly(Command::new(SYSTEM_PYTHON).args(["-m", "venv"]).arg(&place))?;
    let mut install = Command::new(place.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--only-binary=:all:"]).args(PACKAGES);
    run_quietly(&mut install)?;
    let imports = format!("import {}", PACKAGES.join(", "));
    run_quietly(Command::new(place.join("bin/python")).args(["-c", &imports]))?;
    fs::write(place.join(MARKER), PACKAGES.join("\n")).context("mark the Python environment as complete")
}
