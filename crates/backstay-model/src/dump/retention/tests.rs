use proptest::prelude::*;

use super::super::{DumpShape, Tier};
use super::*;
use crate::record::EngineKind;

mod invariants;

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn record(content: DumpContent, finished_at: Timestamp, random: u32) -> DumpRecord {
    DumpRecord {
        id: BackupId::new(finished_at, random),
        instance: "main".parse().unwrap(),
        environment: None,
        engine: EngineKind::Postgresql,
        content,
        set: None,
        file: "x".to_owned(),
        tier: Tier::Daily,
        started_at: finished_at,
        finished_at,
        duration_seconds: 0.0,
        shape: DumpShape::default(),
        raw_bytes: 2,
        stored_bytes: 1,
        compression_ratio: 2.0,
        sha256: String::new(),
        database_bytes: None,
        position: None,
        system_identifier: None,
        server_version: None,
        tool_version: None,
        backstay_version: "0.1.0".to_owned(),
        extensions: BTreeMap::new(),
        tables: Vec::new(),
        timescaledb: None,
        needs: Default::default(),
        members: Vec::new(),
        warnings: Vec::new(),
        adopted: false,
        safety: false,
        guessed: false,
    }
}

fn whole(database: &str) -> DumpContent {
    DumpContent::Database { database: database.to_owned() }
}

fn dump(tier: Tier, database: &str, at: &str) -> DumpOnShelf {
    let record = record(whole(database), at.parse().unwrap(), 0);
    let path = format!("{tier}/{database}_{at}");
    DumpOnShelf { record, tier, path, hold: None, damaged: false }
}

fn daily(at: &str) -> DumpOnShelf {
    dump(Tier::Daily, "orders", at)
}

fn damaged(at: &str) -> DumpOnShelf {
    DumpOnShelf { damaged: true, ..daily(at) }
}

fn newest(count: u32) -> Option<TierKeep> {
    Some(TierKeep { age: None, count: Some(count) })
}

fn days(days: i32) -> Option<TierKeep> {
    Some(TierKeep { age: Some(DAY * days), count: None })
}

fn plan(files: &[DumpOnShelf], keep: DumpKeep, as_of: &str) -> DumpExpirePlan {
    plan_expire_dumps(files, &keep, as_of.parse().unwrap())
}

fn lines(plan: &DumpExpirePlan) -> Vec<String> {
    let line = |fate: &DumpFate| {
        let reasons: Vec<_> = fate.reasons.iter().map(ToString::to_string).collect();
        format!("{}: {}", fate.path, if reasons.is_empty() { "may go".into() } else { reasons.join(", ") })
    };
    plan.keep.iter().chain(&plan.expire).map(line).collect()
}

#[test]
fn each_file_is_decided_in_its_tier_and_says_why() {
    let first = "2024-09-01T02:00:00Z";
    let files = [
        daily("2024-10-01T02:00:00Z"),
        daily("2024-09-02T02:00:00Z"),
        daily(first),
        dump(Tier::Weekly, "orders", first),
        dump(Tier::Monthly, "orders", first),
        dump(Tier::Weekly, "orders", "2024-08-25T02:00:00Z"),
        dump(Tier::Monthly, "orders", "2024-08-01T02:00:00Z"),
    ];
    let keep = DumpKeep {
        daily: Some(TierKeep { age: Some(DAY * 30), count: Some(1) }),
        weekly: newest(1),
        ..DumpKeep::default()
    };
    assert_eq!(
        lines(&plan(&files, keep, "2024-10-01T06:00:00Z")),
        [
            "daily/orders_2024-10-01T02:00:00Z: daily 1 of 1, younger than 30 days, the last good one",
            "daily/orders_2024-09-02T02:00:00Z: younger than 30 days",
            "monthly/orders_2024-09-01T02:00:00Z: no retention is set",
            "weekly/orders_2024-09-01T02:00:00Z: weekly 1 of 1",
            "monthly/orders_2024-08-01T02:00:00Z: no retention is set",
            "daily/orders_2024-09-01T02:00:00Z: may go",
            "weekly/orders_2024-08-25T02:00:00Z: may go",
        ]
    );
}

#[test]
fn a_rule_that_nobody_wrote_keeps_everything() {
    let files = [daily("2024-01-01T02:00:00Z"), daily("2004-01-01T02:00:00Z")];
    let empty = DumpKeep { daily: Some(TierKeep::default()), ..DumpKeep::default() };
    for keep in [DumpKeep::default(), empty] {
        assert!(plan(&files, keep, "2034-01-01T00:00:00Z").expire.is_empty());
    }
}

