use super::*;
use crate::notes::Seen;

fn id() -> BackupId {
    "20261121T024300Z-7q3f".parse().unwrap()
}

fn orders() -> InstanceId {
    "orders".parse().unwrap()
}

fn map() -> String {
    InstanceLayout::new(orders()).map(&id(), 3).as_str().to_owned()
}

fn look(hour: u8, level: VerifyLevel, damaged: bool) -> Verification {
    let finding = || Finding::error("orders/packs/1", "is wrong", "`backstay backup`");
    Verification {
        at: format!("2026-11-21T{hour:02}:00:00Z").parse().unwrap(),
        level,
        backups: vec![Seen {
            backup: id(),
            findings: damaged.then(finding).into_iter().collect(),
            damaged_packs: damaged.then(|| (id(), 1)).into_iter().collect(),
            damaged_objects: damaged.then(map).into_iter().collect(),
        }],
    }
}

fn is_damaged(looks: &[Verification]) -> bool {
    let state = conclude(&orders(), looks).remove(&id()).unwrap();
    assert_eq!(state.findings.is_empty(), state.damaged_packs.is_empty());
    assert_eq!(state.findings.is_empty(), state.damaged_objects.is_empty());
    !state.findings.is_empty()
}

#[test]
fn a_shallow_look_that_is_clean_does_not_clear_what_a_deep_one_found() {
    use VerifyLevel::{Digest, Existence};
    assert!(is_damaged(&[look(1, Digest, true), look(2, Existence, false)]));
    assert!(!is_damaged(&[look(1, Digest, true), look(2, Existence, false), look(3, Digest, false)]));
    assert!(!is_damaged(&[look(1, Existence, true), look(2, Digest, false)]));
    assert!(is_damaged(&[look(1, Digest, false), look(2, Existence, true)]));
}

#[test]
fn the_time_of_the_last_look_counts_whatever_its_depth() {
    let looks = [look(1, VerifyLevel::Digest, false), look(2, VerifyLevel::Existence, false)];
    assert_eq!(conclude(&orders(), &looks).remove(&id()).unwrap().verified_at, Some(looks[1].at));
}

fn other() -> BackupId {
    "20261122T024300Z-7q3f".parse().unwrap()
}

fn seen_again(hour: u8, level: VerifyLevel) -> Verdict {
    let clean = Verification {
        backups: vec![Seen {
            backup: other(),
            findings: Vec::new(),
            damaged_packs: Vec::new(),
            damaged_objects: Vec::new(),
        }],
        ..look(hour, level, false)
    };
    conclude(&orders(), &[clean]).remove(&other()).unwrap()
}

#[test]
fn a_damaged_map_is_known_of_a_backup_that_nobody_looked_at_since() {
    use VerifyLevel::{Digest, Structure};
    let damaged = Damaged::of(&conclude(&orders(), &[look(2, Structure, true)]));
    assert_eq!(damaged.elsewhere(&map(), &other(), &Verdict::default()), Some(&id()));
    assert_eq!(damaged.elsewhere(&map(), &other(), &seen_again(1, Digest)), Some(&id()));
    assert_eq!(damaged.elsewhere(&map(), &other(), &seen_again(3, Digest)), None);
    // The backup itself has said so in its own words.
    assert_eq!(damaged.elsewhere(&map(), &id(), &Verdict::default()), None);
    assert!(
        !damaged.concerns(&other(), &seen_again(3, Digest))
            && damaged.concerns(&other(), &Verdict::default())
    );
}

#[test]
fn a_note_of_packs_alone_is_still_read_and_shared() {
    let old = format!(
        r#"{{"at":"2026-11-21T02:00:00Z","level":"digest",
            "backups":[{{"backup":"{}","findings":[],"damaged_packs":[["{}",1]]}}]}}"#,
        id(),
        id()
    );
    let note: Verification = serde_json::from_str(&old).unwrap();
    let damaged = Damaged::of(&conclude(&orders(), &[note]));
    let pack = InstanceLayout::new(orders()).pack(&id(), 1);
    assert_eq!(damaged.elsewhere(pack.as_str(), &other(), &Verdict::default()), Some(&id()));
}

#[test]
fn packs_of_a_backup_that_is_gone_are_not_held_against_the_next_one() {
    let verdicts = conclude(&orders(), &[look(2, VerifyLevel::Digest, true)]);
    let broken = || backstay_repo::Error::broken("a rule");
    let there = Listed { records: Vec::new(), unreadable: vec![(id(), broken())] };
    assert_eq!(damaged_packs(&there, &verdicts), HashSet::from([(id(), 1)]));
    let gone = Listed { records: Vec::new(), unreadable: vec![(other(), broken())] };
    assert!(damaged_packs(&gone, &verdicts).is_empty());
}
