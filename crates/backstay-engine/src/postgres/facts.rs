//! What the server says of itself, and whether our role may do what a backup needs.
//!
//! The facts are stored with every backup: a restore years later must know the
//! version, the tablespaces and the extensions without the server. Rights are
//! checked before anything is begun, all at once, and each missing one comes with
//! the statement that grants it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use backstay_model::{Finding, Lsn, TimelineId};
use serde::{Deserialize, Serialize};

use super::connect::{Session, column};
use super::included::{self, Included};
use super::recover::INCARNATION;
use super::schema::SchemaFacts;
use super::settings::Address;
use super::tablespaces;
use crate::{Error, Result};

/// The first and the last major version that is supported.
pub const MAJOR_VERSIONS: std::ops::RangeInclusive<u32> = 13..=18;

/// The server, as it was when the backup began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// `15.18`.
    pub version: String,
    /// `150018`.
    pub version_number: u32,
    /// As text: JSON numbers end at 53 bits.
    #[serde(with = "number_as_text")]
    pub system_identifier: u64,
    /// The role that `initdb` made, which a copy can always be entered as.
    pub superuser: String,
    pub data_checksums: bool,
    /// Bytes of a page.
    pub block_size: u32,
    /// Pages of one file of a relation.
    pub segment_blocks: u32,
    /// Bytes of a file of the log.
    pub wal_segment_size: u64,
    pub in_recovery: bool,
    pub timeline: TimelineId,
    /// Where the server says its data is; only some roles may know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_directory: Option<PathBuf>,
    /// Files of settings that lie outside of the data directory, as Debian's do, by
    /// the names they have inside of one. Empty when our role may not know.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outside_configuration: BTreeMap<String, PathBuf>,
    /// Files that the configuration includes from a place that no backup reaches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub included_elsewhere: Vec<PathBuf>,
    /// The life of the cluster, where a restore gave it a name: two servers of one
    /// history can write different logs on the same timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// Subscriptions that begin to take changes as soon as a server starts.
    #[serde(default, skip_serializing_if = "is_none_of_them")]
    pub enabled_subscriptions: u32,
    pub tablespaces: Vec<Tablespace>,
    /// Settings that a restored server must not undercut, or a person will ask for.
    pub settings: BTreeMap<String, String>,
    /// Extensions of each database that could be looked into.
    pub databases: Vec<DatabaseFacts>,
}

/// A tablespace outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    pub oid: u32,
    pub name: String,
    pub location: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    pub name: String,
    /// `timescaledb` → `2.19.3`.
    pub extensions: BTreeMap<String, String>,
    /// What a copy must hold, where that is known exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaFacts>,
}

/// Who owns a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub user_id: u32,
    pub group_id: u32,
    /// Permission bits.
    pub mode: u32,
    /// What the user is called where the backup was taken: the number may be another's
    /// where it is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

fn is_none_of_them(count: &u32) -> bool {
    *count == 0
}

impl ServerFacts {
    pub fn major(&self) -> u32 {
        self.version_number / 10_000
    }

    /// What a server with segments of this size does not start without: of its log it keeps
    /// two of them at least, and its own defaults are less for large ones.
    pub fn log_size_settings(&self) -> Vec<(&'static str, String)> {
        const DEFAULTS_MIB: [(&str, u64); 2] = [("min_wal_size", 80), ("max_wal_size", 1024)];
        let least = 2 * (self.wal_segment_size >> 20);
        let too_small = DEFAULTS_MIB.into_iter().filter(|(_, mebibytes)| *mebibytes < least);
        too_small.map(|(name, _)| (name, format!("{least}MB"))).collect()
    }
}

/// Settings worth keeping: recovery refuses to run with smaller values of the
/// first five than the server had that wrote the log.
const SETTINGS_KEPT: &str = "max_connections, max_worker_processes, max_wal_senders, \
     max_prepared_transactions, max_locks_per_transaction, wal_level, archive_mode, full_page_writes, \
     shared_preload_libraries, summarize_wal, server_encoding, lc_messages, lc_monetary, lc_numeric, lc_time, \
     TimeZone, wal_log_hints, max_replication_slots, \
     max_active_replication_origins, shared_buffers";

