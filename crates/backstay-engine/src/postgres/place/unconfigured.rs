//! Configuration for a restored directory whose backup has none.
//!
//! A backup through the server of a cluster that keeps its configuration elsewhere
//! has it only when the role may read it. Without one nothing starts, so the least
//! that does is written: what recovery asks for, and a door for the owner alone.
//!
//! Refuses to replace a file that the backup has.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use backstay_model::Finding;
use crc_fast::crc32_iscsi;

use super::super::facts::{self, CONFIGURATION_FILES, ServerFacts};
use super::super::outcome::{BackupFacts, Way};
use super::super::recover::MAIN_CONF;
use super::seal::FILE_MODE;
use super::write::PlaceTarget;
use crate::{Error, Result};

const ACCESS_CONF: &str = "pg_hba.conf";
const NAMES_CONF: &str = "pg_ident.conf";

/// What the map of names is called that lets the owner in as the superuser.
const MAP: &str = "owner";

/// What recovery must not find smaller than it was, what the server may need to
/// open its databases, and the languages it speaks.
const SETTINGS: [&str; 11] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "wal_level",
    "shared_preload_libraries",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
];

/// A file that no part of the backup is.
pub(super) struct Added {
    pub name: &'static str,
    pub size: u64,
    pub modified: i64,
    pub crc32c: u32,
}

impl PlaceTarget {
    /// Writes what is missing. `account` is who the server is to run as.
    pub(super) fn configure(&self, backup: &BackupFacts, account: Option<String>) -> Result<Vec<Added>> {
        let has = |name: &str| self.plan.directory.join(name).exists();
        // A main file that has always been in the directory leads to the others itself.
        if has(MAIN_CONF) && !backup.server.outside_configuration.contains_key(MAIN_CONF) {
            return Ok(Vec::new());
        }
        let superuser = &backup.server.superuser;
        // Peers are known by their names on this machine. Without a map of names the
        // two must be the same.
        let other = account.filter(|name| name != superuser && !has(NAMES_CONF));
        let mut added = Vec::new();
        for (_, name) in CONFIGURATION_FILES.into_iter().filter(|(_, name)| !has(name)) {
            let text = match name {
                MAIN_CONF => main_conf(&backup.server),
                ACCESS_CONF => access_conf(superuser, other.is_some()),
                _ => names_conf(superuser, other.as_deref()),
            };
            added.push(self.add(name, &text)?);
        }
        Ok(added)
    }

    fn add(&self, name: &'static str, text: &str) -> Result<Added> {
        let path = self.plan.directory.join(name);
        let write = || -> io::Result<i64> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path)?;
            file.write_all(text.as_bytes())?;
            Ok(file.metadata()?.mtime())
        };
        let modified = write().map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(Added { name, size: text.len() as u64, modified, crc32c: crc32_iscsi(text.as_bytes()) })
    }
}

/// What a person is told of it.
pub(super) fn finding(added: &[Added], way: Way) -> Option<Finding> {
    let names: Vec<&str> = added.iter().map(|file| file.name).collect();
    let next_time = match way {
        Way::Remote => facts::grant_configuration("backstay"),
        Way::Local => "run `backstay backup` as the server's user".to_owned(),
    };
    (!names.is_empty()).then(|| {
        Finding::info(
            names.join(", "),
            "not in the backup: what was written instead starts, and lets in its owner only",
            format!("replace it by your own; for the next backup {next_time}"),
        )
    })
}

fn main_conf(server: &ServerFacts) -> String {
    let mut text = "\
# Written by backstay at restore, because the backup has no such file: it lay
# outside of the data directory, where the backup was not allowed to read.
#
# These settings are the old server's. Everything else has PostgreSQL's own
# value: memory, logs, addresses and limits are yours to set again. A library or
# a language that this machine does not have keeps the server from starting:
# install it, or remove its line.
"
    .to_owned();
    for name in SETTINGS {
        match server.settings.get(name) {
            Some(value) => text.push_str(&format!("{name} = {}\n", quoted_value(value))),
            None => text.push_str(&format!("#{name} =    (the role of the backup may not see it)\n")),
        }
    }
    for (name, value) in server.log_size_settings() {
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}

fn access_conf(superuser: &str, is_mapped: bool) -> String {
    let map = if is_mapped { format!(" map={MAP}") } else { String::new() };
    format!(
        "\
# Written by backstay at restore, because the backup has no such file.
#
# It lets in whoever owns this directory, through the socket of this machine and as
# the superuser only. Applications, other machines and replication are shut out
# until you write their lines.
local all {} peer{map}
",
        quoted_name(superuser)
    )
}

fn names_conf(superuser: &str, account: Option<&str>) -> String {
    let mut text = "# Written by backstay at restore, because the backup has no such file.\n".to_owned();
    if let Some(account) = account {
        text.push_str(&format!("{MAP} {} {}\n", quoted_name(account), quoted_name(superuser)));
    }
    text
}

/// As a value in `postgresql.conf`, where a backslash escapes.
fn quoted_value(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// As a name in `pg_hba.conf` and `pg_ident.conf`: quoted, no word means more than itself.
fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_of_another_name_comes_in_by_the_map() {
        assert!(access_conf("all", true).ends_with("\nlocal all \"all\" peer map=owner\n"));
        assert!(access_conf("postgres", false).ends_with("\nlocal all \"postgres\" peer\n"));
        assert!(names_conf("boss", Some("service")).ends_with("\nowner \"service\" \"boss\"\n"));
        assert_eq!(names_conf("boss", None).lines().count(), 1);
    }

    #[test]
    fn a_value_means_itself() {
        assert_eq!(quoted_value(r"it's C:\x"), r"'it''s C:\\x'");
    }

    #[test]
    fn nothing_is_said_when_nothing_was_added() {
        assert_eq!(finding(&[], Way::Remote), None);
        let added = [Added { name: MAIN_CONF, size: 1, modified: 0, crc32c: 0 }];
        assert!(finding(&added, Way::Remote).unwrap().remedy.contains("GRANT pg_read_all_settings"));
        assert!(finding(&added, Way::Local).unwrap().remedy.contains("server's user"));
    }
}
