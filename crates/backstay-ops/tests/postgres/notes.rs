//! What is said of backups: by markers that do not open, by collections of which one
//! instance is damaged, and by notes that have grown old.

use backstay_model::error::Classified;
use backstay_model::policy::RetentionPolicy;
use backstay_model::{ErrorKind, VerifyLevel};
use backstay_ops::backup::BackupOptions;
use backstay_ops::collect::CollectOptions;
use backstay_ops::verify::Subject;
use backstay_ops::{Clock as _, backup, collect, expire, list, verify};
use backstay_repo::store::StoreError;
use backstay_repo::store::faulty::{FaultyStore, Injection};
use jiff::SignedDuration;
use testkit::PostgresVersion;

use crate::house::House;

const FULL: BackupOptions = BackupOptions { full: true, compression_level: None };

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_that_does_not_open_is_told_and_its_backup_stays() {
    let Some(mut house) = House::build(PostgresVersion::V15).await else { return };
    house.instance.policy.keep = RetentionPolicy { last: 1, ..RetentionPolicy::default() };
    let old = backup::run(&house.context, &house.instance, &FULL).await.unwrap();
    backup::run(&house.context, &house.instance, &FULL).await.unwrap();
    expire::run(&house.context, &house.instance).await.unwrap();
    let marker = house.objects(&format!("condemned/{}", old.id)).remove(0);
    std::fs::write(&marker, "no marker").unwrap();
    let told = |findings: &[backstay_model::Finding]| {
        findings.iter().any(|finding| finding.subject.ends_with(&format!("condemned/{}", old.id)))
    };

    let listing = list::run(&house.context, None).await.unwrap();
    assert!(told(&listing.findings), "{:?}", listing.findings);
    let listed = listing.backups.iter().find(|backup| backup.id == old.id).unwrap();
    assert_eq!((listed.condemned, listed.condemned_at), (true, None));
    let report = verify::run(&house.context, &Subject::All, VerifyLevel::Existence).await.unwrap();
    assert!(told(&report.findings) && report.exit_code() == 20, "{report:?}");

    house.clock.turn(SignedDuration::from_hours(365 * 24));
    let plan = expire::plan(&house.context, &house.instance, house.clock.now()).await.unwrap();
    assert!(told(&plan.findings) && !serde_json::to_string(&plan).unwrap().contains("9999"), "{plan:?}");
    let report = expire::run(&house.context, &house.instance).await.unwrap();
    assert!(report.deleted.is_empty() && told(&report.findings), "{report:?}");
    assert_eq!(list::run(&house.context, None).await.unwrap().backups.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_reports_its_work_although_one_instance_is_damaged() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    let mut damaged = house.instance.clone();
    damaged.id = "damaged".parse().unwrap();
    let spoilt = backup::run(&house.context, &damaged, &FULL).await.unwrap();
    backup::run(&house.context, &house.instance, &FULL).await.unwrap();
    // Packs that nothing refers to, as of a backup that ended before its manifest.
    let ended = backup::run(&house.context, &house.instance, &FULL).await.unwrap();
    std::fs::remove_file(house.objects(&format!("backups/{}", ended.id)).remove(0)).unwrap();
    let manifest = house.objects(&format!("backups/{}", spoilt.id)).remove(0);
    std::fs::write(&manifest, "no manifest").unwrap();
    let packs = house.objects("orders/packs/").len();

    let options = CollectOptions { max_share_percent: Some(100), ..CollectOptions::default() };
    let dry = CollectOptions { dry_run: true, ..options };
    let planned = collect::run(&house.context, &dry).await.unwrap();
    assert_eq!(planned.failure.as_ref().map(|error| error.kind()), Some(ErrorKind::Corrupt), "{planned:?}");
    assert!(!planned.executed && planned.deleted_objects > 0, "{planned:?}");
    assert_eq!(house.objects("orders/packs/").len(), packs);

    let report = collect::run(&house.context, &options).await.unwrap();
    assert_eq!(report.failure.as_ref().map(|error| error.kind()), Some(ErrorKind::Corrupt), "{report:?}");
    assert!(report.findings.iter().any(|finding| finding.subject == "damaged"), "{report:?}");
    assert!(report.executed && report.deleted_objects > 0, "{report:?}");
    assert!(house.objects("orders/packs/").len() < packs);
    assert!(!house.objects("damaged/packs/").is_empty(), "an object of the damaged instance is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_that_cannot_be_read_lose_nobody_the_report_and_a_request_to_stop_is_heard() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    backup::run(&house.context, &house.instance, &FULL).await.unwrap();
    verify::run(&house.context, &Subject::All, VerifyLevel::Existence).await.unwrap();
    for dry_run in [true, false] {
        let options = CollectOptions { dry_run, ..CollectOptions::default() };
        let with = async |is_asked_to_stop: bool| {
            let context = house
                .with_store(|disk| {
                    FaultyStore::new(disk, move |call| {
                        let (operation, object) = (call.operation, call.object.clone());
                        let cause = || std::io::Error::from(std::io::ErrorKind::PermissionDenied).into();
                        match call.object.contains("/findings") {
                            true if is_asked_to_stop => {
                                Injection::Fail(StoreError::Cancelled { operation, object })
                            }
                            true => Injection::Fail(StoreError::Denied { operation, object, cause: cause() }),
                            false => Injection::Pass,
                        }
                    })
                })
                .await;
            collect::run(&context, &options).await
        };
        let report = with(false).await.unwrap();
        let told = report.findings.iter().any(|finding| finding.message.starts_with("old notes"));
        assert!(told && report.executed != dry_run, "{report:?}");
        let stopped = with(true).await.map(drop).unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::Cancelled, "{stopped:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_notes_go_with_a_collection_and_take_nothing_along_that_holds() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    let taken = backup::run(&house.context, &house.instance, &FULL).await.unwrap();
    for _ in 0..3 {
        verify::run(&house.context, &Subject::All, VerifyLevel::Digest).await.unwrap();
        verify::run(&house.context, &Subject::All, VerifyLevel::Existence).await.unwrap();
    }
    let options = CollectOptions::default();
    let fresh = collect::run(&house.context, &options).await.unwrap();
    assert_eq!((fresh.deleted_notes, house.objects("findings/").len()), (0, 6), "{fresh:?}");

    house.clock.turn(SignedDuration::from_hours(91 * 24));
    let before = list::run(&house.context, None).await.unwrap().backups;
    let dry = CollectOptions { dry_run: true, ..options };
    let planned = collect::run(&house.context, &dry).await.unwrap();
    assert_eq!((planned.deleted_notes, house.objects("findings/").len()), (4, 6), "{planned:?}");
    let done = collect::run(&house.context, &options).await.unwrap();
    // The last deep look stays, and the last one, which says when that was.
    assert_eq!((done.deleted_notes, house.objects("findings/").len()), (4, 2), "{done:?}");
    let after = list::run(&house.context, None).await.unwrap().backups;
    assert_eq!(after, before);
    assert!(after[0].id == taken.id && after[0].verified_at.is_some());

    // A note of ours that does not open is not ours to throw away.
    let strange = house.repository().join("orders/findings/20200101T000000Z-7q3f");
    std::fs::write(&strange, "?").unwrap();
    assert_eq!(collect::run(&house.context, &options).await.unwrap().deleted_notes, 0);
    assert!(strange.exists());
}