/// Extensions are looked up in at most so many databases: a cluster with
/// thousands of them must not make every backup open thousands of sessions.
const DATABASES_LOOKED_INTO: usize = 32;

/// Asks the server everything a backup stores about it.
pub async fn read(session: &Session, address: &Address) -> Result<ServerFacts> {
    let version_number = version(session).await?;
    let row = session
        .row(
            "read the server's identity",
            "SELECT s.system_identifier, c.timeline_id, i.data_page_checksum_version, \
                    i.database_block_size, i.blocks_per_segment, i.bytes_per_wal_segment, \
                    current_setting('server_version'), pg_is_in_recovery(), \
                    (SELECT rolname::text FROM pg_roles WHERE oid = 10), \
                    nullif(current_setting($1, true), ''), \
                    (SELECT count(subenabled)::int FROM pg_subscription WHERE subenabled) \
             FROM pg_control_system() s, pg_control_checkpoint() c, pg_control_init() i",
            &[&INCARNATION],
        )
        .await?;
    let version_text: String = column(&row, 6)?;
    let in_recovery: bool = column(&row, 7)?;
    let checkpoint_timeline = column::<i32>(&row, 1)? as u32;
    let names: Vec<&str> = SETTINGS_KEPT.split(',').map(str::trim).collect();
    let settings = session
        .query(
            "read the server's settings",
            // The view leaves out what the role may not see.
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY($1::text[])",
            &[&names],
        )
        .await?
        .iter()
        .map(|row| Ok((column(row, 0)?, column(row, 1)?)))
        .collect::<Result<_>>()?;
    let (data_directory, mut outside_configuration) = places(session).await?;
    let Included { beside, elsewhere } =
        included::read(session, data_directory.as_deref(), &outside_configuration).await?;
    outside_configuration.extend(beside);
    Ok(ServerFacts {
        version: version_text.split_whitespace().next().unwrap_or_default().to_owned(),
        version_number,
        system_identifier: column::<i64>(&row, 0)? as u64,
        superuser: column(&row, 8)?,
        data_checksums: column::<i32>(&row, 2)? != 0,
        block_size: column::<i32>(&row, 3)? as u32,
        segment_blocks: column::<i32>(&row, 4)? as u32,
        wal_segment_size: column::<i32>(&row, 5)? as u64,
        in_recovery,
        timeline: TimelineId(checkpoint_timeline),
        data_directory,
        outside_configuration,
        included_elsewhere: elsewhere,
        incarnation: column(&row, 9)?,
        enabled_subscriptions: column::<i32>(&row, 10)? as u32,
        tablespaces: tablespaces::list(session).await?,
        settings,
        databases: databases(session, address).await?,
    })
}

/// The settings that say where files are, and the names of these files in a data
/// directory that holds them itself.
pub const CONFIGURATION_FILES: [(&str, &str); 3] =
    [("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")];

/// The data directory and the configuration files outside of it. A role without
/// pg_read_all_settings does not see them, which is no reason to fail.
async fn places(session: &Session) -> Result<(Option<PathBuf>, BTreeMap<String, PathBuf>)> {
    let statement = "SELECT name, setting FROM pg_settings \
                     WHERE name IN ('data_directory', 'config_file', 'hba_file', 'ident_file')";
    let rows = session.query("read where the server's files are", statement, &[]).await?;
    let mut places = BTreeMap::new();
    for row in &rows {
        places.insert(column::<String>(row, 0)?, PathBuf::from(column::<String>(row, 1)?));
    }
    let Some(data_directory) = places.remove("data_directory") else { return Ok((None, BTreeMap::new())) };
    let outside = CONFIGURATION_FILES
        .iter()
        .filter_map(|(setting, name)| Some(((*name).to_owned(), places.remove(*setting)?)))
        .filter(|(_, path)| path.is_absolute() && !path.starts_with(&data_directory))
        .collect();
    Ok((Some(data_directory), outside))
}

