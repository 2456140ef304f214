//! What ends a backup before its end.

use std::time::Duration;

use backstay_engine::postgres::Outcome;
use backstay_engine::postgres::remote::{RemoteBackup, RemoteOptions};
use backstay_model::parts::{ExtentData, PartSource, Step};
use backstay_model::{ErrorKind, Fault};
use testkit::{Postgres, PostgresOptions, PostgresVersion, StopMode, require_postgres};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::directory::{address, back_up};

/// A server with more data than fits between it and us.
fn large_server() -> Option<Postgres> {
    let installation = require_postgres(PostgresVersion::V15)?;
    let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    server.pgbench_init(10).unwrap();
    Some(server)
}

pub fn begin(runtime: &Runtime, server: &Postgres, cancelled: &CancellationToken) -> (RemoteBackup, Outcome) {
    let outcome = Outcome::new();
    let options = RemoteOptions { label: "fails".to_owned(), parent: None };
    let address = address(server);
    let begun = RemoteBackup::start(&address, options, outcome.clone(), cancelled.clone());
    (runtime.block_on(begun).unwrap(), outcome)
}

/// Takes steps until so many bytes have come.
pub fn take(backup: &mut RemoteBackup, mut bytes: u64) -> Result<(), Fault> {
    while bytes > 0 {
        match backup.next()? {
            Some(Step::Extent { length, data: ExtentData::Read(reader), .. }) => {
                reader.read(&mut Vec::new())?;
                bytes = bytes.saturating_sub(u64::from(length));
            }
            Some(_) => {}
            None => panic!("the backup ended"),
        }
    }
    Ok(())
}

fn senders(server: &Postgres) -> String {
    server
        .query_value(
            "SELECT (SELECT count(*) FROM pg_stat_replication) + (SELECT count(*) FROM pg_replication_slots)",
        )
        .unwrap()
}

#[test]
fn a_server_that_is_killed_in_the_middle_is_unavailable() {
    let Some(mut server) = large_server() else { return };
    let runtime = Runtime::new().unwrap();
    for mode in [None, Some(StopMode::Immediate), Some(StopMode::Fast)] {
        let (mut backup, outcome) = begin(&runtime, &server, &CancellationToken::new());
        take(&mut backup, 2 << 20).unwrap();
        match mode {
            None => server.kill9().unwrap(),
            Some(mode) => server.stop(mode).unwrap(),
        }
        let error = take(&mut backup, u64::MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{mode:?}: {error}");
        assert!(outcome.facts().is_none());
        server.start().unwrap();
    }
    back_up(&runtime, &server, None).unwrap();
}

#[test]
fn a_cancelled_backup_ends_at_once_on_both_sides() {
    let Some(server) = large_server() else { return };
    let runtime = Runtime::new().unwrap();
    let cancelled = CancellationToken::new();
    let (mut backup, outcome) = begin(&runtime, &server, &cancelled);
    take(&mut backup, 2 << 20).unwrap();
    cancelled.cancel();
    assert_eq!(take(&mut backup, u64::MAX).unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(outcome.facts().is_none());
    // The source is still held: the connection has gone before it.
    let limit = Duration::from_secs(30);
    testkit::wait_until(limit, "the server to give up", || senders(&server) == "0").unwrap();

    let begun = CancellationToken::new();
    begun.cancel();
    let options = RemoteOptions { label: "never".to_owned(), parent: None };
    let refused = runtime.block_on(RemoteBackup::start(&address(&server), options, Outcome::new(), begun));
    assert!(matches!(refused.err().unwrap(), backstay_engine::Error::Cancelled));
}

#[test]
fn a_backup_that_is_dropped_leaves_nothing_at_the_server() {
    let Some(server) = large_server() else { return };
    let runtime = Runtime::new().unwrap();
    let (mut backup, _) = begin(&runtime, &server, &CancellationToken::new());
    take(&mut backup, 2 << 20).unwrap();
    assert_ne!(senders(&server), "0");
    drop(backup);
    testkit::wait_until(Duration::from_secs(30), "the server to give up", || senders(&server) == "0")
        .unwrap();
}

#[test]
fn a_slow_repository_holds_the_server_back() {
    let Some(server) = large_server() else { return };
    let runtime = Runtime::new().unwrap();
    let (backup, _) = begin(&runtime, &server, &CancellationToken::new());
    // Nobody takes a step: the server must come to wait for us.
    testkit::wait_until(Duration::from_secs(30), "the server to wait", || {
        server
            .query_value("SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'walsender'")
            .is_ok_and(|event| event == "ClientWrite" || event == "WalSenderWriteData")
    })
    .unwrap();
    drop(backup);
}

#[test]
fn a_server_without_slots_is_backed_up_with_a_note() {
    let Some(installation) = require_postgres(PostgresVersion::V15) else { return };
    let runtime = Runtime::new().unwrap();
    let options = PostgresOptions::default().configure("max_replication_slots = 0");
    let server = Postgres::start_new(&installation, &options).unwrap();
    let written = back_up(&runtime, &server, None).unwrap();
    let [finding] = written.findings.as_slice() else { panic!("{:?}", written.findings) };
    assert!(finding.remedy.contains("max_replication_slots"), "{finding:?}");
}

#[test]
fn a_server_that_has_no_sender_for_us_is_told_the_setting() {
    let Some(installation) = require_postgres(PostgresVersion::V15) else { return };
    let runtime = Runtime::new().unwrap();
    let options =
        PostgresOptions::default().configure("wal_level = minimal").configure("max_wal_senders = 0");
    let server = Postgres::start_new(&installation, &options).unwrap();
    let error = back_up(&runtime, &server, None).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.hints().iter().any(|hint| hint.contains("`max_wal_senders`")), "{:?}", error.hints());
}
