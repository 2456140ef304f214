use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::finding::Finding;
use crate::record::{BackupType, EngineKind, Statistics};
use crate::summary::Condemned;

const GRACE: SignedDuration = SignedDuration::from_hours(7 * 24);

fn instance() -> InstanceId {
    "orders".parse().unwrap()
}

fn backup_at(finished_at: Timestamp, random: u32, damaged: bool) -> (BackupRecord, BackupMarks) {
    let record = BackupRecord {
        id: BackupId::new(finished_at, random),
        instance: instance(),
        engine: EngineKind::Postgresql,
        backup_type: BackupType::Full,
        parent: None,
        started_at: finished_at,
        finished_at,
        sequence: 0,
        start_position: None,
        stop_position: None,
        engine_version: "17.2".to_owned(),
        encrypted: true,
        statistics: Statistics::default(),
        facts: serde_json::Value::Null,
        findings: Vec::new(),
    };
    let findings = damaged
        .then(|| Finding::error("orders/packs/1", "is missing", "`backstay backup`"))
        .into_iter()
        .collect();
    (record, BackupMarks { findings, ..BackupMarks::default() })
}

fn backup(text: &str) -> (BackupRecord, BackupMarks) {
    backup_at(text.parse().unwrap(), 0, false)
}

fn plan(backups: &[(BackupRecord, BackupMarks)], policy: RetentionPolicy, as_of: &str) -> ExpirePlan {
    plan_expire(&instance(), backups, &policy, as_of.parse().unwrap(), GRACE)
}

fn wrong_page() -> Finding {
    Finding::error("base/5/16384", "block 7 has a wrong checksum", "`backstay list` shows older backups")
}

fn condemned(text: &str) -> (BackupRecord, BackupMarks) {
    let mut backup = backup(text);
    backup.1.condemned = Some(backup.0.finished_at.into());
    backup
}

fn damaged(text: &str) -> (BackupRecord, BackupMarks) {
    backup_at(text.parse().unwrap(), 0, true)
}

fn lines(plan: &ExpirePlan) -> Vec<String> {
    plan.keep
        .iter()
        .map(|kept| {
            let reasons: Vec<_> = kept.reasons.iter().map(ToString::to_string).collect();
            format!("{} {}", kept.finished_at, reasons.join(", "))
        })
        .chain(plan.expire.iter().map(|expired| format!("{} expires", expired.finished_at)))
        .collect()
}

#[test]
fn each_backup_says_by_which_rules_it_stays() {
    let backups = [
        backup("2026-11-21T02:00:00Z"),
        backup("2026-11-20T14:00:00Z"),
        backup("2026-11-20T02:00:00Z"),
        backup("2026-11-15T02:00:00Z"),
        backup("2026-10-31T02:00:00Z"),
        backup("2026-10-01T02:00:00Z"),
        backup("2025-12-31T02:00:00Z"),
        backup("2025-12-30T02:00:00Z"),
    ];
    let policy =
        RetentionPolicy { last: 1, daily: 2, weekly: 2, monthly: 3, yearly: 2, ..Default::default() };
    assert_eq!(
        lines(&plan(&backups, policy, "2026-11-21T12:00:00Z")),
        [
            "2026-11-21T02:00:00Z last 1 of 1, daily 1 of 2, weekly 1 of 2, monthly 1 of 3, yearly 1 of 2, the last sound backup",
            "2026-11-20T14:00:00Z daily 2 of 2",
            "2026-11-15T02:00:00Z weekly 2 of 2",
            "2026-10-31T02:00:00Z monthly 2 of 3",
            "2025-12-31T02:00:00Z monthly 3 of 3, yearly 2 of 2",
            "2026-11-20T02:00:00Z expires",
            "2026-10-01T02:00:00Z expires",
            "2025-12-30T02:00:00Z expires",
        ]
    );
}

#[test]
fn a_policy_that_nobody_wrote_keeps_everything() {
    let backups = [backup("2026-11-21T02:00:00Z"), backup("2020-01-01T00:00:00Z")];
    let only_minimum = RetentionPolicy { minimum: 1, ..Default::default() };
    for policy in [RetentionPolicy::default(), only_minimum] {
        assert!(plan(&backups, policy, "2030-01-01T00:00:00Z").expire.is_empty());
    }
}

