//! Expire that was ended in the middle: after each step, what is left is either whole or
//! is cleared by the next run, and is no loss to anybody in between.

use backstay_model::VerifyLevel;
use backstay_model::dump::{DumpKeep, TierKeep};
use serde_json::Value;

use crate::shelf::House;

const OLD: &str = "postgresql_20240903_020001.tar.gz.enc";
const NEW: &str = "postgresql_20240904_020001.tar.gz.enc";

/// Two dumps of which the older goes, after `steps` of its removal.
async fn interrupted(steps: usize) -> Option<House> {
    let mut house = House::build("grill-stats-backup")?;
    let count = Some(TierKeep { age: None, count: Some(1) });
    house.policy.keep = DumpKeep { daily: count, ..DumpKeep::default() };
    house.dump("postgres", "2024-09-03T02:00:00Z").await;
    house.dump("postgres", "2024-09-04T02:00:00Z").await;
    let mark = |json: &mut Vec<u8>| {
        let mut record: Value = serde_json::from_slice(json).unwrap();
        record["expired_at"] = "2024-09-05T02:00:00Z".into();
        record["of a later version"] = 7.into();
        *json = serde_json::to_vec(&record).unwrap();
    };
    house.change(&format!("{OLD}.meta.json"), mark, false);
    for suffix in ["", ".hmac"].iter().take(steps) {
        std::fs::remove_file(house.place(&format!("{OLD}{suffix}"))).unwrap();
    }
    Some(house)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_had_taken_the_file_is_ended_and_was_no_loss() {
    for steps in [1, 2] {
        let Some(house) = interrupted(steps).await else { return };
        let known = house.known().await;
        assert!(known.findings.is_empty() && known.foreign_files == 0, "{known:#?}");
        assert_eq!(known.summaries().len(), 1);
        let seen = house.verify(VerifyLevel::Digest).await;
        assert_eq!((seen.report.exit_code(), seen.dumps.len()), (0, 1), "{seen:#?}");
        let report = house.expire("2024-09-05T03:00:00Z").await;
        assert_eq!((report.planned.unfinished, report.deleted), (vec![OLD.to_owned()], vec![]));
        assert!(!house.shown().iter().any(|path| path.starts_with(OLD)), "{:#?}", house.shown());
        assert!(house.place(NEW).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_had_only_begun_is_decided_anew() {
    let Some(mut house) = interrupted(0).await else { return };
    assert_eq!(house.known().await.summaries().len(), 2);
    let seen = house.verify(VerifyLevel::Digest).await;
    assert_eq!((seen.report.exit_code(), seen.dumps.len()), (0, 2), "{seen:#?}");
    // In between somebody chose to keep more.
    let keep = std::mem::take(&mut house.policy.keep);
    assert!(house.expire("2024-09-05T03:00:00Z").await.deleted.is_empty());
    let sidecar = std::fs::read(house.place(&format!("{OLD}.meta.json"))).unwrap();
    let sidecar: Value = serde_json::from_slice(&sidecar).unwrap();
    assert!(sidecar["expired_at"].is_null(), "it would be cleared in silence, were the file lost one day");
    assert_eq!(sidecar["of a later version"], 7, "what a later version wrote is lost");
    house.policy.keep = keep;
    assert_eq!(house.expire("2024-09-05T04:00:00Z").await.deleted, [OLD]);
    assert!(!house.shown().iter().any(|path| path.starts_with(OLD)), "{:#?}", house.shown());
}
