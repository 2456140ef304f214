//! Settings that `postgresql.conf` takes from files outside of the data directory, by
//! `include`, `include_dir` and `include_if_exists`: Debian's `conf.d`.
//!
//! What lies beside or below a configuration that is outside itself is kept with it,
//! under the name it has from there. What lies anywhere else has no place in a data
//! directory and is named. No setting is lost in silence, at the backup or at the
//! restore.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use backstay_model::Finding;

use super::connect::{Session, column};
use super::facts::{CONFIGURATION_FILES, ServerFacts};
use super::recover::MAIN_CONF;
use crate::Result;

/// In bytes. A text that people write has far less; what has more is not one, and would
/// have to be held in memory.
pub(super) const LARGEST_FILE: u64 = 16 << 20;

/// Reads a file of settings that lies outside of the data directory.
pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 <= LARGEST_FILE {
        true => Ok(bytes),
        false => Err(io::Error::other(format!("it has more than {LARGEST_FILE} bytes"))),
    }
}

/// Files that are included from outside of the data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Included {
    /// By the names they get in a data directory.
    pub beside: BTreeMap<String, PathBuf>,
    pub elsewhere: Vec<PathBuf>,
}

/// The server says of each setting in force which file it is from, to a role that
/// may know.
pub(super) async fn read(
    session: &Session,
    data_directory: Option<&Path>,
    outside: &BTreeMap<String, PathBuf>,
) -> Result<Included> {
    let Some(data_directory) = data_directory else { return Ok(Included::default()) };
    let statement = "SELECT DISTINCT sourcefile FROM pg_settings WHERE sourcefile IS NOT NULL ORDER BY 1";
    let rows = session.query("read where the settings are from", statement, &[]).await?;
    let files = rows.iter().map(|row| column::<String>(row, 0).map(PathBuf::from));
    Ok(sort(files.collect::<Result<Vec<_>>>()?, data_directory, outside))
}

fn sort(files: Vec<PathBuf>, data_directory: &Path, outside: &BTreeMap<String, PathBuf>) -> Included {
    let above = outside.get(MAIN_CONF).and_then(|path| path.parent());
    let mut included = Included::default();
    for file in files {
        let is_known = outside.values().any(|known| *known == file);
        if is_known || !file.is_absolute() || file.starts_with(data_directory) {
            continue;
        }
        let inside = above.and_then(|above| file.strip_prefix(above).ok()).and_then(name_inside);
        match inside {
            Some(name) => drop(included.beside.insert(name, file)),
            None => included.elsewhere.push(file),
        }
    }
    included
}

/// The name in a data directory, unless the server has things of its own there.
fn name_inside(relative: &Path) -> Option<String> {
    let mut parts = relative.components();
    let Some(Component::Normal(first)) = parts.next() else { return None };
    let first = first.to_str()?;
    let is_servers = first == "base" || first == "global" || first.starts_with("pg_");
    let is_plain = parts.all(|part| matches!(part, Component::Normal(_)));
    if is_servers || !is_plain { None } else { relative.to_str().map(str::to_owned) }
}

/// What a backup says of the files that it cannot keep.
pub(super) fn left_out(server: &ServerFacts) -> Option<Finding> {
    let names = listed(server.included_elsewhere.iter())?;
    Some(Finding::info(
        names,
        "included by the configuration from outside of the data directory, and so not in the backup",
        "keep a copy of it elsewhere, or move its settings into `postgresql.conf` and run `backstay backup`",
    ))
}

/// What a restore says of settings that the copy does not have as its source had them.
pub fn at_restore(server: &ServerFacts, directory: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let of_the_three = |name: &str| CONFIGURATION_FILES.iter().any(|(_, known)| *known == name);
    let (there, missing): (Vec<_>, Vec<_>) = server
        .outside_configuration
        .iter()
        .filter(|(name, _)| !of_the_three(name))
        .partition(|(name, _)| directory.join(name).exists());
    if let Some(names) = listed(there.iter().map(|(name, _)| directory.join(name))) {
        findings.push(Finding::warning(
            names,
            "was included by the old configuration and is restored, but its settings are not in force",
            format!(
                "take `#restored elsewhere: ` off the lines of {} that include it",
                directory.join(MAIN_CONF).display()
            ),
        ));
    }
    let lost = missing.iter().map(|(_, path)| *path).chain(&server.included_elsewhere);
    if let Some(names) = listed(lost) {
        // Lines of a configuration that was outside are switched off at the restore.
        let is_off = server.outside_configuration.contains_key(MAIN_CONF);
        let message = match is_off {
            true => {
                "was included by the old configuration and is not in the backup, so its settings are not in force"
            }
            false => {
                "is included by the configuration and is not in the backup: without it the copy may not start"
            }
        };
        let main = directory.join(MAIN_CONF);
        let remedy =
            format!("bring it from the old machine, and see the `include` lines of {}", main.display());
        findings.push(Finding::warning(names, message, remedy));
    }
    findings
}

fn listed(paths: impl Iterator<Item = impl AsRef<Path>>) -> Option<String> {
    let names: Vec<String> = paths.map(|path| path.as_ref().display().to_string()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_the_configuration_is_kept_and_the_rest_is_named() {
        let outside = BTreeMap::from([(MAIN_CONF.to_owned(), PathBuf::from("/etc/pg/postgresql.conf"))]);
        let files = [
            "/etc/pg/postgresql.conf",
            "/etc/pg/conf.d/10-memory.conf",
            "/etc/pg/base/x.conf",
            "/etc/shared.conf",
            "/data/postgresql.auto.conf",
        ];
        let files = || files.iter().map(PathBuf::from).collect::<Vec<_>>();
        let included = sort(files(), Path::new("/data"), &outside);
        let kept: Vec<&str> = included.beside.keys().map(String::as_str).collect();
        assert_eq!(kept, ["conf.d/10-memory.conf"]);
        assert_eq!(included.elsewhere, [Path::new("/etc/pg/base/x.conf"), Path::new("/etc/shared.conf")]);
        // A configuration in the data directory has nothing beside it that is outside.
        let included = sort(files(), Path::new("/data"), &BTreeMap::new());
        assert_eq!((included.beside.len(), included.elsewhere.len()), (0, 4));
    }
}