#[test]
fn the_window_keeps_the_base_that_its_first_point_needs() {
    let backups = [
        backup("2026-11-21T02:00:00Z"),
        backup("2026-11-15T02:00:00Z"),
        backup("2026-11-10T02:00:00Z"),
        backup("2026-11-05T02:00:00Z"),
    ];
    let policy = RetentionPolicy { within_days: 7, ..Default::default() };
    assert_eq!(
        lines(&plan(&backups, policy, "2026-11-21T12:00:00Z")),
        [
            "2026-11-21T02:00:00Z within 7 days, the last sound backup",
            "2026-11-15T02:00:00Z within 7 days",
            "2026-11-10T02:00:00Z start of the window of 7 days",
            "2026-11-05T02:00:00Z expires",
        ]
    );
}

#[test]
fn a_damaged_backup_takes_no_place_and_does_not_go_early() {
    let mut newest = backup("2026-11-21T02:00:00Z");
    newest.1.findings.push(Finding::error("orders/packs/1", "is missing", "`backstay backup`"));
    let backups = [newest, backup("2026-11-20T02:00:00Z"), backup("2026-11-19T02:00:00Z")];
    let policy = RetentionPolicy { last: 1, ..Default::default() };
    assert_eq!(
        lines(&plan(&backups, policy, "2026-11-21T12:00:00Z")),
        [
            "2026-11-21T02:00:00Z last 1 of 1",
            "2026-11-20T02:00:00Z last 1 of 1, the last sound backup",
            "2026-11-19T02:00:00Z expires",
        ]
    );
}

#[test]
fn a_backup_whose_marker_does_not_open_stays_condemned_and_is_never_deleted() {
    let mut old = backup("2026-11-01T02:00:00Z");
    old.1.condemned = Some(Condemned { at: None });
    let backups = [backup("2026-11-21T02:00:00Z"), old];
    let policy = RetentionPolicy { last: 1, ..Default::default() };
    let late = plan(&backups, policy, "2126-11-21T12:00:00Z");
    assert_eq!((late.deletable().count(), late.to_condemn().count()), (0, 0));
    let [expired] = &late.expire[..] else { panic!("{late:?}") };
    assert_eq!((expired.condemned, expired.condemned_at, expired.deletable_at), (true, None, None));
    assert!(!serde_json::to_string(&late).unwrap().contains("9999"));
}

#[test]
fn a_condemned_backup_goes_after_its_grace_and_not_before() {
    let mut old = backup("2026-11-01T02:00:00Z");
    old.1.condemned = Some("2026-11-14T12:00:00Z".parse::<Timestamp>().unwrap().into());
    let backups = [backup("2026-11-21T02:00:00Z"), backup("2026-11-02T02:00:00Z"), old];
    let policy = RetentionPolicy { last: 1, ..Default::default() };
    let early = plan(&backups, policy, "2026-11-21T11:59:59Z");
    assert_eq!((early.deletable().count(), early.to_condemn().count()), (0, 1));
    let due = plan(&backups, policy, "2026-11-21T12:00:00Z");
    assert_eq!(due.deletable().map(|expired| &expired.id).collect::<Vec<_>>(), [&backups[2].0.id]);
}

#[test]
fn the_last_sound_backup_stays_although_it_was_condemned_before_the_others_were_found_damaged() {
    let backups = [
        damaged("2026-11-21T02:00:00Z"),
        condemned("2026-11-03T02:00:00Z"),
        condemned("2026-11-02T02:00:00Z"),
        condemned("2026-11-01T02:00:00Z"),
    ];
    let policy = RetentionPolicy { last: 1, ..Default::default() };
    let at = "2026-11-21T12:00:00Z";
    let one = plan(&backups, policy, at);
    assert_eq!(
        lines(&one),
        [
            "2026-11-21T02:00:00Z last 1 of 1",
            "2026-11-03T02:00:00Z the last sound backup",
            "2026-11-02T02:00:00Z expires",
            "2026-11-01T02:00:00Z expires",
        ]
    );
    assert_eq!(one.deletable().count(), 2);
    let two = plan(&backups, RetentionPolicy { minimum: 2, ..policy }, at);
    assert_eq!(
        lines(&two),
        [
            "2026-11-21T02:00:00Z last 1 of 1, minimum 1 of 2",
            "2026-11-03T02:00:00Z minimum 1 of 2, the last sound backup",
            "2026-11-02T02:00:00Z minimum 2 of 2",
            "2026-11-01T02:00:00Z expires",
        ]
    );

    // With a sound one that nobody condemned, the condemned go as they should.
    let mut healed = backups.to_vec();
    healed.push(backup("2026-11-21T03:00:00Z"));
    assert_eq!(plan(&healed, policy, at).deletable().count(), 3);
}

