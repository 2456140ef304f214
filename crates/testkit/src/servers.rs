//! Where real servers are found: in Debian's own place, or in a Debian root of
//! another release that `cargo xtask servers` prepared in the cache directory.
//!
//! Programs of another release run outside their root through small launchers
//! that name that root's dynamic loader and libraries. No `chroot` is needed, so
//! data directories and sockets may lie anywhere, an ordinary user may run them,
//! and the directory of launchers serves as any `bin` directory does.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::ownership;

/// Names a directory to be used in place of the default cache of servers.
pub const CACHE_VARIABLE: &str = "BACKSTAY_SERVERS";

/// Written last into a prepared directory; without it the directory is not looked at.
pub const MARKER: &str = "prepared-for-backstay";

/// Where the launchers lie in a root. PostgreSQL finds its libraries and shared
/// files relative to its own program, so the tree below has Debian's shape.
pub const LAUNCHERS: &str = "opt/backstay";

/// The directory of the virtual environment in which the rescue script runs.
pub const RESCUE_PYTHON: &str = "rescue-python";

/// The versions that tests run against: the oldest and the newest that Debian has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PostgresVersion {
    V15,
    V17,
}

impl PostgresVersion {
    pub const ALL: [PostgresVersion; 2] = [PostgresVersion::V15, PostgresVersion::V17];

    pub const fn major(self) -> u32 {
        match self {
            PostgresVersion::V15 => 15,
            PostgresVersion::V17 => 17,
        }
    }

    /// The Debian release that has it, which names the prepared root.
    pub const fn debian_release(self) -> &'static str {
        match self {
            PostgresVersion::V15 => "bookworm",
            PostgresVersion::V17 => "trixie",
        }
    }
}

impl fmt::Display for PostgresVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.major())
    }
}

/// One installed PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    pub version: PostgresVersion,
    bin_directory: PathBuf,
    /// The prepared root that it is part of, `None` for the machine's own.
    root: Option<PathBuf>,
}

impl Installation {
    /// Holds `postgres`, `pg_ctl` and the rest, to be run directly.
    pub fn bin_directory(&self) -> &Path {
        &self.bin_directory
    }

    /// A program of this version, run as whoever we are.
    pub fn tool(&self, name: &str) -> Command {
        Command::new(self.bin_directory.join(name))
    }

    /// A program of this version, run as the user that servers run as.
    ///
    /// # Errors
    /// When we are root and that user is missing.
    pub fn tool_as_server(&self, name: &str) -> Result<Command> {
        let mut command = self.tool(name);
        ownership::server_owner()?.apply(&mut command);
        // A directory that the other user cannot enter makes every tool complain.
        command.current_dir("/");
        Ok(command)
    }

    /// Whether an extension can be created there.
    pub fn has_extension(&self, name: &str) -> bool {
        let root = self.root.as_deref().unwrap_or(Path::new("/"));
        root.join(format!("usr/share/postgresql/{}/extension/{name}.control", self.version)).is_file()
    }
}

/// The installation of a version, if there is one.
pub fn find(version: PostgresVersion) -> Option<Installation> {
    let own = PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"));
    let prepared = || {
        let root = complete_root(version.debian_release())?;
        let bin = root.join(LAUNCHERS).join(format!("lib/postgresql/{version}/bin"));
        bin.join("postgres").is_file().then_some(Installation {
            version,
            bin_directory: bin,
            root: Some(root),
        })
    };
    let installed = || {
        own.join("postgres").is_file().then(|| Installation {
            version,
            bin_directory: own.clone(),
            root: None,
        })
    };
    match version {
        // The machine's own first: it is what most users have.
        PostgresVersion::V15 => installed().or_else(prepared),
        // The prepared root first: it has TimescaleDB and the programs we are compared with.
        PostgresVersion::V17 => prepared().or_else(installed),
    }
}

/// A program of a prepared root other than PostgreSQL's, such as `pgbackrest`.
pub fn find_program(release: &str, name: &str) -> Option<PathBuf> {
    let launcher = complete_root(release)?.join(LAUNCHERS).join("bin").join(name);
    launcher.is_file().then_some(launcher)
}

/// A Python that has what the rescue script imports.
pub fn rescue_python() -> Option<PathBuf> {
    let environment = cache_directory().join(RESCUE_PYTHON);
    let python = environment.join("bin/python");
    (environment.join(MARKER).is_file() && python.is_file()).then_some(python)
}

/// The root of a Debian release, when it was prepared to the end.
pub fn complete_root(release: &str) -> Option<PathBuf> {
    let root = cache_directory().join(release);
    root.join(MARKER).is_file().then_some(root)
}

/// Where prepared servers are kept: `$BACKSTAY_SERVERS`, else the cache of the
/// machine for root (whose own home is closed to the user that servers run as),
/// else the user's.
pub fn cache_directory() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    choose_cache(
        variable(CACHE_VARIABLE),
        ownership::we_are_root(),
        variable("XDG_CACHE_HOME"),
        variable("HOME"),
    )
}

fn choose_cache(
    explicit: Option<PathBuf>,
    root: bool,
    xdg: Option<PathBuf>,
    home: Option<PathBuf>,
) -> PathBuf {
    if let Some(directory) = explicit {
        return directory;
    }
    let shared = || PathBuf::from("/var/cache");
    let base =
        if root { shared() } else { xdg.or(home.map(|home| home.join(".cache"))).unwrap_or_else(shared) };
    base.join("backstay/servers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_the_users_unless_root_or_told_otherwise() {
        let path = |text: &str| Some(PathBuf::from(text));
        for (explicit, root, xdg, home, expected) in [
            (path("/s"), true, None, None, "/s"),
            (None, true, path("/x"), path("/h"), "/var/cache/backstay/servers"),
            (None, false, path("/x"), path("/h"), "/x/backstay/servers"),
            (None, false, None, path("/h"), "/h/.cache/backstay/servers"),
        ] {
            assert_eq!(choose_cache(explicit, root, xdg, home), PathBuf::from(expected));
        }
    }
}
