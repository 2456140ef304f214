//! The schema of a copy beside that of its source at the end of the backup.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstay_engine::postgres::connect::Session;
use backstay_engine::postgres::schema::look;
use backstay_model::RecoveryTarget;
use backstay_model::drill::DrillReport;
use backstay_ops::backup::BackupOptions;
use backstay_ops::drill::DrillOptions;
use backstay_ops::instance::EngineSettings;
use backstay_ops::{backup, drill};
use backstay_repo::store::faulty::{FaultyStore, Injection};
use testkit::PostgresVersion;

use crate::house::House;

/// Runs statements when the first byte of a pack is about to be stored, and drills the
/// backup that was taken meanwhile.
async fn drilled_after(meanwhile: &'static str, local: bool) -> Option<DrillReport> {
    let mut house = House::build(PostgresVersion::V15).await?;
    if !local {
        house.settings().data_directory = None;
    }
    house.server.sql("CREATE TABLE orders (id int PRIMARY KEY, at text); CREATE DATABASE other").unwrap();
    let house = Arc::new(house);
    let (inside, done) = (Arc::clone(&house), AtomicBool::new(false));
    let context = house
        .with_store(|disk| {
            FaultyStore::new(disk, move |call| {
                if call.object.contains("/packs/") && call.bytes > 0 && !done.swap(true, Ordering::SeqCst) {
                    inside.server.sql(meanwhile).unwrap();
                }
                Injection::Pass
            })
        })
        .await;
    backup::run(&context, &house.instance, &BackupOptions::default()).await.unwrap();
    let directory = house.workspace.directory("drills").unwrap();
    let options = DrillOptions { target: Some(RecoveryTarget::Latest), directory, keep: false, fetch: None };
    Some(drill::run(&house.context, &house.instance, &options).await.unwrap())
}

/// Whether the schema of a database was compared, and was the same.
fn compared(report: &DrillReport, database: &str) -> Option<bool> {
    let name = format!("schema in {database}");
    let told = report.findings.iter().any(|finding| finding.subject == name);
    let check = report.checks.iter().find(|check| check.name == name);
    assert!(told != check.is_some(), "{report:#?}");
    check.map(|check| check.ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_compares_the_schemas_that_held_and_says_which_did_not() {
    // What comes during a backup, and goes or stays, is in nobody's way.
    let comes = "CREATE TABLE late (n int); CREATE TABLE staging (n int); DROP TABLE staging; \
                 INSERT INTO orders VALUES (1, 'x'); ANALYZE";
    let Some(report) = drilled_after(comes, false).await else { return };
    assert!(report.sound, "{report:#?}");
    for database in ["postgres", "other"] {
        assert_eq!(compared(&report, database), Some(true), "{report:#?}");
    }
    let check = report.checks.iter().find(|check| check.name == "schema in postgres").unwrap();
    assert!(check.expected.contains("relations") && check.expected.contains("digest"), "{check:?}");

    let Some(report) = drilled_after("ALTER TABLE orders ADD COLUMN late text", true).await else { return };
    assert!(report.sound, "{report:#?}");
    assert_eq!(compared(&report, "postgres"), None, "it changed, and was compared");
    assert_eq!(compared(&report, "other"), Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_or_different_in_a_copy_makes_its_schema_another() {
    for version in PostgresVersion::ALL {
        let Some(house) = House::build(version).await else { continue };
        let sql = |text: &str| house.server.sql(text).unwrap();
        sql(
            "CREATE TABLE t (a int PRIMARY KEY, b text); CREATE INDEX by_b ON t (b); CREATE VIEW v AS SELECT a FROM t; \
             CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        );
        let EngineSettings::Postgresql(settings) = &house.instance.engine else { panic!("another engine") };
        let session = Session::open(&settings.address().unwrap()).await.unwrap();
        let before = look(&session, None).await.unwrap();
        let now = async || look(&session, Some(before.horizon)).await.unwrap();

        for harmless in [
            "INSERT INTO t SELECT n, 'x' FROM generate_series(1, 1000) n",
            "VACUUM FULL t",
            "ANALYZE",
            "CREATE TABLE later (n int)",
            "DROP TABLE later",
            "REINDEX TABLE t",
        ] {
            sql(harmless);
            assert_eq!(now().await, before, "{harmless}");
        }
        session.execute("make a temporary table", "CREATE TEMP TABLE mine (n int)").await.unwrap();
        assert_eq!(now().await, before);

        for different in [
            "ALTER TABLE t RENAME COLUMN b TO c",
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
            "DROP INDEX by_b",
            "DROP VIEW v",
            "ALTER TABLE t ALTER a TYPE bigint",
            "DROP TABLE t",
        ] {
            let reference = now().await;
            sql(different);
            assert_ne!(now().await, reference, "{different}");
        }
    }
}
