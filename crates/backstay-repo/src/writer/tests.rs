//! Backups of made-up files through the whole pipeline and back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use backstay_model::error::Fault;
use backstay_model::parts::*;
use backstay_model::{BackupId, EngineKind, InstanceId, Progress};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::reader::{BackupReader, Depth, OnDamage, RestoreOptions};
use crate::repo::Parameters;
use crate::seal::{Cipher, SealKeys};
use crate::store::Store;
use crate::store::memory::MemoryStore;

pub(crate) type Files = BTreeMap<String, (u32, Vec<u8>)>;

/// Reads files that are in memory; in the order of their paths, or backwards as a server may.
pub(crate) struct MemorySource {
    steps: std::vec::IntoIter<Step>,
}

struct Held(Vec<u8>);

impl ExtentReader for Held {
    fn read(self: Box<Self>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        *buffer = self.0;
        Ok(())
    }
}

impl MemorySource {
    pub(crate) fn new(files: &Files, backwards: bool) -> Self {
        let mut steps = Vec::new();
        let mut order: Vec<_> = files.iter().collect();
        if backwards {
            order.reverse();
        }
        for (path, (block_size, bytes)) in order {
            let shape = FileShape { size: bytes.len() as u64, block_size: *block_size };
            steps.push(Step::Begin(FileSpec {
                path: path.clone(),
                kind: PartKind::File(shape),
                mode: 0o600,
                user_id: 1,
                group_id: 2,
                modified: 3,
            }));
            for (number, extent) in bytes.chunks(EXTENT_SIZE as usize).enumerate() {
                steps.push(Step::Extent {
                    offset: number as u64 * u64::from(EXTENT_SIZE),
                    length: extent.len() as u32,
                    data: ExtentData::Read(Box::new(Held(extent.to_vec()))),
                });
            }
            steps.push(Step::Barrier);
        }
        Self { steps: steps.into_iter() }
    }
}

impl PartSource for MemorySource {
    fn next(&mut self) -> Result<Option<Step>, Fault> {
        Ok(self.steps.next())
    }
}

#[derive(Default)]
pub(crate) struct MemoryTarget(Mutex<BTreeMap<String, Arc<Mutex<Vec<u8>>>>>);

struct MemoryFile(Arc<Mutex<Vec<u8>>>);

impl PartTarget for MemoryTarget {
    fn create(&self, file: &ParentFile) -> Result<Option<Box<dyn PartWriter>>, Fault> {
        let PartKind::File(shape) = file.spec.kind else { return Ok(None) };
        let bytes = Arc::new(Mutex::new(vec![0; shape.size as usize]));
        let before = self.0.lock().unwrap().insert(file.spec.path.clone(), Arc::clone(&bytes));
        assert!(before.is_none(), "{} is made twice", file.spec.path);
        Ok(Some(Box::new(MemoryFile(bytes))))
    }
}

impl PartWriter for MemoryFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let start = offset as usize;
        self.0.lock().unwrap()[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn finish(&self) -> Result<(), Fault> {
        Ok(())
    }
}

impl MemoryTarget {
    pub(crate) fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let files = self.0.lock().unwrap();
        files.iter().map(|(path, bytes)| (path.clone(), bytes.lock().unwrap().clone())).collect()
    }
}

pub(crate) struct Desk {
    pub repo: Arc<Repo>,
    pub memory: Arc<MemoryStore>,
    pub seconds: i64,
}

pub(crate) fn instance() -> InstanceId {
    "orders".parse().unwrap()
}

impl Desk {
    pub(crate) fn new(cipher: Cipher) -> Self {
        Self::over(Arc::new(MemoryStore::new()), cipher)
    }

    /// Small packs, so that a small backup has several.
    pub(crate) fn over(memory: Arc<MemoryStore>, cipher: Cipher) -> Self {
        let store: Arc<dyn Store> = Arc::clone(&memory) as _;
        Self { repo: Self::open(store, cipher), memory, seconds: 0 }
    }

