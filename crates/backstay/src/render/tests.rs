//! What a person sees, from fixed reports: wording changes on purpose only.

use backstay_engine::postgres::starting::Starting;
use backstay_model::drill::{Check, DrillReport, Proof};
use backstay_model::error::Classified;
use backstay_model::plan::restore::{EndOfTransaction, Reached};
use backstay_model::plan::{Refusal, RestorePlan, TablespacePlace};
use backstay_model::policy::ExpirePlan;
use backstay_model::policy::retention::{Expired, KeepReason, Kept, Period};
use backstay_model::status::{
    ArchiveState, ArchiveStatus, Health, Hole, InstanceStatus, LastDrill, ObjectivesReport, RecoveryWindow,
    SlotStatus,
};
use backstay_model::summary::BackupSummary;
use backstay_model::verify::VerifyReport;
use backstay_model::{BackupType, EngineKind, ErrorKind, Finding, Lsn, RecoveryTarget, TimelineId};
use backstay_ops::key::KeySlot;
use backstay_ops::list::BackupDetail;
use backstay_ops::restore::RestoreReport;
use insta::assert_snapshot;
use jiff::Timestamp;

use super::errors::Told;
use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn damage() -> Finding {
    Finding::error(
        "orders/packs/20261120T024300Z-9xq2-1",
        "frame 7 does not open",
        "`backstay backup orders` stores its blocks again",
    )
}

fn wrong_page() -> Finding {
    Finding::error(
        "base/5/16384",
        "page 1 has checksum 0x1234, its content 0x4321",
        "keep the last backup without this finding, run `pg_amcheck`, restore the table from it",
    )
}

fn summary(day: u8, backup_type: BackupType) -> BackupSummary {
    let incremental = backup_type == BackupType::Incremental;
    BackupSummary {
        id: format!("202611{day:02}T024300Z-7q3f").parse().unwrap(),
        instance: "orders".parse().unwrap(),
        engine: EngineKind::Postgresql,
        backup_type,
        parent: incremental.then(|| format!("202611{:02}T024300Z-7q3f", day - 1).parse().unwrap()),
        started_at: at(&format!("2026-11-{day:02}T02:43:00Z")),
        finished_at: at(&format!("2026-11-{day:02}T02:43:02.4Z")),
        duration_seconds: 2.4,
        sequence: u64::from(day),
        start_position: Some("1@0/3000028".into()),
        stop_position: Some("1@0/3000138".into()),
        timeline: None,
        logical_bytes: 1000 << 20,
        read_bytes: 1000 << 20,
        new_bytes: if incremental { 41 << 20 } else { 1000 << 20 },
        stored_bytes: if incremental { 6 << 20 } else { 152 << 20 },
        files: 1312,
        restore_amplification: 1.04,
        engine_version: "15.14".into(),
        encrypted: true,
        hold: None,
        hold_reason: None,
        condemned: false,
        condemned_at: None,
        verified_at: None,
        drilled_at: None,
        drill_sound: None,
        damaged: false,
        wrong_pages: false,
        findings: Vec::new(),
    }
}

fn plan() -> RestorePlan {
    RestorePlan {
        instance: "orders".parse().unwrap(),
        target: RecoveryTarget::Latest,
        reached: Some(Reached {
            time: at("2026-11-21T02:43:02Z"),
            position: Some("1@0/3000138".into()),
            last_transaction: Some(EndOfTransaction {
                transaction: 745,
                time: at("2026-11-21T02:43:02.341931Z"),
                position: Lsn(0x300_00a0),
            }),
            stops_before: Some(EndOfTransaction {
                transaction: 747,
                time: at("2026-11-21T02:43:02.408771Z"),
                position: Lsn(0x300_0138),
            }),
        }),
        base: Some("20261121T024300Z-7q3f".parse().unwrap()),
        log: Vec::new(),
        recovery: None,
        files: 1312,
        bytes: 1000 << 20,
        expected_seconds: 1.3,
        tablespaces: vec![TablespacePlace {
            name: "fast".into(),
            old: "/mnt/fast".into(),
            new: "/srv/fast".into(),
        }],
        steps: vec!["check that /srv/restored is empty".into(), "write 1312 files".into()],
        refusals: Vec::new(),
        findings: Vec::new(),
    }
}