/// How a role gets what it needs to read these files through the server. The
/// function alone reads inside of the data directory only.
pub fn grant_configuration(role: &str) -> String {
    let role = quoted_identifier(role);
    format!(
        "run `GRANT pg_read_all_settings, pg_read_server_files TO {role}` and `GRANT EXECUTE ON FUNCTION \
         pg_read_binary_file(text, bigint, bigint, boolean) TO {role}` as a superuser, then `backstay backup`"
    )
}

/// The version number, when it is one of the supported.
pub async fn version(session: &Session) -> Result<u32> {
    let statement = "SELECT current_setting('server_version_num')::int, current_setting('server_version')";
    let row = session.row("read the server's version", statement, &[]).await?;
    let number = column::<i32>(&row, 0)? as u32;
    match MAJOR_VERSIONS.contains(&(number / 10_000)) {
        true => Ok(number),
        false => Err(Error::UnsupportedVersion { version: column(&row, 1)? }),
    }
}

/// A database we may not enter is listed without its extensions: that is no
/// reason to fail a backup.
async fn databases(session: &Session, address: &Address) -> Result<Vec<DatabaseFacts>> {
    let names = names(session).await?;
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let extensions = match Session::open(&address.with_database(&name)).await {
            Ok(inside) => extensions(&inside).await.unwrap_or_default(),
            Err(_) => BTreeMap::new(),
        };
        found.push(DatabaseFacts { name, extensions, schema: None });
    }
    Ok(found)
}

async fn names(session: &Session) -> Result<Vec<String>> {
    let statement = "SELECT datname::text FROM pg_database \
                     WHERE datallowconn AND NOT datistemplate ORDER BY datname LIMIT $1";
    let rows = session.query("list the databases", statement, &[&(DATABASES_LOOKED_INTO as i64)]).await?;
    rows.iter().map(|row| column(row, 0)).collect()
}

/// The databases that are looked into.
pub(super) async fn database_names(address: &Address) -> Result<Vec<String>> {
    names(&Session::open(address).await?).await
}

async fn extensions(session: &Session) -> Result<BTreeMap<String, String>> {
    let statement = "SELECT extname::text, extversion FROM pg_extension";
    let rows = session.query("list the extensions", statement, &[]).await?;
    rows.iter().map(|row| Ok((column(row, 0)?, column(row, 1)?))).collect()
}

/// What our role may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileges {
    pub role: String,
    /// May open a replication connection and make a slot.
    pub replication: bool,
    /// May execute the functions that begin and end a backup.
    pub backup_functions: bool,
    /// May read a page of a file again, which tells a wrong one from one in the middle
    /// of a write.
    pub second_look: bool,
    version_number: u32,
}

impl Privileges {
    pub async fn read(session: &Session) -> Result<Privileges> {
        let version_number = version(session).await?;
        let [begin, end] = backup_functions(version_number);
        let row = session
            .row(
                "read the rights of the role",
                "SELECT current_user::text, r.rolsuper OR r.rolreplication, \
                        has_function_privilege(current_user, $1, 'EXECUTE') \
                        AND has_function_privilege(current_user, $2, 'EXECUTE'), \
                        has_function_privilege(current_user, $3, 'EXECUTE') \
                 FROM pg_roles r WHERE r.rolname = current_user",
                &[&begin, &end, &SECOND_LOOK],
            )
            .await?;
        Ok(Privileges {
            role: column(&row, 0)?,
            replication: column(&row, 1)?,
            backup_functions: column(&row, 2)?,
            second_look: column(&row, 3)?,
            version_number,
        })
    }

