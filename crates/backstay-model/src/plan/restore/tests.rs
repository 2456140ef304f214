use super::*;
use crate::position::Position;
use crate::record::{BackupType, EngineKind, Statistics};

/// The backup of hour `n`: 1 GiB in 1000 files, ending at half past, LSN n/0.
pub(in crate::plan) fn record(n: u8) -> BackupRecord {
    let at = |minute: u8| format!("2026-11-21T{n:02}:{minute:02}:00Z").parse::<Timestamp>().unwrap();
    let position = |lsn: u64| Some(Position::Wal { timeline: TimelineId(1), lsn: Lsn(lsn) });
    BackupRecord {
        id: BackupId::new(at(0), u32::from(n)),
        instance: "orders".parse().unwrap(),
        engine: EngineKind::Postgresql,
        backup_type: BackupType::Full,
        parent: None,
        started_at: at(0),
        finished_at: at(30),
        sequence: 0,
        start_position: position(u64::from(n) << 32),
        stop_position: position((u64::from(n) << 32) + 0x100),
        engine_version: "17.2".to_owned(),
        encrypted: true,
        statistics: Statistics { files: 1000, logical_bytes: 1 << 30, ..Statistics::default() },
        facts: serde_json::Value::Null,
        findings: Vec::new(),
    }
}

fn sound(n: u8) -> (BackupRecord, BackupMarks) {
    (record(n), BackupMarks::default())
}

fn damaged(n: u8) -> (BackupRecord, BackupMarks) {
    let finding = Finding::error("orders/packs/7", "frame 3 does not open", "`backstay backup orders`");
    (record(n), BackupMarks { findings: vec![finding], ..BackupMarks::default() })
}

pub(in crate::plan) fn request(target: &str) -> RestoreRequest {
    RestoreRequest {
        instance: "orders".parse().unwrap(),
        backup: None,
        target: target.parse().unwrap(),
        stop: StopOptions::default(),
        into: "/srv/restored".to_owned(),
        start: false,
        standby: false,
    }
}

/// Without any log.
fn plan_restore(
    request: &RestoreRequest,
    backups: &[(BackupRecord, BackupMarks)],
    unreadable: &[(BackupId, String)],
    rates: MeasuredRates,
) -> RestorePlan {
    plan_recovery(request, backups, unreadable, &KnownLog::default(), rates).unwrap()
}

fn plan(request: &RestoreRequest, backups: &[(BackupRecord, BackupMarks)]) -> RestorePlan {
    plan_restore(request, backups, &[], MeasuredRates::default())
}

#[test]
fn latest_and_immediate_take_the_end_of_the_newest_backup_in_any_order_of_records() {
    for target in ["latest", "immediate"] {
        let plan = plan(&request(target), &[sound(2), sound(3), sound(1)]);
        assert!(!plan.is_refused());
        assert_eq!(plan.base, Some(record(3).id));
        let reached = plan.reached.unwrap();
        assert_eq!(reached.time, record(3).finished_at);
        assert_eq!(reached.position.as_deref(), Some("1@3/100"));
        assert_eq!((plan.files, plan.bytes), (1000, 1 << 30));
        assert!(plan.findings.is_empty());
    }
}

#[test]
fn a_damaged_newest_backup_is_named_and_the_one_before_is_taken() {
    let plan = plan(&request("latest"), &[sound(1), sound(2), damaged(3)]);
    assert!(!plan.is_refused());
    assert_eq!(plan.base, Some(record(2).id));
    assert_eq!(plan.findings.len(), 1);
    let finding = &plan.findings[0];
    assert_eq!(finding.level, crate::FindingLevel::Error);
    assert_eq!(finding.subject, record(3).id.as_str());
    assert!(finding.message.contains(record(2).id.as_str()), "{}", finding.message);
    assert!(finding.message.contains("frame 3 does not open"), "{}", finding.message);
}

#[test]
fn a_damaged_backup_asked_for_by_name_is_refused_and_the_one_before_is_offered() {
    let mut request = request("latest");
    request.backup = Some(record(2).id);
    let plan = plan(&request, &[sound(1), damaged(2), sound(3)]);
    assert_eq!(plan.base, None);
    assert_eq!(plan.refusals.len(), 1);
    assert_eq!(plan.refusals[0].kind, ErrorKind::Corrupt);
    let offer = format!("`backstay restore orders --backup {}`", record(1).id);
    assert!(plan.refusals[0].hints[0].starts_with(&offer), "{:?}", plan.refusals[0].hints);
}

