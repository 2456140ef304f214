//! Streams that change between backups, through the whole pipeline and back.

use std::sync::{Arc, Mutex};

use backstay_model::error::Fault;
use backstay_model::parts::{ByteStream, PartTarget, PartWriter};
use backstay_model::{BackupId, BackupRecord, Progress};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::Result;
use crate::reader::{Depth, OnDamage, RestoreOptions};
use crate::seal::Cipher;
use crate::writer::tests::{Desk, MemoryTarget, draft, instance, pages, runtime};

const PATH: &str = "snapshot";

/// In pieces of any size.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
}

impl ByteStream for Pieces {
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<bool, Fault> {
        let end = self.bytes.len().min(self.at + self.piece);
        buffer.extend_from_slice(&self.bytes[self.at..end]);
        let has_more = end > self.at;
        self.at = end;
        self.piece = self.piece % 300_000 + 7919;
        Ok(has_more)
    }
}

#[derive(Clone)]
struct Whole(Arc<Mutex<Vec<u8>>>);

impl PartWriter for Whole {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let mut whole = self.0.lock().unwrap();
        let start = offset as usize;
        whole[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn finish(&self) -> Result<(), Fault> {
        Ok(())
    }
}

async fn back_up(desk: &mut Desk, bytes: &[u8], parent: Option<&BackupId>) -> BackupRecord {
    back_up_while(desk, bytes, parent, |_| {}).await.0.unwrap()
}

/// Something happens when the recipe of the parent was read, and before its lists are.
async fn back_up_while(
    desk: &mut Desk,
    bytes: &[u8],
    parent: Option<&BackupId>,
    happens: impl FnOnce(&Desk),
) -> (Result<BackupRecord>, Option<String>) {
    let (manifest, contents) = match parent {
        Some(id) => {
            let manifest = desk.repo.manifest(&instance(), id).await.unwrap();
            (Some(manifest), Some(desk.reader(id).await.contents().await.unwrap()))
        }
        None => (None, None),
    };
    let mut writer = desk.writer(parent, manifest);
    let stream = Box::new(Pieces { bytes: bytes.to_vec(), at: 0, piece: 1 });
    let keys = Arc::clone(desk.repo.seal_keys());
    let open = move || contents.map(|contents| SlicedParent::open(PATH, contents)).transpose();
    let parent = tokio::task::spawn_blocking(open).await.unwrap().unwrap();
    happens(desk);
    let source = SlicedSource::new(PATH, stream, keys, parent);
    let given_up = source.given_up();
    let copied = writer.copy(Box::new(source), Arc::new(Progress::new()), &CancellationToken::new()).await;
    let record = match copied {
        Ok(()) => writer.commit(draft()).await,
        Err(error) => Err(error),
    };
    (record, given_up.reason())
}

async fn restored(desk: &Desk, id: &BackupId) -> Result<Vec<u8>> {
    let reader = desk.reader(id).await;
    let mut contents = reader.contents().await?;
    let place = tokio::task::spawn_blocking(move || SlicedPlace::read(&mut contents, PATH)).await.unwrap()?;
    let whole = Whole(Arc::new(Mutex::new(vec![0; place.length as usize])));
    let others = Arc::new(MemoryTarget::default());
    let target =
        Arc::new(SlicedTarget::new(place, Arc::new(whole.clone()), Arc::<MemoryTarget>::clone(&others)));
    let options = RestoreOptions { workers: 3, on_damage: OnDamage::Stop, depth: Depth::Frames };
    let parts: Arc<dyn PartTarget> = Arc::<SlicedTarget>::clone(&target);
    reader.restore(Some(parts), options, Arc::default(), &CancellationToken::new()).await?;
    Arc::into_inner(target).unwrap().finish()?;
    assert!(others.content().is_empty());
    let bytes = whole.0.lock().unwrap().clone();
    Ok(bytes)
}

/// Values of about 120 bytes, as a server sends them: most stay, and some are other ones.
fn snapshot(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| pages(*value, 90 + (*value % 61) as usize)).collect()
}

#[test]
fn a_stream_that_moved_stores_little_more_than_what_is_new() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let mut values: Vec<u64> = (1..60_000).collect();
        let first = back_up(&mut desk, &snapshot(&values), None).await;
        let full = snapshot(&values).len() as u64;
        // One in a hundred, of other lengths, and some go and come: everything behind moves.
        for number in (0..values.len()).step_by(100) {
            values[number] += 1_000_003;
        }
        values.drain(20_000..20_050);
        let more: Vec<u64> = (2_000_000..2_000_100).collect();
        values.splice(40_000..40_000, more);
        let bytes = snapshot(&values);
        let second = back_up(&mut desk, &bytes, Some(&first.id)).await;
        let share = second.statistics.new_bytes as f64 / full as f64;
        assert!(share < 0.1, "{share}");
        assert!(restored(&desk, &second.id).await.unwrap() == bytes);
        let third = back_up(&mut desk, &bytes, Some(&second.id)).await;
        // The recipe is written again; the planner finds its blocks unchanged.
        assert!(third.statistics.new_bytes < 256, "{:?}", third.statistics);
        assert!(restored(&desk, &third.id).await.unwrap() == bytes);
    });
}

#[test]
fn trays_of_which_little_is_used_are_let_go() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let mut values: Vec<u64> = (1..40_000).collect();
        let mut newest = back_up(&mut desk, &snapshot(&values), None).await;
        for round in 1..20u64 {
            for number in (round as usize..values.len()).step_by(40) {
                values[number] += 1_000_000;
            }
            let bytes = snapshot(&values);
            newest = back_up(&mut desk, &bytes, Some(&newest.id)).await;
            assert!(restored(&desk, &newest.id).await.unwrap() == bytes, "round {round}");
            let held = newest.statistics.logical_bytes as f64 / bytes.len() as f64;
            assert!(held < 1.8, "round {round}: {held} bytes are carried for each of the stream");
        }
    });
}

