//! Back up, write more, back up the change, verify, restore, start, prove.

use backstay_model::error::Classified;
use backstay_model::status::Health;
use backstay_model::{BackupType, ErrorKind, VerifyLevel};
use backstay_ops::backup::BackupOptions;
use backstay_ops::drill::DrillOptions;
use backstay_ops::restore::RestoreOptions;
use backstay_ops::verify::Subject;
use backstay_ops::{backup, drill, list, restore, status, verify};
use testkit::{Postgres, PostgresVersion};

use crate::house::House;

const COUNT: &str = "SELECT count(*) || ' ' || coalesce(sum(hashtext(t::text)::bigint), 0) FROM orders t";

/// The whole way, with everything that must hold on it.
async fn story(mut house: House, local: bool) {
    if !local {
        house.settings().data_directory = None;
    }
    let options = BackupOptions::default();
    house
        .server
        .sql("CREATE TABLE orders AS SELECT n, md5(n::text) AS text FROM generate_series(1, 200000) n")
        .unwrap();
    // Or the first reader sets a hint on every page, and every page is changed.
    house.server.sql("VACUUM (FREEZE) orders").unwrap();
    let first = backup::run(&house.context, &house.instance, &options).await.unwrap();
    assert_eq!((first.backup_type, &first.parent), (BackupType::Full, &None));
    assert_eq!(first.findings, []);
    assert!(first.encrypted && first.files > 500 && first.stored_bytes < first.logical_bytes / 2);

    house.server.sql("UPDATE orders SET text = 'changed' WHERE n % 5000 = 0; CHECKPOINT").unwrap();
    let second = backup::run(&house.context, &house.instance, &options).await.unwrap();
    assert_eq!((second.backup_type, second.parent.as_ref()), (BackupType::Incremental, Some(&first.id)));
    assert!(
        second.stored_bytes < first.stored_bytes / 2,
        "{} of {}",
        second.stored_bytes,
        first.stored_bytes
    );
    let expected = house.server.query_value(COUNT).unwrap();

    let listed = list::run(&house.context, Some(&house.instance.id)).await.unwrap();
    assert_eq!(listed.backups.iter().map(|backup| &backup.id).collect::<Vec<_>>(), [&second.id, &first.id]);
    let detail = list::show(&house.context, &first.id).await.unwrap();
    assert_eq!(detail.summary.stop_position, first.stop_position);
    assert!(detail.facts.is_object());

    for level in [VerifyLevel::Existence, VerifyLevel::Structure, VerifyLevel::Digest] {
        let report = verify::run(&house.context, &Subject::All, level).await.unwrap();
        assert_eq!((report.exit_code(), &report.findings), (0, &Vec::new()), "{level}");
        assert!(report.objects_read > 0);
    }
    let looked = list::show(&house.context, &second.id).await.unwrap();
    assert!(looked.summary.verified_at.is_some());

    // What was not in the backup must not be in the restored copy.
    house.server.sql("DELETE FROM orders").unwrap();
    let into = house.place("restored");
    let options = RestoreOptions { into: into.clone(), start: true, ..RestoreOptions::default() };
    let plan = restore::plan(&house.context, &house.instance, &options).await.unwrap();
    assert_eq!(plan.refusals, []);
    assert_eq!(plan.base.as_ref(), Some(&second.id));
    assert!(!into.exists(), "a plan has written something");
    let report = restore::run(&house.context, &house.instance, &options, plan).await.unwrap();
    let proof = report.proof.unwrap();
    assert!(proof.sound, "{:?}", proof.checks);
    assert!(report.restored_bytes >= second.logical_bytes);
    assert!(report.recovery_time_seconds.unwrap() <= report.duration_seconds);

    let restored = Postgres::start_on(house.server.installation(), &into).unwrap();
    assert_eq!(restored.query_value(COUNT).unwrap(), expected);
    drop(restored);

    // The same place a second time is refused by the plan, and nothing is touched.
    let plan = restore::plan(&house.context, &house.instance, &options).await.unwrap();
    assert_eq!(plan.refusals[0].kind, ErrorKind::Conflict);
    let refused = restore::run(&house.context, &house.instance, &options, plan).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);

    let named = RestoreOptions {
        backup: Some(first.id.clone()),
        into: house.place("older"),
        ..RestoreOptions::default()
    };
    let plan = restore::plan(&house.context, &house.instance, &named).await.unwrap();
    assert_eq!(plan.base, Some(first.id));
    restore::run(&house.context, &house.instance, &named, plan).await.unwrap();
    let older = Postgres::start_on(house.server.installation(), &named.into).unwrap();
    assert_eq!(older.query_value("SELECT count(*) FROM orders WHERE text = 'changed'").unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_by_the_local_way_is_restored_and_proved() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    story(house, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_over_the_network_is_restored_and_proved() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    story(house, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_version_17_is_restored_and_proved() {
    let Some(house) = House::build(PostgresVersion::V17).await else { return };
    house.server.append_configuration(&["summarize_wal = on"]).unwrap();
    house.server.reload().unwrap();
    story(house, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_proves_measures_and_leaves_nothing() {
    let Some(mut house) = House::build(PostgresVersion::V15).await else { return };
    house.server.pgbench_init(2).unwrap();
    house.server.sql("CREATE DATABASE second").unwrap();
    let made = backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();

    let mut options = DrillOptions {
        target: None,
        directory: house.workspace.directory("drills").unwrap(),
        keep: false,
        fetch: None,
    };
    let report = drill::run(&house.context, &house.instance, &options).await.unwrap();
    assert!(report.sound, "{report:?}");
    assert_eq!(report.backup, made.id);
    for seconds in [report.place_seconds, report.recover_seconds, report.prove_seconds] {
        assert!(seconds.unwrap() > 0.0);
    }
    assert!(report.checks.len() >= 2);
    assert_eq!(std::fs::read_dir(&options.directory).unwrap().count(), 0, "the drill left something");

    let state = status::run(&house.context, &house.instance, None).await.unwrap();
    assert_eq!(state.health, Health::Ok, "{:?}", state.health_reason);
    // Through JSON, which may lose the last digit.
    let noted_seconds = state.last_drill.unwrap().recovery_time_seconds.unwrap();
    assert!((noted_seconds - report.recovery_time_seconds.unwrap()).abs() < 1e-9, "{noted_seconds}");
    assert_eq!(state.recovery_windows.len(), 1);
    assert_eq!(state.recovery_windows[0].to, made.finished_at);
    assert!(state.recovery_point_age_seconds.unwrap() > 0.0);

    // With a measurement, the next plan expects what was measured.
    let into = house.place("planned");
    let planned = RestoreOptions { into, start: true, ..RestoreOptions::default() };
    let plan = restore::plan(&house.context, &house.instance, &planned).await.unwrap();
    assert!(plan.expected_seconds >= report.recover_seconds.unwrap() && plan.expected_seconds < 60.0);

    options.keep = true;
    let kept = drill::run(&house.context, &house.instance, &options).await.unwrap();
    let directory = kept.kept_at.unwrap();
    assert!(std::path::Path::new(&directory).join("PG_VERSION").exists());

    // The server being away is what status is for.
    house.server.stop(testkit::StopMode::Fast).unwrap();
    let state = status::run(&house.context, &house.instance, None).await.unwrap();
    assert_eq!(state.health, Health::Down);
    assert!(state.last_backup.is_some() && state.health_reason.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn tablespaces_go_where_they_are_sent_and_a_drill_keeps_away_from_their_places() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    let space = house.server.workspace().directory("space").unwrap();
    testkit::ownership::server_owner().unwrap().take(&space).unwrap();
    house.server.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display())).unwrap();
    house
        .server
        .sql("CREATE TABLE orders TABLESPACE fast AS SELECT n, md5(n::text) FROM generate_series(1, 9000) n")
        .unwrap();
    backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();

    // Its own place is in use, so without a word about it the plan refuses.
    let mut options = RestoreOptions { into: house.place("restored"), ..RestoreOptions::default() };
    let plan = restore::plan(&house.context, &house.instance, &options).await.unwrap();
    assert_eq!(plan.refusals[0].kind, ErrorKind::Conflict);
    assert!(plan.refusals[0].message.contains(space.to_str().unwrap()), "{:?}", plan.refusals);

    options.tablespaces.push((space.display().to_string(), house.place("moved")));
    let plan = restore::plan(&house.context, &house.instance, &options).await.unwrap();
    restore::run(&house.context, &house.instance, &options, plan).await.unwrap();
    let restored = Postgres::start_on(house.server.installation(), &options.into).unwrap();
    assert_eq!(restored.query_value("SELECT count(*) FROM orders").unwrap(), "9000");
    drop(restored);

    let before = std::fs::read_dir(&space).unwrap().count();
    let drills = house.workspace.directory("drills").unwrap();
    let with = DrillOptions { target: None, directory: drills.clone(), keep: false, fetch: None };
    let report = drill::run(&house.context, &house.instance, &with).await.unwrap();
    assert!(report.sound, "{report:?}");
    assert_eq!(std::fs::read_dir(&drills).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(&space).unwrap().count(), before);

    let nowhere = DrillOptions { directory: house.place("not-there"), ..with };
    let error = drill::run(&house.context, &house.instance, &nowhere).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.hints()[0].contains("drill.directory"));
}
