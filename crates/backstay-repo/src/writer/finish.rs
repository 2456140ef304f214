//! The end of a copy: file table, books, and which old objects are still needed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use backstay_model::BackupId;

use super::assemble::{Assembler, Totals};
use super::copy::Copied;
use super::parent::ParentView;
use crate::manifest::{PackUse, SessionObjects, group_objects};
use crate::map::{
    Block, BlockCursor, FileRecord, FileTable, FileTableCursor, LeafEntry, MapFrames, SessionIndex,
    TableDraft, WrittenMap, WrittenTable, block_count,
};
use crate::usage::UsageChange;
use crate::{Error, Result};

/// Blocks looked at in one go when the new maps are walked.
const WALK_BLOCKS: usize = 1024;

/// Everything of a manifest that the pipeline knows.
pub struct Finished {
    pub root: Vec<(u32, u32)>,
    pub objects: Vec<SessionObjects>,
    pub totals: Totals,
    /// Bytes of the packs and maps of this session.
    pub stored_bytes: u64,
}

pub struct Finish<'a> {
    pub session: &'a BackupId,
    pub hash_key: &'a [u8; 32],
    /// Reads the maps of this backup, once they are written.
    pub maps: MapFrames,
}

impl Finish<'_> {
    pub fn run(mut self, copied: Copied) -> Result<Finished> {
        let Copied { planner, assembler, packs } = copied;
        let Assembler { mut maps, arrivals, mut usage, totals, .. } = assembler;
        usage.merge(&planner.lost);
        let mut parent = planner.parent;
        let known = parent.as_ref().map_or_else(|| Vec::new().into(), |view| Arc::clone(view.table.leaves()));
        let mut draft = TableDraft::new(known, *self.hash_key);
        // A section may go on in the next object of its session, so maps are kept by session.
        let mut needed: BTreeSet<SessionIndex> = BTreeSet::new();
        let mut gone = Gone::new(parent.as_mut());
        for record in arrivals.sorted()? {
            let record = record?;
            gone.pass(&record, &mut usage)?;
            needed.extend(record.levels.iter().map(|level| level.at.session));
            maps.put_record(&mut draft, &record)?;
        }
        gone.pass_rest(&mut usage)?;
        let WrittenTable { root, leaves } = maps.finish_table(draft)?;
        needed.extend(leaves.iter().map(|leaf| leaf.session));
        let written = maps.finish()?;
        let own_bytes =
            packs.iter().map(|pack| pack.size).sum::<u64>() + written.iter().map(|map| map.size).sum::<u64>();
        let objects = self.objects(parent.as_ref(), &needed, leaves, &written, packs, &usage)?;
        Ok(Finished { root, objects, totals, stored_bytes: own_bytes })
    }

    fn objects(
        &mut self,
        parent: Option<&ParentView>,
        needed: &BTreeSet<SessionIndex>,
        leaves: Vec<LeafEntry>,
        written: &[WrittenMap],
        own_packs: Vec<PackUse>,
        change: &UsageChange,
    ) -> Result<Vec<SessionObjects>> {
        let sessions = self.maps.sessions().clone();
        let index_of =
            |id: &BackupId| sessions.index_of(id).map_err(|error| Error::broken(error.to_string()));
        let own = index_of(self.session)?;
        let mut maps: Vec<(BackupId, u32, u64)> =
            written.iter().map(|map| (self.session.clone(), map.number, map.size)).collect();
        let mut packs: Vec<(BackupId, PackUse)> = Vec::new();
        for mut pack in own_packs {
            pack.live_bytes = live(0, change.of((own, pack.number)))?;
            packs.push((self.session.clone(), pack));
        }
        let mut unused = Vec::new();
        if let Some(view) = parent {
            for (session, number, size) in view.manifest.maps() {
                if needed.contains(&index_of(session)?) {
                    maps.push((session.clone(), number, size));
                }
            }
            for (session, pack) in view.manifest.packs() {
                let live_bytes = live(pack.live_bytes, change.of((index_of(session)?, pack.number)))?;
                let pack = PackUse { live_bytes, ..*pack };
                if live_bytes == 0 {
                    unused.push((session.clone(), pack));
                } else {
                    packs.push((session.clone(), pack));
                }
            }
        }
        if !unused.is_empty() {
            for (session, number, size) in &maps {
                self.maps.know(session, *number, *size)?;
            }
            let used = self.packs_in_use(leaves)?;
            for (session, pack) in unused {
                // The books say that nothing of it is used. Believing them alone would turn
                // a slip of arithmetic into lost data, so the maps have the last word.
                if used.contains(&(index_of(&session)?, pack.number)) {
                    packs.push((session, pack));
                }
            }
        }
        Ok(group_objects(packs, maps))
    }

    /// Every pack that a block of the new maps lies in.
    fn packs_in_use(&mut self, leaves: Vec<LeafEntry>) -> Result<HashSet<(SessionIndex, u32)>> {
        let mut used = HashSet::new();
        let mut blocks = Vec::new();
        let mut table = FileTable::of(leaves);
        let mut position = table.cursor();
        while let Some(record) = table.next(&mut self.maps, &mut position)? {
            let total = record.shape().map_or(0, block_count);
            let mut cursor = BlockCursor::new(&record);
            let mut at = 0;
            while at < total {
                let count = WALK_BLOCKS.min((total - at) as usize);
                cursor.whole_slice(&mut self.maps, at, count, &mut blocks)?;
                for block in &blocks {
                    if let Block::Stored { place, .. } = block {
                        used.insert((place.session, place.pack));
                    }
                }
                at += count as u64;
            }
        }
        Ok(used)
    }
}

