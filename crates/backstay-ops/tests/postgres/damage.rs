//! Damage of what is stored: named, never restored, and healed by the next backup.

use backstay_model::error::Classified;
use backstay_model::{ErrorKind, FindingLevel, VerifyLevel};
use backstay_ops::backup::BackupOptions;
use backstay_ops::restore::RestoreOptions;
use backstay_ops::verify::Subject;
use backstay_ops::{backup, list, restore, verify};
use backstay_repo::store::Operation;
use backstay_repo::store::faulty::{FaultyStore, Injection, denied};
use jiff::SignedDuration;
use testkit::PostgresVersion;

use crate::house::House;

/// Two backups; the second has a pack of its own.
async fn two_backups() -> Option<(House, [backstay_model::BackupSummary; 2])> {
    let house = House::build(PostgresVersion::V15).await?;
    let options = BackupOptions::default();
    house
        .server
        .sql("CREATE TABLE first AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n")
        .unwrap();
    let first = backup::run(&house.context, &house.instance, &options).await.unwrap();
    house
        .server
        .sql("CREATE TABLE second AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n; CHECKPOINT")
        .unwrap();
    let second = backup::run(&house.context, &house.instance, &options).await.unwrap();
    Some((house, [first, second]))
}

fn flip_a_bit(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn options(house: &House, name: &str) -> RestoreOptions {
    RestoreOptions { into: house.place(name), ..RestoreOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_gone_is_seen_by_the_plan_and_the_backup_before_is_taken() {
    let Some((house, [first, second])) = two_backups().await else { return };
    for pack in house.objects(&format!("packs/{}", second.id)) {
        std::fs::remove_file(pack).unwrap();
    }
    let plan = restore::plan(&house.context, &house.instance, &options(&house, "a")).await.unwrap();
    assert_eq!(plan.base, Some(first.id.clone()));
    assert_eq!((plan.findings.len(), plan.findings[0].level), (1, FindingLevel::Error));
    assert_eq!(plan.findings[0].subject, second.id.as_str());

    let named = RestoreOptions { backup: Some(second.id.clone()), ..options(&house, "b") };
    let plan = restore::plan(&house.context, &house.instance, &named).await.unwrap();
    assert_eq!(plan.refusals[0].kind, ErrorKind::Corrupt);
    assert!(plan.refusals[0].hints[0].contains(first.id.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_ends_the_restore_and_the_backup_before_is_offered() {
    let Some((house, [first, second])) = two_backups().await else { return };
    flip_a_bit(&house.objects(&format!("packs/{}", second.id))[0]);
    let wanted = options(&house, "restored");
    let plan = restore::plan(&house.context, &house.instance, &wanted).await.unwrap();
    assert_eq!(plan.base, Some(second.id.clone()), "a listing cannot see it");
    let error = restore::run(&house.context, &house.instance, &wanted, plan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.hints()[0].contains(&format!("--backup {}", first.id)), "{:?}", error.hints());
    assert!(!wanted.into.join("global/pg_control").exists(), "what is half placed could start");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backup_before_is_offered_by_the_order_in_which_they_were_taken() {
    let Some((house, [_, second])) = two_backups().await else { return };
    house.clock.turn(SignedDuration::from_hours(-24 * 365));
    house
        .server
        .sql("CREATE TABLE third AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n")
        .unwrap();
    let third = backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    assert!(third.id < second.id, "the clock was set back");
    flip_a_bit(&house.objects(&format!("packs/{}", third.id))[0]);
    let wanted = options(&house, "restored");
    let plan = restore::plan(&house.context, &house.instance, &wanted).await.unwrap();
    assert_eq!(plan.base, Some(third.id));
    let error = restore::run(&house.context, &house.instance, &wanted, plan).await.unwrap_err();
    assert!(error.hints()[0].contains(&format!("--backup {}", second.id)), "{:?}", error.hints());
    assert!(error.hints()[0].contains("the newest one before"), "{:?}", error.hints());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_cannot_be_noted_is_told_all_the_same() {
    let Some((house, [first, second])) = two_backups().await else { return };
    flip_a_bit(&house.objects(&format!("packs/{}", second.id))[0]);
    let read_only = |disk| {
        FaultyStore::new(disk, |call| match call.operation {
            Operation::Put => Injection::Fail(denied(call)),
            _ => Injection::Pass,
        })
    };
    let context = house.with_store(read_only).await;
    let wanted = options(&house, "restored");
    let plan = restore::plan(&context, &house.instance, &wanted).await.unwrap();
    let error = restore::run(&context, &house.instance, &wanted, plan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(error.hints()[0].contains(&format!("--backup {}", first.id)), "{:?}", error.hints());
    let listed = list::run(&house.context, None).await.unwrap();
    assert!(listed.backups.iter().all(|backup| !backup.damaged), "it was noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_may_not_be_read_is_passed_by_and_noted_nowhere() {
    let Some((house, [first, second])) = two_backups().await else { return };
    let own = format!("packs/{}", second.id);
    let context = house.with_store(move |disk| {
        FaultyStore::new(disk, move |call| match call.operation {
            Operation::Get | Operation::GetRange if call.object.contains(&own) => {
                Injection::Fail(denied(call))
            }
            _ => Injection::Pass,
        })
    });
    let context = context.await;
    let wanted = options(&house, "restored");
    let plan = restore::plan(&context, &house.instance, &wanted).await.unwrap();
    let error = restore::run(&context, &house.instance, &wanted, plan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.hints()[0].contains(&format!("--backup {}", first.id)), "{:?}", error.hints());
    let listed = list::run(&house.context, None).await.unwrap();
    assert!(listed.backups.iter().all(|backup| !backup.damaged), "it is whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_does_not_open_is_met_by_the_plan_which_takes_the_backup_before() {
    let Some((house, [first, second])) = two_backups().await else { return };
    for map in house.objects(&format!("maps/{}/", second.id)) {
        flip_a_bit(&map);
    }
    let wanted = options(&house, "restored");
    let plan = restore::plan(&house.context, &house.instance, &wanted).await.unwrap();
    assert_eq!((plan.base.as_ref(), plan.refusals.len()), (Some(&first.id), 0), "{plan:?}");
    assert_eq!(plan.findings[0].subject, second.id.as_str());
    restore::run(&house.context, &house.instance, &wanted, plan).await.unwrap();
    let shown = list::show(&house.context, &second.id).await.unwrap().summary;
    assert!(
        shown.damaged && shown.verified_at.is_none(),
        "what was met in passing verifies nothing: {shown:?}"
    );
    let report = verify::run(&house.context, &Subject::Backup(second.id), VerifyLevel::Digest).await.unwrap();
    assert_eq!(report.exit_code(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_verification_found_is_remembered_and_healed_by_the_next_backup() {
    let Some((house, [first, second])) = two_backups().await else { return };
    flip_a_bit(&house.objects(&format!("packs/{}", first.id))[0]);
    let report =
        verify::run(&house.context, &Subject::Instance(house.instance.id.clone()), VerifyLevel::Digest)
            .await
            .unwrap();
    assert_eq!((report.exit_code(), report.sound), (20, false));
    assert!(report.findings.iter().any(|finding| finding.subject.contains("packs/")), "{report:?}");

    // Both are full by description, so both need the pack.
    let listed = list::run(&house.context, None).await.unwrap();
    assert!(listed.backups.iter().all(|backup| !backup.findings.is_empty()));
    let plan = restore::plan(&house.context, &house.instance, &options(&house, "a")).await.unwrap();
    assert_eq!(plan.refusals[0].kind, ErrorKind::Corrupt);

    // Nothing builds on damage, and the damage is told.
    let healed = backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    assert_eq!(healed.parent, None);
    assert!(healed.findings.iter().any(|finding| finding.subject == second.id.as_str()));
    let report =
        verify::run(&house.context, &Subject::Backup(healed.id.clone()), VerifyLevel::Digest).await.unwrap();
    assert_eq!(report.exit_code(), 0, "{report:?}");
    let plan = restore::plan(&house.context, &house.instance, &options(&house, "b")).await.unwrap();
    assert_eq!(plan.base, Some(healed.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_does_not_open_is_told_everywhere_and_hides_nothing() {
    let Some((house, [first, second])) = two_backups().await else { return };
    flip_a_bit(&house.objects(&format!("backups/{}", second.id))[0]);
    let listed = list::run(&house.context, None).await.unwrap();
    assert_eq!(listed.backups.len(), 1);
    assert!(listed.findings[0].subject.contains(second.id.as_str()));
    let report = verify::run(&house.context, &Subject::All, VerifyLevel::Existence).await.unwrap();
    assert_eq!(report.exit_code(), 20);
    let plan = restore::plan(&house.context, &house.instance, &options(&house, "a")).await.unwrap();
    assert_eq!(plan.base, Some(first.id));
    assert!(plan.findings.iter().any(|finding| finding.subject == second.id.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_found_in_one_backup_is_known_of_every_other_that_needs_the_pack() {
    let Some((house, [first, second])) = two_backups().await else { return };
    flip_a_bit(&house.objects(&format!("packs/{}", first.id))[0]);
    let only_first = Subject::Backup(first.id.clone());
    let report = verify::run(&house.context, &only_first, VerifyLevel::Digest).await.unwrap();
    assert_eq!(report.exit_code(), 20);
    // A listing sees nothing wrong, and clears nothing.
    let report = verify::run(&house.context, &Subject::All, VerifyLevel::Existence).await.unwrap();
    assert_eq!(report.exit_code(), 0);
    let shown = list::show(&house.context, &second.id).await.unwrap();
    assert!(shown.summary.findings.iter().any(|finding| finding.message.contains(first.id.as_str())));

    // Mended by hand, and looked at again: the later look of its own counts.
    flip_a_bit(&house.objects(&format!("packs/{}", first.id))[0]);
    let report = verify::run(&house.context, &Subject::All, VerifyLevel::Digest).await.unwrap();
    assert_eq!(report.exit_code(), 0);
    let listed = list::run(&house.context, None).await.unwrap();
    assert!(listed.backups.iter().all(|backup| backup.findings.is_empty()), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_whose_maps_are_damaged_does_not_stop_the_next_backup() {
    without_maps(flip_a_bit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_whose_maps_are_gone_does_not_stop_the_next_backup() {
    without_maps(|map| std::fs::remove_file(map).unwrap()).await;
}

async fn without_maps(spoil: fn(&std::path::Path)) {
    let Some((house, [_, second])) = two_backups().await else { return };
    for map in house.objects(&format!("maps/{}/", second.id)) {
        spoil(&map);
    }
    let healed = backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    assert_eq!(healed.parent, None);
    assert!(healed.findings.iter().any(|finding| finding.subject == second.id.as_str()), "{healed:?}");
    let wanted = options(&house, "healed");
    let plan = restore::plan(&house.context, &house.instance, &wanted).await.unwrap();
    assert_eq!(plan.base, Some(healed.id));
    restore::run(&house.context, &house.instance, &wanted, plan).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_catalogue_cannot_know_is_noticed_by_backup_restore_and_verify() {
    let Some((house, [first, second])) = two_backups().await else { return };
    let listed = list::run(&house.context, None).await.unwrap();
    assert_eq!(listed.backups.len(), 2);
    let manifest = house.objects(&format!("backups/{}", second.id)).remove(0);
    let good = std::fs::read(&manifest).unwrap();
    let spoil = || {
        let written = std::fs::metadata(&manifest).unwrap().modified().unwrap();
        flip_a_bit(&manifest);
        let file = std::fs::File::options().write(true).open(&manifest).unwrap();
        file.set_modified(written).unwrap();
    };
    spoil();
    let listed = list::run(&house.context, None).await.unwrap();
    assert_eq!((listed.backups.len(), listed.findings.len()), (2, 0), "size and time are what they were");

    let third = backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    assert_eq!(third.parent, Some(first.id.clone()), "nothing builds on what does not open");
    for object in house.objects(third.id.as_str()) {
        std::fs::remove_file(object).unwrap();
    }
    let plan = restore::plan(&house.context, &house.instance, &options(&house, "a")).await.unwrap();
    assert_eq!(plan.base, Some(first.id.clone()));
    assert!(plan.findings.iter().any(|finding| finding.subject == second.id.as_str()), "{plan:?}");
    // The restore has read it, so from now on the list names it.
    let listed = list::run(&house.context, None).await.unwrap();
    assert_eq!((listed.backups.len(), listed.findings.len()), (1, 1));

    // Damage that shows by its time is named at once, and one that is mended is gone.
    std::fs::write(&manifest, good).unwrap();
    let listed = list::run(&house.context, None).await.unwrap();
    assert_eq!((listed.backups.len(), listed.findings.len()), (2, 0));
    flip_a_bit(&manifest);
    // A fast machine does all this within one tick of the file system's clock.
    let file = std::fs::File::options().write(true).open(&manifest).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let listed = list::run(&house.context, None).await.unwrap();
    assert_eq!((listed.backups.len(), listed.findings.len()), (1, 1));
    let subject = Subject::Instance(house.instance.id.clone());
    let report = verify::run(&house.context, &subject, VerifyLevel::Existence).await.unwrap();
    assert_eq!(report.exit_code(), 20);
}