#[test]
fn the_backup_before_is_the_one_taken_before_whatever_a_clock_said() {
    // The clock was set back by two hours between the second and the third.
    let taken = |sequence: u64, hour: u8| {
        let (record, marks) = if sequence == 3 { damaged(hour) } else { sound(hour) };
        (BackupRecord { sequence, ..record }, marks)
    };
    let backups = [taken(1, 4), taken(2, 5), taken(3, 3), taken(4, 2)];
    let mut request = request("latest");
    request.backup = Some(record(3).id);
    let plan = plan(&request, &backups);
    assert!(plan.refusals[0].hints[0].contains(record(5).id.as_str()), "{:?}", plan.refusals[0].hints);
}

fn with_wrong_pages(n: u8, pages: u32) -> (BackupRecord, BackupMarks) {
    let page = |page| Finding::error("base/5/16384", format!("page {page} is wrong"), "`pg_amcheck`");
    let mut findings = vec![Finding::info("orders", "nothing to say", "`backstay status`")];
    findings.extend((0..pages).map(page));
    (BackupRecord { findings, ..record(n) }, BackupMarks::default())
}

#[test]
fn a_base_with_wrong_pages_is_taken_with_a_warning_that_names_the_newest_clean_one_before() {
    let backups = [sound(1), sound(2), damaged(3), with_wrong_pages(4, 1), with_wrong_pages(5, 5), sound(6)];
    for (named, backups) in [(false, &backups[..5]), (true, &backups[..])] {
        let request = RestoreRequest { backup: named.then(|| record(5).id), ..request("latest") };
        let plan = plan(&request, backups);
        assert_eq!((plan.base, plan.findings.len()), (Some(record(5).id), 1));
        let warning = &plan.findings[0];
        assert_eq!((warning.level, &*warning.subject), (crate::FindingLevel::Warning, record(5).id.as_str()));
        let said = "5 errors were found while this backup was taken, and come back with it: base/5/16384: page 0 \
                    is wrong; base/5/16384: page 1 is wrong; base/5/16384: page 2 is wrong; and 2 more";
        assert_eq!(warning.message, said);
        let offer = format!("`backstay restore orders --backup {} --into DIR`", record(2).id);
        assert!(warning.remedy.starts_with(&offer), "{}", warning.remedy);
    }
}

#[test]
fn where_no_clean_backup_came_before_the_warning_says_so_and_a_clean_base_has_none() {
    let backups = [damaged(1), with_wrong_pages(2, 1), sound(3)];
    let alone = plan(&request("latest"), &backups[..2]);
    assert!(alone.findings[0].message.starts_with("1 error was found"), "{:?}", alone.findings);
    assert!(!alone.findings[0].message.contains("more"), "{:?}", alone.findings);
    let remedy = &alone.findings[0].remedy;
    assert!(remedy.contains("backstay show") && remedy.contains("no sound backup before"), "{remedy}");
    assert_eq!(plan(&request("latest"), &backups).findings, []);
}

fn drilled(n: u8, sound: bool) -> (BackupRecord, BackupMarks) {
    let at = Some("2026-11-21T23:00:00Z".parse().unwrap());
    (record(n), BackupMarks { drilled_at: at, drill_sound: Some(sound), ..BackupMarks::default() })
}

#[test]
fn a_base_that_no_drill_brought_back_is_taken_with_a_warning_that_names_one_that_was() {
    let backups = [drilled(1, true), drilled(2, true), sound(3), drilled(4, false)];
    for wanted in [None, Some(record(4).id)] {
        let plan = plan(&RestoreRequest { backup: wanted, ..request("latest") }, &backups);
        assert_eq!((plan.base, plan.findings.len()), (Some(record(4).id), 1));
        let warning = &plan.findings[0];
        assert_eq!(warning.level, crate::FindingLevel::Warning);
        assert_eq!(warning.message, "the drill of this backup at 2026-11-21T23:00:00Z was NOT sound");
        let offer = format!("`backstay restore orders --backup {} --into DIR`", record(2).id);
        assert!(warning.remedy.starts_with(&offer), "{}", warning.remedy);
    }
    let alone = plan(&request("latest"), &backups[3..]);
    assert!(
        alone.findings[0].remedy.starts_with("`backstay drill orders --to 2026-11-21T04:30:00Z`"),
        "{:?}",
        alone.findings
    );
    assert_eq!(plan(&request("latest"), &backups[..3]).findings, []);
}

