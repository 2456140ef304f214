//! The local way against real servers: what comes back is what was there.
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
use std::io::Write as _;
use std::os::unix::fs::{FileExt, PermissionsExt};

use backstay_engine::postgres::place::{PlaceOptions, PlacePlan, SpaceNeeded};
use backstay_model::FindingLevel;
use backstay_model::parts::{ExtentData, PartKind, PartSource, Step};
use testkit::{Postgres, PostgresOptions, StopMode};

use judge::{judge, on_each_version, run, start};

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
fn a_tablespace_made_during_the_copy_is_known_and_said() {
    on_each_version(|installation| {
        let server = start(installation);
        let space = server.workspace().directory("space").unwrap();
        let runtime = drive::runtime();
        let (mut backup, outcome) = drive::begin(&runtime, &drive::settings(&server)).unwrap();
        let restored = server.workspace().path().join("restored");
        let stored = drive::finish(&mut backup, &outcome, &restored, Vec::new(), |step| {
            if matches!(step, Step::Begin(spec) if spec.path == "PG_VERSION") {
                server.sql(&format!("CREATE TABLESPACE late LOCATION '{}'", space.display())).unwrap();
            }
        })
        .unwrap();
        assert_eq!(stored.facts.server.tablespaces, []);
        let [late] = stored.facts.late_tablespaces.as_slice() else { panic!("{:?}", stored.facts) };
        assert_eq!(late.location, space.display().to_string());
        let [finding] = &outcome.findings()[..] else { panic!("{:?}", outcome.findings()) };
        assert_eq!((finding.level, finding.subject.as_str()), (FindingLevel::Warning, "tablespace late"));
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
        // As some program may write it: of more bytes than are handed out at once.
        let mut ident = fs::read(etc.join("pg_ident.conf")).unwrap();
        for user in 0..20_000 {
            writeln!(ident, "map user{user} role{user}").unwrap();
        }
        fs::write(etc.join("pg_ident.conf"), &ident).unwrap();
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
        assert!(restored.join("pg_hba.conf").exists());
        assert_eq!(fs::read(restored.join("pg_ident.conf")).unwrap(), ident);
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
