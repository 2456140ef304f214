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
        in_passing: false,
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

fn met(hour: u8) -> Verification {
    Verification { in_passing: true, ..look(hour, VerifyLevel::Digest, true) }
}

#[test]
fn what_a_restore_met_in_passing_adds_and_is_cleared_by_a_look_as_deep() {
    use VerifyLevel::{Digest, Existence};
    assert!(is_damaged(&[look(1, Digest, false), met(2), look(3, Existence, false)]));
    assert!(!is_damaged(&[met(1), look(2, Digest, false)]));
    let verdict = |looks: &[Verification]| conclude(&orders(), looks).remove(&id()).unwrap();
    let verified = verdict(&[look(1, Digest, false), met(2)]);
    assert_eq!(verified.verified_at, Some(look(1, Digest, false).at), "it verified nothing");
    let mut other_pack = met(2);
    other_pack.backups[0].damaged_packs = vec![(id(), 2)];
    assert_eq!(verdict(&[met(1), other_pack]).damaged_packs, [(id(), 1), (id(), 2)]);
}

#[test]
fn the_time_of_the_last_look_counts_whatever_its_depth() {
    let looks = [look(1, VerifyLevel::Digest, false), look(2, VerifyLevel::Existence, false)];
    assert_eq!(conclude(&orders(), &looks).remove(&id()).unwrap().verified_at, Some(looks[1].at));
}

#[test]
fn what_is_not_in_force_changes_nothing_when_it_goes() {
    use VerifyLevel::{Digest, Existence, Structure};
    let there = HashSet::from([id()]);
    // Every history of five looks, each of any depth, clean or not, or met in passing.
    let each = [Existence, Structure, Digest].map(|level| [(level, true), (level, false)]).concat();
    let each: Vec<_> = each
        .into_iter()
        .map(|(level, damaged)| (level, damaged, false))
        .chain([(Existence, true, true), (Digest, true, true)])
        .collect();
    let mut dropped = 0;
    for number in 0..each.len().pow(5) {
        let looks: Vec<Verification> = (0..5_u32)
            .map(|hour| {
                let (level, damaged, in_passing) = each[number / each.len().pow(hour) % each.len()];
                Verification { in_passing, ..look(hour as u8, level, damaged) }
            })
            .collect();
        let needed = in_force(&looks, &there, &HashSet::new());
        let kept = looks.iter().enumerate().filter(|(place, _)| needed.contains(place));
        let kept: Vec<Verification> = kept.map(|(_, look)| look.clone()).collect();
        dropped += looks.len() - kept.len();
        assert_eq!(conclude(&orders(), &kept), conclude(&orders(), &looks), "{looks:?}");
        // Nobody needs any of it when the backup is gone, but for what lies about damaged.
        assert!(in_force(&looks, &HashSet::new(), &HashSet::new()).is_empty());
        let damage = looks.iter().rposition(|look| !look.backups[0].damaged_objects.is_empty());
        let still = in_force(&looks, &HashSet::new(), &HashSet::from([map()]));
        assert_eq!(still.is_empty(), !is_damaged(&looks), "{damage:?} of {looks:?}");
    }
    assert!(dropped > each.len().pow(5), "next to nothing goes: {dropped}");
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
fn a_shallow_look_finds_what_a_deep_one_was_too_early_for() {
    use VerifyLevel::{Digest, Existence};
    for late in [look(3, Existence, true), Verification { in_passing: true, ..look(3, Existence, true) }] {
        let damaged = Damaged::of(&conclude(&orders(), &[look(1, Digest, false), late]));
        assert_eq!(damaged.elsewhere(&map(), &other(), &seen_again(2, Digest)), Some(&id()));
        assert_eq!(damaged.elsewhere(&map(), &other(), &seen_again(4, Existence)), None);
    }
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