#[test]
fn the_oldest_backup_being_damaged_a_newer_one_is_offered() {
    let mut request = request("latest");
    request.backup = Some(record(1).id);
    let plan = plan(&request, &[damaged(1), sound(2), sound(3)]);
    assert!(plan.refusals[0].hints[0].contains(record(2).id.as_str()), "{:?}", plan.refusals[0].hints);
}

#[test]
fn when_every_backup_is_damaged_the_refusal_says_so() {
    let plan = plan(&request("latest"), &[damaged(1), damaged(2)]);
    assert_eq!(plan.refusals[0].kind, ErrorKind::Corrupt);
    assert!(plan.refusals[0].message.contains("no backup of it is sound"));
}

#[test]
fn a_time_between_two_backups_is_refused_and_both_are_named() {
    let plan = plan(&request("2026-11-21T02:45:00Z"), &[sound(1), sound(2), sound(3), sound(4)]);
    let refusal = &plan.refusals[0];
    assert_eq!(refusal.kind, ErrorKind::Unrecoverable);
    assert!(refusal.message.contains("no log is archived"), "{}", refusal.message);
    assert!(
        refusal.message.contains("the nearest are 2026-11-21T02:30:00Z (1@2/100) and 2026-11-21T03:30:00Z")
    );
    assert!(refusal.hints[0].contains(record(2).id.as_str()));
    assert!(refusal.hints[1].contains(record(3).id.as_str()));
}

#[test]
fn a_target_before_all_or_after_all_names_the_one_nearest() {
    let backups = [sound(1), sound(2)];
    let early = plan(&request("lsn:0/500"), &backups);
    assert!(early.refusals[0].message.contains("the nearest is 2026-11-21T01:30:00Z"));
    let late = plan(&request("2026-11-22T00:00:00Z"), &backups);
    assert!(late.refusals[0].message.contains("the nearest is 2026-11-21T02:30:00Z"));
    for target in ["xid:1234", "name:before-deploy"] {
        let plan = plan(&request(target), &backups);
        assert_eq!(plan.refusals[0].kind, ErrorKind::Unrecoverable);
        assert!(plan.base.is_none());
    }
}

#[test]
fn the_very_end_of_a_backup_is_a_target_that_is_reached() {
    let backups = [sound(1), sound(2), sound(3)];
    for target in ["2026-11-21T02:30:00Z", "lsn:2/100"] {
        assert_eq!(plan(&request(target), &backups).base, Some(record(2).id), "{target}");
    }
}

#[test]
fn the_end_of_a_damaged_backup_is_refused_as_damaged_and_not_as_unreachable() {
    let plan = plan(&request("2026-11-21T02:30:00Z"), &[sound(1), damaged(2), sound(3)]);
    assert_eq!(plan.refusals[0].kind, ErrorKind::Corrupt);
}

#[test]
fn a_named_backup_that_does_not_end_at_the_target_is_refused() {
    let mut request = request("2026-11-21T03:30:00Z");
    request.backup = Some(record(2).id);
    let plan = plan(&request, &[sound(2), sound(3)]);
    assert_eq!(plan.refusals[0].kind, ErrorKind::Unrecoverable);
}

#[test]
fn without_backups_or_with_an_unknown_one_nothing_is_found() {
    let none = plan(&request("latest"), &[]);
    assert_eq!(none.refusals[0].kind, ErrorKind::NotFound);
    assert!(none.refusals[0].hints[0].contains("`backstay backup orders`"));

    let mut other = sound(1);
    other.0.instance = "sessions".parse().unwrap();
    let mut request = request("latest");
    assert_eq!(plan(&request, std::slice::from_ref(&other)).refusals[0].kind, ErrorKind::NotFound);
    request.backup = Some(record(1).id);
    assert_eq!(plan(&request, &[other, sound(2)]).refusals[0].kind, ErrorKind::NotFound);
}

