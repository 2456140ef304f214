//! Maps written and read back, against a plain vector of blocks.

use std::sync::Arc;

use backstay_model::parts::{FileShape, FileSpec, PartKind};
use backstay_model::{BackupId, InstanceId};
use proptest::prelude::*;

use super::*;
use crate::layout::InstanceLayout;
use crate::seal::{Cipher, SealKeys};
use crate::store::{Store, memory::MemoryStore};

pub(super) struct Bench {
    runtime: tokio::runtime::Runtime,
    store: Arc<dyn Store>,
    keys: Arc<SealKeys>,
    layout: InstanceLayout,
    pub(super) sessions: Sessions,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            store: Arc::new(MemoryStore::new()),
            keys: Arc::new(crate::seal::tests::keys(Cipher::Aes256Gcm)),
            layout: InstanceLayout::new("orders".parse::<InstanceId>().unwrap()),
            sessions: Sessions::new(),
        }
    }

    pub(super) fn writer(&self, session: &BackupId) -> MapWriter {
        MapWriter::new(
            Arc::clone(&self.store),
            Arc::clone(&self.keys),
            self.layout.clone(),
            self.runtime.handle().clone(),
            session.clone(),
            self.sessions.clone(),
        )
        .unwrap()
    }

    fn reader(&self, written: &[(BackupId, Vec<WrittenMap>)]) -> MapFrames {
        let mut frames = MapFrames::new(
            Arc::clone(&self.store),
            Arc::clone(&self.keys),
            self.layout.clone(),
            self.runtime.handle().clone(),
            self.sessions.clone(),
        )
        .unwrap();
        for (session, maps) in written {
            for map in maps {
                frames.know(session, map.number, map.size).unwrap();
            }
        }
        frames
    }
}

pub(super) fn session(second: u32) -> BackupId {
    BackupId::new(format!("2026-11-21T02:43:{second:02}Z").parse().unwrap(), second)
}

fn file(path: &str, blocks: u64) -> FileRecord {
    FileRecord {
        spec: FileSpec {
            path: path.to_owned(),
            kind: PartKind::File(FileShape { size: blocks * 8192, block_size: 8192 }),
            mode: 0o600,
            user_id: 100,
            group_id: 100,
            modified: -5,
        },
        crc32c: Some(7),
        digest: [3; 16],
        levels: Vec::new(),
    }
}

/// One level as a test describes it: `(gap, count, zero, seed)`.
type LevelShape = Vec<(u8, u8, bool, u32)>;

fn runs(index: SessionIndex, shape: &LevelShape) -> Vec<Run> {
    let mut at = 0;
    shape
        .iter()
        .map(|(gap, count, zero, seed)| {
            let first_block = at + u64::from(*gap);
            let count = u64::from(*count % 16) + 1;
            at = first_block + count;
            let place = Place { session: index, pack: seed % 7, frame: *seed, offset: seed % 3 * 8192 };
            let hashes = (0..count).map(|n| [(u64::from(*seed) + n) as u8; 16]).collect();
            Run { first_block, count, stored: (!zero).then_some(StoredRun { place, hashes }) }
        })
        .collect()
}

