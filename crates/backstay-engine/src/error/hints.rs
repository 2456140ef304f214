//! What a person can do about each error: a statement, a command or a setting.

use std::io;

use super::{Error, ServerMessage};
use crate::postgres::client_programs::Failure;
use crate::postgres::facts::quoted_identifier;

pub(super) fn of(error: &Error) -> Vec<String> {
    let text = match error {
        Error::Login { source, user, .. } => return login(source, user),
        Error::Privilege { grants, .. } => {
            return grants.iter().map(|grant| format!("run `{grant}` as a superuser")).collect();
        }
        Error::Parent { source } | Error::Parts { source } => return source.hints(),
        Error::Redis(error) => return error.hints(),
        Error::Connect { .. } | Error::ConnectTimeout { .. } => {
            return vec![
                "check host and port in `url` of the instance, and that the server listens there \
                 (`listen_addresses`, and of Redis `bind`)"
                    .to_owned(),
                "`backstay config check --connect` tries it again".to_owned(),
            ];
        }
        Error::Setting { setting, .. } => {
            return vec![format!(
                "correct `{setting}` of the instance in backstay.toml; `backstay config check` reads it again"
            )];
        }
        Error::ProgramMissing { major, .. } => {
            return vec![format!(
                "install the package `postgresql-{major}`, or name the directory with `bin_directory`"
            )];
        }
        Error::ClientMissing { major, .. } => {
            return vec![format!(
                "install the package `postgresql-client-{major}`, or name the directory with `bin_directory`"
            )];
        }
        Error::NothingMatches { what, near, .. } if !near.is_empty() => {
            return vec![format!(
                "names are taken as they are, in upper and lower case; near to it: {}",
                near.iter().map(|name| format!("`--{what} '{name}'`")).collect::<Vec<_>>().join(", ")
            )];
        }
        Error::DatabaseShut { name, temporary } => {
            let open = format!(
                "if no swap runs now: `ALTER DATABASE {} ALLOW_CONNECTIONS true` as a superuser",
                quoted_identifier(name)
            );
            let drop = |found: &String| {
                format!("`DROP DATABASE {}` lets go what was to take its place", quoted_identifier(found))
            };
            return std::iter::once(open).chain(temporary.iter().map(drop)).collect();
        }
        Error::SwapHalfDone { name, .. } => {
            let name = quoted_identifier(name);
            return vec![format!("run `ALTER DATABASE {name} ALLOW_CONNECTIONS true` as a superuser")];
        }
        Error::ClientProgram { why: Failure::Denied, said, .. }
            if said.contains("session_replication_role") =>
        {
            "run `GRANT SET ON PARAMETER session_replication_role TO …` as a superuser (from PostgreSQL 15 on), or \
             restore as a superuser"
        }
        Error::ClientProgram { why, .. } => return vec![client_program(*why).to_owned()],
        Error::Server { source, .. } => return server(source),
        Error::Protocol { .. } | Error::NoRandomness | Error::Cancelled => return Vec::new(),
        Error::NothingMatches { .. } => "`psql --command '\\d *.*'` lists what there is",
        Error::DumpChoice { hint, .. } => hint,
        Error::CommandInStatements { command, is_guess, .. } => match command.as_str() {
            "\\connect" | "\\c" => {
                "`psql --file` restores it as it is, into the database that it makes; dumps without `--create` are \
                 restored into any"
            }
            _ if *is_guess => {
                "install the newest minor version of the package `postgresql-client-…`: its `psql` knows `\\restrict`, \
                 and takes no commands from a dump"
            }
            _ => "see who wrote it: `pg_dump` writes no such line, and what it does it does on this machine",
        },
        Error::Archive { .. } | Error::Snapshot { .. } => {
            "`backstay verify` says whether the dump is whole, and names the newest that is"
        }
        Error::SnapshotStrange { .. } => {
            "unpack it with `tar -x`, and run `backstay adopt` on the directory of what is wanted"
        }
        Error::ArchiveTooNew { .. } => {
            "`pg_restore` of the version that wrote it reads it: install the package `postgresql-client-…`"
        }
        Error::DatabaseExists { .. } => {
            "choose another name with `--into-database`, or replace it as a whole with `--swap`"
        }
        Error::SwapBlocked { .. } => {
            "end what is named with `DROP SUBSCRIPTION`, `SELECT pg_drop_replication_slot(…)` or `ROLLBACK PREPARED`, \
             or restore beside it with `--into-database`"
        }
        Error::SpoolTooSmall { .. } => {
            "set `dump.spool` to a directory of a larger file system, or dump with `--format custom`, which needs none"
        }
        Error::SpoolUnwritable { .. } => {
            "set `dump.spool` to a directory with enough space that backstay can write; `df` shows the space"
        }
        Error::TlsRefused { .. } => "set `ssl = on` at the server, or `sslmode=prefer` in `url`",
        Error::Tls { .. } => {
            "name the certificate of the authority with `ssl_root_certificate`; `sslmode=require` in `url` \
             encrypts without checking the name"
        }
        Error::ConnectionLost { .. } | Error::Timeout { .. } => {
            "see the server's log, then run the same again; `backstay config check --connect` says whether it answers"
        }
        Error::TablespacesInside { .. } => {
            "move what is in it with `ALTER TABLE … SET TABLESPACE`, then `DROP TABLESPACE`; one made with a \
             `LOCATION` outside is backed up"
        }
        Error::UnsupportedVersion { .. } => "`pg_upgrade` brings an older server to a supported version",
        Error::Restarted | Error::Promoted { .. } | Error::ManifestMismatch { .. } => {
            "run `backstay backup` again"
        }
        Error::LogGap { .. } => "`backstay archive` begins again where the log ended",
        Error::SlotKind { .. } => "give this instance a slot of its own with `archive.slot`",
        Error::SlotInUse { .. } => {
            "end the other one: `SELECT pid, client_addr FROM pg_stat_replication JOIN pg_replication_slots ON pid = \
             active_pid` says where it runs; or give this instance its own slot with `archive.slot`"
        }
        Error::WalMissing { .. } => {
            "give the role REPLICATION (`ALTER ROLE … REPLICATION`) and raise `max_replication_slots` or \
             `wal_keep_size`, so that the log is kept for the backup"
        }
        Error::ForeignDirectory { .. } | Error::StaleDirectory { .. } => {
            "set `data_directory` (`--data-directory` of `backstay init`) to what `SHOW data_directory` says, or \
             leave it out to back up over the network"
        }
        Error::Read { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied => {
                "run as the owner of the data directory or as root, or leave `data_directory` out to back up \
                 over the network"
            }
            io::ErrorKind::NotFound => "check `data_directory` of the instance",
            _ => "check the disk: `dmesg`, `smartctl -a`",
        },
        Error::Malformed { .. } | Error::Facts { .. } => "`backstay verify` checks what is stored",
        Error::TargetNotEmpty { .. } => {
            "choose an empty or new directory with `--into`, or move the old one away"
        }
        Error::TargetRunning { .. } => {
            "stop the server there with `pg_ctl stop`, or choose another directory with `--into`"
        }
        Error::TargetUnusable { .. } | Error::Write { .. } => {
            "check owner, mode and free space of the directory given with `--into`"
        }
        Error::TargetTooSmall { .. } => {
            "choose a larger file system with `--into`, or move tablespaces with `--tablespace OLD=NEW`"
        }
        Error::TablespaceUnknown { .. } => {
            "`backstay show BACKUP` lists the tablespaces; give `--tablespace OLD=NEW` with one of them as OLD"
        }
        Error::ProgramTimeout { .. } => {
            "check the disk it read: `dmesg`, `smartctl -a`; then run `backstay drill` again"
        }
        Error::Program { .. } => "check `bin_directory` of the instance",
        Error::Scratch { what: "answer to the end", .. } => {
            "`backstay drill --keep` leaves the copy where it can be looked at; run at the source, too, what the end \
             of the log names"
        }
        Error::ScratchEnded { .. } => {
            "run `backstay drill` again; `journalctl -k` says whether the kernel ended it where memory was short"
        }
        Error::Scratch { .. } => {
            "mend what the end of the log names: a missing library or a locale is installed, a setting stands in \
             `postgresql.conf`"
        }
    };
    vec![text.to_owned()]
}

