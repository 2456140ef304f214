//! Clusters that keep their configuration outside of the data directory, backed up
//! through the server, and started from what was restored with `pg_ctl -D` alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

#[path = "local_backup/drive.rs"]
#[allow(dead_code, reason = "shared by the tests of this crate, none of which uses all of it")]
mod drive;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use backstay_engine::postgres::included;
use backstay_engine::postgres::local::LocalBackup;
use backstay_engine::postgres::place::{PlaceOptions, PlacePlan, SealOptions, Sealed, SpaceNeeded};
use backstay_engine::postgres::remote::{RemoteBackup, RemoteOptions};
use backstay_engine::postgres::{BackupFacts, Outcome};
use backstay_model::parts::ParentFile;
use backstay_model::{Finding, FindingLevel};
use testkit::ownership::server_owner;
use testkit::postgres::query::run;
use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Installation, Postgres, PostgresOptions, PostgresVersion, StopMode, require_postgres};
use tokio_util::sync::CancellationToken;

const FILES: [&str; 3] = ["pg_hba.conf", "pg_ident.conf", "postgresql.conf"];

/// A server that `pg_ctl` started, with a socket and a port of its own and nothing
/// else on its command line.
struct Started<'a> {
    installation: &'a Installation,
    directory: PathBuf,
    /// Its address; the server behind it is stopped.
    by: &'a Postgres,
}

impl<'a> Started<'a> {
    fn on(installation: &'a Installation, directory: &Path, by: &'a Postgres) -> Self {
        let log = by.workspace().path().join(format!("log-{}", directory.file_name().unwrap().display()));
        fs::write(&log, "").unwrap();
        server_owner().unwrap().take(&log).unwrap();
        let place =
            format!("-c port={} -c unix_socket_directories={}", by.port(), by.socket_directory().display());
        let mut start = installation.tool_as_server("pg_ctl").unwrap();
        start.args(["start", "--wait", "--silent", "--pgdata"]).arg(directory);
        start.arg("--log").arg(&log).arg("--options").arg(place);
        let started = run(&mut start);
        assert!(started.is_ok(), "{started:?}\n{}", fs::read_to_string(log).unwrap());
        Self { installation, directory: directory.to_owned(), by }
    }

    fn show(&self, setting: &str) -> String {
        self.by.query_value(&format!("SHOW {setting}")).unwrap()
    }

    fn as_somebody(&self, host: &str, user: &str) -> Command {
        let mut psql = self.by.tool("psql");
        psql.args(["--no-psqlrc", "-c", "SELECT 1"]).env("PGPASSWORD", PASSWORD).env("PGUSER", user);
        if host != "socket" {
            psql.env("PGHOST", host);
        }
        psql
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        let mut stop = self.installation.tool_as_server("pg_ctl").unwrap();
        stop.args(["stop", "--wait", "--silent", "--mode=fast", "--pgdata"]).arg(&self.directory);
        // A test that failed before says enough.
        let _ = run(&mut stop);
    }
}

/// A cluster as Debian lays it out: `-D` leads to the configuration, and that to
/// the data. The server that comes back is stopped and lends its address.
fn debian(installation: &Installation) -> (Postgres, PathBuf) {
    let options = PostgresOptions::default().configure("max_connections = 61").configure("work_mem = 7MB");
    let mut server = Postgres::start_new(installation, &options).unwrap();
    server.pgbench_init(1).unwrap();
    server.create_role("back-up", PASSWORD, "REPLICATION").unwrap();
    server.stop(StopMode::Fast).unwrap();
    let etc = server.workspace().directory("etc").unwrap();
    for name in FILES {
        fs::copy(server.data_directory().join(name), etc.join(name)).unwrap();
        fs::remove_file(server.data_directory().join(name)).unwrap();
    }
    let mut lines = fs::read_to_string(etc.join("postgresql.conf")).unwrap();
    for (setting, path) in [
        ("data_directory", server.data_directory().to_owned()),
        ("hba_file", etc.join("pg_hba.conf")),
        ("ident_file", etc.join("pg_ident.conf")),
    ] {
        lines += &format!("{setting} = '{}'\n", path.display());
    }
    fs::write(etc.join("postgresql.conf"), lines).unwrap();
    server_owner().unwrap().take_all(&etc).unwrap();
    (server, etc)
}

struct Restored {
    files: Vec<ParentFile>,
    facts: BackupFacts,
    findings: Vec<Finding>,
    sealed: Sealed,
}