#[test]
fn the_newest_backup_without_wrong_pages_stays_beside_the_newest_sound_one() {
    let mut newest = backup("2026-11-21T02:00:00Z");
    newest.0.findings.push(wrong_page());
    let mut middle = newest.clone();
    middle.0 = BackupRecord { findings: vec![wrong_page()], ..backup("2026-11-20T02:00:00Z").0 };
    let backups = [newest, middle, backup("2026-11-19T02:00:00Z"), backup("2026-11-18T02:00:00Z")];
    let policy = RetentionPolicy { last: 1, ..Default::default() };
    let wanted = [
        "2026-11-21T02:00:00Z last 1 of 1, the last sound backup",
        "2026-11-19T02:00:00Z the last backup without wrong pages",
        "2026-11-20T02:00:00Z expires",
        "2026-11-18T02:00:00Z expires",
    ];
    assert_eq!(lines(&plan(&backups, policy, "2026-11-21T12:00:00Z")), wanted);

    let mut all_condemned = backups;
    for (record, marks) in &mut all_condemned[1..] {
        marks.condemned = Some(record.finished_at.into());
    }
    assert_eq!(lines(&plan(&all_condemned, policy, "2026-11-21T12:00:00Z")), wanted);
}

#[test]
fn what_ended_after_the_time_asked_for_is_left_alone() {
    let backups =
        [backup("2026-11-21T02:00:00Z"), backup("2026-11-20T02:00:00Z"), backup("2026-11-19T02:00:00Z")];
    let policy = RetentionPolicy { last: 1, ..Default::default() };
    assert_eq!(
        lines(&plan(&backups, policy, "2026-11-20T12:00:00Z")),
        [
            "2026-11-21T02:00:00Z later than the time asked for",
            "2026-11-20T02:00:00Z last 1 of 1, the last sound backup",
            "2026-11-19T02:00:00Z expires",
        ]
    );
}

#[test]
fn other_instances_are_no_concern_of_the_plan() {
    let mut other = backup("2026-11-21T02:00:00Z");
    other.0.instance = "sessions".parse().unwrap();
    let policy = RetentionPolicy { last: 1, ..Default::default() };
    let plan = plan(&[other, backup("2020-01-01T00:00:00Z")], policy, "2026-11-21T12:00:00Z");
    assert_eq!((plan.keep.len(), plan.expire.len()), (1, 0));
}

/// Minutes since the beginning of 2026: up to about three years of backups.
const SPAN_MINUTES: i64 = 3 * 366 * 24 * 60;

fn minute(n: i64) -> Timestamp {
    "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(n)
}

/// From none to sixty, with every mix of sound, damaged, condemned and with wrong
/// pages; in some of the cases nearly all are one of these.
fn any_backups() -> impl Strategy<Value = Vec<(BackupRecord, BackupMarks)>> {
    let share = || prop::sample::select(vec![0.1, 0.5, 0.9]);
    (share(), share(), share()).prop_flat_map(|(damaged, condemned, unclean)| {
        let bits =
            (prop::bool::weighted(damaged), prop::bool::weighted(condemned), prop::bool::weighted(unclean));
        prop::collection::btree_map(0..SPAN_MINUTES, bits, 0..60).prop_map(|all| {
            all.into_iter()
                .map(|(at, (damaged, condemned, unclean))| {
                    let mut backup = backup_at(minute(at), at as u32, damaged);
                    backup.1.condemned = condemned.then(|| minute(at).into());
                    if unclean {
                        backup.0.findings.push(wrong_page());
                    }
                    backup
                })
                .collect()
        })
    })
}

fn any_policy() -> impl Strategy<Value = RetentionPolicy> {
    prop::array::uniform8(0u32..6).prop_map(
        |[last, hourly, daily, weekly, monthly, yearly, within_days, minimum]| RetentionPolicy {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within_days: within_days * 20,
            minimum,
        },
    )
}

fn expired(plan: &ExpirePlan) -> BTreeSet<BackupId> {
    plan.expire.iter().map(|expired| expired.id.clone()).collect()
}

