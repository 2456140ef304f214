//! Writing the file table: leaves cut by content while the records go by, and the
//! root behind them.

use std::sync::Arc;

use super::codec::{FrameDraft, KIND_LEAF, KIND_ROOT};
use super::writer::{MapWriter, internal};
use super::{BlockHash, FileRecord, LEAF_LENGTH_MAX, LeafEntry};
use crate::Result;

/// A leaf ends behind a path whose BLAKE3 begins below this: one in 128.
const LEAF_CUT_BELOW: u8 = 2;

/// A file table that was written.
#[derive(Debug)]
pub struct WrittenTable {
    /// `(map object, frame)` of the root frames in order.
    pub root: Vec<(u32, u32)>,
    /// All leaves, those of the parent among them.
    pub leaves: Vec<LeafEntry>,
}

/// A file table that grows record by record.
pub struct TableDraft {
    /// The parent's leaves, ascending: one that did not change is referred to and
    /// not written again.
    known: Arc<[LeafEntry]>,
    hash_key: [u8; 32],
    leaf: LeafDraft,
    leaves: Vec<LeafEntry>,
}

impl TableDraft {
    pub fn new(known: Arc<[LeafEntry]>, hash_key: [u8; 32]) -> Self {
        Self { known, hash_key, leaf: LeafDraft::new(), leaves: Vec::new() }
    }
}

impl MapWriter {
    /// Takes the next record; they ascend by path, and no section comes after.
    pub fn put_record(&mut self, table: &mut TableDraft, record: &FileRecord) -> Result<()> {
        self.flush_section()?;
        let (path, leaf) = (&record.spec.path, &mut table.leaf);
        leaf.draft.put_record(&leaf.last_path, record);
        leaf.last_path.clone_from(path);
        if leaf.entries == 0 {
            leaf.first_path.clone_from(path);
        }
        leaf.entries += 1;
        let cut = blake3::hash(path.as_bytes()).as_bytes()[0] < LEAF_CUT_BELOW;
        if cut || leaf.draft.encoded_length() >= LEAF_LENGTH_MAX { self.write_leaf(table) } else { Ok(()) }
    }

    /// Says where the root frames lie and which leaves they name.
    pub fn finish_table(&mut self, mut table: TableDraft) -> Result<WrittenTable> {
        self.flush_section()?;
        if table.leaf.entries > 0 {
            self.write_leaf(&mut table)?;
        }
        let root = self.write_root(&table.leaves)?;
        Ok(WrittenTable { root, leaves: table.leaves })
    }

    fn write_leaf(&mut self, table: &mut TableDraft) -> Result<()> {
        let leaf = std::mem::replace(&mut table.leaf, LeafDraft::new());
        let raw = leaf.draft.with_count(leaf.entries).encode(self.sessions()).map_err(internal)?;
        let mut digest = BlockHash::default();
        digest.copy_from_slice(&blake3::keyed_hash(&table.hash_key, &raw).as_bytes()[..16]);
        if let Ok(found) = table.known.binary_search_by(|entry| entry.first_path.cmp(&leaf.first_path))
            && table.known[found].digest == digest
        {
            table.leaves.push(table.known[found].clone());
            return Ok(());
        }
        let (map, frame) = self.push_frame(&raw)?;
        table.leaves.push(LeafEntry {
            first_path: leaf.first_path,
            session: self.index(),
            map,
            frame,
            digest,
            entries: leaf.entries,
        });
        Ok(())
    }

    fn write_root(&mut self, leaves: &[LeafEntry]) -> Result<Vec<(u32, u32)>> {
        let mut frames = Vec::new();
        let mut draft = FrameDraft::new(KIND_ROOT);
        let mut entries = 0;
        for leaf in leaves {
            draft.put_leaf_entry(leaf);
            entries += 1;
            if draft.encoded_length() >= LEAF_LENGTH_MAX {
                let full = std::mem::replace(&mut draft, FrameDraft::new(KIND_ROOT));
                let raw = full.with_count(entries).encode(self.sessions()).map_err(internal)?;
                frames.push(self.push_frame(&raw)?);
                entries = 0;
            }
        }
        if entries > 0 || frames.is_empty() {
            let raw = draft.with_count(entries).encode(self.sessions()).map_err(internal)?;
            frames.push(self.push_frame(&raw)?);
        }
        Ok(frames)
    }
}

struct LeafDraft {
    draft: FrameDraft,
    first_path: String,
    last_path: String,
    entries: u64,
}

impl LeafDraft {
    fn new() -> Self {
        Self {
            draft: FrameDraft::new(KIND_LEAF),
            first_path: String::new(),
            last_path: String::new(),
            entries: 0,
        }
    }
}
