//! Tablespaces that were made while a backup ran, whose places are the source's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstay_model::error::Classified as _;
use backstay_model::{BackupId, FindingLevel, RecoveryTarget};
use backstay_ops::backup::BackupOptions;
use backstay_ops::drill::DrillOptions;
use backstay_ops::{Error, backup, drill};
use backstay_repo::store::faulty::{FaultyStore, Injection};
use testkit::PostgresVersion;

use crate::house::House;

/// A backup during which a tablespace of that name comes into being.
async fn backup_with_late_tablespace(house: &Arc<House>, name: &'static str, place: &Path) -> BackupId {
    let statement = format!("CREATE TABLESPACE {name} LOCATION '{}'", place.display());
    let (inside, done) = (Arc::clone(house), AtomicBool::new(false));
    let context = house
        .with_store(|disk| {
            FaultyStore::new(disk, move |call| {
                if call.object.contains("/packs/") && call.bytes > 0 && !done.swap(true, Ordering::SeqCst) {
                    inside.server.sql(&statement).unwrap();
                }
                Injection::Pass
            })
        })
        .await;
    backup::run(&context, &house.instance, &BackupOptions::default()).await.unwrap().id
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_passes_over_a_backup_that_it_could_not_keep_inside_its_directory() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    let house = Arc::new(house);
    let places = ["first", "second"].map(|name| house.workspace.directory(name).unwrap());
    let directory = house.workspace.directory("drills").unwrap();
    let options = DrillOptions { target: Some(RecoveryTarget::Latest), directory, keep: false, fetch: None };

    let late = backup_with_late_tablespace(&house, "one", &places[0]).await;
    let before = entries(&places[0]);
    let error = drill::run(&house.context, &house.instance, &options).await.unwrap_err();
    assert!(matches!(&error, Error::DrillOutside { backup, .. } if *backup == late), "{error:?}");
    assert!(error.hints()[0].contains("`backstay backup`"), "{:?}", error.hints());
    assert_eq!((entries(&places[0]), entries(&options.directory)), (before, 0));

    let fit = backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    // So much is new that a pack of it is stored before the copy has ended.
    let bulk = "CREATE TABLE bulk AS SELECT md5(random()::text) FROM generate_series(1, 400000)";
    house.server.sql(bulk).unwrap();
    let late = backup_with_late_tablespace(&house, "two", &places[1]).await;
    // As on another machine, where the drill would have been free to write there.
    house.server.sql("DROP TABLESPACE two").unwrap();
    std::fs::remove_dir(&places[1]).unwrap();
    let report = drill::run(&house.context, &house.instance, &options).await.unwrap();
    assert_eq!(report.backup, fit.id);
    assert!(report.sound, "{report:#?}");
    let about = format!("backup {late}");
    let told = report.findings.iter().find(|finding| finding.subject == about).unwrap();
    assert_eq!(told.level, FindingLevel::Warning);
    assert!(!places[1].exists(), "the drill wrote outside of its directory");
    assert_eq!(entries(&options.directory), 0);
}
