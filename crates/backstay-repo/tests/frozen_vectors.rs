//! A repository written by the first version of the format and never touched
//! since. As long as this test passes, what people stored then can be read.
//!
//! `tests/vectors/repository` holds one object of every kind. It was written once,
//! by this file with `BACKSTAY_WRITE_VECTORS=1`; writing it again is admitting that
//! the format was broken.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking, also outside of its functions")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use backstay_model::error::Fault;
use backstay_model::parts::*;
use backstay_model::{EngineKind, InstanceId, Secret, VerifyLevel};
use backstay_repo::init::{self, InitOptions};
use backstay_repo::key::{KeySecret, NewSlot, create_key_file, read_key_file};
use backstay_repo::reader::{BackupReader, Depth, OnDamage, RestoreOptions};
use backstay_repo::repo::{Parameters, Repo};
use backstay_repo::store::Store;
use backstay_repo::store::disk::DiskStore;
use backstay_repo::writer::{RecordDraft, WriterOptions};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

const PASS_PHRASE: &str = "ein festes Stag";

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn instance() -> InstanceId {
    "orders".parse().unwrap()
}

/// Files as they were at the first and at the second backup: a formula, so that
/// nothing but the formula has to be trusted.
fn files(generation: u64) -> BTreeMap<String, Vec<u8>> {
    let page =
        |seed: u64| -> Vec<u8> { (0..8192u64).map(|n| (n / 64 * seed + n % 7 + seed / 3) as u8).collect() };
    let mut heap: Vec<u8> = (1..=20).flat_map(page).collect();
    heap.extend_from_slice(&[0; 8192 * 2]);
    heap.extend_from_slice(b"a last block that is short");
    if generation == 2 {
        heap[8192 * 5..8192 * 6].copy_from_slice(&page(99));
    }
    let mut files = BTreeMap::from([
        ("base/1/16384".to_owned(), heap),
        ("base/1/empty".to_owned(), Vec::new()),
        ("global/pg_control".to_owned(), page(generation)),
    ]);
    if generation == 1 {
        files.insert("base/1/gone".to_owned(), page(50));
    }
    files
}

struct Held(Vec<u8>);

impl ExtentReader for Held {
    fn read(self: Box<Self>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        *buffer = self.0;
        Ok(())
    }
}

struct Source(std::vec::IntoIter<Step>);

impl PartSource for Source {
    fn next(&mut self) -> Result<Option<Step>, Fault> {
        Ok(self.0.next())
    }
}

fn source(generation: u64) -> Box<Source> {
    let spec = |path: &str, kind| FileSpec {
        path: path.to_owned(),
        kind,
        mode: 0o600,
        user_id: 70,
        group_id: 70,
        modified: 1_790_000_000,
    };
    let mut steps = vec![
        Step::Begin(spec("base", PartKind::Directory)),
        Step::Begin(spec("base/1/link", PartKind::Symlink("elsewhere".to_owned()))),
    ];
    for (path, content) in files(generation) {
        let shape = FileShape { size: content.len() as u64, block_size: 8192 };
        steps.push(Step::Begin(spec(&path, PartKind::File(shape))));
        if !content.is_empty() {
            let length = content.len() as u32;
            steps.push(Step::Extent { offset: 0, length, data: ExtentData::Read(Box::new(Held(content))) });
        }
    }
    Box::new(Source(steps.into_iter()))
}

#[derive(Default)]
struct Target(Mutex<BTreeMap<String, Arc<Mutex<Vec<u8>>>>>);

struct Written(Arc<Mutex<Vec<u8>>>);

impl PartTarget for Target {
    fn create(&self, file: &ParentFile) -> Result<Option<Box<dyn PartWriter>>, Fault> {
        let PartKind::File(shape) = file.spec.kind else { return Ok(None) };
        assert_eq!((file.spec.mode, file.spec.user_id, file.spec.modified), (0o600, 70, 1_790_000_000));
        let bytes = Arc::new(Mutex::new(vec![0; shape.size as usize]));
        self.0.lock().unwrap().insert(file.spec.path.clone(), Arc::clone(&bytes));
        Ok(Some(Box::new(Written(bytes))))
    }
}

