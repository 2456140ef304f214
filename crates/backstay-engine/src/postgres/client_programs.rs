//! `pg_dump`, `pg_dumpall`, `pg_restore` and `psql` on this machine, and how they are
//! run: whom they connect to, what they write beside their output, how they end.
//!
//! A client of an older major version refuses a server, a newer one does not: the
//! nearest is taken, so that a dump has the shape that the server's own tool gives it.
//!
//! Invariant: a password reaches a child through its environment only, which nobody
//! but its own user can read, and no setting of ours (`PGOPTIONS`, `PGSERVICE`) does.

mod child;
mod connection;
mod failure;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(super) use self::child::Child;
pub use self::failure::Failure;

use super::facts::MAJOR_VERSIONS;
use super::settings::Address;
use crate::{Error, Result};

/// What is used of them. Debian and Red Hat have all of them in one package.
const NAMES: [&str; 4] = ["pg_dump", "pg_dumpall", "pg_restore", "psql"];

/// Debian's programs of this name look for a server of this machine and take its
/// version, whatever the server is that they are sent to.
const WRAPPER: &str = "pg_wrapper";

/// A directory with clients of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientPrograms {
    directory: PathBuf,
    major: u32,
    version: String,
}

impl ClientPrograms {
    /// The nearest to `major` and not older: in the directory that was set and nowhere
    /// else, or, when none was, where Debian and Red Hat put them and along the search path.
    pub fn find(major: u32, bin_directory: Option<&Path>) -> Result<ClientPrograms> {
        let candidates = match bin_directory {
            Some(directory) => vec![directory.to_owned()],
            None => usual_places(major, std::env::var_os("PATH").as_deref()),
        };
        nearest(major, candidates.iter().filter_map(|directory| ClientPrograms::in_directory(directory)))
    }

    /// `None` unless all of them are there.
    fn in_directory(directory: &Path) -> Option<ClientPrograms> {
        let is_real = |name: &&str| {
            let found = directory.join(name).canonicalize();
            found.is_ok_and(|path| path.is_file() && !path.ends_with(WRAPPER))
        };
        if !NAMES.iter().all(is_real) {
            return None;
        }
        let version = version_of(&directory.join(NAMES[0]))?;
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        Some(ClientPrograms { directory: directory.to_owned(), major: digits.parse().ok()?, version })
    }

    pub fn major(&self) -> u32 {
        self.major
    }

    /// `17.11`.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether this `psql` can be told to take no commands from its input. It came with
    /// minor versions, which some distributions number in their own way: its help says it.
    pub(super) fn restricts(&self) -> bool {
        let mut command = self.command("psql");
        let output = command.arg("--help=commands").stderr(Stdio::null()).output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("\\restrict "))
    }

    /// A program that connects to a server, in a database of it. `options` are settings
    /// of its session, as in `PGOPTIONS`.
    pub(super) fn connected(
        &self,
        program: &'static str,
        address: &Address,
        options: Option<&str>,
    ) -> Result<Command> {
        let mut command = self.command(program);
        command.arg("--no-password");
        connection::apply(&mut command, address, options)?;
        Ok(command)
    }

    /// A program that connects to nobody.
    pub(super) fn command(&self, program: &'static str) -> Command {
        let mut command = Command::new(self.directory.join(program));
        connection::forget(&mut command);
        // What it says is read by us, and by the person who is told.
        command.env("LC_ALL", "C").env_remove("LANGUAGE").stdin(Stdio::null());
        command
    }
}

fn nearest(major: u32, found: impl Iterator<Item = ClientPrograms>) -> Result<ClientPrograms> {
    let (good, old): (Vec<_>, Vec<_>) = found.partition(|programs| programs.major >= major);
    good.into_iter().min_by_key(|programs| programs.major).ok_or_else(|| Error::ClientMissing {
        major,
        newest: old.into_iter().max_by_key(|programs| programs.major).map(|programs| programs.version),
    })
}

fn usual_places(major: u32, search_path: Option<&OsStr>) -> Vec<PathBuf> {
    let newest = (*MAJOR_VERSIONS.end()).max(major);
    let mut places: Vec<PathBuf> = (major..=newest)
        .flat_map(|major| {
            [format!("/usr/lib/postgresql/{major}/bin"), format!("/usr/pgsql-{major}/bin")].map(PathBuf::from)
        })
        .collect();
    places.extend(search_path.into_iter().flat_map(std::env::split_paths));
    places
}

/// `pg_dump (PostgreSQL) 15.18 (Debian …)` is 15.18.
fn version_of(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<String> {
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    version.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use backstay_model::error::Classified;

    use super::*;

    fn programs(version: &str) -> ClientPrograms {
        let major = version.split('.').next().unwrap().parse().unwrap();
        ClientPrograms { directory: version.into(), major, version: version.into() }
    }

    #[test]
    fn the_nearest_that_is_not_older_is_taken() {
        let found = |majors: &[&str]| nearest(15, majors.iter().map(|version| programs(version)));
        assert_eq!(found(&["18.1", "14.9", "16.2", "17.0"]).unwrap().version(), "16.2");
        assert_eq!(found(&["18.1", "15.0", "17.0"]).unwrap().version(), "15.0");
    }

    #[test]
    fn clients_that_are_too_old_are_named_with_the_package_that_helps() {
        let error = nearest(17, ["13.4", "15.18"].map(programs).into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "find `pg_dump` of PostgreSQL 17 or newer; the newest here is 15.18");
        assert!(error.hints()[0].contains("`postgresql-client-17`"), "{:?}", error.hints());
        let empty = tempfile::tempdir().unwrap();
        let error = ClientPrograms::find(15, Some(empty.path())).unwrap_err();
        assert_eq!(error.to_string(), "find `pg_dump` of PostgreSQL 15 or newer");
    }

    #[test]
    fn a_wrapper_that_chooses_for_itself_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join(WRAPPER);
        std::fs::write(&real, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 17.1'\n").unwrap();
        for name in NAMES {
            std::os::unix::fs::symlink(&real, directory.path().join(name)).unwrap();
        }
        assert_eq!(ClientPrograms::in_directory(directory.path()), None);
    }

    #[test]
    fn the_version_is_read_from_what_the_program_says() {
        let read = |text: &str| parse_version(text);
        assert_eq!(read("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").as_deref(), Some("15.18"));
        assert_eq!(read("pg_dump (PostgreSQL) 18beta1\n").as_deref(), Some("18beta1"));
        assert_eq!(read("something else"), None);
    }
}
