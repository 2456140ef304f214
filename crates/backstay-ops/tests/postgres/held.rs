//! Backups that somebody holds in the moment in which retention deletes them.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backstay_model::policy::RetentionPolicy;
use backstay_model::{BackupId, Hold};
use backstay_ops::backup::BackupOptions;
use backstay_ops::{Error, backup, expire, hold, list};
use backstay_repo::store::Operation;
use backstay_repo::store::faulty::{self, FaultyStore, Injection};
use jiff::SignedDuration;
use testkit::PostgresVersion;

use crate::house::House;

/// Long for whoever does not wait.
const WAITING: Duration = Duration::from_millis(500);

/// Two backups, of which the first one goes with the next run.
async fn condemned() -> Option<(House, BackupId)> {
    let mut house = House::build(PostgresVersion::V15).await?;
    house.instance.policy.keep = RetentionPolicy { last: 1, ..RetentionPolicy::default() };
    let options = BackupOptions { full: true, ..BackupOptions::default() };
    let old = backup::run(&house.context, &house.instance, &options).await.unwrap();
    backup::run(&house.context, &house.instance, &options).await.unwrap();
    expire::run(&house.context, &house.instance).await.unwrap();
    house.clock.turn(SignedDuration::from_hours(8 * 24));
    Some((house, old.id))
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_says_what_it_is_about_to_delete_and_a_hold_does_not_take_it_for_kept() {
    let Some((house, old)) = condemned().await else { return };
    let manifest = format!("orders/backups/{old}");
    let note = house.repository().join(format!("orders/deletions/{old}-000000"));
    let seen = Arc::new(AtomicU64::new(0));
    let (of_script, of_note, deleted) = (seen.clone(), note.clone(), manifest.clone());
    let failing = house
        .with_store(move |disk| {
            FaultyStore::new(disk, move |call| {
                if call.operation != Operation::Delete || call.object != deleted {
                    return Injection::Pass;
                }
                of_script.fetch_add(u64::from(of_note.exists()), Ordering::SeqCst);
                Injection::Fail(faulty::denied(call))
            })
        })
        .await;
    expire::run(&failing, &house.instance).await.unwrap_err();
    assert_eq!(seen.load(Ordering::SeqCst), 1, "nobody could know of the deletion");
    // Whether it will still be done nobody knows.
    let wanted = Hold::new(None, None);
    let refused = hold::on_base(&house.context, &old, Some(&wanted)).await.unwrap_err();
    assert!(matches!(&refused, Error::BeingDeleted { backup, .. } if *backup == old), "{refused:?}");
    let report = expire::run(&house.context, &house.instance).await.unwrap();
    assert_eq!(report.deleted, [], "the hold is noted: {report:#?}");
    house.clock.turn(SignedDuration::from_hours(2));
    hold::on_base(&house.context, &old, Some(&wanted)).await.unwrap();
    expire::run(&house.context, &house.instance).await.unwrap();
    assert!(!note.exists(), "a note of the dead stays");

    // A deletion that ends while somebody waits.
    hold::on_base(&house.context, &old, None).await.unwrap();
    let name = format!("orders/deletions/{old}-000007").parse().unwrap();
    let at = format!("{{\"format\":1,\"at\":\"{}\"}}", backstay_ops::Clock::now(&*house.clock));
    house.context.repo.put_document(&name, at.as_bytes()).await.unwrap();
    let mut holding = pin!(hold::on_base(&house.context, &old, Some(&wanted)));
    assert!(tokio::time::timeout(WAITING, &mut holding).await.is_err(), "it did not wait");
    house.context.repo.store().delete(&manifest.parse().unwrap()).await.unwrap();
    house.context.repo.store().delete(&name).await.unwrap();
    let refused = holding.await.unwrap_err();
    assert!(matches!(refused, Error::NoSuchBackup { .. }), "{refused:?}");
    assert_eq!(house.objects("/holds/"), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_comes_while_retention_looks_is_seen() {
    let Some((house, old)) = condemned().await else { return };
    hold::on_base(&house.context, &old, Some(&Hold::new(None, None))).await.unwrap();
    let held = house.objects("/holds/").remove(0);
    let aside = house.place("hold");
    std::fs::copy(&held, &aside).unwrap();
    std::fs::remove_file(&held).unwrap();
    let note = format!("orders/deletions/{old}-000000");
    let late = house
        .with_store(|disk| {
            FaultyStore::new(disk, move |call| {
                // Between the plan and the note.
                if call.operation == Operation::Put && call.object == note {
                    std::fs::create_dir_all(held.parent().unwrap()).unwrap();
                    std::fs::copy(&aside, &held).unwrap();
                }
                Injection::Pass
            })
        })
        .await;
    let report = expire::run(&late, &house.instance).await.unwrap();
    assert_eq!(report.deleted, [], "{report:#?}");
    assert!(
        report.findings.iter().any(|finding| finding.message.starts_with("it stays: held")),
        "{report:#?}"
    );
    assert_eq!(list::run(&house.context, None).await.unwrap().backups.len(), 2);
    assert_eq!(house.objects("/deletions/"), Vec::<std::path::PathBuf>::new());
}