    pub(crate) fn open(store: Arc<dyn Store>, cipher: Cipher) -> Arc<Repo> {
        Self::open_with(store, crate::seal::tests::keys(cipher))
    }

    fn open_with(store: Arc<dyn Store>, keys: SealKeys) -> Arc<Repo> {
        let parameters = Parameters { frame_size: 64 << 10, pack_size: 1 << 20 };
        Arc::new(Repo::from_parts(store, keys, parameters))
    }

    pub(crate) fn writer(&mut self, parent: Option<&BackupId>, manifest: Option<Manifest>) -> BackupWriter {
        self.writer_avoiding(parent, manifest, HashSet::new())
    }

    fn writer_avoiding(
        &mut self,
        parent: Option<&BackupId>,
        manifest: Option<Manifest>,
        damaged_packs: HashSet<(BackupId, u32)>,
    ) -> BackupWriter {
        self.seconds += 1;
        let at = jiff::Timestamp::from_second(1_800_000_000 + self.seconds).unwrap();
        let options =
            WriterOptions { lanes: 3, compression_level: 1, verify: true, damaged_packs, sequence: 1 };
        let layout = InstanceLayout::new(instance());
        let id = BackupId::new(at, self.seconds as u32);
        let known = parent.cloned().into_iter().collect();
        BackupWriter::new(Arc::clone(&self.repo), layout, id, known, at, options, manifest)
    }

    pub(crate) async fn backup(
        &mut self,
        files: &Files,
        parent: Option<&BackupId>,
        backwards: bool,
    ) -> Result<BackupRecord> {
        let manifest = match parent {
            Some(parent) => Some(self.repo.manifest(&instance(), parent).await?),
            None => None,
        };
        let mut writer = self.writer(parent, manifest);
        let source = MemorySource::new(files, backwards);
        writer.copy(Box::new(source), Arc::new(Progress::new()), &CancellationToken::new()).await?;
        writer.commit(draft()).await
    }

    pub(crate) async fn backup_avoiding(
        &mut self,
        files: &Files,
        parent: &BackupId,
        manifest: Option<Manifest>,
        damaged: Vec<(BackupId, u32)>,
    ) -> Result<BackupRecord> {
        let mut writer = self.writer_avoiding(Some(parent), manifest, damaged.into_iter().collect());
        let source = MemorySource::new(files, false);
        writer.copy(Box::new(source), Arc::new(Progress::new()), &CancellationToken::new()).await?;
        writer.commit(draft()).await
    }

    pub(crate) async fn reader(&self, id: &BackupId) -> BackupReader {
        BackupReader::new(Arc::clone(&self.repo), self.repo.manifest(&instance(), id).await.unwrap())
    }

    pub(crate) async fn restore(&self, id: &BackupId) -> Result<BTreeMap<String, Vec<u8>>> {
        let target = Arc::new(MemoryTarget::default());
        let reader = self.reader(id).await;
        let options = RestoreOptions { workers: 2, on_damage: OnDamage::Stop, depth: Depth::Frames };
        let as_target: Arc<dyn PartTarget> = Arc::clone(&target) as _;
        reader.restore(Some(as_target), options, Arc::default(), &CancellationToken::new()).await?;
        Ok(target.content())
    }
}

pub(crate) fn draft() -> RecordDraft {
    RecordDraft {
        engine: EngineKind::Postgresql,
        finished_at: jiff::Timestamp::from_second(1_800_000_100).unwrap(),
        start_position: None,
        stop_position: None,
        engine_version: "17.2".to_owned(),
        facts: serde_json::Value::Null,
        findings: Vec::new(),
    }
}

pub(crate) fn plain(files: &Files) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(path, (_, bytes))| (path.clone(), bytes.clone())).collect()
}

/// Bytes of pages that compress a little and differ from each other.
pub(crate) fn pages(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|n| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if n % 3 == 0 { state as u8 } else { b'x' }
        })
        .collect()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The books of the manifest against a walk over every block.
