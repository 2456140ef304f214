//! `cargo xtask servers`: PostgreSQL 15 and 17, prepared once and found by `testkit`.

use anyhow::{Result, bail};
use testkit::PostgresVersion;
use testkit::servers::{cache_directory, complete_root, find};

use crate::setup::roots::{BOOKWORM, TRIXIE, install_native, show_versions};
use crate::setup::{PreparationLock, packages, python};

pub fn run() -> Result<()> {
    prepare_all()?;
    show_versions()
}

/// Everything that a full run of the tests needs.
pub fn prepare_all() -> Result<()> {
    let lock = PreparationLock::take(&cache_directory())?;
    if find(PostgresVersion::V15).is_none() {
        prepare_postgres_15(&lock)?;
    }
    // A PostgreSQL 17 of the machine's own would lack TimescaleDB, Valkey and pgBackRest.
    if complete_root(TRIXIE.release).is_none() {
        TRIXIE.prepare(&lock)?;
    }
    python::prepare()?;
    for version in PostgresVersion::ALL {
        if find(version).is_none() {
            bail!("PostgreSQL {version} is still missing after it was prepared");
        }
    }
    Ok(())
}

/// Any one server, for a chore that does not mind which: the fastest to get.
pub fn prepare_any() -> Result<testkit::Installation> {
    let present = || find(PostgresVersion::V17).or_else(|| find(PostgresVersion::V15));
    if let Some(installation) = present() {
        return Ok(installation);
    }
    let lock = PreparationLock::take(&cache_directory())?;
    match packages::debian_release().as_deref() {
        Some("bookworm") => install_native(PostgresVersion::V15)?,
        Some("trixie") => install_native(PostgresVersion::V17)?,
        _ => TRIXIE.prepare(&lock)?,
    }
    match present() {
        Some(installation) => Ok(installation),
        None => bail!("PostgreSQL is still missing after it was prepared"),
    }
}

fn prepare_postgres_15(lock: &PreparationLock) -> Result<()> {
    if packages::debian_release().as_deref() == Some("bookworm") {
        install_native(PostgresVersion::V15)
    } else {
        BOOKWORM.prepare(lock)
    }
}
