//! What a collection asks of the store, by the number of backups.

#![allow(clippy::unwrap_used, reason = "functions of a test that are not tests themselves")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use backstay_model::record::Statistics;
use backstay_model::{BackupId, BackupRecord, BackupType, EngineKind, InstanceId, RepositoryId};
use backstay_repo::description::StoreFacts;
use backstay_repo::key::Keyring;
use backstay_repo::layout::InstanceLayout;
use backstay_repo::manifest::{MANIFEST_FORMAT, Manifest, PackUse, SessionObjects, Tombstone};
use backstay_repo::protocol::{CollectOptions, CollectReport, Collection, ProcessIdentity};
use backstay_repo::repo::{Parameters, Repo};
use backstay_repo::seal::Cipher;
use backstay_repo::store::faulty::FaultyStore;
use backstay_repo::store::{MemoryStore, Operation, Store};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

const BACKUPS: u32 = 300;
/// The pages of all listings: the store gives out a hundred names at once.
const LISTINGS: u64 = 40;

fn instance() -> InstanceId {
    "orders".parse().unwrap()
}

fn at(second: u32) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + i64::from(second)).unwrap()
}

fn id(number: u32) -> BackupId {
    BackupId::new(at(number), number)
}

/// Each backup needs its own pack and that of the one before.
fn manifest(number: u32) -> Manifest {
    let id_of = id(number);
    let pack = PackUse { number: 0, size: 3, raw_bytes: 3, live_bytes: 3 };
    let of = |session| SessionObjects { session, packs: vec![pack], maps: Vec::new() };
    Manifest {
        format: MANIFEST_FORMAT,
        record: BackupRecord {
            id: id_of.clone(),
            instance: instance(),
            engine: EngineKind::Postgresql,
            backup_type: BackupType::Full,
            parent: None,
            started_at: at(number),
            finished_at: at(number),
            sequence: 0,
            start_position: None,
            stop_position: None,
            engine_version: "17".to_owned(),
            encrypted: true,
            statistics: Statistics::default(),
            facts: serde_json::Value::Null,
            findings: Vec::new(),
        },
        root: vec![(0, 0)],
        objects: [number.checked_sub(1).map(id), Some(id_of)].into_iter().flatten().map(of).collect(),
        known_backups: Vec::new(),
    }
}

struct Office {
    memory: Arc<MemoryStore>,
    keyring: Keyring,
    repository: RepositoryId,
}

impl Office {
    fn repo(&self, store: Arc<dyn Store>, cache: &Path) -> Repo {
        let keys = self.keyring.seal_keys(self.repository, Cipher::Aes256Gcm);
        Repo::from_parts(store, keys, Parameters::default()).with_catalogue(cache)
    }

    async fn with_backups(cache: &Path) -> Self {
        let repository = RepositoryId::from_bytes([7; 16]);
        let office =
            Self { memory: Arc::new(MemoryStore::new()), keyring: Keyring::generate().unwrap(), repository };
        let repo = office.repo(Arc::clone(&office.memory) as _, cache);
        let layout = InstanceLayout::new(instance());
        for number in 0..BACKUPS {
            office.put_pack(number).await;
            let json = manifest(number).to_json().unwrap();
            repo.put_document(&layout.backup(&id(number)), &json).await.unwrap();
        }
        office
    }

    async fn put_pack(&self, session: u32) {
        let name = InstanceLayout::new(instance()).pack(&id(session), 0);
        self.memory.put_if_absent(&name, bytes::Bytes::from_static(b"abc")).await.unwrap();
    }

    /// One run by a fresh process: what it did, and what it asked of the store but
    /// for deletions.
    async fn collect(&self, cache: &Path) -> (CollectReport, u64, usize) {
        let store = FaultyStore::counting(Arc::clone(&self.memory) as _);
        let repo = self.repo(Arc::new(store.clone()), cache);
        let facts = StoreFacts { create_if_absent: true, read_after_write: true };
        let options = CollectOptions::new(facts, ProcessIdentity::current(), at(5000));
        let collection = Collection::new(&repo, options, CancellationToken::new());
        let report = collection.prepare().await.unwrap().execute().await.unwrap();
        let count = |operation| store.log().iter().filter(|call| call.operation == operation).count() as u64;
        (report, store.calls() - count(Operation::Delete), count(Operation::Get) as usize)
    }

