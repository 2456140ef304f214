//! A restore: one planner that walks the files and cuts windows, workers that fetch.
//!
//! The same walk serves a verification, which has no target and does not stop at
//! the first damage.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use backstay_model::Progress;
use backstay_model::parts::{FileShape, ParentFile, PartTarget};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::BackupReader;
use super::damage::{Damage, Report};
use super::fetch::{Fetcher, Unusable};
use super::open_packs::OpenPacks;
use super::outlet::Outlet;
use super::proven::Proven;
use super::unread::{Unread, UnreadRun};
use super::window::{Batch, Window, batches};
use crate::map::{Block, BlockCursor, FileRecord, MapFrames, ZERO_HASH, block_count, block_length};
use crate::{Error, Result};

/// Blocks asked of the map in one go.
const SLICE_BLOCKS: usize = 512;
/// Batches between the planner and the workers, per worker.
const QUEUE_PER_WORKER: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDamage {
    /// A restore: half a file is no file.
    Stop,
    /// A verification: everything that is damaged is to be named.
    Collect,
}

#[derive(Debug, Clone, Copy)]
pub struct RestoreOptions {
    pub workers: usize,
    pub on_damage: OnDamage,
    pub depth: Depth,
}

/// How far a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Maps and frame tables: whether everything that is named is there.
    Tables,
    /// Every frame is opened, and every block compared with its hash.
    Frames,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreSummary {
    pub files: u64,
    pub bytes: u64,
    pub objects: u64,
    pub damage: Vec<Damage>,
}

impl BackupReader {
    /// Writes every file to the target, or only checks every block when there is none.
    pub async fn restore(
        &self,
        target: Option<Arc<dyn PartTarget>>,
        options: RestoreOptions,
        progress: Arc<Progress>,
        cancel: &CancellationToken,
    ) -> Result<RestoreSummary> {
        let stop = cancel.child_token();
        let guard = stop.clone().drop_guard();
        let reader = self.again();
        let handle = Handle::current();
        let joined = tokio::task::spawn_blocking(move || {
            Restore { reader: &reader, target, options, progress, stop: &stop, handle }.run()
        })
        .await;
        drop(guard);
        joined.map_err(|error| Error::broken(format!("the restore did not end: {error}")))?
    }
}

struct Restore<'a> {
    reader: &'a BackupReader,
    target: Option<Arc<dyn PartTarget>>,
    options: RestoreOptions,
    progress: Arc<Progress>,
    stop: &'a CancellationToken,
    handle: Handle,
}

impl Restore<'_> {
    /// A restore needs the bytes, whatever was proved of them.
    fn proven(&self) -> Option<&Arc<Proven>> {
        self.reader.proven.as_ref().filter(|_| self.target.is_none() && self.options.depth == Depth::Frames)
    }

    fn run(self) -> Result<RestoreSummary> {
        let (mut maps, table) = self.reader.open_maps(self.handle.clone())?;
        let report = Report {
            on_damage: self.options.on_damage,
            stop: self.stop,
            failure: Mutex::new(None),
            damage: Mutex::new(HashMap::new()),
        };
        let workers = self.options.workers.max(1);
        let (sender, receiver) = sync_channel::<Batch>(workers * QUEUE_PER_WORKER);
        let receiver = Mutex::new(receiver);
        let mut summary = RestoreSummary::default();
        std::thread::scope(|scope| {
            for number in 0..workers {
                let (report, receiver) = (&report, &receiver);
                let fetcher = Fetcher::new(
                    Arc::clone(self.reader.repo.store()),
                    Arc::clone(self.reader.repo.seal_keys()),
                    self.handle.clone(),
                    Arc::clone(&self.progress),
                    self.proven().cloned(),
                );
                let spawned = std::thread::Builder::new()
                    .name(format!("restore-{number}"))
                    .spawn_scoped(scope, move || work(fetcher, receiver, report));
                if let Err(error) = spawned {
                    report.fail(Error::broken(format!("start a worker: {error}")));
                }
            }
            let planned = self.plan(&mut maps, table, sender, &report);
            match planned {
                Ok(found) => summary = found,
                Err(error) => report.fail(error),
            }
        });
        if let Some(error) = report.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        if self.stop.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let damage = report.damage.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.damage = damage.into_values().collect();
        summary.damage.sort_by(|a, b| (&a.object, &a.reason).cmp(&(&b.object, &b.reason)));
        Ok(summary)
    }

    fn plan(
        &self,
        maps: &mut MapFrames,
        mut table: crate::map::FileTable,
        sender: SyncSender<Batch>,
        report: &Report<'_>,
    ) -> Result<RestoreSummary> {
        let mut planner = Planner {
            packs: OpenPacks::new(self.reader.again(), self.handle.clone()),
            window: Window::default(),
            sender,
            report,
            depth: self.options.depth,
            summary: RestoreSummary::default(),
        };
        let mut cursor = table.cursor();
        loop {
            let record = match table.next(maps, &mut cursor) {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(error) => {
                    report.damaged(error, None, &[])?;
                    cursor.skip_leaf();
                    continue;
                }
            };
            if self.stop.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let Some(shape) = record.shape() else {
                if let Some(target) = &self.target {
                    target.create(&ParentFile { spec: record.spec, crc32c: None })?;
                }
                continue;
            };
            if let Err(error) = self.file(&mut planner, maps, &record, shape) {
                report.damaged(error, None, &[])?;
            }
        }
        planner.flush(maps)?;
        planner.summary.objects = planner.packs.opened;
        Ok(planner.summary)
    }

    fn file(
        &self,
        planner: &mut Planner<'_>,
        maps: &mut MapFrames,
        record: &FileRecord,
        shape: FileShape,
    ) -> Result<()> {
        let file = ParentFile { spec: record.spec.clone(), crc32c: record.crc32c };
        let outlet = Arc::new(Outlet::new(file, shape, self.target.clone()));
        planner.summary.files += 1;
        planner.summary.bytes += shape.size;
        outlet.finish_empty()?;
        planner.window.begin_file();
        let total = block_count(shape);
        let mut digest = blake3::Hasher::new_keyed(self.reader.repo.seal_keys().block_hash_key());
        let mut block_cursor = BlockCursor::new(record);
        let mut blocks = Vec::new();
        let mut at = 0;
        while at < total {
            let count = SLICE_BLOCKS.min((total - at) as usize);
            block_cursor.whole_slice(maps, at, count, &mut blocks)?;
            let mut unread = UnreadRun::new(&outlet, &self.progress);
            for (index, block) in blocks.iter().enumerate() {
                let number = at + index as u64;
                digest.update(if *block == Block::Zero { &ZERO_HASH } else { block.hash() });
                let length = block_length(shape, number);
                match self.unread(block) {
                    Some(known) => {
                        let offset = number * u64::from(shape.block_size);
                        unread.add(offset, length, known)?;
                    }
                    None => planner.window.push(&outlet, number, block, length),
                }
            }
            unread.end()?;
            at += count as u64;
            if planner.window.is_full() {
                planner.flush(maps)?;
                planner.window.begin_file();
            }
        }
        if digest.finalize().as_bytes()[..16] != record.digest {
            return Err(Error::Damaged {
                object: record.spec.path.clone(),
                reason: "the hashes in its map do not make its digest".to_owned(),
            });
        }
        Ok(())
    }

    fn unread(&self, block: &Block) -> Option<Unread> {
        match block {
            // A slice that lacks a block is refused before.
            Block::Zero | Block::Absent => Some(Unread::Zeros),
            Block::Stored { hash, place } => self.proven()?.crc_of(place, hash).map(Unread::Proven),
        }
    }
}