fn checks() -> Vec<Check> {
    vec![
        Check::equal("databases", "3", "3"),
        Check::equal("rows of public.pgbench_accounts", "1000000", "999998"),
    ]
}

#[test]
fn a_list_of_backups() {
    let mut verified = summary(21, BackupType::Incremental);
    verified.verified_at = Some(at("2026-11-21T03:00:00Z"));
    let mut damaged = summary(20, BackupType::Full);
    damaged.findings = vec![damage()];
    damaged.damaged = true;
    damaged.encrypted = false;
    (damaged.drilled_at, damaged.drill_sound) = (Some(at("2026-11-20T03:00:00Z")), Some(false));
    let mut wrong = summary(19, BackupType::Full);
    wrong.findings = vec![wrong_page()];
    wrong.wrong_pages = true;
    assert_snapshot!(backups::list(&Output::plain(), &[verified, damaged, wrong]));
    assert_snapshot!(backups::list(&Output::plain(), &[]), @"no backups yet; `backstay backup` takes one");
}

#[test]
fn one_backup_in_full() {
    let mut summary = summary(21, BackupType::Incremental);
    summary.findings = vec![wrong_page()];
    summary.wrong_pages = true;
    let facts =
        serde_json::json!({ "data_checksums": true, "server": { "version": "15.14", "tablespaces": [] } });
    assert_snapshot!(backups::show(&Output::plain(), &BackupDetail { summary, facts }));
}

#[test]
fn a_backup_that_was_taken() {
    assert_snapshot!(backups::taken(&Output::plain(), &summary(21, BackupType::Incremental)));
}

#[test]
fn the_status_of_two_instances() {
    let good = InstanceStatus {
        instance: "orders".parse().unwrap(),
        engine: EngineKind::Postgresql,
        health: Health::Ok,
        health_reason: None,
        recovery_windows: vec![RecoveryWindow {
            from: at("2026-11-21T02:43:02Z"),
            to: at("2026-11-21T02:43:02Z"),
            timeline: Some(TimelineId(1)),
            from_position: Some("1@0/3000138".into()),
            to_position: Some("1@0/3000138".into()),
        }],
        holes: Vec::new(),
        recovery_point_age_seconds: Some(11_100.0),
        archive: ArchiveStatus::off(),
        last_backup: Some(summary(21, BackupType::Incremental)),
        last_drill: Some(LastDrill {
            at: at("2026-11-21T04:00:00Z"),
            backup: "20261121T024300Z-7q3f".parse().unwrap(),
            target: RecoveryTarget::Latest,
            recovery_time_seconds: Some(3.2),
            sound: true,
            findings: Vec::new(),
        }),
        objectives: ObjectivesReport {
            rpo_seconds: Some(3600.0),
            rpo_met: Some(false),
            rto_seconds: Some(1800.0),
            rto_met: Some(true),
        },
    };
    let bad = InstanceStatus {
        instance: "ledger".parse().unwrap(),
        health: Health::Down,
        health_reason: Some("connect to the server at db:5432".into()),
        recovery_windows: Vec::new(),
        recovery_point_age_seconds: None,
        last_backup: None,
        last_drill: None,
        objectives: ObjectivesReport { rpo_seconds: None, rpo_met: None, rto_seconds: None, rto_met: None },
        ..good.clone()
    };
    assert_snapshot!(status::status(&Output::plain(), &[good, bad]));
}

