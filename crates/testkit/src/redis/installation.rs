//! Where Redis 7.0 and Valkey 8.1 are found.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use crate::engines::{REQUIRE_ENGINES, is_required};
use crate::servers::{LAUNCHERS, cache_directory, complete_root};

/// Links to Debian's `redis-tools`, whose one program is also the server: the package
/// `redis-server` would start one of its own.
pub const REDIS_LINKS: &str = "redis-tools";

/// What tests run against: both forks, as Debian has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RedisVersion {
    Redis70,
    Valkey81,
}

impl RedisVersion {
    pub const ALL: [RedisVersion; 2] = [RedisVersion::Redis70, RedisVersion::Valkey81];

    /// What its programs' names begin with.
    pub const fn prefix(self) -> &'static str {
        match self {
            RedisVersion::Redis70 => "redis",
            RedisVersion::Valkey81 => "valkey",
        }
    }

    /// The Debian release that has it, which names the prepared root.
    pub const fn debian_release(self) -> &'static str {
        match self {
            RedisVersion::Redis70 => "bookworm",
            RedisVersion::Valkey81 => "trixie",
        }
    }
}

impl fmt::Display for RedisVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RedisVersion::Redis70 => "Redis 7.0",
            RedisVersion::Valkey81 => "Valkey 8.1",
        })
    }
}

/// One installed server, with its tools beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisInstallation {
    version: RedisVersion,
    bin_directory: PathBuf,
}

impl RedisInstallation {
    pub fn version(&self) -> RedisVersion {
        self.version
    }

    pub fn bin_directory(&self) -> &std::path::Path {
        &self.bin_directory
    }

    pub fn server(&self) -> Command {
        self.tool("server")
    }

    /// `cli`, `check-rdb`, `check-aof`.
    pub fn tool(&self, name: &str) -> Command {
        Command::new(self.bin_directory.join(format!("{}-{name}", self.version.prefix())))
    }
}

/// The installation of a version, if there is one.
pub fn find(version: RedisVersion) -> Option<RedisInstallation> {
    let rooted = complete_root(version.debian_release()).map(|root| root.join(LAUNCHERS).join("bin"));
    let linked = cache_directory().join(REDIS_LINKS);
    let places = rooted.into_iter().chain(std::iter::once(linked));
    let mut found = places.map(|bin_directory| RedisInstallation { version, bin_directory });
    found.find(|one| {
        let programs = ["server", "cli", "check-rdb", "check-aof"];
        programs.iter().all(|name| one.bin_directory.join(format!("{}-{name}", version.prefix())).is_file())
    })
}

/// The installation a test needs, or `None` after saying on standard error that the test is
/// skipped.
///
/// # Panics
/// When it is missing and `REQUIRE_ENGINES` lists `redis`.
#[allow(clippy::panic, reason = "called by tests only, which report a failure by panicking")]
pub fn require_redis(version: RedisVersion) -> Option<RedisInstallation> {
    match find(version) {
        Some(installation) => Some(installation),
        None if is_required("redis", std::env::var(REQUIRE_ENGINES).ok().as_deref()) => {
            panic!("{version} is required by {REQUIRE_ENGINES} but missing: run `cargo xtask servers`")
        }
        None => {
            eprintln!(
                "SKIPPED: {version} is not here; `cargo xtask servers` prepares it, \
                 {REQUIRE_ENGINES}=redis makes this a failure"
            );
            None
        }
    }
}