async fn check_books(desk: &Desk, id: &BackupId) {
    let reader = desk.reader(id).await;
    let booked = live_by_pack(&reader.manifest().objects);
    let handle = Handle::current();
    let counted = tokio::task::spawn_blocking(move || {
        let (mut maps, mut table) = reader.open_maps(handle).unwrap();
        let mut counted: std::collections::HashMap<(BackupId, u32), u64> = Default::default();
        let mut cursor = table.cursor();
        while let Some(record) = table.next(&mut maps, &mut cursor).unwrap() {
            let Some(shape) = record.shape() else { continue };
            let mut blocks = Vec::new();
            let total = crate::map::block_count(shape);
            let mut walk = crate::map::BlockCursor::new(&record);
            walk.whole_slice(&mut maps, 0, total as usize, &mut blocks).unwrap();
            for (number, block) in blocks.iter().enumerate() {
                if let crate::map::Block::Stored { place, .. } = block {
                    let id = maps.sessions().id(place.session).unwrap();
                    *counted.entry((id, place.pack)).or_default() +=
                        u64::from(crate::map::block_length(shape, number as u64));
                }
            }
        }
        counted
    })
    .await
    .unwrap();
    let booked: BTreeMap<_, _> = booked.into_iter().filter(|(_, live)| *live > 0).collect();
    assert_eq!(booked, counted.into_iter().collect::<BTreeMap<_, _>>());
}

#[derive(Debug, Clone)]
enum Change {
    Write { file: usize, at: usize, length: usize, seed: u64 },
    Zero { file: usize, at: usize, length: usize },
    Resize { file: usize, length: usize },
    Remove { file: usize },
    Add { length: usize, seed: u64 },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<usize>(), any::<usize>(), 1usize..40_000, any::<u64>())
            .prop_map(|(file, at, length, seed)| Change::Write { file, at, length, seed }),
        1 => (any::<usize>(), any::<usize>(), 1usize..100_000)
            .prop_map(|(file, at, length)| Change::Zero { file, at, length }),
        2 => (any::<usize>(), 0usize..400_000).prop_map(|(file, length)| Change::Resize { file, length }),
        1 => any::<usize>().prop_map(|file| Change::Remove { file }),
        1 => (0usize..3_000_000, any::<u64>()).prop_map(|(length, seed)| Change::Add { length, seed }),
    ]
}

