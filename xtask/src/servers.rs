//! `cargo xtask servers`: PostgreSQL 15 and 17, Redis and Valkey, prepared once and found by
//! `testkit`.
//!
//! Root gets what is missing. Anybody else is told the one command with which root
//! gets it for him, and nothing is begun.

use anyhow::{Result, bail};
use testkit::ownership::we_are_root;
use testkit::redis::RedisInstallation;
use testkit::redis::find as find_redis;
use testkit::servers::{CACHE_VARIABLE, cache_directory, complete_root, find, rescue_python};
use testkit::{Installation, PostgresVersion, RedisVersion};

use crate::process::quoted;
use crate::setup::roots::{BOOKWORM, TRIXIE, install_native, link_redis, show_versions};
use crate::setup::{PreparationLock, packages, python};

/// Programs and their packages: tests let system calls of the real binary fail, set the
/// clocks of servers, and open
/// dumps with what other people open them with.
const TOOLS: [(&str, &str); 9] = [
    ("strace", "strace"),
    ("faketime", "faketime"),
    ("openssl", "openssl"),
    ("gpg", "gpg"),
    ("gpg-agent", "gpg-agent"),
    ("gzip", "gzip"),
    ("zstd", "zstd"),
    ("bzip2", "bzip2"),
    ("xz", "xz-utils"),
];

pub fn run() -> Result<()> {
    prepare_all()?;
    show_versions()
}

/// Everything that a full run of the tests needs.
pub fn prepare_all() -> Result<()> {
    let whole = PostgresVersion::ALL.iter().all(|version| find(*version).is_some())
        // A PostgreSQL 17 of the machine's own would lack TimescaleDB, Valkey and pgBackRest.
        && complete_root(TRIXIE.release).is_some()
        && RedisVersion::ALL.iter().all(|version| find_redis(*version).is_some());
    let tools = packages::missing(&TOOLS);
    if whole && rescue_python().is_some() && tools.is_empty() {
        return Ok(());
    }
    if !whole && !we_are_root() {
        return leave_it_to_root(
            "servers are missing, and making the Debian roots that hold them takes root",
        );
    }
    let lock = PreparationLock::take(&cache_directory())?;
    if find(PostgresVersion::V15).is_none() {
        prepare_postgres_15(&lock)?;
    }
    TRIXIE.prepare(&lock)?;
    if find_redis(RedisVersion::Redis70).is_none() {
        make_redis(&lock)?;
    }
    if !tools.is_empty() {
        packages::install(&tools)?;
    }
    python::prepare()?;
    for version in PostgresVersion::ALL {
        if find(version).is_none() {
            bail!("PostgreSQL {version} is still missing after it was prepared");
        }
    }
    for version in RedisVersion::ALL {
        if find_redis(version).is_none() {
            bail!("{version} is still missing after it was prepared");
        }
    }
    Ok(())
}

/// Any one server, for a chore that does not mind which: the fastest to get.
pub fn prepare_any() -> Result<Installation> {
    prepare_one(None, &[])
}

/// What the demo shows: a PostgreSQL of a version, or any; what the rescue script runs in and Redis,
/// which may be refused without harm to the rest.
pub type ForDemo = (Installation, Result<()>, Result<RedisInstallation>);

pub fn prepare_for_demo(version: Option<PostgresVersion>) -> Result<ForDemo> {
    let installation = prepare_one(version, python::missing_packages())?;
    let python = match rescue_python() {
        Some(_) => Ok(()),
        None => PreparationLock::take(&cache_directory()).and_then(|_lock| python::prepare()),
    };
    Ok((installation, python, prepare_redis()))
}

/// Redis 7.0: Debian 12 has it as a package, elsewhere it takes a root of that release.
pub fn prepare_redis() -> Result<RedisInstallation> {
    let version = RedisVersion::Redis70;
    if let Some(installation) = find_redis(version) {
        return Ok(installation);
    }
    if !we_are_root() {
        leave_it_to_root(&format!("{version} is missing, and getting it takes root"))?;
    }
    let lock = PreparationLock::take(&cache_directory())?;
    make_redis(&lock)?;
    match find_redis(version) {
        Some(installation) => Ok(installation),
        None => bail!("{version} is still missing after it was prepared"),
    }
}

/// `besides` are the packages that the chore needs as well, so that somebody who
/// has to ask for them asks once.
fn prepare_one(version: Option<PostgresVersion>, besides: &[&str]) -> Result<Installation> {
    let present = || match version {
        Some(version) => find(version),
        None => find(PostgresVersion::V17).or_else(|| find(PostgresVersion::V15)),
    };
    if let Some(installation) = present() {
        return Ok(installation);
    }
    let native = match packages::debian_release().as_deref() {
        Some("bookworm") => Some(PostgresVersion::V15),
        Some("trixie") => Some(PostgresVersion::V17),
        _ => None,
    }
    .filter(|native| version.is_none_or(|version| version == *native));
    match native {
        Some(native) if we_are_root() => {
            let _lock = PreparationLock::take(&cache_directory())?;
            install_native(native)?;
        }
        Some(native) => {
            packages::install(&[&[format!("postgresql-{native}").as_str()], besides].concat())?;
        }
        None if we_are_root() => {
            let lock = PreparationLock::take(&cache_directory())?;
            if version == Some(PostgresVersion::V15) { &BOOKWORM } else { &TRIXIE }.prepare(&lock)?;
        }
        None => leave_it_to_root("PostgreSQL is missing, and making a Debian root that holds it takes root")?,
    }
    match present() {
        Some(installation) => Ok(installation),
        None => bail!("PostgreSQL is still missing after it was prepared"),
    }
}

/// Refuses, with the command for root that fills this user's cache.
fn leave_it_to_root(why: &str) -> Result<()> {
    let program = std::env::current_exe()?;
    let cache = cache_directory();
    // Made by whom they belong to: what root makes on the way stays closed to him.
    drop(PreparationLock::take(&cache)?);
    bail!(
        "{why}; run this as root, then the chore again:\n\n    {}env {CACHE_VARIABLE}={} {} servers\n",
        packages::sudo(),
        quoted(&cache.to_string_lossy()),
        quoted(&program.to_string_lossy())
    )
}

fn make_redis(lock: &PreparationLock) -> Result<()> {
    if packages::debian_release().as_deref() == Some("bookworm") {
        link_redis()
    } else {
        BOOKWORM.prepare(lock)
    }
}

fn prepare_postgres_15(lock: &PreparationLock) -> Result<()> {
    if packages::debian_release().as_deref() == Some("bookworm") {
        install_native(PostgresVersion::V15)
    } else {
        BOOKWORM.prepare(lock)
    }
}