impl PartWriter for Written {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.0.lock().unwrap()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn finish(&self) -> Result<(), Fault> {
        Ok(())
    }
}

async fn open(secret: &KeySecret) -> Arc<Repo> {
    let store: Arc<dyn Store> = Arc::new(DiskStore::new(vectors().join("repository")));
    let open = init::open(&*store, Some(secret)).await.unwrap();
    let parameters = Parameters {
        frame_size: open.description.frame_size,
        pack_size: u64::from(open.description.pack_size),
    };
    Arc::new(Repo::from_parts(store, open.seal_keys(), parameters))
}

async fn write() {
    let _ = std::fs::remove_dir_all(vectors());
    std::fs::create_dir_all(vectors()).unwrap();
    let now = Timestamp::from_second(1_795_000_000).unwrap();
    let key = create_key_file(&vectors().join("repository.key")).unwrap();
    let slots = vec![
        NewSlot { slot: "initial".to_owned(), secret: key.clone() },
        NewSlot { slot: "phrase".to_owned(), secret: KeySecret::Passphrase(Secret::new(PASS_PHRASE)) },
    ];
    let store = DiskStore::new(vectors().join("repository"));
    init::init(&store, &InitOptions { slots, now }).await.unwrap();
    let repo = open(&key).await;
    let mut parent = None;
    for generation in 1..=2 {
        let at = Timestamp::from_second(1_795_000_000 + generation as i64 * 86_400).unwrap();
        let options = WriterOptions {
            lanes: 1,
            compression_level: 3,
            verify: true,
            damaged_packs: Default::default(),
            sequence: 1,
        };
        let mut writer = repo.begin_backup(&instance(), parent, at, options).await.unwrap();
        writer.copy(source(generation), Arc::default(), &CancellationToken::new()).await.unwrap();
        let record = writer
            .commit(RecordDraft {
                engine: EngineKind::Postgresql,
                finished_at: at,
                start_position: None,
                stop_position: None,
                engine_version: "17.2".to_owned(),
                facts: serde_json::Value::Null,
                findings: Vec::new(),
            })
            .await
            .unwrap();
        parent = Some(record.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_first_version_of_the_format_stored_can_be_read() {
    if std::env::var_os("BACKSTAY_WRITE_VECTORS").is_some() {
        write().await;
    }
    let (key, _) = read_key_file(&vectors().join("repository.key")).unwrap();
    open(&KeySecret::Passphrase(Secret::new(PASS_PHRASE))).await;
    let repo = open(&key).await;
    let backups = repo.backups(&instance()).await.unwrap().records;
    assert_eq!(backups.len(), 2);
    assert_eq!(backups[1].parent.as_ref(), Some(&backups[0].id));
    for (generation, record) in (1..).zip(&backups) {
        let cancel = CancellationToken::new();
        let manifest = repo.manifest(&instance(), &record.id).await.unwrap();
        let verified =
            repo.verify(manifest.clone(), VerifyLevel::Digest, 1, Arc::default(), &cancel).await.unwrap();
        assert!(verified.report.sound, "{:?}", verified.report.findings);
        let target = Arc::new(Target::default());
        let options = RestoreOptions { workers: 1, on_damage: OnDamage::Stop, depth: Depth::Frames };
        BackupReader::new(Arc::clone(&repo), manifest)
            .restore(Some(Arc::clone(&target) as Arc<dyn PartTarget>), options, Arc::default(), &cancel)
            .await
            .unwrap();
        let restored = target.0.lock().unwrap();
        let restored: BTreeMap<String, Vec<u8>> =
            restored.iter().map(|(path, bytes)| (path.clone(), bytes.lock().unwrap().clone())).collect();
        assert_eq!(restored, files(generation));
    }
}