fn apply(files: &mut Files, change: &Change, added: &mut u32) {
    let pick = |files: &Files, file: usize| files.keys().nth(file % files.len().max(1)).cloned();
    match change {
        Change::Add { length, seed } => {
            *added += 1;
            let block = if seed % 4 == 0 { 4096 } else { 8192 };
            files.insert(format!("base/{}/{added}", seed % 3), (block, pages(*seed, *length)));
        }
        Change::Remove { file } => {
            if let Some(path) = pick(files, *file) {
                files.remove(&path);
            }
        }
        Change::Resize { file, length } => {
            if let Some(path) = pick(files, *file) {
                files.get_mut(&path).unwrap().1.resize(*length, 7);
            }
        }
        Change::Write { file, at, length, seed } => {
            if let Some(path) = pick(files, *file) {
                let bytes = &mut files.get_mut(&path).unwrap().1;
                let start = at % bytes.len().max(1);
                let end = (start + length).min(bytes.len());
                let new = pages(*seed, end - start.min(end));
                bytes[start.min(end)..end].copy_from_slice(&new);
            }
        }
        Change::Zero { file, at, length } => {
            if let Some(path) = pick(files, *file) {
                let bytes = &mut files.get_mut(&path).unwrap().1;
                let start = (at % bytes.len().max(1)).min(bytes.len());
                let end = (start + length).min(bytes.len());
                bytes[start..end].fill(0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_backup_of_a_chain_restores_to_what_it_saw(
        history in proptest::collection::vec(proptest::collection::vec(change(), 0..12), 1..12),
        backwards: bool,
        encrypted: bool,
    ) {
        runtime().block_on(async {
            let mut desk = Desk::new(if encrypted { Cipher::Aes256Gcm } else { Cipher::None });
            let mut files = Files::new();
            let mut added = 0;
            for seed in 0..4 {
                apply(&mut files, &Change::Add { length: 300_000 * seed as usize, seed }, &mut added);
            }
            let mut taken: Vec<(BackupId, Files)> = Vec::new();
            for changes in &history {
                for change in changes {
                    apply(&mut files, change, &mut added);
                }
                let parent = taken.last().map(|(id, _)| id.clone());
                let record = desk.backup(&files, parent.as_ref(), backwards).await.unwrap();
                check_books(&desk, &record.id).await;
                taken.push((record.id, files.clone()));
            }
            for (id, files) in &taken {
                assert_eq!(desk.restore(id).await.unwrap(), plain(files));
            }
        });
    }
}

#[test]
fn an_unchanged_backup_stores_next_to_nothing_and_a_small_change_a_little() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let mut files: Files = (0..40).map(|n| (format!("base/1/{n}"), (8192, pages(n, 500_000)))).collect();
        let first = desk.backup(&files, None, false).await.unwrap();
        assert_eq!(first.statistics.new_bytes, first.statistics.logical_bytes);
        let second = desk.backup(&files, Some(&first.id), false).await.unwrap();
        assert_eq!(second.statistics.new_bytes, 0);
        assert!(second.statistics.stored_bytes < 8 << 10, "{:?}", second.statistics);
        files.get_mut("base/1/7").unwrap().1[100_000] ^= 1;
        let third = desk.backup(&files, Some(&second.id), false).await.unwrap();
        assert_eq!(third.statistics.new_bytes, 8192);
        assert_eq!(desk.restore(&third.id).await.unwrap(), plain(&files));
    });
}

#[test]
fn a_read_error_fails_the_backup_and_nothing_is_visible() {
    struct Broken;
    impl ExtentReader for Broken {
        fn read(self: Box<Self>, _: &mut Vec<u8>) -> Result<(), Fault> {
            Err(Fault::new(Error::broken("the disk cannot read")))
        }
    }
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let files: Files = [("a".to_owned(), (8192, pages(1, 5 << 20)))].into();
        let mut source = MemorySource::new(&files, false);
        let mut steps: Vec<Step> = source.steps.by_ref().collect();
        if let Step::Extent { data, .. } = &mut steps[3] {
            *data = ExtentData::Read(Box::new(Broken));
        }
        source.steps = steps.into_iter();
        let mut writer = desk.writer(None, None);
        let error =
            writer.copy(Box::new(source), Arc::default(), &CancellationToken::new()).await.unwrap_err();
        assert!(error.to_string().contains("the disk cannot read"), "{error}");
        assert!(desk.repo.commit_ids(&instance()).await.unwrap().is_empty());
    });
}

#[test]
fn a_reader_that_panics_ends_the_backup_and_leaves_no_lane_waiting() {
    struct Panics;
    impl ExtentReader for Panics {
        fn read(self: Box<Self>, _: &mut Vec<u8>) -> Result<(), Fault> {
            panic!("as a bug would")
        }
    }
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let files: Files = [("a".to_owned(), (8192, pages(1, 40 << 20)))].into();
        let mut steps: Vec<Step> = MemorySource::new(&files, false).steps.collect();
        if let Step::Extent { data, .. } = &mut steps[3] {
            *data = ExtentData::Read(Box::new(Panics));
        }
        let source = MemorySource { steps: steps.into_iter() };
        let mut writer = desk.writer(None, None);
        let error =
            writer.copy(Box::new(source), Arc::default(), &CancellationToken::new()).await.unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
    });
}

