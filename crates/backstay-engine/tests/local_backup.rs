//! The local way against real servers: what comes back is what was there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

#[path = "local_backup/drive.rs"]
mod drive;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use backstay_engine::Error;
use backstay_engine::postgres::local::LocalBackup;
use backstay_engine::postgres::place::{PlaceOptions, PlacePlan, SpaceNeeded};
use backstay_model::error::Classified;
use backstay_model::parts::{ExtentData, PartKind, PartSource, Step};
use backstay_model::{ErrorKind, FindingLevel};
use testkit::{Installation, Postgres, PostgresOptions, PostgresVersion, StopMode, require_postgres};
use tokio_util::sync::CancellationToken;

/// Runs a test on each version of PostgreSQL that is there.
fn on_each_version(test: impl Fn(&Installation)) {
    for version in PostgresVersion::ALL {
        if let Some(installation) = require_postgres(version) {
            test(&installation);
        }
    }
}

fn start(installation: &Installation) -> Postgres {
    Postgres::start_new(installation, &PostgresOptions::default()).unwrap()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Every judge that PostgreSQL itself brings along.
fn judge(installation: &Installation, server: &Postgres, restored: &Path, look: impl FnOnce(&Postgres)) {
    run(server.tool("pg_verifybackup").arg("-n").arg(restored));
    let mut copy = Postgres::start_on(installation, restored).unwrap();
    look(&copy);
    run(copy.tool("pg_amcheck").args(["--all", "--install-missing"]));
    copy.stop(StopMode::Fast).unwrap();
    if server.query_value("SHOW data_checksums").unwrap() == "on" {
        run(copy.tool("pg_checksums").arg("--check").arg(restored));
    }
}

/// `pg_control` begins when everything else has been read.
fn is_last_file(step: &Step) -> bool {
    matches!(step, Step::Begin(spec) if spec.path == "global/pg_control")
}

#[test]
fn a_backup_under_load_restores_whole() {
    on_each_version(|installation| {
        let server = start(installation);
        server.pgbench_init(5).unwrap();
        let load = server.pgbench_load().unwrap();
        let restored = server.workspace().path().join("restored");
        let (stored, outcome) = drive::copy(&server, &restored, Vec::new()).unwrap();
        load.stop();
        assert_eq!(outcome.findings(), []);
        assert!(stored.facts.stop_lsn > stored.facts.start_lsn);
        assert!(!stored.files.iter().any(|file| file.spec.path.contains("pg_internal.init")));
        judge(installation, &server, &restored, |copy| {
            let sums = copy.pgbench_sums().unwrap();
            assert!(sums.agree(), "{sums:?}");
            assert_eq!(copy.query_value("SELECT count(*) FROM pgbench_accounts").unwrap(), "500000");
            assert_eq!(copy.query_value("SHOW archive_mode").unwrap(), "off");
        });
    });
}

#[test]
fn the_log_inside_a_backup_is_all_it_needs_to_verify() {
    on_each_version(|installation| {
        let server = start(installation);
        server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n").unwrap();
        let restored = server.workspace().path().join("restored");
        drive::copy(&server, &restored, Vec::new()).unwrap();
        // Without -n: pg_waldump reads the range of the manifest from pg_wal.
        run(server.tool("pg_verifybackup").arg(&restored));
    });
}

#[test]
fn tablespaces_move_and_unlogged_tables_come_back_empty() {
    on_each_version(|installation| {
        let server = start(installation);
        let space = server.workspace().directory("space").unwrap();
        server.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display())).unwrap();
        server
            .sql(
                "CREATE TABLE far (n int) TABLESPACE fast; INSERT INTO far SELECT generate_series(1, 5000); \
                 CREATE UNLOGGED TABLE lost (n int); INSERT INTO lost SELECT generate_series(1, 5000); \
                 CREATE INDEX ON lost (n); CHECKPOINT",
            )
            .unwrap();
        let restored = server.workspace().path().join("restored");
        let moved = server.workspace().path().join("moved space");
        let arguments = vec![("fast".to_owned(), moved.clone())];
        let (stored, _) = drive::copy(&server, &restored, arguments).unwrap();
        assert_eq!(stored.facts.server.tablespaces.len(), 1);
        judge(installation, &server, &restored, |copy| {
            assert_eq!(copy.query_value("SELECT count(*) FROM far").unwrap(), "5000");
            assert_eq!(copy.query_value("SELECT count(*) FROM lost").unwrap(), "0");
            let location = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'";
            assert_eq!(copy.query_value(location).unwrap(), moved.display().to_string());
            copy.sql("INSERT INTO lost VALUES (1)").unwrap();
        });
    });
}

