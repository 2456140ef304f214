//! Drills that were killed, and the next drill that cleans up after them.

use std::fs;
use std::path::Path;

use backstay_ops::backup::BackupOptions;
use backstay_ops::drill::DrillOptions;
use backstay_ops::{backup, drill};
use testkit::{Postgres, PostgresVersion};

use super::house::House;

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_ends_the_server_of_a_dead_one_and_removes_its_directory() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    let directory = house.workspace.directory("drills").unwrap();
    let keeping = DrillOptions { target: None, directory: directory.clone(), keep: true, fetch: None };
    let keep = async || {
        let report = drill::run(&house.context, &house.instance, &keeping).await.unwrap();
        Path::new(&report.kept_at.unwrap()).to_owned()
    };
    let (killed, kept) = (keep().await, keep().await);
    // As a drill looks that was killed together with whoever guards its server.
    fs::write(killed.parent().unwrap().join("running"), "").unwrap();
    let server = Postgres::start_on(house.server.installation(), &killed).unwrap();
    let pid = fs::read_to_string(killed.join("postmaster.pid")).unwrap();
    let process = Path::new("/proc").join(pid.lines().next().unwrap());
    assert!(process.exists());

    let next = DrillOptions { keep: false, ..keeping.clone() };
    let report = drill::run(&house.context, &house.instance, &next).await.unwrap();
    assert!(report.sound && report.findings.is_empty(), "{report:?}");
    assert!(!killed.exists() && kept.exists());
    drop(server);
    assert!(!process.exists());
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "only what was to be kept is there");
}