fn apply(naive: &mut [Block], runs: &[Run]) {
    for run in runs {
        for n in 0..run.count {
            let Some(slot) = naive.get_mut((run.first_block + n) as usize) else { continue };
            *slot = match &run.stored {
                None => Block::Zero,
                Some(stored) => Block::Stored {
                    hash: stored.hashes[n as usize],
                    place: Place { offset: stored.place.offset + n as u32 * 8192, ..stored.place },
                },
            };
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn reading_through_levels_equals_a_naive_copy(
        levels in proptest::collection::vec(
            proptest::collection::vec((0u8..20, any::<u8>(), any::<bool>(), any::<u32>()), 1..400), 1..9),
        step in 1usize..300,
    ) {
        let bench = Bench::new();
        let blocks = 6000;
        let mut naive = vec![Block::Absent; blocks as usize];
        let mut record = file("base/5/16384", blocks);
        let mut written = Vec::new();
        for (number, shape) in levels.iter().enumerate() {
            let session = session(number as u32);
            let index = bench.sessions.index_of(&session).unwrap();
            let runs = runs(index, shape);
            let mut writer = bench.writer(&session);
            // Another file's section before it, so that ours begins inside a frame.
            let mut other = SectionBuilder::default();
            writer.push_run(&mut other, &runs[0]).unwrap();
            let mut section = SectionBuilder::default();
            for run in &runs {
                writer.push_run(&mut section, run).unwrap();
            }
            record.levels.insert(0, section.finish().unwrap());
            written.push((session, writer.finish().unwrap()));
            apply(&mut naive, &runs);
        }
        let mut maps = bench.reader(&written);
        let mut cursor = BlockCursor::new(&record);
        let mut slice = Vec::new();
        let mut at = 0u64;
        while at < blocks {
            cursor.slice(&mut maps, at, step, &mut slice).unwrap();
            let end = (at as usize + step).min(naive.len());
            prop_assert_eq!(&slice[..end - at as usize], &naive[at as usize..end]);
            at += step as u64;
        }
    }
}

#[test]
fn a_section_goes_on_through_frames_and_objects() {
    let bench = Bench::new();
    let session = session(0);
    let index = bench.sessions.index_of(&session).unwrap();
    let blocks = 1_200_000u64;
    let mut writer = bench.writer(&session);
    let mut section = SectionBuilder::default();
    for first_block in (0..blocks).step_by(16) {
        let hashes: Vec<BlockHash> = (first_block..first_block + 16u64)
            .map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..16].try_into().unwrap())
            .collect();
        let place = Place { session: index, pack: 0, frame: (first_block / 16) as u32, offset: 0 };
        let run = Run { first_block, count: 16, stored: Some(StoredRun { place, hashes }) };
        writer.push_run(&mut section, &run).unwrap();
    }
    let mut record = file("base/5/16385", blocks);
    record.levels.push(section.finish().unwrap());
    let written = writer.finish().unwrap();
    assert!(written.len() > 1, "the section spans several objects");
    let mut maps = bench.reader(&[(session, written)]);
    let mut cursor = BlockCursor::new(&record);
    let mut slice = Vec::new();
    for first in (0..blocks).step_by(1000) {
        cursor.whole_slice(&mut maps, first, 1000, &mut slice).unwrap();
        let expected = blake3::hash(&(first + 999).to_le_bytes());
        assert_eq!(slice[999].hash()[..], expected.as_bytes()[..16]);
    }
}

fn write_table(writer: &mut MapWriter, records: &[FileRecord], known: Vec<LeafEntry>) -> WrittenTable {
    let mut table = TableDraft::new(known.into(), [9; 32]);
    for record in records {
        writer.put_record(&mut table, record).unwrap();
    }
    writer.finish_table(table).unwrap()
}

#[test]
fn an_unchanged_leaf_is_not_written_again_and_every_path_is_found() {
    let bench = Bench::new();
    let mut records: Vec<FileRecord> = (0..5000).map(|n| file(&format!("base/5/{n:06}"), 0)).collect();
    let (first, second) = (session(1), session(2));
    let mut writer = bench.writer(&first);
    let WrittenTable { root, leaves } = write_table(&mut writer, &records, Vec::new());
    let maps_of_first = writer.finish().unwrap();

    records[2500].digest = [4; 16];
    records.remove(100);
    let mut writer = bench.writer(&second);
    let WrittenTable { root: root_of_second, leaves: leaves_of_second } =
        write_table(&mut writer, &records, leaves);
    let maps_of_second = writer.finish().unwrap();
    let own = bench.sessions.index_of(&second).unwrap();
    let new = leaves_of_second.iter().filter(|leaf| leaf.session == own).count();
    assert!((1..=4).contains(&new), "{new} of {} leaves are new", leaves_of_second.len());

    let mut maps = bench.reader(&[(first.clone(), maps_of_first), (second.clone(), maps_of_second)]);
    let mut table =
        FileTable::open(&mut maps, &RootPlace { session: second, frames: root_of_second }).unwrap();
    assert_eq!(table.entries(), 4999);
    assert_eq!(table.find(&mut maps, "base/5/000100").unwrap(), None);
    assert_eq!(table.find(&mut maps, "a").unwrap(), None);
    assert_eq!(table.find(&mut maps, "base/5/002500").unwrap().unwrap().digest, [4; 16]);
    let mut cursor = table.cursor();
    let mut seen = Vec::new();
    while let Some(record) = table.next(&mut maps, &mut cursor).unwrap() {
        seen.push(record);
    }
    assert_eq!(seen, records);
    let mut old = FileTable::open(&mut maps, &RootPlace { session: first, frames: root }).unwrap();
    assert_eq!(old.find(&mut maps, "base/5/002500").unwrap().unwrap().digest, [3; 16]);
    assert!(old.find(&mut maps, "base/5/000100").unwrap().is_some());
}
