//! A file of more than four GiB: no offset, length or count in it fits 32 bits.

#![allow(clippy::unwrap_used, reason = "functions of a test that are not tests themselves")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstay_model::error::Fault;
use backstay_model::parts::{
    EXTENT_SIZE, ExtentData, ExtentReader, FileShape, FileSpec, ParentFile, PartKind, PartSource, PartTarget,
    PartWriter, Step,
};
use backstay_model::{BackupId, EngineKind, Progress};
use backstay_repo::init::{InitOptions, init};
use backstay_repo::reader::{BackupReader, Depth, OnDamage, RestoreOptions};
use backstay_repo::repo::{Parameters, Repo};
use backstay_repo::store::DiskStore;
use backstay_repo::writer::{RecordDraft, WriterOptions};
use tokio_util::sync::CancellationToken;

const BLOCK_BYTES: u32 = 128 << 10;
/// The last block is a short one.
const FILE_BYTES: u64 = (4 << 30) + 5 * BLOCK_BYTES as u64 + 1000;
/// Changed between the two backups: behind four GiB.
const CHANGED_EXTENT: u64 = (4 << 30) / EXTENT_SIZE as u64;
const FILLING: u8 = 0x5a;

/// What a block begins with: its number, and the life it is of.
fn head(offset: u64, life: u64) -> [u8; 8] {
    let changed = offset / u64::from(EXTENT_SIZE) == CHANGED_EXTENT;
    (offset / u64::from(BLOCK_BYTES) * 16 + if changed { life } else { 1 }).to_le_bytes()
}

struct LongFile {
    life: u64,
    next: Option<u64>,
}

struct Stretch {
    offset: u64,
    length: u32,
    life: u64,
}

impl ExtentReader for Stretch {
    fn read(self: Box<Self>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        buffer.clear();
        buffer.resize(self.length as usize, FILLING);
        for (number, block) in buffer.chunks_mut(BLOCK_BYTES as usize).enumerate() {
            let offset = self.offset + number as u64 * u64::from(BLOCK_BYTES);
            block[..8].copy_from_slice(&head(offset, self.life));
        }
        Ok(())
    }
}

impl PartSource for LongFile {
    fn next(&mut self) -> Result<Option<Step>, Fault> {
        let Some(offset) = self.next else {
            self.next = Some(0);
            let kind = PartKind::File(FileShape { size: FILE_BYTES, block_size: BLOCK_BYTES });
            let path = "long".to_owned();
            let spec = FileSpec { path, kind, mode: 0o600, user_id: 0, group_id: 0, modified: 1 };
            return Ok(Some(Step::Begin(spec)));
        };
        if offset == FILE_BYTES {
            return Ok(None);
        }
        let length = (FILE_BYTES - offset).min(u64::from(EXTENT_SIZE)) as u32;
        self.next = Some(offset + u64::from(length));
        let same = self.life > 1 && offset / u64::from(EXTENT_SIZE) != CHANGED_EXTENT;
        let data = match same {
            true => ExtentData::Unchanged,
            false => ExtentData::Read(Box::new(Stretch { offset, length, life: self.life })),
        };
        Ok(Some(Step::Extent { offset, length, data }))
    }
}

/// Compares what it is given, and counts it.
struct Comparing {
    life: u64,
    bytes: Arc<AtomicU64>,
}

impl PartTarget for Comparing {
    fn create(&self, _: &ParentFile) -> Result<Option<Box<dyn PartWriter>>, Fault> {
        Ok(Some(Box::new(Comparing { life: self.life, bytes: Arc::clone(&self.bytes) })))
    }
}

impl PartWriter for Comparing {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let filling = vec![FILLING; BLOCK_BYTES as usize];
        for (number, block) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
            let at = offset + number as u64 * u64::from(BLOCK_BYTES);
            assert_eq!(block[..8], head(at, self.life), "the block at {at}");
            assert!(block[8..] == filling[8..block.len()], "the block at {at}");
        }
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn finish(&self) -> Result<(), Fault> {
        Ok(())
    }
}

async fn backup(repo: &Arc<Repo>, life: u64, parent: Option<BackupId>) -> BackupId {
    let options = WriterOptions {
        lanes: 2,
        compression_level: 1,
        verify: true,
        damaged_packs: Default::default(),
        sequence: life,
    };
    let now = format!("2026-11-21T02:4{life}:00Z").parse().unwrap();
    let mut writer = repo.begin_backup(&"orders".parse().unwrap(), parent, now, options).await.unwrap();
    let (source, progress) = (LongFile { life, next: None }, Arc::new(Progress::default()));
    writer.copy(Box::new(source), Arc::clone(&progress), &CancellationToken::new()).await.unwrap();
    let draft = RecordDraft {
        engine: EngineKind::Postgresql,
        finished_at: now,
        start_position: None,
        stop_position: None,
        engine_version: "17".to_owned(),
        facts: serde_json::Value::Null,
        findings: Vec::new(),
    };
    let record = writer.commit(draft).await.unwrap();
    assert_eq!(record.statistics.logical_bytes, FILE_BYTES);
    let new = if life > 1 { u64::from(EXTENT_SIZE) } else { FILE_BYTES };
    assert_eq!(record.statistics.new_bytes, new);
    record.id
}

async fn restore(repo: &Arc<Repo>, id: &BackupId, life: u64) {
    let manifest = repo.manifest(&"orders".parse().unwrap(), id).await.unwrap();
    let bytes = Arc::new(AtomicU64::new(0));
    let target: Arc<dyn PartTarget> = Arc::new(Comparing { life, bytes: Arc::clone(&bytes) });
    let options = RestoreOptions { workers: 2, on_damage: OnDamage::Stop, depth: Depth::Frames };
    let reader = BackupReader::new(Arc::clone(repo), manifest);
    reader.restore(Some(target), options, Arc::default(), &CancellationToken::new()).await.unwrap();
    assert_eq!(bytes.load(Ordering::Relaxed), FILE_BYTES);
}

#[test]
fn a_file_of_more_than_four_gib_comes_back_and_so_does_a_change_behind_them() {
    let place = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(DiskStore::new(place.path().join("repository")));
        let now = "2026-11-21T02:40:00Z".parse().unwrap();
        let made = init(&*store, &InitOptions { slots: Vec::new(), now }).await.unwrap();
        let repo = Repo::from_parts(store, made.repository.seal_keys(), Parameters::default());
        let repo = Arc::new(repo.with_catalogue(&place.path().join("cache")));
        let full = backup(&repo, 1, None).await;
        let increment = backup(&repo, 2, Some(full)).await;
        restore(&repo, &increment, 2).await;
    });
}