#[test]
fn the_status_of_an_archived_log_with_holes() {
    let window = |timeline, from: &str, to: &str| RecoveryWindow {
        from: at(from),
        to: at(to),
        timeline: Some(TimelineId(timeline)),
        from_position: Some(format!("{timeline}@0/3000138")),
        to_position: Some(format!("{timeline}@0/9000000")),
    };
    let hole = Hole {
        from: at("2026-11-20T11:00:00Z"),
        to: Some(at("2026-11-20T11:05:00Z")),
        why: "it was stored, and is gone from the store".into(),
        given_up_at: None,
        timeline: TimelineId(1),
        from_position: "1@0/4000000".into(),
        to_position: Some("1@0/5000000".into()),
        backup: Some("20261121T024300Z-7q3f".parse().unwrap()),
        reachable_from: Some(at("2026-11-21T02:43:02Z")),
    };
    let last = Hole {
        from: at("2026-11-21T05:00:00Z"),
        to: None,
        why: "the slot backstay_orders is lost: the server let go of log before it was received".into(),
        given_up_at: None,
        timeline: TimelineId(2),
        from_position: "2@0/9000000".into(),
        to_position: None,
        backup: None,
        reachable_from: None,
    };
    let status = InstanceStatus {
        instance: "orders".parse().unwrap(),
        engine: EngineKind::Postgresql,
        health: Health::Degraded,
        health_reason: Some("the archive does not run".into()),
        recovery_windows: vec![
            window(1, "2026-11-20T02:43:02Z", "2026-11-20T11:00:00Z"),
            window(2, "2026-11-21T02:43:02Z", "2026-11-21T05:00:00Z"),
        ],
        holes: vec![hole, last],
        recovery_point_age_seconds: Some(90.0),
        archive: ArchiveStatus {
            state: ArchiveState::Stopped,
            position: Some("2@0/9000000".into()),
            source_position: Some("2@0/D000000".into()),
            lag_bytes: Some(64 << 20),
            newest_commit_at: Some(at("2026-11-21T05:00:00Z")),
            newest_commit_age_seconds: Some(90.0),
            slot: Some(SlotStatus {
                name: "backstay_orders".into(),
                wal_status: Some("lost".into()),
                retained_bytes: None,
                limit_bytes: Some(32 << 20),
            }),
            ..ArchiveStatus::off()
        },
        last_backup: None,
        last_drill: None,
        objectives: ObjectivesReport { rpo_seconds: None, rpo_met: None, rto_seconds: None, rto_met: None },
    };
    let mut well = status.clone();
    (well.health, well.health_reason, well.holes) = (Health::Ok, None, Vec::new());
    well.recovery_windows.remove(0);
    well.archive.state = ArchiveState::Running;
    (well.archive.lag_bytes, well.archive.source_position) = (Some(0), well.archive.position.clone());
    well.archive.slot.as_mut().unwrap().wal_status = Some("reserved".into());
    well.archive.slot.as_mut().unwrap().retained_bytes = Some(16 << 20);
    assert_snapshot!(status::status(&Output::plain(), &[status, well]));
}

#[test]
fn verifications_sound_damaged_and_unseen() {
    let output = Output::plain();
    let mut report = VerifyReport::new("orders");
    (report.objects_read, report.bytes_read) = (12, 158 << 20);
    assert_snapshot!(verify::report(&output, &report), @"orders: sound; 12 objects and 158 MiB read");
    report.not_seen(Finding::warning(
        "orders/packs/x-2",
        "the store did not answer",
        "`backstay verify` again",
    ));
    let unseen = verify::report(&output, &report);
    report.found(damage());
    assert_snapshot!(format!("{unseen}\n{}", verify::report(&output, &report)));
}

#[test]
fn a_restore_before_and_after() {
    let output = Output::plain();
    let mut warned = plan();
    warned.findings.push(Finding::warning(
        "20261122T024300Z-7q3f",
        "the newest backup is damaged",
        "`backstay restore orders --backup 20261122T024300Z-7q3f` restores it all the same",
    ));
    let report = RestoreReport {
        plan: plan(),
        restored_bytes: 1000 << 20,
        duration_seconds: 1.25,
        recovery_time_seconds: Some(2.5),
        proof: Some(Proof { at: at("2026-11-21T05:00:00Z"), sound: false, checks: checks() }),
        starting: Some(Starting::Command("pg_ctl -D /srv/restored start".into())),
        can_be_proved: true,
        is_summed_up: false,
    };
    let before = restore::plan(&output, &warned);
    let after =
        restore::done(&output, &report, report.plan.findings.len(), std::path::Path::new("/srv/restored"));
    assert_snapshot!(format!("{before}\n{after}"));
}

