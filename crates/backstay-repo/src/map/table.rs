//! The file table of a backup: found by path, or read from front to back.

use std::collections::VecDeque;
use std::sync::Arc;

use super::codec::{decode_leaf, decode_root};
use super::{FileRecord, LeafEntry, MapError, MapFrames, RootPlace};
use crate::{Error, Result};

/// Leaves kept decoded for look-ups by path; a server sends its directories one
/// after the other, so neighbours are asked for together.
const CACHED_LEAVES: usize = 32;

/// The leaves of one backup. Their names are in memory (one for about 128 files),
/// their content is not.
pub struct FileTable {
    leaves: Arc<[LeafEntry]>,
    cache: VecDeque<(usize, Arc<Vec<FileRecord>>)>,
}

impl FileTable {
    pub fn open(maps: &mut MapFrames, root: &RootPlace) -> Result<Self> {
        let session =
            maps.sessions().index_of(&root.session).map_err(|error| Error::broken(error.to_string()))?;
        let mut leaves: Vec<LeafEntry> = Vec::new();
        for (map, frame) in &root.frames {
            let opened = maps.frame(session, *map, *frame)?;
            let entries = decode_root(&opened).map_err(|error| maps.damaged(session, *map, &error))?;
            leaves.extend(entries);
        }
        if leaves.windows(2).any(|pair| pair[0].first_path >= pair[1].first_path) {
            let map = root.frames.first().map_or(0, |(map, _)| *map);
            return Err(maps.damaged(session, map, &MapError::Unordered));
        }
        Ok(Self::of(leaves))
    }

    /// The table of leaves that were just written or read.
    pub fn of(leaves: Vec<LeafEntry>) -> Self {
        Self { leaves: leaves.into(), cache: VecDeque::new() }
    }

    pub fn leaves(&self) -> &Arc<[LeafEntry]> {
        &self.leaves
    }

    pub fn entries(&self) -> u64 {
        self.leaves.iter().map(|leaf| leaf.entries).sum()
    }

    pub fn find(&mut self, maps: &mut MapFrames, path: &str) -> Result<Option<FileRecord>> {
        let after = self.leaves.partition_point(|leaf| leaf.first_path.as_str() <= path);
        let Some(number) = after.checked_sub(1) else { return Ok(None) };
        let records = self.leaf(maps, number)?;
        let found = records.binary_search_by(|record| record.spec.path.as_str().cmp(path));
        Ok(found.ok().map(|index| records[index].clone()))
    }

    fn leaf(&mut self, maps: &mut MapFrames, number: usize) -> Result<Arc<Vec<FileRecord>>> {
        if let Some((_, records)) = self.cache.iter().find(|(cached, _)| *cached == number) {
            return Ok(Arc::clone(records));
        }
        let entry = &self.leaves[number];
        let frame = maps.frame(entry.session, entry.map, entry.frame)?;
        let records = decode_leaf(&frame).map_err(|error| maps.damaged(entry.session, entry.map, &error))?;
        let right = records.first().is_some_and(|first| first.spec.path == entry.first_path)
            && records.len() as u64 == entry.entries;
        if !right {
            return Err(maps.damaged(entry.session, entry.map, &MapError::Unordered));
        }
        let records = Arc::new(records);
        if self.cache.len() >= CACHED_LEAVES {
            self.cache.pop_front();
        }
        self.cache.push_back((number, Arc::clone(&records)));
        Ok(records)
    }

    /// From the first path to the last.
    pub fn cursor(&self) -> FileTableCursor {
        FileTableCursor { leaf: 0, index: 0 }
    }

    pub fn next(&mut self, maps: &mut MapFrames, cursor: &mut FileTableCursor) -> Result<Option<FileRecord>> {
        while cursor.leaf < self.leaves.len() {
            let records = self.leaf(maps, cursor.leaf)?;
            if let Some(record) = records.get(cursor.index) {
                cursor.index += 1;
                return Ok(Some(record.clone()));
            }
            cursor.leaf += 1;
            cursor.index = 0;
        }
        Ok(None)
    }
}

impl FileTableCursor {
    /// Passes the leaf that could not be read, so that the others are still seen.
    pub fn skip_leaf(&mut self) {
        self.leaf += 1;
        self.index = 0;
    }
}

/// A place in a [`FileTable`].
#[derive(Debug, Clone, Copy)]
pub struct FileTableCursor {
    leaf: usize,
    index: usize,
}
