//! Whole backups that start.

use std::fs;
use std::os::unix::fs::FileExt;

use backstay_engine::postgres::connect::Session;
use backstay_engine::postgres::facts::{self, Privileges};
use backstay_engine::postgres::outcome::Way;
use backstay_model::parts::{ExtentData, PartSource, Step};
use backstay_model::{ErrorKind, Finding, FindingLevel};
use testkit::postgres::PASSWORD;
use testkit::{Installation, Postgres, PostgresOptions, PostgresVersion, StopMode, require_postgres};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::directory::{Written, address_of, back_up, back_up_as};

/// Starts on what was written, and looks at every page and every index.
pub fn prove(installation: &Installation, written: &Written) -> Postgres {
    for entry in fs::read_dir(written.directory.path()).unwrap().map(Result::unwrap) {
        if entry.file_name() != "data" {
            testkit::ownership::server_owner().unwrap().take_all(&entry.path()).unwrap();
        }
    }
    let mut server = Postgres::start_on(installation, &written.path()).unwrap();
    testkit::wait_until(std::time::Duration::from_secs(60), "the end of recovery", || {
        server.query_value("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
    })
    .unwrap();
    server.sql("CREATE EXTENSION IF NOT EXISTS amcheck").unwrap();
    testkit::postgres::query::run(server.tool("pg_amcheck").args(["--all", "--heapallindexed"])).unwrap();
    server.stop(StopMode::Fast).unwrap();
    if written.facts.server.data_checksums {
        let mut check = server.tool("pg_checksums");
        testkit::postgres::query::run(check.arg("--check").arg(server.data_directory())).unwrap();
    }
    server.start().unwrap();
    server
}

fn under_load(version: PostgresVersion) {
    let Some(installation) = require_postgres(version) else { return };
    let runtime = Runtime::new().unwrap();
    let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    server.pgbench_init(5).unwrap();
    server.sql("CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 1000) AS n").unwrap();
    let load = server.pgbench_load().unwrap();
    testkit::wait_until(std::time::Duration::from_secs(30), "the load to begin", || {
        server.query_value("SELECT count(*) > 100 FROM pgbench_history").is_ok_and(|answer| answer == "t")
    })
    .unwrap();
    let written = back_up(&runtime, &server, None).unwrap();
    load.stop();

    assert_eq!(written.findings, []);
    let facts = &written.facts;
    assert_eq!((facts.way, facts.from_standby, facts.label.as_str()), (Way::Remote, false, "a test's"));
    assert!(facts.start_lsn < facts.stop_lsn);
    assert_eq!(facts.server.major(), version.major());
    assert!(!written.was_incremental);
    // The temporary slot has gone with its connection.
    testkit::wait_until(std::time::Duration::from_secs(30), "the slot to go", || {
        server.query_value("SELECT count(*) FROM pg_replication_slots").is_ok_and(|answer| answer == "0")
    })
    .unwrap();
    drop(server);

    let restored = prove(&installation, &written);
    let sums = restored.pgbench_sums().unwrap();
    assert!(sums.agree() && sums.transactions > 0, "{sums:?}");
    assert_eq!(restored.query_value("SELECT count(*) FROM fleeting").unwrap(), "0");
}

#[test]
fn a_backup_of_15_under_load_starts_and_is_consistent() {
    under_load(PostgresVersion::V15);
}

#[test]
fn a_backup_of_17_under_load_starts_and_is_consistent() {
    under_load(PostgresVersion::V17);
}

#[test]
fn tablespaces_come_along() {
    let Some(installation) = require_postgres(PostgresVersion::V15) else { return };
    let runtime = Runtime::new().unwrap();
    let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    let location = server.workspace().directory("space").unwrap();
    testkit::ownership::server_owner().unwrap().take(&location).unwrap();
    server.sql(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", location.display())).unwrap();
    server
        .sql("CREATE TABLE far (n int PRIMARY KEY USING INDEX TABLESPACE elsewhere) TABLESPACE elsewhere; INSERT INTO far SELECT generate_series(1, 50000)")
        .unwrap();
    let written = back_up(&runtime, &server, None).unwrap();
    let [space] = written.facts.server.tablespaces.as_slice() else { panic!("{:?}", written.facts) };
    assert!(written.tablespace(space.oid).is_dir());
    drop(server);
    let restored = prove(&installation, &written);
    assert_eq!(restored.query_value("SELECT count(*), sum(n) FROM far").unwrap(), "50000|1250025000");
    let place = restored.query_value(&format!("SELECT pg_tablespace_location({})", space.oid)).unwrap();
    assert_eq!(place, written.tablespace(space.oid).to_str().unwrap());
}

fn from_standby(version: PostgresVersion) {
    let Some(installation) = require_postgres(version) else { return };
    let runtime = Runtime::new().unwrap();
    let primary = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    primary.pgbench_init(2).unwrap();
    let standby = primary.standby().unwrap();
    standby.wait_for_replay_of(&primary).unwrap();
    let written = back_up(&runtime, &standby, None).unwrap();
    assert!(written.facts.from_standby);
    // A restored copy must not begin to follow the primary.
    assert!(!written.path().join("standby.signal").exists());
    drop(standby);
    drop(primary);
    let restored = prove(&installation, &written);
    assert!(restored.pgbench_sums().unwrap().agree());
}

#[test]
fn a_backup_of_a_standby_starts_as_a_primary() {
    from_standby(PostgresVersion::V15);
    from_standby(PostgresVersion::V17);
}

/// Compares a backup of a server at rest with PostgreSQL's own, by the manifest of
/// the latter. What must differ is not compared: where and when each began.
pub fn compare_with_pg_basebackup(server: &Postgres, written: &Written) {
    let theirs = server.workspace().directory("theirs").unwrap();
    testkit::ownership::server_owner().unwrap().take(&theirs).unwrap();
    let mut copy = server.tool("pg_basebackup");
    copy.args(["--checkpoint=fast", "--wal-method=none", "--no-sync"]).arg("--pgdata").arg(&theirs);
    testkit::postgres::query::run(&mut copy).unwrap();
    testkit::ownership::server_owner().unwrap().take_all(&written.path()).unwrap();
    let mut verify = server.tool("pg_verifybackup");
    verify.args(["--no-parse-wal", "--ignore=backup_label", "--ignore=global/pg_control"]);
    verify.arg("--manifest-path").arg(theirs.join("backup_manifest")).arg(written.path());
    testkit::postgres::query::run(&mut verify).unwrap();
}

#[test]
fn every_file_is_what_pg_basebackup_takes() {
    for version in PostgresVersion::ALL {
        let Some(installation) = require_postgres(version) else { continue };
        let runtime = Runtime::new().unwrap();
        let options = PostgresOptions::default().configure("autovacuum = off");
        let server = Postgres::start_new(&installation, &options).unwrap();
        server.pgbench_init(3).unwrap();
        server.sql("CREATE TABLE large AS SELECT n, repeat('l', 400) FROM generate_series(1, 100000) AS n; VACUUM").unwrap();
        let written = back_up(&runtime, &server, None).unwrap();
        compare_with_pg_basebackup(&server, &written);
    }
}

#[test]
fn a_standby_that_is_promoted_meanwhile_ends_its_backup() {
    let Some(installation) = require_postgres(PostgresVersion::V15) else { return };
    let runtime = Runtime::new().unwrap();
    let primary = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    primary.pgbench_init(10).unwrap();
    let standby = primary.standby().unwrap();
    standby.wait_for_replay_of(&primary).unwrap();
    let (mut backup, outcome) = super::failures::begin(&runtime, &standby, &CancellationToken::new());
    super::failures::take(&mut backup, 2 << 20).unwrap();
    standby.promote().unwrap();
    let error = super::failures::take(&mut backup, u64::MAX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("promoted") && error.to_string().contains('2'), "{error}");
    assert!(outcome.facts().is_none());
}

#[test]
fn a_damaged_page_is_a_finding_and_the_backup_goes_on() {
    let Some(installation) = require_postgres(PostgresVersion::V15) else { return };
    let runtime = Runtime::new().unwrap();
    let mut server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    server
        .sql("CREATE TABLE sick AS SELECT n, repeat('x', 500) AS filler FROM generate_series(1, 2000) AS n")
        .unwrap();
    let path = server.query_value("SELECT pg_relation_filepath('sick')").unwrap();
    server.stop(StopMode::Fast).unwrap();
    let file = fs::OpenOptions::new().write(true).open(server.data_directory().join(&path)).unwrap();
    file.write_all_at(b"damage", 3 * 8192 + 4000).unwrap();
    server.start().unwrap();
    let written = back_up(&runtime, &server, None).unwrap();
    let [finding] = written.findings.as_slice() else { panic!("{:?}", written.findings) };
    assert_eq!((finding.level, finding.subject.as_str()), (FindingLevel::Error, path.as_str()));
    assert!(finding.message.contains("page 3"), "{}", finding.message);

    // A role that may not read a page twice is told what to grant, and then may.
    server.create_role("reader", PASSWORD, "REPLICATION").unwrap();
    let url = server.url_as("reader");
    let reader = || address_of(&url);
    let wanting = || {
        runtime.block_on(async {
            let session = Session::open(&reader()).await.unwrap();
            let server = facts::read(&session, &reader()).await.unwrap();
            Privileges::read(&session).await.unwrap().wanting_remote(&server)
        })
    };
    let grant = wanting().unwrap().remedy.split('`').nth(1).unwrap().to_owned();
    // A session that is lost on the way is opened again.
    let (mut backup, outcome) = super::failures::begin(&runtime, &server, &CancellationToken::new());
    let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    assert_eq!(server.query_value(ended).unwrap(), "1");
    while let Some(step) = backup.next().unwrap() {
        if let Step::Extent { data: ExtentData::Read(reader), .. } = step {
            reader.read(&mut Vec::new()).unwrap();
        }
    }
    assert_eq!(outcome.findings(), written.findings);
    let note = |findings: &[Finding]| findings.iter().find(|f| f.remedy.contains("GRANT")).cloned();
    let without = back_up_as(&runtime, &reader(), None).unwrap();
    assert!(note(&without.findings).is_some(), "{:?}", without.findings);
    server.sql(&grant).unwrap();
    assert_eq!(wanting(), None);
    let with = back_up_as(&runtime, &reader(), None).unwrap();
    assert_eq!(with.findings, written.findings);
}

#[test]
fn a_table_that_the_server_does_not_send_is_an_error_among_the_findings() {
    for version in PostgresVersion::ALL {
        let Some(installation) = require_postgres(version) else { continue };
        let runtime = Runtime::new().unwrap();
        let mut server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
        server.sql("CREATE TABLE elsewhere AS SELECT generate_series(1, 1000) AS n; CHECKPOINT").unwrap();
        let path = server.query_value("SELECT pg_relation_filepath('elsewhere')").unwrap();
        server.stop(StopMode::Fast).unwrap();
        let (real, moved) = (server.data_directory().join(&path), server.workspace().path().join("moved"));
        fs::copy(&real, &moved).unwrap();
        fs::remove_file(&real).unwrap();
        testkit::ownership::server_owner().unwrap().take(&moved).unwrap();
        std::os::unix::fs::symlink(&moved, &real).unwrap();
        server.start().unwrap();
        let written = back_up(&runtime, &server, None).unwrap();
        let [finding] = written.findings.as_slice() else { panic!("{:?}", written.findings) };
        assert_eq!(finding.level, FindingLevel::Error);
        assert!(finding.message.contains(&path), "{finding:?}");
    }
}
