//! The store is an old copy of itself: every look at it says so, and a backup is made
//! all the same.

use std::path::Path;

use backstay_model::status::Health;
use backstay_model::{FindingLevel, VerifyLevel};
use backstay_ops::backup::BackupOptions;
use backstay_ops::collect::CollectOptions;
use backstay_ops::verify::Subject;
use backstay_ops::{backup, collect, list, status, verify};
use backstay_repo::store::faulty::FaultyStore;
use testkit::PostgresVersion;

use crate::house::House;

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_the_store_is_named_by_every_look_and_stops_no_backup() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    let (context, orders) = (&house.context, &house.instance);
    let options = BackupOptions::default();
    backup::run(context, orders, &options).await.unwrap();
    copy(&house.repository(), &house.place("copy"));
    let lost = backup::run(context, orders, &options).await.unwrap();
    assert!(list::run(context, None).await.unwrap().findings.is_empty());
    assert_eq!(status::run(context, orders, None).await.unwrap().health, Health::Ok);

    std::fs::remove_dir_all(house.repository()).unwrap();
    copy(&house.place("copy"), &house.repository());
    // Another process, with the same catalogue.
    let context = &house.with_store(FaultyStore::counting).await;
    for _ in 0..2 {
        let listing = list::run(context, None).await.unwrap();
        assert_eq!(listing.backups.len(), 1);
        assert!(listing.findings[0].message.starts_with(lost.id.as_str()), "{:?}", listing.findings);
    }
    let status = status::run(context, orders, None).await.unwrap();
    assert_eq!(status.health, Health::Degraded);
    assert!(status.health_reason.unwrap().contains("is gone from the store"));
    let report = verify::run(context, &Subject::All, VerifyLevel::Existence).await.unwrap();
    assert_eq!(report.exit_code(), 20, "{report:?}");
    let made = backup::run(context, orders, &options).await.unwrap();
    let said = made.findings.iter().find(|finding| finding.message.contains("is gone from the store"));
    assert_eq!(said.unwrap().level, FindingLevel::Warning);
    let refused = collect::run(context, &CollectOptions::default()).await;
    assert!(refused.unwrap_err().to_string().contains("is gone, and nothing says that it expired"));

    let accept = CollectOptions { accept_loss: true, ..CollectOptions::default() };
    collect::run(context, &accept).await.unwrap();
    assert!(list::run(context, None).await.unwrap().findings.is_empty());
    let report = verify::run(context, &Subject::All, VerifyLevel::Digest).await.unwrap();
    assert_eq!(report.exit_code(), 0, "{report:?}");
    assert_eq!(status::run(context, orders, None).await.unwrap().health, Health::Ok);
}