#[test]
fn an_age_ends_to_the_second() {
    let files = [daily("2024-01-09T02:00:00Z"), daily("2024-01-02T02:00:00Z")];
    let keep = DumpKeep { daily: days(7), ..DumpKeep::default() };
    assert!(plan(&files, keep, "2024-01-09T02:00:00Z").expire.len() == 1);
    let earlier = plan(&files, keep, "2024-01-09T01:59:59Z");
    assert_eq!(
        lines(&earlier),
        [
            "daily/orders_2024-01-09T02:00:00Z: later than the time asked for",
            "daily/orders_2024-01-02T02:00:00Z: younger than 7 days, the last good one",
        ]
    );
}

#[test]
fn the_last_good_one_of_each_database_stays_when_no_new_ones_come() {
    let files = [
        damaged("2024-01-03T02:00:00Z"),
        daily("2024-01-02T02:00:00Z"),
        daily("2024-01-01T02:00:00Z"),
        dump(Tier::Weekly, "customers", "2023-12-31T02:00:00Z"),
        dump(Tier::Weekly, "customers", "2023-12-24T02:00:00Z"),
    ];
    let keep = DumpKeep { daily: days(7), weekly: newest(0), ..DumpKeep::default() };
    assert_eq!(
        lines(&plan(&files, keep, "2034-01-01T00:00:00Z")),
        [
            "daily/orders_2024-01-03T02:00:00Z: minimum 1 of 1",
            "daily/orders_2024-01-02T02:00:00Z: the last good one",
            "weekly/customers_2023-12-31T02:00:00Z: the last good one",
            "daily/orders_2024-01-01T02:00:00Z: may go",
            "weekly/customers_2023-12-24T02:00:00Z: may go",
        ]
    );
}

#[test]
fn a_damaged_dump_takes_no_place_and_does_not_go_early() {
    let files =
        [damaged("2024-01-03T02:00:00Z"), daily("2024-01-02T02:00:00Z"), daily("2024-01-01T02:00:00Z")];
    let keep = DumpKeep { daily: newest(1), ..DumpKeep::default() };
    assert_eq!(
        lines(&plan(&files, keep, "2024-01-03T06:00:00Z")),
        [
            "daily/orders_2024-01-03T02:00:00Z: daily 1 of 1",
            "daily/orders_2024-01-02T02:00:00Z: daily 1 of 1, the last good one",
            "daily/orders_2024-01-01T02:00:00Z: may go",
        ]
    );
}

#[test]
fn of_one_dump_the_good_file_counts_and_the_damaged_does_not() {
    let at = "2024-01-07T02:00:00Z";
    let copy = dump(Tier::Weekly, "orders", at);
    let files = [daily("2024-01-08T02:00:00Z"), damaged(at), copy, daily("2024-01-06T02:00:00Z")];
    let keep = DumpKeep { daily: newest(0), weekly: newest(0), minimum: 2, ..DumpKeep::default() };
    assert_eq!(
        lines(&plan(&files, keep, "2024-01-09T06:00:00Z")),
        [
            "daily/orders_2024-01-08T02:00:00Z: minimum 1 of 2, the last good one",
            "daily/orders_2024-01-07T02:00:00Z: minimum 2 of 2",
            "weekly/orders_2024-01-07T02:00:00Z: minimum 2 of 2",
            "daily/orders_2024-01-06T02:00:00Z: may go",
        ]
    );
}

#[test]
fn a_damaged_file_is_never_called_the_last_good_one() {
    let at = "2024-01-07T02:00:00Z";
    let files = [damaged(at), dump(Tier::Weekly, "orders", at)];
    let keep = DumpKeep { daily: newest(0), weekly: newest(0), ..DumpKeep::default() };
    assert_eq!(
        lines(&plan(&files, keep, "2024-01-09T06:00:00Z")),
        [
            "daily/orders_2024-01-07T02:00:00Z: minimum 1 of 1",
            "weekly/orders_2024-01-07T02:00:00Z: the last good one",
        ]
    );
}

#[test]
fn chosen_tables_never_stand_for_the_database() {
    let mut part = daily("2024-01-03T02:00:00Z");
    part.record.content = DumpContent::Parts {
        database: "orders".to_owned(),
        tables: vec!["public.lines".to_owned()],
        schemas: Vec::new(),
    };
    let mut globals = daily("2024-01-02T02:00:00Z");
    globals.record.content = DumpContent::Globals;
    globals.path = "daily/globals".to_owned();
    let files = [part, globals, daily("2024-01-01T02:00:00Z")];
    let keep = DumpKeep { daily: newest(1), minimum: 1, ..DumpKeep::default() };
    let plan = plan(&files, keep, "2034-01-01T00:00:00Z");
    assert_eq!((plan.keep.len(), plan.expire.len()), (3, 0));
    assert!(plan.keep.iter().all(|fate| fate.reasons.contains(&DumpKeepReason::LastGood)));
}

