//! One damaged object, several backups that need it.

use std::collections::BTreeSet;

use backstay_model::policy::RetentionPolicy;
use backstay_model::{ErrorKind, VerifyLevel};
use backstay_ops::backup::BackupOptions;
use backstay_ops::restore::RestoreOptions;
use backstay_ops::verify::Subject;
use backstay_ops::{Clock as _, backup, expire, restore, verify};
use testkit::PostgresVersion;

use crate::house::House;

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_map_makes_every_backup_that_needs_it_unfit_for_restore_and_retention() {
    let Some(mut house) = House::build(PostgresVersion::V15).await else { return };
    house.instance.policy.keep = RetentionPolicy { last: 1, ..RetentionPolicy::default() };
    let options = BackupOptions::default();
    house.server.sql("CREATE TABLE first AS SELECT n FROM generate_series(1, 20000) n; CHECKPOINT").unwrap();
    let alone =
        backup::run(&house.context, &house.instance, &BackupOptions { full: true, ..options }).await.unwrap();
    let first =
        backup::run(&house.context, &house.instance, &BackupOptions { full: true, ..options }).await.unwrap();
    house.server.sql("CREATE TABLE second AS SELECT 1 AS n; CHECKPOINT").unwrap();
    let second = backup::run(&house.context, &house.instance, &options).await.unwrap();
    assert_eq!(second.parent, Some(first.id.clone()));

    let manifest = house.context.repo.manifest(&house.instance.id, &second.id).await.unwrap();
    let shared: BTreeSet<u32> =
        manifest.maps().filter(|(session, ..)| **session == first.id).map(|(_, number, _)| number).collect();
    assert!(!shared.is_empty(), "the second backup needs no map of the first: {:?}", manifest.objects);
    for map in house.objects(&format!("maps/{}/", first.id)) {
        let mut bytes = std::fs::read(&map).unwrap();
        for byte in &mut bytes {
            *byte ^= 1;
        }
        std::fs::write(map, bytes).unwrap();
    }
    // Only the first is looked at; the second needs the same map.
    let report =
        verify::run(&house.context, &Subject::Backup(first.id.clone()), VerifyLevel::Digest).await.unwrap();
    assert_eq!(report.exit_code(), 20);

    let into = house.place("restored");
    let newest = RestoreOptions { into, ..RestoreOptions::default() };
    let plan = restore::plan(&house.context, &house.instance, &newest).await.unwrap();
    assert_eq!(plan.base, Some(alone.id.clone()), "{plan:?}");
    let named = RestoreOptions { backup: Some(second.id), ..newest };
    let plan = restore::plan(&house.context, &house.instance, &named).await.unwrap();
    assert_eq!(plan.refusals[0].kind, ErrorKind::Corrupt);

    let plan = expire::plan(&house.context, &house.instance, house.clock.now()).await.unwrap();
    let kept: Vec<_> = plan.keep.iter().map(|kept| &kept.id).collect();
    assert!(kept.contains(&&alone.id), "the only sound backup may go: {plan:?}");
}