fn live(before: u64, change: i64) -> Result<u64> {
    before
        .checked_add_signed(change)
        .ok_or_else(|| Error::broken(format!("a pack with {before} live bytes lost {} of them", -change)))
}

/// Files that the parent has and this backup has not, or not in comparable blocks:
/// found by walking both tables side by side.
struct Gone<'p> {
    parent: Option<(&'p mut ParentView, FileTableCursor)>,
    /// The parent's next file, when it was read and not passed yet.
    next: Option<FileRecord>,
}

impl<'p> Gone<'p> {
    fn new(parent: Option<&'p mut ParentView>) -> Self {
        let parent = parent.map(|view| {
            let cursor = view.table.cursor();
            (view, cursor)
        });
        Self { parent, next: None }
    }

    /// Takes out of the books what the parent has before this file and at it.
    fn pass(&mut self, record: &FileRecord, change: &mut UsageChange) -> Result<()> {
        while let Some(old) = self.take_next()? {
            if old.spec.path > record.spec.path {
                self.next = Some(old);
                return Ok(());
            }
            let block_size = |record: &FileRecord| record.shape().map(|shape| shape.block_size);
            let still_compared = record.spec.path == old.spec.path && block_size(record) == block_size(&old);
            if !still_compared {
                self.lose(&old, change)?;
            }
        }
        Ok(())
    }

    fn pass_rest(&mut self, change: &mut UsageChange) -> Result<()> {
        while let Some(old) = self.take_next()? {
            self.lose(&old, change)?;
        }
        Ok(())
    }

    fn take_next(&mut self) -> Result<Option<FileRecord>> {
        match (self.next.take(), &mut self.parent) {
            (Some(next), _) => Ok(Some(next)),
            (None, Some((view, cursor))) => view.table.next(&mut view.maps, cursor),
            (None, None) => Ok(None),
        }
    }

    fn lose(&mut self, old: &FileRecord, change: &mut UsageChange) -> Result<()> {
        match &mut self.parent {
            Some((view, _)) => view.lose_from(&mut BlockCursor::new(old), old, 0, change),
            None => Ok(()),
        }
    }
}

/// Live bytes by pack of one manifest, for tests and verification.
pub fn live_by_pack(objects: &[SessionObjects]) -> HashMap<(BackupId, u32), u64> {
    objects
        .iter()
        .flat_map(|objects| {
            objects.packs.iter().map(|pack| ((objects.session.clone(), pack.number), pack.live_bytes))
        })
        .collect()
}
