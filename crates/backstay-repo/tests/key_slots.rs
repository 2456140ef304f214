//! Slots, `init` and opening: at a store that works, at one that does not, and
//! stopped after every call.

#![allow(clippy::unwrap_used, clippy::panic, reason = "functions of a test that are not tests themselves")]

use std::sync::Arc;

use backstay_model::error::Classified as _;
use backstay_model::{ErrorKind, RepositoryId, Secret};
use backstay_repo::Error;
use backstay_repo::init::{InitOptions, OpenRepository, init, open};
use backstay_repo::key::{KeySecret, NewSlot, Slots, create_key_file};
use backstay_repo::kit::write_kit;
use backstay_repo::repo::{Parameters, Repo};
use backstay_repo::store::faulty::{FaultyStore, Injection, denied, unavailable};
use backstay_repo::store::{MemoryStore, Operation, Store};
use jiff::Timestamp;

fn now() -> Timestamp {
    "2026-11-21T02:43:00Z".parse().unwrap()
}

fn key_file(number: u8) -> KeySecret {
    let place = tempfile::tempdir().unwrap();
    create_key_file(&place.path().join(number.to_string())).unwrap()
}

fn phrase(text: &str) -> KeySecret {
    KeySecret::Passphrase(Secret::new(text))
}

fn slot(name: &str, secret: &KeySecret) -> NewSlot {
    NewSlot { slot: name.into(), secret: secret.clone() }
}

async fn made(store: &MemoryStore, slots: Vec<NewSlot>) -> OpenRepository {
    let made = init(store, &InitOptions { slots, now: now() }).await.unwrap();
    assert!(made.findings.is_empty());
    made.repository
}

fn generations(repository: &OpenRepository) -> usize {
    repository.keyring.generations().len()
}

#[tokio::test]
async fn a_repository_opens_with_each_of_its_secrets_and_with_no_other() {
    let store = MemoryStore::new();
    let (file, words) = (key_file(1), phrase("correct horse battery staple"));
    let first = made(&store, vec![slot("initial", &file), slot("words", &words)]).await;
    for secret in [&file, &words] {
        let opened = open(&store, Some(secret)).await.unwrap();
        assert!(opened.keyring == first.keyring);
        assert_eq!(opened.description, first.description);
    }
    for wrong in [key_file(2), phrase("correct horse battery"), phrase("")] {
        let error = open(&store, Some(&wrong)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.hints()[0].contains("repository.key"));
    }
    assert!(matches!(open(&store, None).await, Err(Error::KeyMissing)));
    assert!(store.names().iter().all(|name| !name.starts_with("probe")));
}

#[tokio::test]
async fn an_unencrypted_repository_takes_no_key() {
    let store = MemoryStore::new();
    let first = made(&store, Vec::new()).await;
    assert!(open(&store, None).await.unwrap().keyring == first.keyring);
    assert!(matches!(open(&store, Some(&key_file(1))).await, Err(Error::KeyNotNeeded)));
    assert_eq!(store.names(), ["backstay.json"]);
}

#[tokio::test]
async fn a_second_init_and_a_place_in_use_are_refused() {
    let store = MemoryStore::new();
    made(&store, vec![slot("initial", &key_file(1))]).await;
    let before = store.names();
    let again = init(&store, &InitOptions { slots: Vec::new(), now: now() }).await.unwrap_err();
    assert!(matches!(again, Error::RepositoryExists { .. }));
    assert_eq!(store.names(), before);

    // The description is lost and the backups are there: not an empty place.
    store.put_if_absent(&"orders/packs/x".parse().unwrap(), bytes::Bytes::new()).await.unwrap();
    store.delete(&"backstay.json".parse().unwrap()).await.unwrap();
    let again = init(&store, &InitOptions { slots: Vec::new(), now: now() }).await.unwrap_err();
    assert!(matches!(&again, Error::PlaceNotEmpty { found, .. } if found == &["orders"]), "{again}");
    assert!(matches!(open(&store, None).await, Err(Error::NoRepository { .. })));
}

