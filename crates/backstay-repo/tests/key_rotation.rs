//! Two rotations of the key at one store, and what a decision leaves when it is
//! not carried out.

#![allow(clippy::unwrap_used, reason = "functions of a test that are not tests themselves")]

use std::sync::Arc;

use backstay_model::ErrorKind;
use backstay_model::error::Classified as _;
use backstay_repo::Error;
use backstay_repo::init::{InitOptions, OpenRepository, init, open};
use backstay_repo::key::{KeySecret, NewSlot, Rotation, Slots, create_key_file};
use backstay_repo::store::faulty::{FaultyStore, Injection, denied};
use backstay_repo::store::{MemoryStore, Operation, Store};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

fn now() -> Timestamp {
    "2026-11-21T02:43:00Z".parse().unwrap()
}

fn key_file(number: u8) -> KeySecret {
    let place = tempfile::tempdir().unwrap();
    create_key_file(&place.path().join(number.to_string())).unwrap()
}

fn slot(name: &str, secret: &KeySecret) -> NewSlot {
    NewSlot { slot: name.into(), secret: secret.clone() }
}

async fn made(store: &MemoryStore, slots: Vec<NewSlot>) -> OpenRepository {
    init(store, &InitOptions { slots, now: now() }).await.unwrap().repository
}

fn generations(repository: &OpenRepository) -> usize {
    repository.keyring.generations().len()
}

#[tokio::test]
async fn two_rotations_at_once_never_make_two_keys_of_one_generation() {
    let (file, other) = (key_file(1), key_file(2));
    let store = MemoryStore::new();
    let first = vec![slot("a", &file), slot("b", &other)];
    let id = made(&store, first.clone()).await.description.repository;
    let slots = Slots::new(&store, id);
    let reversed = [first[1].clone(), first[0].clone()];
    let (one, two) = tokio::join!(slots.rotate(&first, &[], now()), slots.rotate(&reversed, &[], now()));
    assert!(one.is_ok() || two.is_ok());
    let (a, b) = (open(&store, Some(&file)).await.unwrap(), open(&store, Some(&other)).await.unwrap());
    assert!(a.keyring == b.keyring);
}

/// What a rotation that lost may say.
fn gave_way(outcome: &Result<Rotation, Error>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(Error::OtherRotation { .. } | Error::RotationUnderWay | Error::NewerGeneration { .. }) => true,
        // Its own slot is gone already, or its secret does not open what is there now.
        Err(Error::NoSuchSlot { .. } | Error::WrongKey { .. } | Error::SlotsWouldBeLost { .. }) => true,
        Err(_) => false,
    }
}

/// One rotation keeps a alone and drops b, the other the reverse. The first stops
/// before its i-th call until the second is before its j-th, which goes on when the
/// first has ended; for every i and j.
#[tokio::test]
async fn of_two_rotations_for_different_slots_one_decides_in_every_order_of_their_calls() {
    let secrets = [key_file(1), key_file(2)];
    let begin = || async {
        let store = MemoryStore::new();
        let first = [slot("a", &secrets[0]), slot("b", &secrets[1])];
        let id = made(&store, first.to_vec()).await.description.repository;
        (store, id)
    };
    let keep = [[slot("a", &secrets[0])], [slot("b", &secrets[1])]];
    let drop = [["b".to_owned()], ["a".to_owned()]];
    let (store, id) = begin().await;
    let counting = FaultyStore::counting(Arc::new(store));
    Slots::new(&counting, id).rotate(&keep[0], &drop[0], now()).await.unwrap();
    let calls = counting.calls();
    let mut won = [0, 0];
    for (i, j) in (1..=calls).flat_map(|i| (1..=calls + 1).map(move |j| (i, j))) {
        let (store, id) = begin().await;
        let (first_there, second_there, first_done) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let meeting = |number, there: &CancellationToken, until: &CancellationToken| {
            let (there, until) = (there.clone(), until.clone());
            FaultyStore::new(Arc::new(store.clone()), move |call| {
                if call.number != number {
                    return Injection::Pass;
                }
                there.cancel();
                let until = until.clone();
                Injection::After(Box::pin(async move { until.cancelled().await }))
            })
        };
        let stores = [meeting(i, &first_there, &second_there), meeting(j, &second_there, &first_done)];
        let first = async {
            let outcome = Slots::new(&stores[0], id).rotate(&keep[0], &drop[0], now()).await;
            first_there.cancel();
            first_done.cancel();
            outcome
        };
        let second = async {
            first_there.cancelled().await;
            let outcome = Slots::new(&stores[1], id).rotate(&keep[1], &drop[1], now()).await;
            second_there.cancel();
            outcome
        };
        let (first, second) = tokio::join!(first, second);
        let context = format!("{i} and {j}: {first:?} {second:?}");
        assert!(gave_way(&first) && gave_way(&second), "{context}");
        assert!(first.is_ok() != second.is_ok(), "one of them has decided: {context}");
        let winner = usize::from(second.is_ok());
        won[winner] += 1;
        let ring = first.or(second).unwrap().keyring;
        let opened = open(&store, Some(&secrets[winner])).await.unwrap();
        assert!(opened.keyring == ring && ring.sealing_generation() == 2, "{context}");
        assert!(open(&store, Some(&secrets[1 - winner])).await.is_err(), "{context}");
        assert_eq!(store.names().len(), 2, "{context}: {:?}", store.names());
    }
    assert!(won[0] > 0 && won[1] > 0, "{won:?}");
}

