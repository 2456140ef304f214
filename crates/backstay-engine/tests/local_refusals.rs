//! The local way against real servers: what ends a backup, and what is said then.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

#[path = "local_backup/drive.rs"]
#[allow(dead_code, reason = "shared by the tests of this crate, none of which uses all of it")]
mod drive;
#[path = "local_backup/judge.rs"]
#[allow(dead_code, reason = "shared by the tests of this crate, none of which uses all of it")]
mod judge;

use std::fs;
use std::time::Duration;

use backstay_engine::Error;
use backstay_engine::postgres::local::LocalBackup;
use backstay_model::ErrorKind;
use backstay_model::error::Classified;
use backstay_model::parts::{PartSource, Step};
use testkit::wait::wait_until;
use testkit::{Postgres, PostgresOptions, StopMode};

use judge::{judge, on_each_version, start};
use tokio_util::sync::CancellationToken;

/// `pg_control` begins when everything else has been read.
fn is_last_file(step: &Step) -> bool {
    matches!(step, Step::Begin(spec) if spec.path == "global/pg_control")
}

#[test]
fn a_standby_that_is_promoted_meanwhile_ends_the_backup() {
    on_each_version(|installation| {
        let primary = start(installation);
        let standby = primary.standby().unwrap();
        let runtime = drive::runtime();
        let (mut backup, outcome) = drive::begin(&runtime, &drive::settings(&standby)).unwrap();
        let restored = standby.workspace().path().join("restored");
        let error = drive::finish(&mut backup, &outcome, &restored, Vec::new(), |step| {
            if is_last_file(step) {
                standby.promote().unwrap();
            }
        })
        .unwrap_err();
        assert!(error.to_string().contains("promoted during the backup"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(outcome.facts(), None);
        assert!(!restored.join("global/pg_control").exists());
    });
}

/// Pages of a copy from a standby are mended by the images in its primary's log.
#[test]
fn a_standby_whose_primary_writes_no_full_pages_is_refused_with_the_setting() {
    on_each_version(|installation| {
        let primary = start(installation);
        let standby = primary.standby().unwrap();
        primary.sql("ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf()").unwrap();
        // The checkpointer hears of it when it gets to it.
        wait_until(Duration::from_secs(30), "the setting is in force", || {
            primary.sql("CHECKPOINT").unwrap();
            primary.query_value("SELECT full_page_writes FROM pg_control_checkpoint()").unwrap() == "f"
        })
        .unwrap();
        standby.wait_for_replay_of(&primary).unwrap();
        let error = drive::begin(&drive::runtime(), &drive::settings(&standby)).map(drop).unwrap_err();
        assert!(error.hints().iter().any(|hint| hint.contains("full_page_writes = on")), "{error:?}");
    });
}

#[test]
fn a_role_without_rights_is_told_the_grants_and_with_them_it_works() {
    on_each_version(|installation| {
        let server = start(installation);
        server.create_role("backstay", "secret", "").unwrap();
        let settings = drive::settings_as(&server, "backstay", "secret");
        let runtime = drive::runtime();
        let error = drive::begin(&runtime, &settings).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("pg_backup_start(text, boolean)"), "{error}");
        for hint in error.hints() {
            let grant = hint.split('`').nth(1).unwrap();
            server.sql(grant).unwrap();
        }
        let (mut backup, outcome) = drive::begin(&runtime, &settings).unwrap();
        let restored = server.workspace().path().join("restored");
        drive::finish(&mut backup, &outcome, &restored, Vec::new(), |_| {}).unwrap();
        judge(installation, &server, &restored, |_| {});
    });
}

#[test]
fn a_wrong_password_an_absent_server_and_a_foreign_directory_are_told_apart() {
    on_each_version(|installation| {
        let mut server = start(installation);
        let runtime = drive::runtime();
        let begin = |settings| drive::begin(&runtime, &settings).err().unwrap();

        let wrong = begin(drive::settings_as(&server, "postgres", "wrong"));
        assert_eq!(wrong.kind(), ErrorKind::Denied);
        assert!(wrong.hints()[0].contains("`password`"), "{:?}", wrong.hints());
        assert!(!format!("{wrong} {wrong:?}").contains("\"wrong\""));

        let other = start(installation);
        let mut settings = drive::superuser_over_tcp(&server);
        settings.data_directory = Some(other.data_directory().to_owned());
        let foreign = begin(settings.clone());
        assert!(matches!(foreign, Error::ForeignDirectory { .. }), "{foreign}");

        settings.data_directory = Some(server.workspace().path().join("nowhere"));
        assert_eq!(begin(settings).kind(), ErrorKind::NotFound);

        let settings = drive::superuser_over_tcp(&server);
        server.stop(StopMode::Fast).unwrap();
        let absent = begin(settings);
        assert_eq!(absent.kind(), ErrorKind::Unavailable);
        assert!(absent.hints()[0].contains("`url`"), "{:?}", absent.hints());
    });
}

#[test]
fn a_copy_of_the_cluster_is_not_taken_for_the_cluster() {
    on_each_version(|installation| {
        let server = start(installation);
        let clone = server.workspace().path().join("clone");
        drive::copy(&server, &clone, Vec::new()).unwrap();
        let mut settings = drive::settings(&server);
        settings.data_directory = Some(clone);
        let error = drive::begin(&drive::runtime(), &settings).err().unwrap();
        assert!(matches!(error, Error::StaleDirectory { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    });
}

#[test]
fn a_server_that_is_killed_during_the_backup_ends_it() {
    on_each_version(|installation| {
        let mut server = start(installation);
        let runtime = drive::runtime();
        let settings = drive::settings(&server);
        let (mut backup, outcome) = drive::begin(&runtime, &settings).unwrap();
        let restored = server.workspace().path().join("restored");
        let mut killed = false;
        let error = drive::finish(&mut backup, &outcome, &restored, Vec::new(), |step| {
            if !killed && matches!(step, Step::Begin(spec) if spec.path.starts_with("base/")) {
                server.kill9().unwrap();
                killed = true;
            }
        })
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(outcome.facts(), None);
        assert!(!restored.join("global/pg_control").exists());
    });
}

#[test]
fn a_server_that_was_restarted_during_the_backup_is_named_as_the_reason() {
    on_each_version(|installation| {
        let mut server = start(installation);
        let runtime = drive::runtime();
        let settings = drive::settings(&server);
        let (mut backup, outcome) = drive::begin(&runtime, &settings).unwrap();
        let restored = server.workspace().path().join("restored");
        let error = drive::finish(&mut backup, &outcome, &restored, Vec::new(), |step| {
            if is_last_file(step) {
                server.restart().unwrap();
            }
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "the server was restarted during the backup");
    });
}

#[test]
fn a_cancelled_or_dropped_backup_leaves_nothing_at_the_server() {
    on_each_version(|installation| {
        let server = start(installation);
        let runtime = drive::runtime();
        let cancel = CancellationToken::new();
        let settings = drive::settings(&server);
        let begun = LocalBackup::start(&settings, "cancelled", cancel.clone());
        let (mut backup, _) = runtime.block_on(begun).unwrap();
        backup.next().unwrap();
        assert_eq!(server.query_value("SELECT count(*) FROM pg_replication_slots").unwrap(), "1");
        cancel.cancel();
        assert_eq!(backup.next().err().unwrap().kind(), ErrorKind::Cancelled);
        drop(backup);
        testkit::wait_until(std::time::Duration::from_secs(30), "the slot to go", || {
            server.query_value("SELECT count(*) FROM pg_replication_slots").unwrap() == "0"
        })
        .unwrap();
    });
}

#[test]
fn a_log_that_is_already_gone_is_an_error_that_names_the_segment() {
    on_each_version(|installation| {
        let options = PostgresOptions::default().configure("max_replication_slots = 0");
        let server = Postgres::start_new(installation, &options).unwrap();
        let runtime = drive::runtime();
        let (mut backup, outcome) = drive::begin(&runtime, &drive::settings(&server)).unwrap();
        let restored = server.workspace().path().join("restored");
        let error = drive::finish(&mut backup, &outcome, &restored, Vec::new(), |step| {
            if is_last_file(step) {
                server.sql("CREATE TABLE filler (n int)").unwrap();
                for _ in 0..3 {
                    server.sql("INSERT INTO filler VALUES (1); SELECT pg_switch_wal(); CHECKPOINT").unwrap();
                }
            }
        })
        .unwrap_err();
        assert!(error.to_string().contains("no longer has the log segment 00000001"), "{error}");
        assert!(error.hints()[0].contains("`max_replication_slots`"));
        assert_eq!(outcome.facts(), None);
    });
}

#[test]
fn a_probe_says_what_a_role_may_do_and_over_tls_too() {
    on_each_version(|installation| {
        let server = start(installation);
        server.create_role("backstay", "secret", "REPLICATION").unwrap();
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = certified.cert.pem();
        server.write_data_file("server.crt", certificate.as_bytes(), 0o600).unwrap();
        server
            .write_data_file("server.key", certified.signing_key.serialize_pem().as_bytes(), 0o600)
            .unwrap();
        server.append_configuration(&["ssl = on"]).unwrap();
        server.reload().unwrap();
        let root = server.workspace().path().join("root.crt");
        fs::write(&root, certificate).unwrap();
        let runtime = drive::runtime();
        let look = |host: &str, mode: &str| {
            let mut settings = drive::settings_as(&server, "backstay", "secret");
            settings.url = format!(
                "host={host} port={} user=backstay dbname=postgres sslmode={mode} channel_binding=require",
                server.port()
            );
            settings.ssl_root_certificate = Some(root.clone());
            runtime.block_on(backstay_engine::postgres::probe::probe(&settings))
        };
        testkit::wait_until(std::time::Duration::from_secs(30), "the server to offer TLS", || {
            look("localhost", "require").is_ok()
        })
        .unwrap();
        let health = look("localhost", "verify-full").unwrap();
        assert!(health.may_back_up_remotely && !health.may_back_up_locally && !health.in_recovery);
        assert!(health.latency_seconds > 0.0 && health.connect_seconds >= health.latency_seconds);
        look("127.0.0.1", "verify-ca").unwrap();
        let error = look("127.0.0.1", "verify-full").unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    });
}