#[tokio::test]
async fn an_init_stopped_after_any_call_is_no_repository_and_can_be_made_again() {
    let secret = key_file(1);
    let options = InitOptions { slots: vec![slot("initial", &secret)], now: now() };
    let counting = FaultyStore::counting(Arc::new(MemoryStore::new()));
    init(&counting, &options).await.unwrap();
    for calls in 0..counting.calls() {
        let memory = MemoryStore::new();
        let dying = FaultyStore::stop_after(Arc::new(memory.clone()), calls);
        init(&dying, &options).await.unwrap_err();
        let unmade = open(&memory, Some(&secret)).await;
        assert!(matches!(unmade, Err(Error::NoRepository { .. })), "call {calls}: {unmade:?}");
        init(&memory, &options).await.unwrap();
        open(&memory, Some(&secret)).await.unwrap();
    }
}

#[tokio::test]
async fn a_description_whose_answer_was_lost_is_a_repository() {
    let memory = MemoryStore::new();
    let secret = key_file(1);
    let lossy = FaultyStore::new(Arc::new(memory.clone()), |call| match call.operation {
        Operation::Put if call.object == "backstay.json" => Injection::LoseAnswer,
        _ => Injection::Pass,
    });
    let options = InitOptions { slots: vec![slot("initial", &secret)], now: now() };
    let made = init(&lossy, &options).await.unwrap();
    assert!(open(&memory, Some(&secret)).await.unwrap().keyring == made.repository.keyring);
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_never_an_empty_one() {
    let memory = MemoryStore::new();
    let secret = key_file(1);
    made(&memory, vec![slot("initial", &secret)]).await;
    let broken = |number| {
        FaultyStore::fail_call(Arc::new(memory.clone()), number, |call| unavailable(call, "timeout"))
    };
    let error = open(&broken(1), Some(&secret)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let before = memory.names();
    let error = init(&broken(1), &InitOptions { slots: Vec::new(), now: now() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(memory.names(), before);
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_noticed_and_said_so() {
    let memory = MemoryStore::new();
    let careless = FaultyStore::ignoring_conditions(Arc::new(memory.clone()));
    let made = init(&careless, &InitOptions { slots: Vec::new(), now: now() }).await.unwrap();
    assert!(!made.repository.description.store.create_if_absent);
    assert_eq!(made.findings.len(), 1);
    assert!(!open(&memory, None).await.unwrap().description.store.create_if_absent);
}

#[tokio::test]
async fn slots_come_and_go_and_the_last_one_stays() {
    let store = MemoryStore::new();
    let (file, words) = (key_file(1), phrase("words"));
    let repository = made(&store, vec![slot("initial", &file)]).await;
    let slots = Slots::new(&store, repository.description.repository);
    assert!(matches!(slots.remove("initial").await, Err(Error::LastSlot { .. })));
    slots.add(&repository.keyring, &slot("words", &words), now()).await.unwrap();
    let taken = slots.add(&repository.keyring, &slot("words", &file), now()).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict);
    assert!(matches!(slots.remove("no-such").await, Err(Error::NoSuchSlot { .. })));
    for bad in ["", "UPPER", "a/b", "..", "-a"] {
        let outcome = slots.add(&repository.keyring, &slot(bad, &words), now()).await;
        assert!(matches!(outcome, Err(Error::BadSlotName { .. })), "{bad:?}");
    }
    slots.remove("initial").await.unwrap();
    assert!(open(&store, Some(&file)).await.is_err());
    open(&store, Some(&words)).await.unwrap();
    let names: Vec<String> = slots.list().await.unwrap().into_iter().map(|info| info.slot).collect();
    assert_eq!(names, ["words"]);
}

#[tokio::test]
async fn a_rotation_forgets_no_slot_and_survives_a_stop_after_every_call() {
    let (file, other, third) = (key_file(1), key_file(2), key_file(3));
    let begin = || async {
        let store = MemoryStore::new();
        let first = [slot("a", &file), slot("b", &other), slot("c", &third)];
        let repository = made(&store, first.to_vec()).await;
        (store, repository.description.repository)
    };
    let keep = [slot("a", &file), slot("b", &other)];
    let (store, id) = begin().await;
    let forgotten = Slots::new(&store, id).rotate(&keep, &[], now()).await.unwrap_err();
    assert!(matches!(&forgotten, Error::SlotsWouldBeLost { slots } if slots == &["c"]), "{forgotten}");
    let wrong = [slot("a", &file), slot("b", &third)];
    let outcome = Slots::new(&store, id).rotate(&wrong, &["c".into()], now()).await;
    assert!(matches!(outcome, Err(Error::WrongKey { .. })));
    assert_eq!(generations(&open(&store, Some(&file)).await.unwrap()), 1);

    let counting = FaultyStore::counting(Arc::new(store.clone()));
    Slots::new(&counting, id).rotate(&keep, &["c".into()], now()).await.unwrap();
    for secret in [&file, &other] {
        assert_eq!(generations(&open(&store, Some(secret)).await.unwrap()), 2);
    }
    assert!(open(&store, Some(&third)).await.is_err());

    for calls in 0..counting.calls() {
        let (store, id) = begin().await;
        let dying = FaultyStore::stop_after(Arc::new(store.clone()), calls);
        Slots::new(&dying, id).rotate(&keep, &["c".into()], now()).await.unwrap_err();
        for secret in [&file, &other] {
            open(&store, Some(secret)).await.unwrap();
        }
        // Once more, and both have the same keyring, whatever the first one reached.
        Slots::new(&store, id).rotate(&keep, &["c".into()], now()).await.unwrap();
        let (a, b) = (open(&store, Some(&file)).await.unwrap(), open(&store, Some(&other)).await.unwrap());
        assert!(a.keyring == b.keyring, "after call {calls}");
        assert!(generations(&a) >= 2);
    }
}

/// Seals a document with what a secret opens, as a backup made with it would.
async fn seal_with(store: &MemoryStore, secret: &KeySecret, name: &str) {
    opened_with(store, secret).await.put_document(&name.parse().unwrap(), b"{}").await.unwrap();
}

async fn opened_with(store: &MemoryStore, secret: &KeySecret) -> Repo {
    let opened = open(store, Some(secret)).await.unwrap();
    Repo::from_parts(Arc::new(store.clone()), opened.seal_keys(), Parameters::default())
}

async fn assert_all_open(store: &MemoryStore, secrets: &[&KeySecret], documents: &[String], context: &str) {
    for secret in secrets {
        let repo = opened_with(store, secret).await;
        for name in documents {
            let document = repo.get_document(&name.parse().unwrap()).await;
            assert_eq!(document.unwrap_or_else(|error| panic!("{context}: {name}: {error}")), b"{}");
        }
    }
}

#[tokio::test]
async fn what_is_sealed_during_an_interrupted_rotation_opens_with_every_slot() {
    let (file, other) = (key_file(1), key_file(2));
    let keep = [slot("a", &file), slot("b", &other)];
    let secrets = [&file, &other];
    let begin = || async {
        let store = MemoryStore::new();
        let id = made(&store, keep.to_vec()).await.description.repository;
        (store, id)
    };
    let (store, id) = begin().await;
    let counting = FaultyStore::counting(Arc::new(store));
    Slots::new(&counting, id).rotate(&keep, &[], now()).await.unwrap();
    let mut unfinished = 0;
    for calls in 0..counting.calls() {
        let (store, id) = begin().await;
        let dying = FaultyStore::stop_after(Arc::new(store.clone()), calls);
        let error = Slots::new(&dying, id).rotate(&keep, &[], now()).await.unwrap_err();
        unfinished += usize::from(matches!(error, Error::RotationUnfinished { .. }));
        let mut documents = Vec::new();
        for (number, secret) in secrets.iter().enumerate() {
            documents.push(format!("orders/findings/during-{number}"));
            seal_with(&store, secret, &documents[number]).await;
        }
        assert_all_open(&store, &secrets, &documents, &format!("stopped after call {calls}")).await;
        let before = generations(&open(&store, Some(&file)).await.unwrap());
        let next = Slots::new(&store, id).rotate(&keep, &[], now()).await.unwrap();
        let stale = store.names().iter().filter(|name| name.starts_with("keys/")).count();
        // One whose key every slot had already is no reason to draw none.
        let drawn = if next.finished.is_some() || before == 1 { 2 } else { 3 };
        let next = next.keyring;
        assert!(next.generations().len() >= drawn, "call {calls}: begun with {before}");
        assert_eq!((stale, next.sealing_generation() as usize), (2, next.generations().len()));
        documents.push("orders/findings/after".to_owned());
        seal_with(&store, &file, "orders/findings/after").await;
        assert_all_open(&store, &secrets, &documents, &format!("finished after call {calls}")).await;
    }
    assert!(unfinished >= 4, "two writes and two deletions leave a rotation unfinished");
}

/// Slots a and b, of which a rotation has reached a alone.
async fn half_rotated(a: &KeySecret, b: &KeySecret) -> (MemoryStore, RepositoryId) {
    let store = MemoryStore::new();
    let keep = [slot("a", a), slot("b", b)];
    let id = made(&store, keep.to_vec()).await.description.repository;
    let failing = FaultyStore::new(Arc::new(store.clone()), |call| {
        if call.operation == Operation::Put && call.object.starts_with("keys/b-") {
            return Injection::Fail(denied(call));
        }
        Injection::Pass
    });
    let error = Slots::new(&failing, id).rotate(&keep, &[], now()).await.unwrap_err();
    assert!(matches!(&error, Error::RotationUnfinished { reached, .. } if reached == &["a"]), "{error}");
    assert_eq!(error.kind(), ErrorKind::Denied);
    (store, id)
}

#[tokio::test]
async fn a_slot_that_alone_holds_the_newest_generation_stays_and_no_old_one_is_added() {
    let (file, other, third) = (key_file(1), key_file(2), key_file(3));
    let (store, id) = half_rotated(&file, &other).await;
    let slots = Slots::new(&store, id);
    assert_eq!(generations(&open(&store, Some(&file)).await.unwrap()), 2);
    assert_eq!(open(&store, Some(&file)).await.unwrap().keyring.sealing_generation(), 1);
    assert!(matches!(slots.remove("a").await, Err(Error::OnlyNewest { .. })));
    // b could go, but not before the rotation that was decided is at its end.
    assert!(matches!(slots.remove("b").await, Err(Error::RotationUnderWay)));
    let yesterday = slots.unlock(&other).await.unwrap();
    let before = store.names();
    let old = slots.add(&yesterday, &slot("c", &third), now()).await.unwrap_err();
    assert_eq!(old.kind(), ErrorKind::Conflict, "{old}");
    assert_eq!(store.names(), before);
    // One for other slots finishes it, and says that it did nothing of its own.
    let other_slots = slots.rotate(&[slot("b", &other)], &["a".into()], now()).await.unwrap_err();
    assert!(
        matches!(&other_slots, Error::OtherRotation { keeps, drops } if keeps == &["a", "b"] && drops.is_empty()),
        "{other_slots}"
    );
    assert_eq!(open(&store, Some(&other)).await.unwrap().keyring.sealing_generation(), 2);
    slots.remove("a").await.unwrap();
    assert_eq!(open(&store, Some(&other)).await.unwrap().keyring.sealing_generation(), 2);
}

#[tokio::test]
async fn a_slot_added_while_a_rotation_passes_is_taken_back() {
    let (file, other) = (key_file(1), key_file(2));
    let store = MemoryStore::new();
    let keep = [slot("a", &file)];
    let id = made(&store, keep.to_vec()).await.description.repository;
    let yesterday = Slots::new(&store, id).unlock(&file).await.unwrap();
    // The rotation runs between the looking and the writing of the one that adds.
    let inner = store.clone();
    let late = FaultyStore::new(Arc::new(store.clone()), move |call| {
        if call.operation != Operation::Put {
            return Injection::Pass;
        }
        let (inner, keep) = (inner.clone(), keep.clone());
        Injection::After(Box::pin(async move {
            Slots::new(&inner, id).rotate(&keep, &[], now()).await.unwrap();
        }))
    });
    let error = Slots::new(&late, id).add(&yesterday, &slot("b", &other), now()).await.unwrap_err();
    assert!(matches!(error, Error::NewerGeneration { .. }), "{error}");
    assert!(open(&store, Some(&other)).await.is_err());
    assert_eq!(open(&store, Some(&file)).await.unwrap().keyring.sealing_generation(), 2);
}

#[tokio::test]
async fn a_changed_slot_opens_nothing_and_a_foreign_one_neither() {
    let store = MemoryStore::new();
    let file = key_file(1);
    made(&store, vec![slot("initial", &file)]).await;
    let name = store.names().into_iter().find(|name| name.starts_with("keys/")).unwrap();
    let object = store.get(&name.parse().unwrap(), 10_000).await.unwrap().to_vec();
    for position in 0..object.len() {
        let mut changed = object.clone();
        changed[position] ^= 1;
        store.tamper(&name.parse().unwrap(), changed);
        match open(&store, Some(&file)).await {
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::Denied | ErrorKind::Corrupt | ErrorKind::Unsupported),
                "byte {position}: {error}"
            ),
            // The time is only told to people, and is not authenticated.
            Ok(opened) => assert_eq!(generations(&opened), 1, "byte {position}"),
        }
    }
    // A slot of another repository with the same secret does not open this one.
    let foreign = MemoryStore::new();
    made(&foreign, vec![slot("initial", &file)]).await;
    let from = foreign.names().into_iter().find(|name| name.starts_with("keys/")).unwrap();
    store.tamper(&name.parse().unwrap(), foreign.get(&from.parse().unwrap(), 10_000).await.unwrap());
    assert!(open(&store, Some(&file)).await.is_err());
    // One that cannot be read does not keep the others from opening.
    let fresh = MemoryStore::new();
    made(&fresh, vec![slot("a", &file), slot("b", &key_file(2))]).await;
    let b = fresh.names().into_iter().find(|name| name.starts_with("keys/b")).unwrap();
    fresh.tamper(&b.parse().unwrap(), &b"{"[..]);
    open(&fresh, Some(&file)).await.unwrap();
    let refused = FaultyStore::fail_call(Arc::new(fresh), 2, denied);
    assert_eq!(open(&refused, Some(&file)).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn the_recovery_kit_holds_everything_but_the_key() {
    let store = MemoryStore::new();
    let place = tempfile::tempdir().unwrap();
    let key_path = place.path().join("repository.key");
    let file = create_key_file(&key_path).unwrap();
    let repository = made(&store, vec![slot("initial", &file)]).await;
    let kit = place.path().join("kit");
    let files = write_kit(&store, &repository.description, &kit).await.unwrap();
    let key = std::fs::read_to_string(&key_path).unwrap();
    let secret = key.trim().rsplit(' ').next().unwrap();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(!text.contains(secret), "{} holds the key", file.display());
        assert!(text.len() > 100, "{} is empty", file.display());
    }
    let programs = ["backstay-rescue.py", "backstay_format.py", "backstay_log.py"];
    for name in [&programs[..], &["README.txt", "FORMAT.md", "backstay.json"]].concat() {
        assert!(kit.join(name).is_file(), "{name}");
    }
    // What the kit holds is enough where the store has lost both.
    let bare = MemoryStore::new();
    for name in store.names() {
        let bytes = std::fs::read(kit.join(&name)).unwrap();
        bare.put_if_absent(&name.parse().unwrap(), bytes.into()).await.unwrap();
    }
    open(&bare, Some(&file)).await.unwrap();
    let again = write_kit(&store, &repository.description, &kit).await.unwrap_err();
    assert!(matches!(again, Error::DirectoryNotEmpty { .. }));
}
