//! Holds that come at the worst moment.

use std::pin::pin;
use std::time::Duration;

use backstay_model::dump::{DumpKeep, TierKeep};
use backstay_model::{BackupId, Hold};
use backstay_ops::dump::expire;
use backstay_ops::hold;
use backstay_repo::shelf::{DiskShelf, Shelf as _};
use serde_json::Value;

use crate::shelf::House;

/// Long for whoever does not wait.
const WAITING: Duration = Duration::from_millis(500);

fn years() -> Hold {
    Hold::new(Some("2096-01-01T00:00:00Z".parse().unwrap()), Some("audit".to_owned()))
}

fn read(house: &House, sidecar: &str) -> Value {
    serde_json::from_slice(&std::fs::read(house.place(sidecar)).unwrap()).unwrap()
}

fn write(house: &House, sidecar: &str, field: &str, text: &str) {
    let mut record = read(house, sidecar);
    record[field] = text.into();
    std::fs::write(house.place(sidecar), serde_json::to_vec(&record).unwrap()).unwrap();
}

/// The only file of a dump, its sidecar, and its id.
async fn dump(house: &House) -> (String, String, BackupId) {
    let taken = house.dump("postgres", "2024-09-02T02:00:00Z").await;
    house.dump("postgres", "2024-09-03T02:00:00Z").await;
    let file = taken.dumps[0].paths[0].path.clone();
    (file.clone(), format!("{file}.meta.json"), taken.dumps[0].record.id.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_waits_for_a_removal_and_does_not_say_that_what_is_gone_is_held() {
    let Some(house) = House::build("plain") else { return };
    let (file, sidecar, id) = dump(&house).await;
    let shelf = DiskShelf::new(house.directory());
    let removing = shelf.lock().await.unwrap();
    let (run, hold) = (house.run(), years());
    let mut holding = pin!(hold::on_dump(&run, &house.policy, &id, Some(&hold)));
    assert!(tokio::time::timeout(WAITING, &mut holding).await.is_err(), "it did not wait");
    // As `expire` does it.
    write(&house, &sidecar, "expired_at", "2024-09-04T00:00:00Z");
    std::fs::remove_file(house.place(&file)).unwrap();
    std::fs::remove_file(house.place(&sidecar)).unwrap();
    drop(removing);
    assert_eq!(holding.await.unwrap(), None);
    assert!(!house.place(&sidecar).exists(), "a sidecar without its dump");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_waits_for_whoever_holds_and_then_leaves_the_dump() {
    let Some(mut house) = House::build("plain") else { return };
    let (file, sidecar, _) = dump(&house).await;
    let count = Some(TierKeep { age: None, count: Some(1) });
    house.policy.keep = DumpKeep { daily: count, weekly: count, monthly: count, minimum: 0 };
    house.turn_to("2024-09-04T02:00:00Z");
    let shelf = DiskShelf::new(house.directory());
    let holding = shelf.lock().await.unwrap();
    let run = house.run();
    let mut removing = pin!(expire::run(&run, &house.policy, &house.instance.id));
    assert!(tokio::time::timeout(WAITING, &mut removing).await.is_err(), "it did not wait");
    write(&house, &sidecar, "held_until", "2096-01-01T00:00:00Z");
    drop(holding);
    let report = removing.await.unwrap();
    assert_eq!(report.planned.plan.expire.len(), 1, "{report:#?}");
    assert_eq!(report.deleted, Vec::<String>::new());
    assert!(house.place(&file).exists());
    let record = read(&house, &sidecar);
    assert!(record["held_until"].is_string() && record["expired_at"].is_null(), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_comes_later_is_held_like_the_others() {
    let Some(house) = House::build("tiers") else { return };
    let first = house.dump("postgres", "2024-09-01T02:00:00Z").await;
    let dump = &first.dumps[0];
    let weekly = dump.paths.iter().find(|named| named.path.starts_with("weekly/")).unwrap().path.clone();
    let sidecar = format!("{weekly}.meta.json");
    // As a run leaves it that was killed before it came to this name.
    std::fs::remove_file(house.place(&weekly)).unwrap();
    std::fs::remove_file(house.place(&sidecar)).unwrap();
    let held = hold::on_dump(&house.run(), &house.policy, &dump.record.id, Some(&years())).await.unwrap();
    assert!(held.is_some());
    let next = house.dump("template1", "2024-09-01T03:00:00Z").await;
    assert!(house.place(&weekly).exists(), "{next:#?}");
    let record = read(&house, &sidecar);
    assert_eq!(record["held_until"], "2096-01-01T00:00:00Z", "{record}");
    assert_eq!((&record["hold_reason"], &record["tier"]), (&"audit".into(), &"weekly".into()));
}
