//! A clock that jumps a year back or a year ahead, between backups and during one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstay_model::policy::RetentionPolicy;
use backstay_model::status::Health;
use backstay_model::{BackupSummary, VerifyLevel};
use backstay_ops::backup::BackupOptions;
use backstay_ops::collect::CollectOptions;
use backstay_ops::restore::RestoreOptions;
use backstay_ops::verify::Subject;
use backstay_ops::{Clock as _, backup, collect, expire, list, restore, status, verify};
use backstay_repo::store::faulty::{FaultyStore, Injection};
use jiff::SignedDuration;
use testkit::PostgresVersion;
use tokio::runtime::Handle;

use crate::house::House;

const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);
const INCREMENT: BackupOptions = BackupOptions { full: false, compression_level: None };

async fn sound(house: &House) -> Vec<String> {
    let report = verify::run(&house.context, &Subject::All, VerifyLevel::Digest).await.unwrap();
    assert_eq!(report.exit_code(), 0, "{report:?}");
    let listed = list::run(&house.context, None).await.unwrap().backups;
    listed.iter().map(|backup| backup.id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_unique_and_every_backup_is_whole_whatever_the_clock_did_before_it() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    let mut taken = Vec::new();
    for jump in [SignedDuration::ZERO, YEAR, -2 * YEAR] {
        house.clock.turn(jump);
        // Twice at the same time: the clock goes back to where it was.
        let began = house.clock.now();
        for _ in 0..2 {
            house.server.sql("CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)").unwrap();
            let made = backup::run(&house.context, &house.instance, &INCREMENT).await.unwrap();
            taken.push(made.id.to_string());
            house.clock.turn(began.duration_since(house.clock.now()));
        }
        house.clock.turn(SignedDuration::from_mins(1));
    }
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len(), "{taken:?}");
    // Listed newest first, in the order in which they were taken.
    taken.reverse();
    assert_eq!(sound(&house).await, taken);
}