#[test]
fn a_source_that_breaks_the_contract_is_stopped() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::None);
        let files: Files = [("a".to_owned(), (8192, pages(1, 3 << 20)))].into();
        for skipped in 0..3 {
            let mut steps: Vec<Step> = MemorySource::new(&files, false).steps.collect();
            steps.remove(skipped);
            let mut writer = desk.writer(None, None);
            let source = MemorySource { steps: steps.into_iter() };
            let copied = writer.copy(Box::new(source), Arc::default(), &CancellationToken::new()).await;
            assert!(copied.is_err(), "step {skipped}");
        }
    });
}

#[test]
fn worn_packs_are_let_go_when_nothing_uses_them() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let mut files: Files = [("a".to_owned(), (8192, pages(0, 4 << 20)))].into();
        let mut parent = desk.backup(&files, None, false).await.unwrap();
        let first = parent.id.clone();
        for seed in 1..30 {
            files.insert("a".to_owned(), (8192, pages(seed, 4 << 20)));
            parent = desk.backup(&files, Some(&parent.id), false).await.unwrap();
        }
        let manifest = desk.repo.manifest(&instance(), &parent.id).await.unwrap();
        assert!(manifest.packs().all(|(session, _)| *session == parent.id), "{:?}", manifest.objects);
        assert!(manifest.maps().all(|(session, ..)| *session != first), "old maps are let go");
        assert_eq!(desk.restore(&parent.id).await.unwrap(), plain(&files));
    });
}

/// With hashes of one byte every 256th changed block looks unchanged. The block's
/// own hash cannot tell, and the checksum of the file does.
#[test]
fn a_collision_of_hashes_is_caught_by_the_checksum_of_the_file() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let mut keys = crate::seal::tests::keys(Cipher::Aes256Gcm);
        keys.hash_bytes = 1;
        desk.repo = Desk::open_with(Arc::clone(&desk.memory) as _, keys);
        let version = |seed: u64| -> Files { [("a".to_owned(), (8192, pages(seed, 16 << 20)))].into() };
        let first = desk.backup(&version(1), None, false).await.unwrap();
        let second = desk.backup(&version(2), Some(&first.id), false).await.unwrap();
        assert!(second.statistics.new_bytes < 16 << 20, "no two of 2048 blocks collided");
        assert_eq!(desk.restore(&first.id).await.unwrap(), plain(&version(1)));
        let error = desk.restore(&second.id).await.unwrap_err().to_string();
        assert!(error.contains("checksum"), "{error}");
    });
}

/// A tenth of the pages, scattered, day after day: frames die page by page. What a
/// restore reads in vain, and what is kept for nothing, must not grow for ever.
#[test]
fn worn_packs_are_stored_again_before_a_restore_reads_too_much() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let blocks = 1024;
        let mut content = pages(1, blocks * 8192);
        let mut parent: Option<BackupId> = None;
        let mut worst = 0.0f64;
        for day in 0..25usize {
            for block in (day % 10..blocks).step_by(10) {
                let new = pages((day * blocks + block) as u64, 8192);
                content[block * 8192..(block + 1) * 8192].copy_from_slice(&new);
            }
            let files: Files = [("a".to_owned(), (8192, content.clone()))].into();
            let record = desk.backup(&files, parent.as_ref(), false).await.unwrap();
            worst = worst.max(record.statistics.restore_amplification);
            let manifest = desk.repo.manifest(&instance(), &record.id).await.unwrap();
            let kept: u64 = manifest.packs().map(|(_, pack)| pack.raw_bytes).sum();
            assert!(kept < 4 * content.len() as u64, "day {day}: {kept} bytes are kept");
            assert_eq!(desk.restore(&record.id).await.unwrap(), plain(&files));
            parent = Some(record.id);
        }
        assert!(worst > REBASE_AMPLIFICATION, "the limit was never reached: {worst}");
        assert!(worst < 2.5, "a restore would read {worst} times too much");
    });
}