proptest! {
    #[test]
    fn the_last_sound_backup_never_goes_and_at_least_the_minimum_stays(
        backups in any_backups(), policy in any_policy(), at in 0..SPAN_MINUTES * 2,
    ) {
        let plan = plan_expire(&instance(), &backups, &policy, minute(at), GRACE);
        let gone = expired(&plan);
        let until = backups.iter().filter(|(record, _)| record.finished_at <= minute(at));
        let stays = |backup: &&(BackupRecord, BackupMarks)| !gone.contains(&backup.0.id);
        let sound: Vec<_> = until.clone().filter(|(_, marks)| !marks.is_damaged()).collect();
        let least = (policy.minimum as usize).max(1).min(sound.len());
        prop_assert!(sound.iter().copied().filter(stays).count() >= least);
        // The newest, where retention had not let it go before.
        let newest = sound.iter().filter(|(_, marks)| marks.condemned.is_none());
        let newest = newest.max_by_key(|(record, _)| record.finished_at);
        prop_assert!(newest.is_none_or(&stays));
        let mut clean = sound.iter().copied().filter(|(record, _)| record.is_clean());
        prop_assert!(clean.clone().next().is_none() || clean.any(|backup| stays(&backup)));

        prop_assert_eq!(plan.keep.len() + plan.expire.len(), backups.len());
        prop_assert!(plan.keep.iter().all(|kept| !kept.reasons.is_empty()));
        // Something is left of whatever there was.
        prop_assert!(backups.is_empty() || !plan.keep.is_empty());
    }

    #[test]
    fn what_goes_now_also_goes_later_when_more_backups_have_come(
        backups in any_backups(), policy in any_policy(),
        now in 0..SPAN_MINUTES, wait in 0..SPAN_MINUTES,
    ) {
        let now_plan = plan_expire(&instance(), &backups, &policy, minute(now), GRACE);
        let later_plan = plan_expire(&instance(), &backups, &policy, minute(now + wait), GRACE);
        prop_assert!(expired(&now_plan).is_subset(&expired(&later_plan)));
    }

    #[test]
    fn a_second_run_over_what_is_left_lets_nothing_more_go(
        backups in any_backups(), policy in any_policy(), at in 0..SPAN_MINUTES * 2,
    ) {
        let gone = expired(&plan_expire(&instance(), &backups, &policy, minute(at), GRACE));
        let left: Vec<_> = backups.into_iter().filter(|(record, _)| !gone.contains(&record.id)).collect();
        let again = plan_expire(&instance(), &left, &policy, minute(at), GRACE);
        prop_assert_eq!(expired(&again), BTreeSet::new());
    }

    #[test]
    fn finding_damage_lets_no_backup_go_that_would_have_stayed(
        backups in any_backups(), policy in any_policy(), at in 0..SPAN_MINUTES * 2,
    ) {
        let mut whole = backups.clone();
        whole.iter_mut().for_each(|(_, marks)| marks.findings.clear());
        let without = expired(&plan_expire(&instance(), &whole, &policy, minute(at), GRACE));
        let with = expired(&plan_expire(&instance(), &backups, &policy, minute(at), GRACE));
        let newly: Vec<_> = with.difference(&without).collect();
        prop_assert!(newly.is_empty(), "{:?}", newly);
    }

    #[test]
    fn a_more_generous_policy_lets_nothing_more_go(
        backups in any_backups(), policy in any_policy(), at in 0..SPAN_MINUTES * 2,
    ) {
        prop_assume!(!policy.keeps_everything());
        let generous = RetentionPolicy {
            last: policy.last + 1, hourly: policy.hourly + 1, daily: policy.daily + 1, weekly: policy.weekly + 1,
            monthly: policy.monthly + 1, yearly: policy.yearly + 1, within_days: policy.within_days + 1,
            minimum: policy.minimum + 1,
        };
        let tight = expired(&plan_expire(&instance(), &backups, &policy, minute(at), GRACE));
        let loose = expired(&plan_expire(&instance(), &backups, &generous, minute(at), GRACE));
        prop_assert!(loose.is_subset(&tight));
    }
}

#[test]
fn a_hold_keeps_a_backup_until_it_ends_also_one_that_was_let_go() {
    let until = "2026-06-01T00:00:00Z";
    let hold = |mut backup: (BackupRecord, BackupMarks)| {
        backup.1.hold = Some(crate::Hold::new(Some(until.parse().unwrap()), Some("audit".to_owned())));
        backup
    };
    let backups = [
        hold(condemned("2026-01-01T02:00:00Z")),
        hold(backup("2026-01-02T02:00:00Z")),
        backup("2026-01-03T02:00:00Z"),
        backup("2026-01-04T02:00:00Z"),
    ];
    let policy = RetentionPolicy { last: 1, ..RetentionPolicy::default() };
    let before = plan(&backups, policy, "2026-05-31T23:59:59Z");
    let kept: Vec<String> = before.keep.iter().map(|kept| kept.reasons[0].to_string()).collect();
    assert_eq!(
        kept[1..],
        ["held until 2026-06-01T00:00:00Z (audit)", "held until 2026-06-01T00:00:00Z (audit)"]
    );
    assert_eq!((before.keep.len(), before.expire.len()), (3, 1));
    assert_eq!(plan(&backups, policy, until).expire.len(), 3);
}
