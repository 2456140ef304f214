//! The assembler: takes what the lanes finished, in the order in which it was
//! handed out, and writes the maps from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay_model::Progress;

use super::plan::FileJob;
use crate::crc::join;
use crate::map::{
    Arrivals, Block, BlockHash, FileRecord, MapWriter, Place, Run, SectionBuilder, StoredRun, ZERO_HASH,
    block_length,
};
use crate::usage::UsageChange;
use crate::{Error, Result};

/// What a lane says of one piece of work.
pub enum Done {
    Begin(Arc<FileJob>),
    Extent(ExtentDone),
}

pub struct ExtentDone {
    pub first_block: u64,
    /// The blocks as they now are.
    pub blocks: Vec<Block>,
    /// The parent's blocks at the same places.
    pub parent: Vec<Block>,
    pub length: u32,
    /// CRC-32C of the bytes; `None` when they were not read.
    pub crc32c: Option<u32>,
}

pub struct Assembler {
    /// Sequence number of the next piece.
    next: u64,
    /// Finished before its turn; bounded by the planner's window.
    waiting: BTreeMap<u64, Done>,
    pub maps: MapWriter,
    file: Option<OpenFile>,
    pub arrivals: Arrivals,
    pub usage: UsageChange,
    hash_key: [u8; 32],
    progress: Arc<Progress>,
    pub totals: Totals,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    pub files: u64,
    pub logical_bytes: u64,
    pub read_bytes: u64,
    pub new_bytes: u64,
    /// The commonest block size by bytes is what wear is estimated with.
    pub largest_block: u32,
}

struct OpenFile {
    job: Arc<FileJob>,
    section: SectionBuilder,
    run: Option<Run>,
    digest: blake3::Hasher,
    crc: FileCrc,
    changed: bool,
}

/// The checksum of a file as far as it was read.
enum FileCrc {
    /// All bytes so far were read.
    Known(u32),
    /// None were: the engine vouched for them all.
    Untouched,
    Unknown,
}

impl Assembler {
    pub fn new(maps: MapWriter, arrivals: Arrivals, hash_key: [u8; 32], progress: Arc<Progress>) -> Self {
        Self {
            next: 0,
            waiting: BTreeMap::new(),
            maps,
            file: None,
            arrivals,
            usage: UsageChange::default(),
            hash_key,
            progress,
            totals: Totals::default(),
        }
    }

    /// Pieces that are done, in order and without a gap.
    pub fn completed(&self) -> u64 {
        self.next
    }

    pub fn submit(&mut self, sequence: u64, done: Done) -> Result<()> {
        self.waiting.insert(sequence, done);
        while let Some(done) = self.waiting.remove(&self.next) {
            self.next += 1;
            match done {
                Done::Begin(job) => {
                    self.close_file()?;
                    self.file = Some(OpenFile::new(job, &self.hash_key));
                }
                Done::Extent(extent) => self.extent(&extent)?,
            }
        }
        Ok(())
    }

    fn extent(&mut self, extent: &ExtentDone) -> Result<()> {
        let file =
            self.file.as_mut().ok_or_else(|| Error::broken("an extent was finished before its file"))?;
        let shape = file.job.shape.ok_or_else(|| Error::broken("an extent of something that is no file"))?;
        file.crc.extend(extent);
        self.progress.done(u64::from(extent.length));
        if extent.crc32c.is_some() {
            self.totals.read_bytes += u64::from(extent.length);
        }
        for (index, (block, before)) in extent.blocks.iter().zip(&extent.parent).enumerate() {
            let number = extent.first_block + index as u64;
            let length = block_length(shape, number);
            file.digest.update(block.hash());
            let same = block == before;
            if !same {
                file.changed = true;
                self.usage.lose(before, length);
                if let Block::Stored { place, .. } = block {
                    self.usage.gain(place, length);
                    self.totals.new_bytes += u64::from(length);
                    self.progress.new_data(u64::from(length));
                }
            }
            if (!same || file.job.rewrite)
                && let Some(full) = file.extend_run(number, block, shape.block_size)?
            {
                self.maps.push_run(&mut file.section, &full)?;
            }
        }
        Ok(())
    }

    /// The record of the file that is complete.
    pub fn close_file(&mut self) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        if let Some(run) = file.run.take() {
            self.maps.push_run(&mut file.section, &run)?;
        }
        let Some(shape) = file.job.shape else {
            let spec = file.job.spec.clone();
            let record = FileRecord { spec, crc32c: None, digest: ZERO_HASH, levels: Vec::new() };
            return self.arrivals.push(&record);
        };
        let level = file.section.finish();
        let mut levels: Vec<_> = level.into_iter().collect();
        if !file.job.rewrite
            && let Some(parent) = &file.job.parent
        {
            levels.extend_from_slice(&parent.levels);
        }
        let unchanged =
            file.job.parent.as_ref().filter(|parent| !file.changed && parent.shape() == Some(shape));
        let crc32c = match file.crc {
            _ if shape.size == 0 => Some(0),
            FileCrc::Known(crc) => Some(crc),
            FileCrc::Untouched => unchanged.and_then(|parent| parent.crc32c),
            FileCrc::Unknown => None,
        };
        let mut digest = BlockHash::default();
        digest.copy_from_slice(&file.digest.finalize().as_bytes()[..16]);
        self.totals.files += 1;
        self.totals.logical_bytes += shape.size;
        self.totals.largest_block = self.totals.largest_block.max(shape.block_size.min(32 << 10));
        self.progress.file();
        self.arrivals.push(&FileRecord { spec: file.job.spec.clone(), crc32c, digest, levels })
    }
}

impl OpenFile {
    fn new(job: Arc<FileJob>, hash_key: &[u8; 32]) -> Self {
        Self {
            job,
            section: SectionBuilder::default(),
            run: None,
            digest: blake3::Hasher::new_keyed(hash_key),
            crc: FileCrc::Untouched,
            changed: false,
        }
    }

    /// Adds a block to the run that is open, or gives that run back and opens another.
    fn extend_run(&mut self, number: u64, block: &Block, block_size: u32) -> Result<Option<Run>> {
        if let Some(run) = &mut self.run
            && run.first_block + run.count == number
        {
            match (&mut run.stored, block) {
                (None, Block::Zero) => {
                    run.count += 1;
                    return Ok(None);
                }
                (Some(stored), Block::Stored { hash, place }) if follows(stored, place, block_size) => {
                    stored.hashes.push(*hash);
                    run.count += 1;
                    return Ok(None);
                }
                _ => {}
            }
        }
        let stored = match block {
            Block::Zero => None,
            Block::Stored { hash, place } => Some(StoredRun { place: *place, hashes: vec![*hash] }),
            Block::Absent => return Err(Error::broken("a finished block lies nowhere")),
        };
        Ok(self.run.replace(Run { first_block: number, count: 1, stored }))
    }
}

fn follows(run: &StoredRun, place: &Place, block_size: u32) -> bool {
    let next = run.place.offset + run.hashes.len() as u32 * block_size;
    *place == Place { offset: next, ..run.place }
}

impl FileCrc {
    fn extend(&mut self, extent: &ExtentDone) {
        *self = match (&self, extent.crc32c) {
            (_, Some(crc)) if extent.first_block == 0 => FileCrc::Known(crc),
            (FileCrc::Known(before), Some(crc)) => FileCrc::Known(join(*before, crc, extent.length.into())),
            (FileCrc::Untouched, None) => FileCrc::Untouched,
            _ => FileCrc::Unknown,
        };
    }
}