struct Planner<'w> {
    packs: OpenPacks,
    window: Window,
    sender: SyncSender<Batch>,
    report: &'w Report<'w>,
    depth: Depth,
    summary: RestoreSummary,
}

impl Planner<'_> {
    fn flush(&mut self, maps: &MapFrames) -> Result<()> {
        for (pack, pieces) in self.window.take_by_pack() {
            let name = self.packs.name(maps, pack)?;
            let container = match self.packs.open(maps, pack) {
                Ok(container) => container,
                Err(error) => {
                    self.report.damaged(error, Some(name), &pieces)?;
                    continue;
                }
            };
            let (batches, homeless) = batches(&name, &container, pieces);
            if !homeless.is_empty() {
                let error =
                    Error::damaged(container.name(), "a map names frames that its table does not have");
                self.report.damaged(error, Some(name), &homeless)?;
            }
            for batch in batches {
                if self.depth == Depth::Tables {
                    self.resolve(batch)?;
                    continue;
                }
                if self.report.stop.is_cancelled() || self.sender.send(batch).is_err() {
                    return Err(Error::Cancelled);
                }
            }
        }
        Ok(())
    }
}

impl Planner<'_> {
    /// Whether every block lies inside the raw bytes of its frame.
    fn resolve(&self, batch: Batch) -> Result<()> {
        let (good, bad): (Vec<_>, Vec<_>) = batch.pieces.into_iter().partition(|piece| {
            let raw_length = batch
                .container
                .frames()
                .get(piece.place.frame as usize)
                .map_or(0, |frame| u64::from(frame.entry.raw_length));
            u64::from(piece.place.offset) + u64::from(piece.length) <= raw_length
        });
        for piece in good {
            piece.outlet.skip(u64::from(piece.length));
        }
        if bad.is_empty() {
            return Ok(());
        }
        let error = Error::damaged(batch.container.name(), "a map names bytes behind the end of a frame");
        self.report.damaged(error, Some(batch.pack), &bad)
    }
}

fn work(fetcher: Result<Fetcher>, receiver: &Mutex<Receiver<Batch>>, report: &Report<'_>) {
    let mut fetcher = match fetcher {
        Ok(fetcher) => fetcher,
        Err(error) => return report.fail(error),
    };
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = next else { return };
        // After a failure the queue is emptied, so that the planner is not left waiting.
        if report.stop.is_cancelled() {
            continue;
        }
        // A panic is a bug and must end the restore; left alone it would leave the
        // planner waiting for a queue that nobody empties.
        let ran = catch_unwind(AssertUnwindSafe(|| fetcher.run(batch)))
            .unwrap_or_else(|_| Err(Error::broken("a worker of the restore panicked")));
        let outcome = ran.and_then(|unusable| {
            unusable
                .into_iter()
                .try_for_each(|Unusable { error, pack, pieces }| report.damaged(error, Some(pack), &pieces))
        });
        if let Err(error) = outcome {
            report.fail(error);
        }
    }
}
