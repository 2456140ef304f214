//! Expire: what retention lets go and nothing else, as the dry run said.

use backstay_model::dump::{DumpKeep, TierKeep};
use backstay_model::error::Classified as _;
use backstay_model::{ErrorKind, VerifyLevel};
use backstay_ops::dump::{self, DumpRequest, expire};
use jiff::SignedDuration;
use serde_json::Value;

use crate::shelf::House;

fn count(count: u32) -> Option<TierKeep> {
    Some(TierKeep { age: None, count: Some(count) })
}

fn days(days: i64) -> Option<TierKeep> {
    Some(TierKeep { age: Some(SignedDuration::from_hours(24 * days)), count: None })
}

/// A day each, from the first of September 2024, a Sunday.
async fn days_of_dumps(house: &House, days: u8) {
    for day in 1..=days {
        house.dump("postgres", &format!("2024-09-{day:02}T02:00:00Z")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_does_what_the_dry_run_said_and_no_stranger_is_touched() {
    let Some(mut house) = House::build("tiers") else { return };
    house.policy.keep = DumpKeep { daily: count(2), weekly: count(1), monthly: count(12), minimum: 0 };
    days_of_dumps(&house, 8).await;
    let strangers =
        ["readme.txt", "daily/postgres_20230101_020000.dump.zst", "weekly/x.meta.json", "daily/y.hmac"];
    for stranger in strangers {
        std::fs::write(house.place(stranger), "theirs").unwrap();
    }
    let before = house.shown();
    house.turn_to("2024-09-09T02:00:00Z");
    let as_of = "2024-09-09T02:00:01Z".parse().unwrap();
    let plan = expire::plan(&house.run(), &house.policy, &house.instance.id, as_of).await.unwrap();
    assert_eq!(house.shown(), before, "a plan acted");
    let goes: Vec<&str> = plan.plan.expire.iter().map(|fate| fate.path.as_str()).collect();
    assert_eq!(
        goes,
        [
            "daily/postgres_20240906_020001.dump.zst",
            "daily/postgres_20240905_020001.dump.zst",
            "daily/postgres_20240904_020001.dump.zst",
            "daily/postgres_20240903_020001.dump.zst",
            "daily/postgres_20240902_020001.dump.zst",
            "daily/postgres_20240901_020001.dump.zst",
            "weekly/postgres_20240901_020001.dump.zst",
        ]
    );
    let monthly = plan.plan.keep.iter().find(|fate| fate.path.starts_with("monthly/")).unwrap();
    assert_eq!(monthly.reasons.iter().map(ToString::to_string).collect::<Vec<_>>(), ["monthly 1 of 12"]);

    let report = house.expire("2024-09-09T02:00:00Z").await;
    assert_eq!(report.planned, plan);
    let mut deleted = report.deleted.clone();
    deleted.reverse();
    assert_eq!(deleted, goes);
    let after = house.shown();
    let gone: Vec<_> = before.iter().filter(|path| !after.contains(path)).collect();
    assert_eq!(gone.len(), 2 * goes.len(), "each with its sidecar: {gone:#?}");
    for stranger in strangers {
        assert_eq!(std::fs::read_to_string(house.place(stranger)).unwrap(), "theirs");
    }
    assert_eq!(house.verify(VerifyLevel::Digest).await.report.exit_code(), 0);
    let again = house.expire("2024-09-09T03:00:00Z").await;
    assert!(again.deleted.is_empty() && again.planned.unfinished.is_empty(), "{again:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_not_the_last_good_one_and_what_is_held_stays() {
    let Some(mut house) = House::build("grill-stats-backup") else { return };
    days_of_dumps(&house, 4).await;
    house.policy.keep = DumpKeep { daily: days(1), weekly: days(1), monthly: days(1), minimum: 0 };
    let name = |day: u8| format!("postgresql_2024090{day}_020001.tar.gz.enc");
    house.change(&name(4), |bytes| bytes[100] ^= 1, true);
    house.verify(VerifyLevel::Digest).await;
    house.change(
        &format!("{}.meta.json", name(2)),
        |json| {
            let mut record: Value = serde_json::from_slice(json).unwrap();
            record["held_until"] = "2025-01-01T00:00:00Z".into();
            *json = serde_json::to_vec(&record).unwrap();
        },
        false,
    );
    let report = house.expire("2024-10-09T02:00:00Z").await;
    let first = "weekly/postgresql_weekly_20240901_020001.tar.gz.enc";
    assert!(
        report.deleted.contains(&name(1)) && report.deleted.iter().any(|path| path == first),
        "{report:#?}"
    );
    let kept: Vec<_> = report
        .planned
        .plan
        .keep
        .iter()
        .map(|fate| (fate.path.clone(), fate.reasons.iter().map(ToString::to_string).collect::<Vec<_>>()))
        .collect();
    assert_eq!(
        kept,
        [
            (name(4), vec!["minimum 1 of 1".to_owned()]),
            (name(3), vec!["the last good one".to_owned()]),
            (name(2), vec!["held until 2025-01-01T00:00:00Z".to_owned()]),
        ]
    );
    // The hold has run out, and only that.
    let report = house.expire("2025-01-02T02:00:00Z").await;
    assert_eq!(report.deleted, [name(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_where_nobody_knows_what_is_damaged() {
    let Some(mut house) = House::build("save-it-ai") else { return };
    days_of_dumps(&house, 5).await;
    house.policy.keep = DumpKeep { daily: count(1), ..DumpKeep::default() };
    house.turn_to("2024-09-05T06:00:00Z");
    house.verify(VerifyLevel::Digest).await;
    let before = house.shown();
    let run = async || expire::run(&house.run(), &house.policy, &house.instance.id).await;
    let report = "verification/verification_report_20240905.json";
    let whole = std::fs::read(house.place(report)).unwrap();
    house.change(report, |json| json.truncate(json.len() / 2), false);
    let refused = run().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(refused.to_string().contains("nobody knows which dumps are damaged"), "{refused}");
    // Another program's is nobody's word.
    std::fs::write(house.place(report), "{\"status\": \"ok\"}").unwrap();
    let plan = expire::plan(&house.run(), &house.policy, &house.instance.id, house.run().clock.now()).await;
    assert_eq!(plan.unwrap().plan.expire.len(), 4);
    std::fs::write(house.place(report), whole).unwrap();

    assert_eq!(house.shown(), before);
    assert_eq!(run().await.unwrap().deleted.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pointer_whose_dump_went_points_to_the_newest_and_a_link_stays() {
    let Some(mut house) = House::build("save-it-ai") else { return };
    house.policy.keep = DumpKeep { daily: count(1), ..DumpKeep::default() };
    days_of_dumps(&house, 4).await;
    let day = |day: u8| format!("backup-2024-09-0{day}.sql.gz");
    // A newer one, and none that a runbook may take for the database.
    house.turn_to("2024-09-04T03:00:00Z");
    let tables = vec!["t".parse().unwrap()];
    let of_part = DumpRequest { databases: vec!["postgres".into()], tables, ..DumpRequest::default() };
    dump::run(&house.run(), &house.instance, &house.policy, &of_part).await.unwrap();
    // Somebody set it back by hand, and moved one to another disk.
    let pointer = house.place("backup-latest.sql.gz");
    std::fs::remove_file(&pointer).unwrap();
    std::os::unix::fs::symlink(day(1), &pointer).unwrap();
    let elsewhere = house.workspace.path().join("elsewhere.sql.gz");
    std::fs::copy(house.place(&day(3)), &elsewhere).unwrap();
    std::fs::remove_file(house.place(&day(3))).unwrap();
    std::os::unix::fs::symlink(&elsewhere, house.place(&day(3))).unwrap();

    let report = house.expire("2024-09-05T02:00:00Z").await;
    assert_eq!(report.deleted, [day(1), day(2)]);
    assert_eq!(report.pointed, ["backup-latest.sql.gz"]);
    assert_eq!(std::fs::read_link(&pointer).unwrap().to_str().unwrap(), day(4));
    assert!(elsewhere.exists() && house.place(&day(3)).is_symlink());
    assert!(
        report.planned.findings.iter().any(|finding| finding.message.contains("is a link")),
        "{report:#?}"
    );
}
