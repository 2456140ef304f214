//! The declared parent, as the writer sees it: its files, its blocks, its packs.

use std::collections::HashSet;

use crate::Result;
use crate::manifest::Manifest;
use crate::map::{BlockCursor, FileRecord, FileTable, MapFrames, SessionIndex, block_count, block_length};
use crate::usage::UsageChange;

/// Blocks looked at in one go when a whole tail is walked.
const WALK_BLOCKS: usize = 1024;

pub struct ParentView {
    pub maps: MapFrames,
    pub table: FileTable,
    pub manifest: Manifest,
    /// Packs whose blocks are stored again when they are met: damaged, or worn.
    pub avoid: HashSet<(SessionIndex, u32)>,
}

impl ParentView {
    pub fn find(&mut self, path: &str) -> Result<Option<FileRecord>> {
        self.table.find(&mut self.maps, path)
    }

    /// Takes the blocks from `first` to the end of the parent's file out of the books.
    pub fn lose_from(
        &mut self,
        cursor: &mut BlockCursor,
        record: &FileRecord,
        first: u64,
        lost: &mut UsageChange,
    ) -> Result<()> {
        let Some(shape) = record.shape() else { return Ok(()) };
        let mut blocks = Vec::new();
        let mut at = first;
        while at < block_count(shape) {
            cursor.slice(&mut self.maps, at, WALK_BLOCKS, &mut blocks)?;
            for (index, block) in blocks.iter().enumerate() {
                lost.lose(block, block_length(shape, at + index as u64));
            }
            at += WALK_BLOCKS as u64;
        }
        Ok(())
    }
}