#[test]
fn a_condemned_backup_can_be_restored_with_a_warning() {
    let mut backup = sound(1);
    backup.1.condemned = Some("2026-11-21T12:00:00Z".parse::<Timestamp>().unwrap().into());
    let plan = plan(&request("latest"), &[backup]);
    assert!(!plan.is_refused());
    assert!(plan.findings[0].message.contains("2026-11-21T12:00:00Z"));
}

#[test]
fn the_time_expected_follows_what_was_measured() {
    let mut request = request("latest");
    let rates =
        MeasuredRates { place_bytes_per_second: Some((1u64 << 29) as f64), recover_seconds: Some(3.0) };
    assert_eq!(plan_restore(&request, &[sound(1)], &[], rates).expected_seconds, 2.0);
    request.start = true;
    assert_eq!(plan_restore(&request, &[sound(1)], &[], rates).expected_seconds, 5.0);
    let unmeasured = plan_restore(&request, &[sound(1)], &[], MeasuredRates::default());
    assert!(unmeasured.expected_seconds > 5.0);
    let zero = MeasuredRates { place_bytes_per_second: Some(0.0), recover_seconds: None };
    assert!(plan_restore(&request, &[sound(1)], &[], zero).expected_seconds.is_finite());
}

#[test]
fn starting_adds_the_steps_of_recovery_and_proof() {
    let mut request = request("latest");
    let placed = plan(&request, &[sound(1)]).steps;
    request.start = true;
    let started = plan(&request, &[sound(1)]).steps;
    assert_eq!(started.len(), placed.len() + 2);
    assert!(started[placed.len()].contains("1@1/100"));
    assert!(placed.iter().any(|step| step.contains("1000 files (1.00 GiB)")));
}

#[test]
fn a_plan_without_a_base_has_a_refusal_and_never_both_for_every_combination() {
    let all =
        [vec![], vec![sound(1)], vec![damaged(1)], vec![sound(1), damaged(2)], vec![damaged(1), sound(2)]];
    let targets = [
        "latest",
        "immediate",
        "lsn:1/100",
        "lsn:9/0",
        "xid:1",
        "name:a",
        "2026-11-21T02:30:00Z",
        "2026-11-21T00:00:00Z",
    ];
    for backups in &all {
        for target in targets {
            for backup in [None, Some(record(1).id), Some(record(9).id)] {
                let request = RestoreRequest { backup, ..request(target) };
                let plan = plan(&request, backups);
                assert_eq!(plan.base.is_none(), plan.is_refused(), "{request:?}");
                for refusal in &plan.refusals {
                    assert!(!refusal.hints.is_empty());
                    assert!(refusal.hints.iter().all(|hint| hint.contains('`') && !hint.ends_with('.')));
                }
            }
        }
    }
}

#[test]
fn a_backup_whose_manifest_does_not_open_is_named_and_never_taken_for_absent() {
    let unreadable = |n: u8| vec![(record(n).id, "the tag is wrong".to_owned())];
    let plan_with = |request: &RestoreRequest, backups: &[(BackupRecord, BackupMarks)], n| {
        plan_restore(request, backups, &unreadable(n), MeasuredRates::default())
    };
    let newer = plan_with(&request("latest"), &[sound(1)], 2);
    assert_eq!(newer.base, Some(record(1).id));
    assert!(newer.findings[0].message.contains("the tag is wrong"));

    let older = plan_with(&request("latest"), &[sound(2)], 1);
    assert!(older.findings.is_empty() && !older.is_refused());

    let alone = plan_with(&request("latest"), &[], 1);
    assert_eq!(alone.refusals[0].kind, ErrorKind::Corrupt);

    let named = RestoreRequest { backup: Some(record(2).id), ..request("latest") };
    let refused = plan_with(&named, &[sound(1), sound(3)], 2);
    assert_eq!(refused.refusals[0].kind, ErrorKind::Corrupt);
    assert!(refused.refusals[0].hints[0].contains(record(1).id.as_str()));

    let other = RestoreRequest { backup: Some(record(1).id), ..request("latest") };
    assert_eq!(plan_with(&other, &[sound(1)], 2).base, Some(record(1).id));
}

mod log;
