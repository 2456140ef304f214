//! Names: those that a run which was killed did not give, those that are taken, and those
//! of reports that grew old.

use std::os::unix::fs::MetadataExt as _;

use backstay_model::VerifyLevel;
use backstay_model::error::Classified as _;
use backstay_ops::adopt::{self, AdoptRequest, Fate};
use backstay_ops::dump::{self, DumpRequest};

use crate::shelf::House;

const DAY: &str = "postgresql_20240901_020001.tar.gz.enc";
const WEEK: &str = "weekly/postgresql_weekly_20240901_020001.tar.gz.enc";
const MONTH: &str = "monthly/postgresql_monthly_20240901_020001.tar.gz.enc";
const POINTER: &str = "latest_backup.tar.gz.enc";

fn remove(house: &House, paths: &[&str]) {
    for path in paths {
        std::fs::remove_file(house.place(path)).unwrap();
    }
}

fn of_parts(path: &str) -> [String; 3] {
    ["", ".hmac", ".meta.json"].map(|suffix| format!("{path}{suffix}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_dump_gives_the_names_that_a_killed_one_did_not_come_to() {
    let Some(house) = House::build("grill-stats-backup") else { return };
    let dumped = house.dump("postgres", "2024-09-01T02:00:00Z").await;
    let before = house.shown();
    let inode = |path: &str| std::fs::metadata(house.place(path)).unwrap().ino();
    // In the order in which they were made, killed after the pointer, and then later.
    for kept in 0..6 {
        let made: Vec<String> = of_parts(WEEK).into_iter().chain(of_parts(MONTH)).collect();
        let missing: Vec<&str> = made[kept..].iter().map(String::as_str).collect();
        remove(&house, &missing);
        if kept == 0 {
            remove(&house, &[POINTER]);
        }
        let report = house.dump("postgres", "2024-09-02T02:00:00Z").await;
        let told: Vec<&str> = report.findings.iter().map(|finding| finding.subject.as_str()).collect();
        assert!(told.contains(&MONTH), "{kept}: {told:?}");
        assert_eq!(told.contains(&WEEK), kept < 3, "{kept}: {told:?}");
        assert_eq!(told.contains(&POINTER), kept == 0, "{kept}: {told:?}");
        assert!(report.findings[0].message.contains(dumped.dumps[0].record.id.as_str()));
        for path in of_parts(&report.dumps[0].paths[0].path) {
            remove(&house, &[&path]);
        }
        assert_eq!(house.shown(), before, "{kept}");
        assert_eq!((inode(WEEK), inode(MONTH)), (inode(DAY), inode(DAY)));
        // As good as any other, and in the list as one dump.
        assert_eq!(house.verify(VerifyLevel::Digest).await.report.exit_code(), 0);
        std::fs::remove_dir_all(house.place("verification")).unwrap();
        assert_eq!(house.known().await.summaries().len(), 1);
        std::fs::remove_file(house.place(POINTER)).unwrap();
        std::os::unix::fs::symlink(DAY, house.place(POINTER)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_lacks_its_sidecar_is_known_by_its_bytes() {
    let Some(house) = House::build("grill-stats-backup") else { return };
    house.dump("postgres", "2024-09-01T02:00:00Z").await;
    // As where there are no links, killed behind the copy.
    remove(&house, &[WEEK, MONTH]);
    for path in [WEEK, MONTH] {
        remove(&house, &of_parts(path)[1..].iter().map(String::as_str).collect::<Vec<_>>());
        std::fs::copy(house.place(DAY), house.place(path)).unwrap();
    }
    // Of the same length, and another's.
    let mut bytes = std::fs::read(house.place(MONTH)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(house.place(MONTH), &bytes).unwrap();
    let report = house.dump("postgres", "2024-09-02T02:00:00Z").await;
    let told: Vec<&str> = report.findings.iter().map(|finding| finding.subject.as_str()).collect();
    assert_eq!(told, [WEEK], "{report:#?}");
    assert!(of_parts(WEEK).iter().all(|path| house.place(path).exists()));
    assert!(!house.place(&of_parts(MONTH)[2]).exists());
    assert_eq!(std::fs::read(house.place(MONTH)).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_file_has_and_what_was_removed_from_older_dumps_is_left_alone() {
    let Some(house) = House::build("grill-stats-backup") else { return };
    house.dump("postgres", "2024-09-01T02:00:00Z").await;
    for path in of_parts(WEEK).iter().chain(&of_parts(MONTH)) {
        remove(&house, &[path]);
    }
    std::fs::write(house.place(MONTH), "somebody's").unwrap();
    house.dump("postgres", "2024-09-02T02:00:00Z").await;
    assert!(house.place(WEEK).exists());
    assert_eq!(std::fs::read(house.place(MONTH)).unwrap(), b"somebody's");
    assert!(!house.place(&format!("{MONTH}.meta.json")).exists());
    for path in of_parts(WEEK) {
        remove(&house, &[&path]);
    }
    let report = house.dump("postgres", "2024-09-03T02:00:00Z").await;
    assert!(report.findings.is_empty() && !house.place(WEEK).exists(), "{:#?}", report.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_sidecar_that_has_the_name_is_called_what_it_is_and_can_be_adopted() {
    let Some(house) = House::build("save-it-ai") else { return };
    house.dump("postgres", "2024-09-01T02:00:00Z").await;
    let name = "backup-2024-09-01.sql.gz";
    let whole = std::fs::read(house.place(name)).unwrap();
    remove(&house, &["backup-2024-09-01.sql.gz.meta.json"]);
    house.turn_to("2024-09-01T03:00:00Z");
    let request = DumpRequest { databases: vec!["postgres".to_owned()], ..DumpRequest::default() };
    let error = dump::run(&house.run(), &house.instance, &house.policy, &request).await.unwrap_err();
    assert!(error.to_string().contains("it has no sidecar"), "{error}");
    let hints = error.hints().join("\n");
    let adopting = format!("`backstay adopt {} --instance main`", house.directory().display());
    assert!(hints.contains(&adopting) && hints.contains("`mv "), "{hints}");
    // And what the hint says is so.
    let request = AdoptRequest { directory: house.directory(), dry_run: false };
    let report = adopt::run(&house.run(), &house.instance, &house.policy, &request).await.unwrap();
    assert!(matches!(report.files[0].fate, Fate::Adopted { .. }), "{report:#?}");
    assert_eq!(std::fs::read(house.place(name)).unwrap(), whole);
    assert_eq!(house.known().await.summaries().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_has_the_name_of_the_pointer_is_no_dump_of_its_own() {
    let Some(house) = House::build("grill-stats-backup") else { return };
    house.dump("postgres", "2024-09-01T02:00:00Z").await;
    for path in of_parts(DAY).iter().chain(&of_parts(WEEK)).chain(&of_parts(MONTH)).skip(1) {
        let _ = std::fs::remove_file(house.place(path));
    }
    std::fs::remove_file(house.place(WEEK)).unwrap_or_default();
    remove(&house, &[POINTER]);
    std::fs::copy(house.place(DAY), house.place(POINTER)).unwrap();
    let request = AdoptRequest { directory: house.directory(), dry_run: false };
    let adopt = async || adopt::run(&house.run(), &house.instance, &house.policy, &request).await.unwrap();
    for fates in [["adopted", "pointer"], ["known", "pointer"]] {
        let told = serde_json::to_value(adopt().await).unwrap();
        let files = told["files"].as_array().unwrap();
        let found: Vec<_> = files.iter().map(|file| file["fate"].as_str().unwrap()).collect();
        assert_eq!(found, fates, "{told:#}");
    }
    assert_eq!(house.known().await.files.len(), 1);
    // One that is no copy of anything is the only one of its kind.
    remove(&house, &[DAY, &format!("{DAY}.meta.json")]);
    assert!(matches!(adopt().await.files[0].fate, Fate::Adopted { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_reports_go_and_the_newest_and_those_of_others_stay() {
    let Some(house) = House::build("grill-stats-backup") else { return };
    house.dump("postgres", "2024-09-01T02:00:00Z").await;
    for day in ["2024-09-01", "2024-09-02", "2024-09-20"] {
        house.turn_to(&format!("{day}T05:00:00Z"));
        let told = house.verify(VerifyLevel::Existence).await;
        assert_eq!(told.old_reports, Vec::<String>::new(), "{day}");
    }
    let report = |day: &str, end: &str| format!("verification/verification_report_{day}.{end}");
    std::fs::write(house.place(&report("20240701", "json")), "{\"of\": \"another\"}").unwrap();
    let both = |day: &str| [report(day, "json"), report(day, "txt")];
    house.turn_to("2024-12-01T02:00:00Z");
    let as_of = "2024-12-01T02:00:00Z".parse().unwrap();
    let planned = dump::expire::plan(&house.run(), &house.policy, &house.instance.id, as_of).await.unwrap();
    assert_eq!(planned.old_reports, both("20240901"), "90 days before is the second of September");
    assert!(house.place(&report("20240901", "txt")).exists());
    let done = house.expire("2024-12-01T02:00:00Z").await;
    assert_eq!(done.planned.old_reports, planned.old_reports);
    let left = || house.shown().into_iter().filter(|path| path.contains("report_")).collect::<Vec<_>>();
    let mut expected = vec![report("20240701", "json")];
    expected.extend(both("20240902"));
    expected.extend(both("20240920"));
    assert_eq!(left(), expected);
    // However old it is, the newest says which dumps are damaged.
    let done = house.expire("2026-01-01T02:00:00Z").await;
    assert_eq!(done.planned.old_reports, both("20240902"));
    house.turn_to("2026-01-01T03:00:00Z");
    let told = house.verify(VerifyLevel::Existence).await;
    assert_eq!(told.old_reports, both("20240920"));
    assert_eq!(left(), [[report("20240701", "json")].as_slice(), &both("20260101")].concat());
}