fn client_program(why: Failure) -> &'static str {
    match why {
        Failure::Denied => {
            "run `GRANT pg_read_all_data TO …` as a superuser to read everything; what is restored belongs to roles \
             that the role has to be a member of, or use `--no-owner`"
        }
        Failure::ConnectionLost => {
            "see the server's log, then run `backstay dump` or `backstay restore` again"
        }
        Failure::Locked | Failure::Deadlock => {
            "`SELECT pid, query FROM pg_stat_activity` shows who holds the lock; then run it again, while no \
             `ALTER TABLE` and no job of TimescaleDB is at work"
        }
        Failure::DiskFull => "`df` shows what is full; make room, then run it again",
        Failure::Killed => "`journalctl -k` says whether the kernel ended it where memory was short",
        Failure::BadInput => "`backstay verify` says whether the dump is whole",
        Failure::TooManyLocks => "raise `max_locks_per_transaction` and restart the server",
        Failure::AlreadyThere => "restore into a new database with `--into-database`",
        Failure::Refused => "`backstay restore --dry-run` lists what the target lacks",
    }
}

fn login(said: &ServerMessage, user: &str) -> Vec<String> {
    match said.code.as_str() {
        "28P01" => {
            vec![format!("check `password` of the instance; `ALTER ROLE {user} PASSWORD '…'` sets a new one")]
        }
        "28000" => vec![
            format!("allow the role in pg_hba.conf: `host all {user} ADDRESS scram-sha-256`"),
            format!("for the remote way also `host replication {user} ADDRESS scram-sha-256`"),
            "`SELECT pg_reload_conf()` makes the server read it".to_owned(),
        ],
        "3D000" => vec!["name an existing database in `url`".to_owned()],
        "53300" if said.message.contains("max_wal_senders") => vec![
            "raise `max_wal_senders`, with `wal_level = replica`, and restart the server".to_owned(),
            "`SELECT application_name, client_addr FROM pg_stat_replication` says who has the ones there are"
                .to_owned(),
        ],
        "53300" => vec!["raise `max_connections`, or end sessions that nobody needs".to_owned()],
        _ => Vec::new(),
    }
}