/// Through the server into a new directory, sealed.
fn restore(server: &Postgres, role: &str, directory: &Path) -> Restored {
    let runtime = drive::runtime();
    let address = drive::settings_as(server, role, PASSWORD).address().unwrap();
    let outcome = Outcome::new();
    let options = RemoteOptions { label: "a test's".to_owned(), parent: None };
    let begun = RemoteBackup::start(&address, options, outcome.clone(), CancellationToken::new());
    let mut backup = runtime.block_on(begun).unwrap();
    let options = PlaceOptions { directory: directory.to_owned(), ..PlaceOptions::default() };
    let target = PlacePlan::check(&options, &SpaceNeeded::default()).unwrap().begin().unwrap();
    let files = drive::pump(&mut backup, &target, |_| {}).unwrap();
    let facts = outcome.facts().unwrap();
    let mut listed = drive::Listed::of(files.clone());
    let sealed = target.seal(&mut listed, &facts, &SealOptions::default()).unwrap();
    Restored { files, facts, findings: outcome.findings(), sealed }
}

/// The same from the data directory.
fn restore_from_disk(server: &Postgres, directory: &Path) -> Restored {
    let runtime = drive::runtime();
    let mut settings = drive::settings_as(server, SUPERUSER, PASSWORD);
    settings.data_directory = Some(server.data_directory().to_owned());
    let begun = LocalBackup::start(&settings, "a test's", CancellationToken::new());
    let (mut backup, outcome) = runtime.block_on(begun).unwrap();
    let options = PlaceOptions { directory: directory.to_owned(), ..PlaceOptions::default() };
    let target = PlacePlan::check(&options, &SpaceNeeded::default()).unwrap().begin().unwrap();
    let files = drive::pump(&mut backup, &target, |_| {}).unwrap();
    let facts = outcome.facts().unwrap();
    let mut listed = drive::Listed::of(files.clone());
    let sealed = target.seal(&mut listed, &facts, &SealOptions::default()).unwrap();
    Restored { files, facts, findings: outcome.findings(), sealed }
}

fn verify(installation: &Installation, directory: &Path) {
    run(installation.tool_as_server("pg_verifybackup").unwrap().arg("--no-parse-wal").arg(directory))
        .unwrap();
}

fn owners(directory: &Path) -> Vec<(u32, u32)> {
    let of = |name: &str| fs::metadata(directory.join(name)).unwrap();
    FILES.iter().map(|name| (of(name).uid(), of(name).mode() & 0o777)).collect()
}

#[test]
fn a_role_that_may_read_the_configuration_brings_it_along() {
    for version in PostgresVersion::ALL {
        let Some(installation) = require_postgres(version) else { continue };
        let (server, etc) = debian(&installation);
        // As some program may write it: of more bytes than are handed out at once.
        let users = (0..20_000).map(|user| format!("map user{user} role{user}\n"));
        let ident: String = users.collect();
        fs::write(etc.join("pg_ident.conf"), &ident).unwrap();
        let data = server.workspace().path().join("restored");
        let source = Started::on(&installation, &etc, &server);
        let without = restore(&server, "back-up", &server.workspace().path().join("without"));
        let [finding] = without.findings.as_slice() else { panic!("{:?}", without.findings) };
        assert_eq!(finding.level, FindingLevel::Info);
        // The hint is enough, word by word.
        for grant in finding.remedy.split('`').filter(|word| word.starts_with("GRANT")) {
            server.sql(grant).unwrap();
        }
        let restored = restore(&server, "back-up", &data);
        assert_eq!(restored.findings, []);
        assert_eq!(restored.sealed.findings, []);
        assert_eq!(restored.facts.server.outside_configuration.len(), 3);
        let brought = restored.files.iter().filter(|file| FILES.contains(&file.spec.path.as_str())).count();
        assert_eq!(brought, 3);
        assert!(fs::read_to_string(data.join("pg_ident.conf")).unwrap() == ident);
        drop(source);
        // Nothing may lead back.
        fs::remove_dir_all(&etc).unwrap();

        verify(&installation, &data);
        assert!(owners(&data).iter().all(|owner| *owner == (fs::metadata(&data).unwrap().uid(), 0o600)));
        let copy = Started::on(&installation, &data, &server);
        assert_eq!((copy.show("work_mem").as_str(), copy.show("max_connections").as_str()), ("7MB", "61"));
        assert_eq!(copy.show("hba_file"), data.join("pg_hba.conf").display().to_string());
        assert!(server.pgbench_sums().unwrap().agree());
        // Their rules are in force: a password over TCP is enough.
        assert!(copy.as_somebody("127.0.0.1", "back-up").status().unwrap().success());
        // From here on its log is another one than its source's, and any role can tell.
        let again = restore(&server, "back-up", &server.workspace().path().join("again"));
        assert_eq!(restored.facts.server.incarnation, None);
        assert_eq!(again.facts.server.incarnation, Some(copy.show("backstay.incarnation")));
    }
}