#[test]
fn files_may_vanish_grow_and_shrink_while_they_are_read() {
    on_each_version(|installation| {
        let server = start(installation);
        server
            .sql(
                "CREATE TABLE goes AS SELECT generate_series(1, 200000) AS n; \
                 CREATE TABLE grows AS SELECT generate_series(1, 1000) AS n; \
                 CREATE TABLE shrinks AS SELECT generate_series(1, 300000) AS n; CHECKPOINT",
            )
            .unwrap();
        let shrinks = server.query_value("SELECT pg_relation_filepath('shrinks')").unwrap();
        let runtime = drive::runtime();
        let (mut backup, outcome) = drive::begin(&runtime, &drive::settings(&server)).unwrap();
        let restored = server.workspace().path().join("restored");
        let mut begun = false;
        let stored = drive::finish(&mut backup, &outcome, &restored, Vec::new(), |step| match step {
            Step::Begin(spec) if spec.path == "PG_VERSION" => {
                server
                    .sql("DROP TABLE goes; INSERT INTO grows SELECT generate_series(1, 500000); CHECKPOINT")
                    .unwrap();
            }
            // Its size is known, and no byte of it has been read.
            Step::Begin(spec) if spec.path == shrinks => {
                server.sql("DELETE FROM shrinks WHERE n > 10").unwrap();
                server.sql("VACUUM shrinks").unwrap();
                server.sql("CHECKPOINT").unwrap();
                begun = true;
            }
            _ => {}
        })
        .unwrap();
        assert!(begun && stored.files.len() > 100);
        judge(installation, &server, &restored, |copy| {
            assert_eq!(copy.query_value("SELECT count(*) FROM grows").unwrap(), "501000");
            assert_eq!(copy.query_value("SELECT count(*) FROM shrinks").unwrap(), "10");
            assert_eq!(copy.query_value("SELECT to_regclass('goes') IS NULL").unwrap(), "t");
        });
    });
}

#[test]
fn a_damaged_page_is_a_finding_and_not_the_end() {
    on_each_version(|installation| {
        let mut server = start(installation);
        server.sql("CREATE TABLE t AS SELECT generate_series(1, 10000) AS n; CHECKPOINT").unwrap();
        let path = server.query_value("SELECT pg_relation_filepath('t')").unwrap();
        server.stop(StopMode::Fast).unwrap();
        let file = fs::OpenOptions::new().write(true).open(server.data_directory().join(&path)).unwrap();
        file.write_all_at(b"rot", 3 * 8192 + 5000).unwrap();
        server.start().unwrap();
        let restored = server.workspace().path().join("restored");
        let (_, outcome) = drive::copy(&server, &restored, Vec::new()).unwrap();
        let findings = outcome.findings();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((findings[0].level, &findings[0].subject), (FindingLevel::Error, &path));
        assert!(findings[0].message.starts_with("page 3 "), "{}", findings[0].message);
    });
}