    /// Refuses unless a backup of the data directory can be begun and ended.
    pub fn require_local(&self) -> Result<()> {
        if self.backup_functions {
            return Ok(());
        }
        let functions = backup_functions(self.version_number);
        let role = quoted_identifier(&self.role);
        Err(Error::Privilege {
            role: self.role.clone(),
            missing: functions.iter().map(|name| format!("EXECUTE on {name}")).collect(),
            grants: functions
                .iter()
                .map(|name| format!("GRANT EXECUTE ON FUNCTION {name} TO {role}"))
                .collect(),
        })
    }

    /// What a backup over the network does without when it has to.
    pub fn wanting_remote(&self, server: &ServerFacts) -> Option<Finding> {
        if self.second_look || !server.data_checksums {
            return None;
        }
        Some(Finding::info(
            format!("role {}", self.role),
            "may not read a page a second time, so that one that is sent in the middle of a write counts as wrong",
            format!(
                "run `GRANT EXECUTE ON FUNCTION {SECOND_LOOK} TO {}` as a superuser",
                quoted_identifier(&self.role)
            ),
        ))
    }

    /// Refuses unless a replication connection can be opened.
    pub fn require_remote(&self) -> Result<()> {
        if self.replication {
            return Ok(());
        }
        let role = quoted_identifier(&self.role);
        Err(Error::Privilege {
            role: self.role.clone(),
            missing: vec!["the REPLICATION attribute".to_owned()],
            grants: vec![format!("ALTER ROLE {role} REPLICATION")],
        })
    }
}

/// What reads a part of a file again.
const SECOND_LOOK: &str = "pg_read_binary_file(text, bigint, bigint, boolean)";

/// The functions that begin and end a backup: they were renamed in version 15.
pub fn backup_functions(version_number: u32) -> [&'static str; 2] {
    if version_number >= 150_000 {
        ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"]
    } else {
        ["pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"]
    }
}

/// A name as SQL wants it.
pub fn quoted_identifier(name: &str) -> String {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A position that came as text.
pub fn lsn(text: &str) -> Result<Lsn> {
    text.parse().map_err(|_| Error::Protocol { reason: format!("{text:?} is not a position in the log") })
}

mod number_as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A server of these tests: one of version 15 with the settings of a fresh cluster.
#[cfg(test)]
pub(super) fn facts_of_a_server() -> ServerFacts {
    ServerFacts {
        version: "15.4".into(),
        version_number: 150_004,
        system_identifier: 1,
        superuser: "postgres".into(),
        data_checksums: true,
        block_size: 8192,
        segment_blocks: 131_072,
        wal_segment_size: 16 << 20,
        in_recovery: false,
        timeline: TimelineId(1),
        data_directory: None,
        outside_configuration: BTreeMap::new(),
        included_elsewhere: Vec::new(),
        incarnation: None,
        enabled_subscriptions: 0,
        tablespaces: Vec::new(),
        settings: BTreeMap::new(),
        databases: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_model::error::Classified;

    #[test]
    fn a_missing_right_names_its_grant() {
        let role = Privileges {
            role: "back-up".into(),
            replication: false,
            backup_functions: false,
            second_look: false,
            version_number: 140_009,
        };
        let hints = role.require_local().unwrap_err().hints();
        assert_eq!(hints.len(), 2);
        assert!(
            hints[0]
                .contains("GRANT EXECUTE ON FUNCTION pg_start_backup(text, boolean, boolean) TO \"back-up\"")
        );
        let error = role.require_remote().unwrap_err();
        assert_eq!(error.to_string(), "role back-up lacks the REPLICATION attribute");
        assert!(error.hints()[0].contains("ALTER ROLE \"back-up\" REPLICATION"));
    }

    #[test]
    fn identifiers_are_quoted_when_they_must_be() {
        assert_eq!(quoted_identifier("backstay"), "backstay");
        assert_eq!(quoted_identifier("2x"), "\"2x\"");
        assert_eq!(quoted_identifier("a\"b"), "\"a\"\"b\"");
    }
}