#[test]
fn a_drill_that_failed() {
    let report = DrillReport {
        instance: "orders".parse().unwrap(),
        backup: "20261121T024300Z-7q3f".parse().unwrap(),
        target: RecoveryTarget::Latest,
        at: at("2026-11-21T04:00:00Z"),
        sound: false,
        place_seconds: Some(1.2),
        recover_seconds: Some(0.8),
        prove_seconds: Some(65.0),
        recovery_time_seconds: Some(2.0),
        restored_bytes: 1000 << 20,
        checks: checks(),
        findings: vec![Finding::error(
            "orders",
            "two rows are missing",
            "`backstay verify orders` reads every byte",
        )],
        kept_at: Some("/var/tmp/drill-x".into()),
    };
    assert_snapshot!(drill::all(&Output::plain(), &[drill::Drilled::Ended(report)]));
}

#[test]
fn retention_with_its_reasons() {
    let plan = ExpirePlan {
        instance: "orders".parse().unwrap(),
        as_of: at("2026-11-21T05:00:00Z"),
        keep: vec![Kept {
            id: "20261121T024300Z-7q3f".parse().unwrap(),
            finished_at: at("2026-11-21T02:43:02Z"),
            reasons: vec![KeepReason::Nth { period: Period::Day, nth: 1, of: 30 }, KeepReason::LastSound],
        }],
        expire: vec![Expired {
            id: "20261001T024300Z-7q3f".parse().unwrap(),
            finished_at: at("2026-10-01T02:43:02Z"),
            condemned: false,
            condemned_at: None,
            deletable_at: Some(at("2026-11-28T05:00:00Z")),
        }],
        findings: Vec::new(),
    };
    assert_snapshot!(expire::plan(&Output::plain(), &plan));
}

#[test]
fn a_list_of_keys() {
    let slots =
        [KeySlot { name: "initial".into(), kind: "key file".into(), created: at("2026-11-21T02:43:02Z") }];
    assert_snapshot!(keys::list(&slots));
}

#[derive(Debug, thiserror::Error)]
#[error("take a backup of orders")]
struct Outer(#[source] Middle);

#[derive(Debug, thiserror::Error)]
#[error("connect to the server at db:5432")]
struct Middle(#[source] std::io::Error);

impl Classified for Outer {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }

    fn hints(&self) -> Vec<String> {
        vec!["`backstay config check --connect` tries it again".to_owned()]
    }
}

#[test]
fn an_error_is_told_once_with_its_causes_and_hints() {
    let outer = Outer(Middle(std::io::Error::other("connection refused")));
    let told = Told::fault(&backstay_model::Fault::new(outer));
    assert_eq!(
        told.text(false),
        "error: take a backup of orders\n  caused by: connect to the server at db:5432\n  \
         caused by: connection refused\n  hint: `backstay config check --connect` tries it again\n"
    );
    let json: serde_json::Value = serde_json::from_str(&told.json()).unwrap();
    assert_eq!(json["error"]["kind"], "unavailable");
    assert_eq!(json["error"]["causes"][1], "connection refused");
    assert!(told.text(true).contains("\u{1b}[1;31merror:\u{1b}[0m"));
}

#[test]
fn a_refusal_is_told_like_an_error() {
    let refusal =
        Refusal::new(ErrorKind::Conflict, "/srv/x is not empty", vec!["`--into` an empty one".into()]);
    assert_eq!(
        Told::refusal(&refusal).text(false),
        "error: /srv/x is not empty\n  hint: `--into` an empty one\n"
    );
}

#[test]
fn spans_are_as_exact_as_a_person_needs() {
    for (seconds, text) in [
        (0.0, "0.0 s"),
        (2.44, "2.4 s"),
        (59.4, "59 s"),
        (61.0, "1 min 01 s"),
        (3720.0, "1 h 02 min"),
        (90_000.0, "1 d 01 h"),
    ] {
        assert_eq!(lines::span(seconds), text);
    }
}