#[test]
fn dumps_that_were_taken_together_go_together() {
    let in_set = |day: u8, database: &str| {
        let at = format!("2024-01-{day:02}T02:00:00Z");
        let mut file = dump(Tier::Daily, database, &at);
        file.record.set = Some(BackupId::new(at.parse().unwrap(), 7));
        file
    };
    // The archive was dropped after the second.
    let files = [
        in_set(3, "orders"),
        in_set(2, "archive"),
        in_set(2, "orders"),
        in_set(1, "archive"),
        in_set(1, "orders"),
    ];
    let keep = DumpKeep { daily: newest(1), ..DumpKeep::default() };
    assert_eq!(
        lines(&plan(&files, keep, "2024-01-03T06:00:00Z")),
        [
            "daily/orders_2024-01-03T02:00:00Z: daily 1 of 1, the last good one",
            "daily/archive_2024-01-02T02:00:00Z: daily 1 of 1, the last good one",
            "daily/orders_2024-01-02T02:00:00Z: taken together with one that stays",
            "daily/archive_2024-01-01T02:00:00Z: may go",
            "daily/orders_2024-01-01T02:00:00Z: may go",
        ]
    );
}

#[test]
fn a_set_is_kept_as_a_week_and_goes_as_a_day() {
    let (sunday, monday) = ("2024-01-07T02:00:00Z", "2024-01-08T02:00:00Z");
    let mut files = Vec::new();
    for (tier, at) in [(Tier::Weekly, sunday), (Tier::Daily, sunday), (Tier::Daily, monday)] {
        for database in ["customers", "orders"] {
            let mut file = dump(tier, database, at);
            file.record.set = Some(BackupId::new(at.parse().unwrap(), 7));
            files.push(file);
        }
    }
    let keep = DumpKeep { daily: newest(1), weekly: newest(1), ..DumpKeep::default() };
    let gone: Vec<_> =
        plan(&files, keep, "2024-01-09T00:00:00Z").expire.into_iter().map(|fate| fate.path).collect();
    assert_eq!(gone, ["daily/customers_2024-01-07T02:00:00Z", "daily/orders_2024-01-07T02:00:00Z"]);
}

#[test]
fn a_hold_keeps_a_dump_until_it_ends() {
    let until = "2024-06-01T00:00:00Z";
    let held = DumpOnShelf {
        hold: Some(crate::Hold::new(Some(until.parse().unwrap()), None)),
        ..daily("2024-01-01T02:00:00Z")
    };
    let files = [daily("2024-01-02T02:00:00Z"), held];
    let keep = DumpKeep { daily: newest(1), ..DumpKeep::default() };
    assert_eq!(
        lines(&plan(&files, keep, "2024-05-31T23:59:59Z"))[1],
        "daily/orders_2024-01-01T02:00:00Z: held until 2024-06-01T00:00:00Z"
    );
    assert_eq!(plan(&files, keep, until).expire.len(), 1);
}

#[test]
fn another_instance_has_its_own_last_good_one() {
    let mut other = daily("2024-01-01T02:00:00Z");
    other.record.instance = "second".parse().unwrap();
    other.path = "second".to_owned();
    let keep = DumpKeep { daily: newest(1), ..DumpKeep::default() };
    let plan = plan(&[other, daily("2024-01-02T02:00:00Z")], keep, "2024-01-03T00:00:00Z");
    assert_eq!((plan.keep.len(), plan.expire.len()), (2, 0));
}

#[test]
fn the_plan_in_json_says_of_each_file_what_it_is_and_why_it_stays() {
    let keep = DumpKeep { daily: newest(1), ..DumpKeep::default() };
    let files = [daily("2024-01-02T02:00:00Z"), daily("2024-01-01T02:00:00Z")];
    let json = serde_json::to_value(plan(&files, keep, "2024-01-03T00:00:00Z")).unwrap();
    assert_eq!(
        json["keep"][0],
        serde_json::json!({
            "path": "daily/orders_2024-01-02T02:00:00Z", "id": "20240102T020000Z-0000", "instance": "main",
            "content": "database", "database": "orders", "tier": "daily",
            "finished_at": "2024-01-02T02:00:00Z", "stored_bytes": 1,
            "reasons": ["daily 1 of 1", "the last good one"],
        })
    );
    assert_eq!(json["expire"][0]["reasons"], serde_json::json!([]));
}