#[test]
fn a_standby_is_backed_up_as_well_as_its_primary() {
    on_each_version(|installation| {
        let primary = start(installation);
        primary.pgbench_init(2).unwrap();
        let standby = primary.standby().unwrap();
        let load = primary.pgbench_load().unwrap();
        standby.wait_for_replay_of(&primary).unwrap();
        let restored = standby.workspace().path().join("restored");
        let (stored, _) = drive::copy(&standby, &restored, Vec::new()).unwrap();
        load.stop();
        assert!(stored.facts.from_standby);
        assert!(!stored.files.iter().any(|file| file.spec.path == "standby.signal"));
        judge(installation, &standby, &restored, |copy| {
            assert_eq!(copy.query_value("SELECT pg_is_in_recovery()").unwrap(), "f");
            assert!(copy.pgbench_sums().unwrap().agree());
        });
    });
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

#[test]
fn a_promoted_server_is_backed_up_with_the_history_of_its_timeline() {
    on_each_version(|installation| {
        let primary = start(installation);
        let standby = primary.standby().unwrap();
        standby.promote().unwrap();
        let restored = standby.workspace().path().join("restored");
        let (stored, _) = drive::copy(&standby, &restored, Vec::new()).unwrap();
        assert_eq!(stored.facts.timeline.0, 2);
        assert!(stored.files.iter().any(|file| file.spec.path == "pg_wal/00000002.history"));
        judge(installation, &standby, &restored, |copy| {
            assert_eq!(copy.query_value("SELECT 1").unwrap(), "1");
        });
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
fn pg_control_comes_between_two_barriers_and_the_log_after_both() {
    on_each_version(|installation| {
        let server = start(installation);
        let runtime = drive::runtime();
        let (mut backup, _) = drive::begin(&runtime, &drive::settings(&server)).unwrap();
        let (mut order, mut buffer) = (Vec::new(), Vec::new());
        while let Some(step) = backup.next().unwrap() {
            match step {
                Step::Begin(spec) => order.push(spec.path),
                Step::Barrier => order.push("|".into()),
                Step::Extent { data: ExtentData::Read(reader), .. } => reader.read(&mut buffer).unwrap(),
                Step::Extent { .. } => panic!("nothing is unchanged"),
            }
        }
        let control = order.iter().position(|path| path == "global/pg_control").unwrap();
        assert_eq!(order[control - 1], "|", "every page has been read before it");
        assert_eq!(order[control + 1..control + 3], ["|", "backup_label"]);
        assert!(order[control + 3..].iter().all(|path| path.starts_with("pg_wal/")));
        let walked = &order[..control - 1];
        assert!(walked.is_sorted(), "the walk is in the order of paths");
    });
}

#[test]
fn an_interrupted_restore_cannot_be_started() {
    on_each_version(|installation| {
        let server = start(installation);
        let runtime = drive::runtime();
        let (mut backup, _) = drive::begin(&runtime, &drive::settings(&server)).unwrap();
        let restored = server.workspace().path().join("restored");
        let options = PlaceOptions { directory: restored.clone(), ..PlaceOptions::default() };
        let target = PlacePlan::check(&options, &SpaceNeeded::default()).unwrap().begin().unwrap();
        let files = drive::pump(&mut backup, &target, |_| {}).unwrap();
        assert!(files.iter().any(|file| file.spec.path == "global/pg_control"));
        drop(target);
        assert!(Postgres::start_on(installation, &restored).is_err());
    });
}

#[test]
fn every_part_has_the_shape_the_contract_asks_for() {
    on_each_version(|installation| {
        let server = start(installation);
        let restored = server.workspace().path().join("restored");
        let (stored, _) = drive::copy(&server, &restored, Vec::new()).unwrap();
        let mut paths = std::collections::HashSet::new();
        for file in &stored.files {
            let spec = &file.spec;
            assert!(paths.insert(spec.path.clone()), "{} comes twice", spec.path);
            if let PartKind::File(shape) = &spec.kind {
                assert!(shape.block_size.is_power_of_two(), "{}", spec.path);
                assert!((512..=128 << 10).contains(&shape.block_size), "{}", spec.path);
                assert!(file.crc32c.is_some() || shape.size == 0 || !spec.path.is_empty());
            }
        }
        assert!(paths.contains("backup_label") && paths.contains("pg_wal/archive_status"));
    });
}

#[test]
fn configuration_outside_of_the_data_directory_comes_along_and_fits() {
    on_each_version(|installation| {
        let mut server = start(installation);
        // As Debian lays it out: the data directory holds no settings of its own.
        server.stop(StopMode::Fast).unwrap();
        let etc = server.workspace().directory("etc").unwrap();
        let data = server.data_directory().to_owned();
        for name in ["pg_hba.conf", "pg_ident.conf"] {
            fs::copy(data.join(name), etc.join(name)).unwrap();
            fs::remove_file(data.join(name)).unwrap();
        }
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(&etc, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["pg_hba.conf", "pg_ident.conf"] {
            fs::set_permissions(etc.join(name), open.clone()).unwrap();
        }
        let lines = [
            format!("hba_file = '{}'", etc.join("pg_hba.conf").display()),
            format!("ident_file = '{}'", etc.join("pg_ident.conf").display()),
        ];
        server.append_configuration(&[&lines[0], &lines[1]]).unwrap();
        server.start().unwrap();
        let restored = server.workspace().path().join("restored");
        let (stored, outcome) = drive::copy(&server, &restored, Vec::new()).unwrap();
        assert_eq!(outcome.findings(), []);
        assert_eq!(stored.facts.server.outside_configuration.len(), 2);
        assert!(restored.join("pg_hba.conf").exists() && restored.join("pg_ident.conf").exists());
        judge(installation, &server, &restored, |_| {});
    });
}

#[test]
fn without_slots_a_backup_goes_on_and_says_so() {
    on_each_version(|installation| {
        let options = PostgresOptions::default()
            .configure("max_replication_slots = 0")
            .configure("wal_keep_size = 64MB")
            .wal_segment_mib(4)
            .without_checksums();
        let server = Postgres::start_new(installation, &options).unwrap();
        server.pgbench_init(1).unwrap();
        let restored = server.workspace().path().join("restored");
        let (stored, outcome) = drive::copy(&server, &restored, Vec::new()).unwrap();
        assert_eq!(stored.facts.server.wal_segment_size, 4 << 20);
        let findings = outcome.findings();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].level, FindingLevel::Info);
        assert!(findings[0].remedy.contains("`max_replication_slots`"));
        judge(installation, &server, &restored, |copy| assert!(copy.pgbench_sums().unwrap().agree()));
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