/// A backup, and then another while the clock is a year behind.
async fn taken_behind(house: &House) -> BackupSummary {
    backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    house.clock.turn(-YEAR);
    let last = backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    house.clock.turn(YEAR);
    assert!(last.findings.iter().any(|finding| finding.subject == "the clock"), "{last:?}");
    assert!(last.started_at <= last.finished_at && last.duration_seconds < 3600.0, "{last:?}");
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_from_the_future_has_no_age_and_gives_its_time_to_no_other() {
    let Some(mut house) = House::build(PostgresVersion::V15).await else { return };
    house.instance.policy.keep = RetentionPolicy { last: 1, ..RetentionPolicy::default() };
    house.clock.turn(YEAR);
    let wrong = backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    house.clock.turn(-YEAR);
    let told = status::run(&house.context, &house.instance, None).await.unwrap();
    assert_eq!((told.health, told.recovery_point_age_seconds), (Health::Degraded, None), "{told:?}");
    let mut right = Vec::new();
    for _ in 0..2 {
        right.push(backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap());
        house.clock.turn(SignedDuration::from_hours(24));
    }
    assert!(right.iter().all(|summary| summary.finished_at < wrong.finished_at), "{right:?}");
    let told = status::run(&house.context, &house.instance, None).await.unwrap();
    assert!(told.recovery_point_age_seconds.unwrap() > 80_000.0, "{told:?}");
    assert_eq!(told.health, Health::Ok, "{told:?}");
    // Retention goes on beside it.
    let report = expire::run(&house.context, &house.instance).await.unwrap();
    assert_eq!(report.condemned, [right[0].id.clone()], "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_last_is_restored_although_the_clock_was_behind() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    let last = taken_behind(&house).await;
    let options = RestoreOptions { into: house.place("restored"), ..RestoreOptions::default() };
    let plan = restore::plan(&house.context, &house.instance, &options).await.unwrap();
    assert_eq!(plan.base, Some(last.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_last_is_not_the_first_to_go_although_the_clock_was_behind() {
    let Some(mut house) = House::build(PostgresVersion::V15).await else { return };
    house.instance.policy.keep = RetentionPolicy { last: 1, ..RetentionPolicy::default() };
    let last = taken_behind(&house).await;
    let report = expire::run(&house.context, &house.instance).await.unwrap();
    assert!(!report.condemned.contains(&last.id) && !report.condemned.is_empty(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_for_a_while_deletes_nothing_at_once_and_never_the_last() {
    let Some(mut house) = House::build(PostgresVersion::V15).await else { return };
    house.instance.policy.keep = RetentionPolicy { daily: 2, within_days: 3, ..RetentionPolicy::default() };
    let everything = CollectOptions { max_share_percent: Some(100), ..CollectOptions::default() };
    for _ in 0..3 {
        backup::run(&house.context, &house.instance, &INCREMENT).await.unwrap();
        house.clock.turn(SignedDuration::from_hours(24));
    }
    let before = sound(&house).await;
    assert_eq!(expire::run(&house.context, &house.instance).await.unwrap().condemned, []);

    // Behind: everything lies in its future, and nothing of that may go.
    house.clock.turn(-YEAR);
    let report = expire::run(&house.context, &house.instance).await.unwrap();
    assert_eq!((report.condemned, report.deleted), (vec![], vec![]));
    collect::run(&house.context, &everything).await.unwrap();
    assert_eq!(sound(&house).await, before);

    // Ahead: what is condemned can still be restored, and what the rules count by days
    // that have a backup stays however long ago they were.
    house.clock.turn(2 * YEAR);
    let report = expire::run(&house.context, &house.instance).await.unwrap();
    assert_eq!(report.deleted, []);
    collect::run(&house.context, &everything).await.unwrap();
    assert_eq!(sound(&house).await, before);
    assert!(report.condemned.len() <= 1, "{:?}", report.condemned);
    assert!(report.plan.keep.iter().any(|kept| kept.id.to_string() == before[0]));

    // And home again, as if nothing had been.
    house.clock.turn(-YEAR);
    let report = expire::run(&house.context, &house.instance).await.unwrap();
    assert_eq!((report.condemned, report.deleted), (vec![], vec![]));
    collect::run(&house.context, &everything).await.unwrap();
    assert_eq!(sound(&house).await, before);
}

/// Two collections see a backup that runs: between them it gives no sign that the
/// collector could see, and the clock says that a year has gone by.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_beside_a_backup_takes_nothing_from_it_when_the_clock_jumps() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    house.server.sql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 50000) n").unwrap();
    backup::run(&house.context, &house.instance, &INCREMENT).await.unwrap();
    for jump in [YEAR, -YEAR] {
        house.server.sql("UPDATE t SET n = n + 1").unwrap();
        let (clock, collector, runtime) =
            (Arc::clone(&house.clock), house.context.clone(), Handle::current());
        let done = AtomicBool::new(false);
        let context = house
            .with_store(|disk| {
                FaultyStore::new(disk, move |call| {
                    // Its packs are there and no manifest says so yet.
                    if call.object.contains("/backups/")
                        && call.bytes > 0
                        && !done.swap(true, Ordering::SeqCst)
                    {
                        let (clock, collector) = (Arc::clone(&clock), collector.clone());
                        let runtime = runtime.clone();
                        let beside = std::thread::spawn(move || {
                            runtime.block_on(async {
                                let options = CollectOptions {
                                    max_share_percent: Some(100),
                                    ..CollectOptions::default()
                                };
                                collect::run(&collector, &options).await.unwrap();
                                clock.turn(jump);
                                collect::run(&collector, &options).await.unwrap();
                            });
                        });
                        beside.join().unwrap();
                    }
                    Injection::Pass
                })
            })
            .await;
        let outcome = backup::run(&context, &house.instance, &INCREMENT).await;
        let listed = sound(&house).await;
        if jump < SignedDuration::ZERO {
            assert!(listed.contains(&outcome.unwrap().id.to_string()));
        } else {
            // Taken for dead: its work is lost, it is told so, and nothing else is lost.
            let error = outcome.unwrap_err();
            assert!(error.to_string().contains("declared dead"), "{error}");
        }
        backup::run(&house.context, &house.instance, &INCREMENT).await.unwrap();
    }
    sound(&house).await;
}