#[tokio::test]
async fn a_decision_that_nobody_with_the_key_has_made_drops_no_slot() {
    let (file, other) = (key_file(1), key_file(2));
    let store = MemoryStore::new();
    let keep = [slot("a", &file), slot("b", &other)];
    let id = made(&store, keep.to_vec()).await.description.repository;
    // Stopped right behind the decision, which then is changed to drop a slot as well.
    let stopping = FaultyStore::new(Arc::new(store.clone()), |call| match call.operation {
        Operation::Put if call.object.starts_with("keys/") => Injection::Fail(denied(call)),
        _ => Injection::Pass,
    });
    Slots::new(&stopping, id).rotate(&keep, &[], now()).await.unwrap_err();
    let name = store.names().into_iter().find(|name| name.starts_with("rotations/")).unwrap();
    let name = name.parse().unwrap();
    let text = String::from_utf8(store.get(&name, 100_000).await.unwrap().to_vec()).unwrap();
    store.tamper(&name, text.replace("\"dropped\":[]", "\"dropped\":[\"b\"]").into_bytes());
    let error = Slots::new(&store, id).rotate(&keep, &[], now()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    for secret in [&file, &other] {
        assert_eq!(generations(&open(&store, Some(secret)).await.unwrap()), 1);
    }
}

#[tokio::test]
async fn a_decision_leaves_nothing_that_a_removed_secret_opens() {
    let (file, other) = (key_file(1), key_file(2));
    let store = MemoryStore::new();
    let keep = [slot("a", &file), slot("b", &other)];
    let id = made(&store, keep.to_vec()).await.description.repository;
    let counting = FaultyStore::counting(Arc::new(store));
    Slots::new(&counting, id).rotate(&keep, &[], now()).await.unwrap();
    for calls in 0..counting.calls() {
        let store = MemoryStore::new();
        let id = made(&store, keep.to_vec()).await.description.repository;
        let dying = FaultyStore::stop_after(Arc::new(store.clone()), calls);
        Slots::new(&dying, id).rotate(&keep, &[], now()).await.unwrap_err();
        let slots = Slots::new(&store, id);
        if slots.remove("b").await.is_err() {
            slots.rotate(&keep, &[], now()).await.unwrap();
            slots.remove("b").await.unwrap();
        }
        assert!(open(&store, Some(&other)).await.is_err());
        let left: Vec<_> = store.names().into_iter().filter(|name| name != "backstay.json").collect();
        assert!(left.iter().all(|name| name.starts_with("keys/a-")), "after call {calls}: {left:?}");
    }
}

/// The first rotation stops before its i-th call, for every i. Another one finishes
/// it, takes slot b away, and rotates once more; then the first goes on.
#[tokio::test]
async fn a_rotation_that_wakes_up_late_brings_no_removed_slot_back() {
    let (file, other) = (key_file(1), key_file(2));
    let (both, one) = ([slot("a", &file), slot("b", &other)], [slot("a", &file)]);
    let store = MemoryStore::new();
    let id = made(&store, both.to_vec()).await.description.repository;
    let counting = FaultyStore::counting(Arc::new(store));
    Slots::new(&counting, id).rotate(&both, &[], now()).await.unwrap();
    for (drops, i) in (1..=counting.calls()).flat_map(|i| [(false, i), (true, i)]) {
        let store = MemoryStore::new();
        let id = made(&store, both.to_vec()).await.description.repository;
        let (inner, both_then, one_then) = (store.clone(), both.clone(), one.clone());
        let sleepy = FaultyStore::new(Arc::new(store.clone()), move |call| {
            if call.number != i {
                return Injection::Pass;
            }
            let (inner, both, one) = (inner.clone(), both_then.clone(), one_then.clone());
            Injection::After(Box::pin(async move {
                let slots = Slots::new(&inner, id);
                slots.rotate(&both, &[], now()).await.unwrap();
                if drops {
                    slots.rotate(&one, &["b".into()], now()).await.unwrap();
                } else {
                    slots.remove("b").await.unwrap();
                }
                slots.rotate(&one, &[], now()).await.unwrap();
            }))
        });
        let outcome = Slots::new(&sleepy, id).rotate(&both, &[], now()).await;
        let context = format!("call {i}, drops {drops}: {outcome:?}");
        assert!(gave_way(&outcome), "{context}");
        assert!(open(&store, Some(&other)).await.is_err(), "{context}");
        let ring = open(&store, Some(&file)).await.unwrap().keyring;
        assert_eq!(ring.sealing_generation() as usize, ring.generations().len(), "{context}");
        assert_eq!(store.names().len(), 2, "{context}: {:?}", store.names());
    }
}

#[tokio::test]
async fn a_rotation_that_finds_an_old_one_draws_its_own_key_or_says_that_it_did_not() {
    let file = key_file(1);
    let keep = [slot("a", &file)];
    for (operation, area, drawn, said) in
        [(Operation::Put, "keys/", 2, true), (Operation::Delete, "rotations/", 3, false)]
    {
        let store = MemoryStore::new();
        let id = made(&store, keep.to_vec()).await.description.repository;
        let stopping = FaultyStore::new(Arc::new(store.clone()), move |call| {
            if call.operation == operation && call.object.starts_with(area) {
                return Injection::Fail(denied(call));
            }
            Injection::Pass
        });
        Slots::new(&stopping, id).rotate(&keep, &[], now()).await.unwrap_err();
        let rotation = Slots::new(&store, id).rotate(&keep, &[], now()).await.unwrap();
        assert_eq!(rotation.finished, said.then(now), "{area}");
        assert_eq!(rotation.keyring.generations().len(), drawn, "{area}");
        assert_eq!(generations(&open(&store, Some(&file)).await.unwrap()), drawn, "{area}");
    }
}

#[tokio::test]
async fn a_damaged_decision_is_named_by_all_who_wait_for_it_and_may_be_deleted() {
    let (file, other) = (key_file(1), key_file(2));
    let store = MemoryStore::new();
    let keep = [slot("a", &file), slot("b", &other)];
    let id = made(&store, keep.to_vec()).await.description.repository;
    let stopping = FaultyStore::new(Arc::new(store.clone()), |call| match call.operation {
        Operation::Put if call.object.starts_with("keys/b-") => Injection::Fail(denied(call)),
        _ => Injection::Pass,
    });
    Slots::new(&stopping, id).rotate(&keep, &[], now()).await.unwrap_err();
    let name = store.names().into_iter().find(|name| name.starts_with("rotations/")).unwrap();
    store.tamper(&name.parse().unwrap(), &b"\0\0"[..]);
    let slots = Slots::new(&store, id);
    let ring = slots.unlock(&file).await.unwrap();
    let errors = [
        slots.add(&ring, &slot("c", &key_file(3)), now()).await.unwrap_err(),
        slots.remove("b").await.unwrap_err(),
        slots.rotate(&keep, &[], now()).await.unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains(&name), "{error}");
        assert!(error.hints()[0].contains(&format!("delete {name}")), "{:?}", error.hints());
    }
    store.delete(&name.parse().unwrap()).await.unwrap();
    slots.rotate(&keep, &[], now()).await.unwrap();
    slots.remove("b").await.unwrap();
}
