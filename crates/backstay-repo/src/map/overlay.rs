//! The blocks of one file, through all its levels.

use std::sync::Arc;

use super::codec::{Frame, KIND_SECTION};
use super::{Block, FileRecord, Level, MapError, MapFrames, Place, Run};
use crate::{Error, Result};

/// Walks the blocks of a file in ascending order. Holds one run per level.
pub struct BlockCursor {
    /// Oldest first, so that newer levels write over older ones.
    levels: Vec<LevelCursor>,
    block_size: u32,
    blocks: u64,
    path: String,
}

struct LevelCursor {
    level: Level,
    map: u32,
    frame: u32,
    offset: usize,
    runs_left: u64,
    next_block: u64,
    open: Option<Arc<Frame>>,
    head: Option<Run>,
}

impl BlockCursor {
    pub fn new(record: &FileRecord) -> Self {
        let shape = record.shape();
        let levels = record.levels.iter().rev().map(|level| LevelCursor::new(*level)).collect();
        Self {
            levels,
            block_size: shape.map_or(1, |shape| shape.block_size),
            blocks: shape.map_or(0, super::block_count),
            path: record.spec.path.clone(),
        }
    }

    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The blocks `first .. first + count`; those beyond the file are absent.
    /// `first` must not be less than the end of the call before.
    pub fn slice(
        &mut self,
        maps: &mut MapFrames,
        first: u64,
        count: usize,
        out: &mut Vec<Block>,
    ) -> Result<()> {
        out.clear();
        out.resize(count, Block::Absent);
        let end = (first + count as u64).min(self.blocks);
        for level in &mut self.levels {
            level.fill(maps, first, end, self.block_size, out)?;
        }
        Ok(())
    }

    /// Like [`slice`](Self::slice), for a reader that needs every block of the file.
    pub fn whole_slice(
        &mut self,
        maps: &mut MapFrames,
        first: u64,
        count: usize,
        out: &mut Vec<Block>,
    ) -> Result<()> {
        self.slice(maps, first, count, out)?;
        if let Some(hole) = out.iter().position(|block| *block == Block::Absent) {
            let block = first + hole as u64;
            return Err(Error::Damaged {
                object: self.path.clone(),
                reason: format!("no level of its map names block {block}"),
            });
        }
        Ok(())
    }
}

impl LevelCursor {
    fn new(level: Level) -> Self {
        Self {
            level,
            map: level.at.map,
            frame: level.at.frame,
            offset: level.at.offset as usize,
            runs_left: level.runs,
            next_block: 0,
            open: None,
            head: None,
        }
    }

    fn fill(
        &mut self,
        maps: &mut MapFrames,
        first: u64,
        end: u64,
        block_size: u32,
        out: &mut [Block],
    ) -> Result<()> {
        loop {
            if self.head.is_none() {
                self.head = self.next_run(maps)?;
            }
            let Some(run) = &self.head else { return Ok(()) };
            if run.first_block >= end {
                return Ok(());
            }
            let run_end = run.first_block + run.count;
            for block in run.first_block.max(first)..run_end.min(end) {
                out[(block - first) as usize] = block_of(run, block, block_size);
            }
            if run_end > end {
                return Ok(());
            }
            self.head = None;
        }
    }

    fn next_run(&mut self, maps: &mut MapFrames) -> Result<Option<Run>> {
        if self.runs_left == 0 {
            self.open = None;
            return Ok(None);
        }
        let session = self.level.at.session;
        loop {
            let frame = match &self.open {
                Some(frame) => Arc::clone(frame),
                None => self.open_next(maps)?,
            };
            let run = frame
                .run_at(self.offset, self.next_block)
                .map_err(|error| maps.damaged(session, self.map, &error))?;
            match run {
                Some((run, offset)) => {
                    self.offset = offset;
                    self.next_block = run.first_block + run.count;
                    self.runs_left -= 1;
                    return Ok(Some(run));
                }
                None => {
                    self.open = None;
                    self.frame += 1;
                    self.offset = 0;
                }
            }
        }
    }

    /// The section frame at `self.frame`, or the next one behind it: leaves and roots in between are passed.
    fn open_next(&mut self, maps: &mut MapFrames) -> Result<Arc<Frame>> {
        let session = self.level.at.session;
        loop {
            if self.frame >= maps.frame_count(session, self.map)? {
                if !maps.is_known(session, self.map + 1) {
                    return Err(maps.damaged(session, self.map, &MapError::Malformed));
                }
                self.map += 1;
                self.frame = 0;
            }
            let frame = maps.frame(session, self.map, self.frame)?;
            if frame.kind == KIND_SECTION {
                self.open = Some(Arc::clone(&frame));
                return Ok(frame);
            }
            self.frame += 1;
        }
    }
}

fn block_of(run: &Run, block: u64, block_size: u32) -> Block {
    match &run.stored {
        None => Block::Zero,
        Some(stored) => {
            let index = (block - run.first_block) as usize;
            let offset = stored.place.offset.saturating_add(block_size.saturating_mul(index as u32));
            Block::Stored { hash: stored.hashes[index], place: Place { offset, ..stored.place } }
        }
    }
}