#[test]
fn without_the_right_a_restored_directory_starts_for_its_owner_only() {
    for version in PostgresVersion::ALL {
        let Some(installation) = require_postgres(version) else { continue };
        let (server, etc) = debian(&installation);
        // As the owner of a cluster calls it, whatever the account is called.
        let data = server.workspace().path().join("restored");
        let source = Started::on(&installation, &etc, &server);
        server.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n").unwrap();
        let restored = restore(&server, "back-up", &data);
        drop(source);
        fs::remove_dir_all(&etc).unwrap();
        let [finding] = restored.sealed.findings.as_slice() else { panic!("{:?}", restored.sealed) };
        assert_eq!(finding.level, FindingLevel::Info);
        assert!(FILES.iter().all(|name| finding.subject.contains(name)), "{finding:?}");
        assert!(finding.remedy.contains("GRANT pg_read_all_settings, pg_read_server_files"), "{finding:?}");

        verify(&installation, &data);
        assert!(owners(&data).iter().all(|owner| *owner == (fs::metadata(&data).unwrap().uid(), 0o600)));
        let copy = Started::on(&installation, &data, &server);
        assert_eq!(server.query_value("SELECT count(*) FROM kept").unwrap(), "1000");
        assert_eq!(
            (copy.show("max_connections").as_str(), copy.show("archive_mode").as_str()),
            ("61", "off")
        );
        let rejected = |host: &str, user: &str| {
            let output = copy.as_somebody(host, user).output().unwrap();
            assert!(String::from_utf8_lossy(&output.stderr).contains("no pg_hba.conf entry"), "{output:?}");
        };
        rejected("socket", "back-up");
        rejected("127.0.0.1", "postgres");
        rejected("127.0.0.1", "back-up");
    }
}

#[test]
fn an_owner_whose_account_has_another_name_is_let_in() {
    let Some(installation) = require_postgres(PostgresVersion::V15) else { return };
    let (server, etc) = debian(&installation);
    let data = server.workspace().path().join("restored");
    let source = Started::on(&installation, &etc, &server);
    // Now no account of this machine has the superuser's name.
    server.sql("CREATE ROLE other SUPERUSER LOGIN").unwrap();
    let mut rename = server.tool("psql");
    rename.args(["-c", "ALTER ROLE postgres RENAME TO \"the boss\""]).env("PGUSER", "other");
    run(&mut rename).unwrap();
    let settings = restore(&server, "back-up", &data);
    assert_eq!(settings.facts.server.superuser, "the boss");
    drop(source);
    let copy = Started::on(&installation, &data, &server);
    run(&mut copy.as_somebody("socket", "the boss")).unwrap();
    assert!(!copy.as_somebody("socket", "other").status().unwrap().success());
}

#[test]
fn files_that_the_configuration_includes_are_kept_with_it_or_named() {
    for version in PostgresVersion::ALL {
        let Some(installation) = require_postgres(version) else { continue };
        let (server, etc) = debian(&installation);
        let memory = "work_mem = 9MB\n";
        fs::create_dir(etc.join("conf.d")).unwrap();
        fs::write(etc.join("conf.d/10-memory.conf"), memory).unwrap();
        let shared = server.workspace().path().join("shared.conf");
        fs::write(&shared, "temp_buffers = 3MB\n").unwrap();
        let mut lines = fs::read_to_string(etc.join("postgresql.conf")).unwrap();
        lines += &format!("include_dir 'conf.d'\ninclude '{}'\n", shared.display());
        fs::write(etc.join("postgresql.conf"), lines).unwrap();
        server_owner().unwrap().take_all(&etc).unwrap();
        server_owner().unwrap().take(&shared).unwrap();
        let source = Started::on(&installation, &etc, &server);
        assert_eq!((source.show("work_mem").as_str(), source.show("temp_buffers").as_str()), ("9MB", "3MB"));

        let remote = server.workspace().path().join("remote");
        let local = server.workspace().path().join("local");
        server.create_role("reader", PASSWORD, "SUPERUSER").unwrap();
        let copies = [restore(&server, "reader", &remote), restore_from_disk(&server, &local)];
        drop(source);
        for (restored, directory) in copies.iter().zip([&remote, &local]) {
            let [finding] = restored.findings.as_slice() else { panic!("{:?}", restored.findings) };
            assert_eq!(finding.level, FindingLevel::Info);
            assert_eq!(finding.subject, shared.display().to_string());
            assert_eq!(fs::read_to_string(directory.join("conf.d/10-memory.conf")).unwrap(), memory);
            let told = included::at_restore(&restored.facts.server, directory);
            assert_eq!(told.len(), 2, "{told:?}");
            assert!(told[0].subject.ends_with("conf.d/10-memory.conf"), "{told:?}");
            assert!(told[1].subject.ends_with("shared.conf"), "{told:?}");
            verify(&installation, directory);
            // The remedy brings the settings back.
            let main = directory.join("postgresql.conf");
            let text = fs::read_to_string(&main).unwrap();
            let text = text.replace("#restored elsewhere: include_dir", "include_dir");
            fs::write(&main, text).unwrap();
            let copy = Started::on(&installation, directory, &server);
            assert_eq!(copy.show("work_mem"), "9MB");
            assert_ne!(copy.show("temp_buffers"), "3MB");
        }
    }
}
