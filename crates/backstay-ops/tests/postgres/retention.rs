//! Expire and collect: slowly, and never the last.

use backstay_model::VerifyLevel;
use backstay_model::policy::RetentionPolicy;
use backstay_ops::backup::BackupOptions;
use backstay_ops::collect::CollectOptions;
use backstay_ops::verify::Subject;
use backstay_ops::{Clock as _, backup, collect, expire, list, verify};
use jiff::SignedDuration;
use testkit::PostgresVersion;

use crate::house::House;

#[tokio::test(flavor = "multi_thread")]
async fn retention_condemns_first_deletes_after_the_grace_and_the_collector_frees_the_space() {
    let Some(mut house) = House::build(PostgresVersion::V15).await else { return };
    house.instance.policy.keep = RetentionPolicy { last: 1, ..RetentionPolicy::default() };
    let options = BackupOptions { full: true, ..BackupOptions::default() };
    house.server.sql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n").unwrap();
    let old = backup::run(&house.context, &house.instance, &options).await.unwrap();
    let new = backup::run(&house.context, &house.instance, &options).await.unwrap();

    let plan = expire::plan(&house.context, &house.instance, house.clock.now()).await.unwrap();
    assert_eq!(plan.expire.iter().map(|gone| &gone.id).collect::<Vec<_>>(), [&old.id]);
    assert_eq!(list::run(&house.context, None).await.unwrap().backups[1].condemned_at, None, "a plan acted");

    let report = expire::run(&house.context, &house.instance).await.unwrap();
    assert_eq!((report.condemned, report.deleted), (vec![old.id.clone()], vec![]));
    let listed = list::run(&house.context, None).await.unwrap().backups;
    assert_eq!(listed.len(), 2, "condemned is not deleted");
    assert!(listed[1].condemned_at.is_some());

    house.clock.turn(SignedDuration::from_hours(8 * 24));
    let report = expire::run(&house.context, &house.instance).await.unwrap();
    assert_eq!(report.deleted, std::slice::from_ref(&old.id));
    let packs = house.objects(&format!("packs/{}", old.id)).len();
    assert!(packs > 0);

    let dry = CollectOptions { dry_run: true, ..CollectOptions::default() };
    let planned = collect::run(&house.context, &dry).await.unwrap();
    assert!(planned.deleted_objects > 0 && !planned.executed);
    assert_eq!(house.objects(&format!("packs/{}", old.id)).len(), packs);
    let freed = collect::run(
        &house.context,
        &CollectOptions { max_share_percent: Some(100), ..CollectOptions::default() },
    )
    .await
    .unwrap();
    assert_eq!(freed.deleted_objects, planned.deleted_objects);
    assert!(house.objects(&format!("packs/{}", old.id)).is_empty());

    let report = verify::run(&house.context, &Subject::All, VerifyLevel::Digest).await.unwrap();
    assert_eq!(report.exit_code(), 0, "{report:?}");
    assert_eq!(list::run(&house.context, None).await.unwrap().backups.len(), 1);
    assert_eq!(list::run(&house.context, None).await.unwrap().backups[0].id, new.id);
}
