//! The harness itself, on every real server that is here.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking, also in its helpers")]

use std::path::Path;
use std::time::Duration;

use testkit::postgres::PASSWORD;
use testkit::{
    Installation, Postgres, PostgresOptions, PostgresVersion, StopMode, Workspace, require_postgres,
    wait_until,
};

fn on_every_version(test: impl Fn(&Installation)) {
    for version in PostgresVersion::ALL {
        if let Some(installation) = require_postgres(version) {
            test(&installation);
        }
    }
}

#[test]
fn a_server_starts_answers_and_is_gone_when_dropped() {
    on_every_version(|installation| {
        let server = Postgres::start_new(installation, &PostgresOptions::default()).unwrap();
        let version = server.query_value("SHOW server_version_num").unwrap();
        assert_eq!(version.len(), 6);
        assert!(version.starts_with(&installation.version.to_string()));
        assert_eq!(server.query_value("SHOW data_checksums").unwrap(), "on");

        let workspace = server.workspace().path().to_owned();
        let pid = server_pid(server.data_directory());
        drop(server);
        assert!(!workspace.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    });
}

#[test]
fn a_workspace_stops_its_own_servers_and_no_others() {
    let Some(installation) = require_postgres(PostgresVersion::V15) else { return };
    let mut server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    let pid_file = server.data_directory().join("postmaster.pid");

    let other = Workspace::new().unwrap();
    std::fs::copy(&pid_file, other.directory("copy").unwrap().join("postmaster.pid")).unwrap();
    drop(other);
    assert!(server.is_running(), "a workspace with a copied postmaster.pid stopped somebody else's server");
}

#[test]
fn tcp_wants_the_password_and_the_socket_does_not() {
    on_every_version(|installation| {
        let server = Postgres::start_new(installation, &PostgresOptions::default()).unwrap();
        server.create_role("app", "it's", "REPLICATION").unwrap();
        for (url, password, welcome) in [
            (server.url(), PASSWORD, true),
            (server.url(), "wrong", false),
            (server.url_as("app"), "it's", true),
            (server.socket_url(), "wrong", true),
        ] {
            let mut psql = server.installation().tool("psql");
            let output = psql
                .args(["-X", "-At", "-c", "SELECT 1", &url])
                .env("PGPASSWORD", password)
                .env("PGCONNECT_TIMEOUT", "10")
                .output()
                .unwrap();
            assert_eq!(output.status.success(), welcome, "{url} {}", String::from_utf8_lossy(&output.stderr));
        }
    });
}

#[test]
fn committed_rows_survive_kill_9_and_every_way_to_stop() {
    on_every_version(|installation| {
        let options = PostgresOptions::default().configure("checkpoint_timeout = 1h");
        let mut server = Postgres::start_new(installation, &options).unwrap();
        server.pgbench_init(1).unwrap();
        assert!(server.start().is_err(), "a running server was started twice");
        for round in 1..=4 {
            server.pgbench_transactions(20).unwrap();
            match round {
                1 => server.kill9().unwrap(),
                2 => server.stop(StopMode::Immediate).unwrap(),
                3 => server.stop(StopMode::Fast).unwrap(),
                _ => server.stop(StopMode::Smart).unwrap(),
            }
            assert!(!server.is_running());
            server.start().unwrap();
            let sums = server.pgbench_sums().unwrap();
            assert!(sums.agree(), "{sums:?}");
            assert_eq!(sums.transactions, 20 * round);
        }
        assert!(server.log_text().contains("was not properly shut down"));
    });
}

#[test]
fn a_standby_follows_and_can_be_promoted() {
    on_every_version(|installation| {
        let primary = Postgres::start_new(installation, &PostgresOptions::default()).unwrap();
        let standby = primary.standby().unwrap();
        assert_eq!(standby.query_value("SELECT pg_is_in_recovery()").unwrap(), "t");
        primary.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i").unwrap();
        standby.wait_for_replay_of(&primary).unwrap();
        assert_eq!(standby.query_value("SELECT sum(i) FROM t").unwrap(), "500500");
        standby.promote().unwrap();
        standby.sql("INSERT INTO t VALUES (1)").unwrap();
    });
}

#[test]
fn a_load_runs_until_it_is_stopped() {
    on_every_version(|installation| {
        let server = Postgres::start_new(installation, &PostgresOptions::default()).unwrap();
        server.pgbench_init(1).unwrap();
        let load = server.pgbench_load().unwrap();
        load.stop();
        wait_until(Duration::from_secs(10), "the clients to leave", || {
            server
                .query_value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'")
                .unwrap()
                == "0"
        })
        .unwrap();
        assert!(server.pgbench_sums().unwrap().agree());
    });
}

#[test]
fn a_copied_directory_starts_privately_and_passes_the_tools() {
    on_every_version(|installation| {
        let options = PostgresOptions::default()
            .configure("archive_mode = on")
            .configure("archive_command = '/bin/false'");
        let server = Postgres::start_new(installation, &options).unwrap();
        server.pgbench_init(1).unwrap();
        let place = Workspace::new().unwrap();
        let copy = place.directory("copy").unwrap();
        let mut base_backup = server.tool("pg_basebackup");
        base_backup.arg("-D").arg(&copy).args(["-c", "fast", "-X", "stream"]);
        assert!(base_backup.status().unwrap().success());
        let verified = server.tool("pg_verifybackup").arg(&copy).status().unwrap();
        assert!(verified.success());

        let restored = Postgres::start_on(installation, &copy).unwrap();
        assert_eq!(restored.query_value("SHOW archive_mode").unwrap(), "off");
        assert_eq!(restored.query_value("SHOW listen_addresses").unwrap(), "");
        assert_eq!(restored.pgbench_sums().unwrap(), server.pgbench_sums().unwrap());
        restored.sql("CREATE EXTENSION amcheck").unwrap();
        assert!(restored.tool("pg_amcheck").args(["--all"]).status().unwrap().success());
    });
}

#[test]
fn timescaledb_is_there_with_postgresql_17() {
    let Some(installation) = testkit::require_timescaledb() else { return };
    let options = PostgresOptions::default().configure("shared_preload_libraries = timescaledb");
    let server = Postgres::start_new(&installation, &options).unwrap();
    server
        .sql(
            "CREATE EXTENSION timescaledb;
             CREATE TABLE m (at timestamptz NOT NULL, v float);
             SELECT create_hypertable('m', 'at');
             INSERT INTO m SELECT now() - i * interval '1 hour', i FROM generate_series(1, 1000) AS i;",
        )
        .unwrap();
    assert_eq!(server.query_value("SELECT count(*) FROM m").unwrap(), "1000");
}

#[test]
fn a_failed_statement_says_what_the_server_said() {
    let Some(installation) = require_postgres(PostgresVersion::V15) else { return };
    let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    let error = server.sql("SELECT nonsense").unwrap_err();
    assert!(format!("{error:#}").contains("nonsense"), "{error:#}");
}

#[test]
fn a_server_that_cannot_start_shows_its_log() {
    let Some(installation) = require_postgres(PostgresVersion::V15) else { return };
    let options = PostgresOptions::default().configure("no_such_setting = 1");
    let error = Postgres::start_new(&installation, &options).unwrap_err();
    assert!(format!("{error:#}").contains("no_such_setting"), "{error:#}");
}

fn server_pid(data_directory: &Path) -> String {
    let text = std::fs::read_to_string(data_directory.join("postmaster.pid")).unwrap();
    text.lines().next().unwrap().to_owned()
}