#[test]
fn an_empty_stream_and_short_ones_come_back() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::None);
        let mut parent = None;
        for length in [0, 1, SLICE_LEAST, SLICE_MOST + 1, 0, TRAY_BYTES * 2] {
            let bytes = pages(7, length);
            let record = back_up(&mut desk, &bytes, parent.as_ref()).await;
            assert!(restored(&desk, &record.id).await.unwrap() == bytes, "{length}");
            parent = Some(record.id);
        }
    });
}

#[test]
fn stretches_of_zeros_come_back_wherever_they_lie() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let zeros = vec![0; 3 * TRAY_BYTES / 2];
        let mut parent = None;
        for parts in [
            &[&zeros[..]][..],
            &[&zeros, b"end"],
            &[b"begin", &zeros, &pages(1, 100_000), &zeros[..200_000]],
            &[&pages(2, 70_000), &zeros[..BLOCK_SIZE as usize], &pages(3, 70_000)],
        ] {
            let bytes = parts.concat();
            let record = back_up(&mut desk, &bytes, parent.as_ref()).await;
            assert!(restored(&desk, &record.id).await.unwrap() == bytes);
            parent = Some(record.id);
        }
    });
}

#[test]
fn damage_of_the_parent_is_told_and_nothing_is_built_on_it() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let bytes = snapshot(&(1..60_000).collect::<Vec<u64>>());
        let first = back_up(&mut desk, &bytes, None).await;
        let damage = |desk: &Desk| {
            for name in desk.memory.names().iter().filter(|name| name.contains("/packs/")) {
                desk.memory.tamper(&name.parse().unwrap(), vec![7; 5000]);
            }
        };
        let (second, why) = back_up_while(&mut desk, &bytes, Some(&first.id), damage).await;
        assert!(second.is_err() && why.is_some(), "{why:?}");
    });
}

#[test]
fn a_slice_that_comes_many_times_is_written_to_each_of_its_places() {
    runtime().block_on(async {
        let mut desk = Desk::new(Cipher::Aes256Gcm);
        let (once, twice) = (pages(1, 300_000), pages(2, 200_000));
        let first = back_up(&mut desk, &[&once[..], &twice].concat(), None).await;
        let bytes = [&twice[..], &once, &twice, &twice[..100_000], &twice].concat();
        let second = back_up(&mut desk, &bytes, Some(&first.id)).await;
        assert!(restored(&desk, &second.id).await.unwrap() == bytes);
        assert!(second.statistics.new_bytes < 100_000, "{:?}", second.statistics);
    });
}

#[derive(Debug, Clone)]
enum Edit {
    Replace { at: usize, length: usize, seed: u64 },
    Insert { at: usize, length: usize, seed: u64 },
    Remove { at: usize, length: usize },
    Move { from: usize, length: usize, to: usize },
}

fn edit() -> impl Strategy<Value = Edit> {
    let (at, length) = (0..2_000_000usize, 0..300_000usize);
    prop_oneof![
        (at.clone(), 0..5_000usize, any::<u64>()).prop_map(|(at, length, seed)| Edit::Replace {
            at,
            length,
            seed
        }),
        (at.clone(), length.clone(), any::<u64>()).prop_map(|(at, length, seed)| Edit::Insert {
            at,
            length,
            seed
        }),
        (at.clone(), length.clone()).prop_map(|(at, length)| Edit::Remove { at, length }),
        (at.clone(), length, at).prop_map(|(from, length, to)| Edit::Move { from, length, to }),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    let within = |at: &usize, bytes: &Vec<u8>| *at % (bytes.len() + 1);
    let range = |at: &usize, length: &usize, bytes: &Vec<u8>| {
        let at = within(at, bytes);
        at..bytes.len().min(at + length)
    };
    match edit {
        Edit::Replace { at, length, seed } => {
            let range = range(at, length, bytes);
            let new = pages(*seed, range.len());
            bytes[range].copy_from_slice(&new);
        }
        Edit::Insert { at, length, seed } => {
            let at = within(at, bytes);
            bytes.splice(at..at, pages(*seed, *length));
        }
        Edit::Remove { at, length } => drop(bytes.drain(range(at, length, bytes))),
        Edit::Move { from, length, to } => {
            let moved: Vec<u8> = bytes.drain(range(from, length, bytes)).collect();
            let to = within(to, bytes);
            bytes.splice(to..to, moved);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_stream_of_a_chain_comes_back_as_it_was(
        history in proptest::collection::vec(proptest::collection::vec(edit(), 0..6), 1..8),
        length in 0..2_000_000usize,
    ) {
        runtime().block_on(async {
            let mut desk = Desk::new(Cipher::Aes256Gcm);
            let mut bytes = pages(5, length);
            let mut taken: Vec<(BackupId, Vec<u8>)> = Vec::new();
            for edits in &history {
                edits.iter().for_each(|edit| apply(&mut bytes, edit));
                let parent = taken.last().map(|(id, _)| id.clone());
                let record = back_up(&mut desk, &bytes, parent.as_ref()).await;
                taken.push((record.id, bytes.clone()));
            }
            for (id, bytes) in &taken {
                assert!(restored(&desk, id).await.unwrap() == *bytes);
            }
        });
    }
}