fn server(said: &ServerMessage) -> Vec<String> {
    let text = match said.code.as_str() {
        "42501" => "run `backstay config check --connect`: it names the missing right and the GRANT",
        "53400" => "raise `max_replication_slots`",
        "53100" => "`df` at the server shows what is full; make room, then run the same again",
        code if code.starts_with("57P") => {
            "see the server's log, then run the same again; `backstay config check --connect` says whether it answers"
        }
        "22023" | "42809" if said.message.contains("locale") => {
            "`locale -a` lists what the server's machine has; `locale-gen` makes more of them, before a restart"
        }
        code if code.starts_with("58") => {
            "see the server's log for the file, and check the disk it lies on: `dmesg`, `smartctl -a`"
        }
        "55000" if said.message.contains("WAL level") => "set `wal_level = replica` and restart the server",
        "55000" if said.message.contains("full_page_writes") => "set `full_page_writes = on` at the primary",
        _ => return Vec::new(),
    };
    vec![text.to_owned()]
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use backstay_model::TimelineId;
    use backstay_model::error::Classified;

    use super::*;

    fn said(code: &str) -> ServerMessage {
        ServerMessage { code: code.into(), message: "no".into(), detail: None, hint: None }
    }

    fn mendable() -> Vec<Error> {
        let path = || PathBuf::from("/data");
        let io = || io::Error::from(io::ErrorKind::PermissionDenied);
        let login = |code| Error::Login {
            server: "db:5432".into(),
            user: "backstay".into(),
            source: Box::new(said(code)),
        };
        vec![
            Error::Setting { setting: "url", reason: "is empty".into() },
            Error::Connect { server: "db".into(), source: "refused".into() },
            Error::ConnectTimeout { server: "db".into(), seconds: 10 },
            Error::TlsRefused { server: "db".into(), mode: "require" },
            Error::Tls { server: "db".into(), source: "unknown issuer".into() },
            login("28P01"),
            login("28000"),
            login("3D000"),
            login("53300"),
            said("42501").during("start the backup"),
            said("53400").during("hold the log"),
            Error::ConnectionLost { action: "read", source: "closed".into() },
            Error::Timeout { action: "read", seconds: 60 },
            Error::Privilege {
                role: "b".into(),
                missing: vec!["the REPLICATION attribute".into()],
                grants: vec!["ALTER ROLE b REPLICATION".into()],
            },
            Error::UnsupportedVersion { version: "9.6".into() },
            Error::TablespacesInside { names: vec!["one".into()] },
            said("53100").during("create the database"),
            said("57P01").during("create the database"),
            said("58030").during("copy the backup"),
            said("58P01").during("copy the backup"),
            Error::ManifestMismatch { received: 2, listed: 3 },
            Error::ProgramTimeout { program: "pg_checksums", seconds: 60 },
            Error::Restarted,
            Error::Promoted { started: TimelineId(1), stopped: TimelineId(2) },
            Error::WalMissing { segment: "000000010000000000000003".into() },
            Error::ForeignDirectory { path: path(), found: 1, expected: 2 },
            Error::StaleDirectory { path: path() },
            Error::Read { path: path(), source: io() },
            Error::Malformed { path: path(), reason: "short".into() },
            Error::TargetNotEmpty { path: path() },
            Error::TargetRunning { path: path() },
            Error::TargetUnusable { path: path(), source: io() },
            Error::TargetTooSmall { path: path(), needed: 2, free: 1 },
            Error::TablespaceUnknown { location: "/mnt".into() },
            Error::Write { path: path(), source: io() },
            Error::ProgramMissing { program: "postgres", major: 15 },
            Error::Program { program: "postgres".into(), source: io() },
            Error::Scratch { what: "start", log: "FATAL".into() },
            Error::ClientMissing { major: 17, newest: None },
            Error::NothingMatches { what: "table", name: "a".into(), near: vec!["A".into()] },
            Error::NothingMatches { what: "table", name: "a".into(), near: Vec::new() },
            Error::DumpChoice {
                reason: "table a is in several schemas".into(),
                hint: "name it as `--table S.T`",
            },
            Error::SpoolTooSmall { path: path(), needed: 2, free: 1 },
            Error::SpoolUnwritable { path: path(), source: io() },
            Error::CommandInStatements { line: Some(1), command: "\\! x".into(), is_guess: true },
            Error::CommandInStatements { line: None, command: String::new(), is_guess: false },
            Error::CommandInStatements { line: Some(1), command: "\\c".into(), is_guess: false },
            Error::Archive { reason: "it ends".into() },
            Error::Snapshot { reason: "it is cut".into() },
            Error::SnapshotStrange { reason: "two are in it".into() },
            Error::ArchiveTooNew { found: "1.17".into() },
            Error::DatabaseExists { name: "app".into() },
            Error::SwapHalfDone {
                name: "app".into(),
                source: Box::new(Error::DatabaseExists { name: "b".into() }),
            },
            Error::DatabaseShut { name: "app".into(), temporary: vec!["app_fills_x".into()] },
            Error::SwapBlocked { name: "app".into(), by: vec!["replication slot s".into()] },
        ]
    }

    #[test]
    fn every_error_a_person_can_mend_says_how() {
        for error in mendable() {
            let hints = error.hints();
            assert!(!hints.is_empty(), "{error}");
            for hint in hints {
                assert!(hint.contains('`'), "{hint:?} names no command or setting");
                assert!(!hint.ends_with('.') && !hint.contains("  "), "{hint:?}");
            }
        }
    }

    #[test]
    fn what_a_disk_or_a_network_did_is_worth_another_try() {
        for error in [
            said("58030").during("copy the backup"),
            said("58P01").during("copy the backup"),
            Error::ManifestMismatch { received: 2, listed: 3 },
        ] {
            assert!(error.kind().is_retryable(), "{error}");
        }
    }

    #[test]
    fn no_error_repeats_its_cause_or_ends_in_a_full_stop() {
        for error in mendable() {
            let text = error.to_string();
            assert!(!text.ends_with('.'), "{text}");
            if let Some(cause) = std::error::Error::source(&error) {
                assert!(!text.contains(&cause.to_string()), "{text}");
            }
        }
    }
}
