//! Finds the programs of one major version of PostgreSQL on this machine.
//!
//! A data directory opens with its own major version only, so a program of any
//! other is as good as none.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, Result};

/// A directory with `postgres` of the right version in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    directory: PathBuf,
    major: u32,
}

impl Programs {
    /// Looks into the directory that was set and nowhere else, or, when none was,
    /// where Debian and Red Hat put them and along the search path.
    pub fn find(major: u32, bin_directory: Option<&Path>) -> Result<Programs> {
        let candidates = match bin_directory {
            Some(directory) => vec![directory.to_owned()],
            None => usual_places(major, std::env::var_os("PATH").as_deref()),
        };
        candidates
            .into_iter()
            .find(|directory| major_of(&directory.join("postgres")) == Some(major))
            .map(|directory| Programs { directory, major })
            .ok_or(Error::ProgramMissing { program: "postgres", major })
    }

    pub fn major(&self) -> u32 {
        self.major
    }

    pub fn path(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }
}

fn usual_places(major: u32, search_path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut places = vec![
        PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")),
        PathBuf::from(format!("/usr/pgsql-{major}/bin")),
    ];
    places.extend(search_path.into_iter().flat_map(std::env::split_paths));
    places
}

/// What `postgres --version` says: `postgres (PostgreSQL) 15.18 (Debian …)`.
fn major_of(program: &Path) -> Option<u32> {
    if !program.is_file() {
        return None;
    }
    let output =
        Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_program_says() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn a_directory_that_was_set_is_the_only_one_looked_into() {
        let empty = tempfile::tempdir().unwrap();
        let error = Programs::find(15, Some(empty.path())).unwrap_err();
        assert_eq!(error.to_string(), "find the program `postgres` of PostgreSQL 15");
    }
}