    fn packs(&self) -> BTreeSet<String> {
        self.memory.names().into_iter().filter(|name| name.contains("/packs/")).collect()
    }
}

#[tokio::test]
async fn a_second_collection_asks_for_what_is_new_and_decides_the_same() {
    let (cache, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let office = Office::with_backups(cache.path()).await;
    let (_, first, fetched) = office.collect(cache.path()).await;
    assert_eq!(fetched, BACKUPS as usize, "a machine that knows nothing reads all of them");
    let (_, second, fetched) = office.collect(cache.path()).await;
    assert_eq!(fetched, 1, "the record of the run before");
    assert!(first > u64::from(BACKUPS) && second < LISTINGS, "{first} calls, then {second}");

    // Ten backups expire, with markers, a session left garbage, and one a tombstone.
    let repo = office.repo(Arc::clone(&office.memory) as _, cache.path());
    let layout = InstanceLayout::new(instance());
    for number in 0..10 {
        repo.condemn(&instance(), &id(number), at(2000)).await.unwrap();
        let grace = std::time::Duration::from_secs(1);
        repo.delete_condemned(&instance(), &id(number), grace, at(3000)).await.unwrap();
    }
    office.put_pack(7777).await;
    let tombstone = Tombstone { at: at(2000), why: "its process is gone".to_owned() };
    let name = layout.backup(&id(7777));
    repo.put_document(&name, &tombstone.to_json().unwrap()).await.unwrap();
    let (report, _, fetched) = office.collect(cache.path()).await;
    assert_eq!(fetched, 1 + 10 + 1, "the last run, the markers and the tombstone");
    // The pack of the tenth is needed by the eleventh.
    let gone: BTreeSet<String> =
        [7777].into_iter().chain(0..9).map(|n| layout.pack(&id(n), 0).to_string()).collect();
    assert_eq!(report.deleted_objects, 10);
    assert!(office.packs().is_disjoint(&gone));
    assert_eq!(office.packs().len(), BACKUPS as usize - 9);

    let (report, third, fetched) = office.collect(cache.path()).await;
    assert!((fetched, report.deleted_objects) == (1, 0) && third < LISTINGS, "{third} calls");
    // One that has no copies decides the same.
    let (report, _, fetched) = office.collect(other.path()).await;
    assert_eq!((fetched as u32, report.deleted_objects), (1 + BACKUPS - 10 + 10 + 1, 0));
}

#[tokio::test]
async fn a_copy_that_is_damaged_or_of_another_size_is_read_again() {
    let cache = tempfile::tempdir().unwrap();
    let office = Office::with_backups(cache.path()).await;
    office.collect(cache.path()).await;
    let copies = cache.path().join(office.repository.to_string()).join("copies/orders/backups");
    let copy = |number| copies.join(id(number).as_str());
    assert_eq!(std::fs::read_dir(&copies).unwrap().count(), BACKUPS as usize);
    let mut changed = std::fs::read(copy(5)).unwrap();
    changed[100] ^= 1;
    std::fs::write(copy(5), changed).unwrap();
    // Another backup's copy under this one's name, and none at all.
    std::fs::copy(copy(8), copy(9)).unwrap();
    std::fs::remove_file(copy(11)).unwrap();
    let (report, _, fetched) = office.collect(cache.path()).await;
    assert_eq!((fetched, report.deleted_objects), (1 + 3, 0));
    assert_eq!(office.packs().len(), BACKUPS as usize);

    // What is gone from the store leaves no copy behind.
    let repo = office.repo(Arc::clone(&office.memory) as _, cache.path());
    repo.condemn(&instance(), &id(5), at(2000)).await.unwrap();
    let grace = std::time::Duration::from_secs(1);
    repo.delete_condemned(&instance(), &id(5), grace, at(3000)).await.unwrap();
    office.collect(cache.path()).await;
    assert!(!copy(5).exists() && copy(6).exists());
}
