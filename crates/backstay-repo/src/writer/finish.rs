//! The end of a copy: file table, books, and which old objects are still needed.

use std::collections::{BTreeSet, HashMap, HashSet};

use backstay_model::BackupId;

use super::assemble::Totals;
use super::copy::Copied;
use super::parent::ParentView;
use crate::manifest::{PackUse, SessionObjects, group_objects};
use crate::map::{
    Block, BlockCursor, FileRecord, LeafEntry, MapFrames, SessionIndex, WrittenMap, WrittenTable, block_count,
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
        let Copied { planner, mut assembler, packs } = copied;
        let mut records = std::mem::take(&mut assembler.records);
        sort(&mut records)?;
        let mut change = assembler.usage.clone();
        change.merge(&planner.lost);
        let mut parent = planner.parent;
        if let Some(view) = &mut parent {
            lose_what_is_gone(view, &records, &mut change)?;
        }
        let known = parent.as_ref().map_or(&[][..], |view| view.table.leaves());
        let WrittenTable { root, leaves } = assembler.maps.write_table(&records, known, self.hash_key)?;
        let written = assembler.maps.finish()?;
        let own_bytes =
            packs.iter().map(|pack| pack.size).sum::<u64>() + written.iter().map(|map| map.size).sum::<u64>();
        let objects = self.objects(parent.as_ref(), &records, &leaves, &written, packs, &change)?;
        Ok(Finished { root, objects, totals: assembler.totals, stored_bytes: own_bytes })
    }

    fn objects(
        &mut self,
        parent: Option<&ParentView>,
        records: &[FileRecord],
        leaves: &[LeafEntry],
        written: &[WrittenMap],
        own_packs: Vec<PackUse>,
        change: &UsageChange,
    ) -> Result<Vec<SessionObjects>> {
        let sessions = self.maps.sessions().clone();
        let index_of =
            |id: &BackupId| sessions.index_of(id).map_err(|error| Error::broken(error.to_string()));
        let own = index_of(self.session)?;
        // A section may go on in the next object of its session, so maps are kept by session.
        let mut needed: BTreeSet<SessionIndex> = leaves.iter().map(|leaf| leaf.session).collect();
        needed.extend(records.iter().flat_map(|record| record.levels.iter().map(|level| level.at.session)));

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
            let used = self.packs_in_use(records)?;
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
    fn packs_in_use(&mut self, records: &[FileRecord]) -> Result<HashSet<(SessionIndex, u32)>> {
        let mut used = HashSet::new();
        let mut blocks = Vec::new();
        for record in records {
            let total = record.shape().map_or(0, block_count);
            let mut cursor = BlockCursor::new(record);
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

fn sort(records: &mut [FileRecord]) -> Result<()> {
    records.sort_by(|a, b| a.spec.path.cmp(&b.spec.path));
    match records.windows(2).find(|pair| pair[0].spec.path == pair[1].spec.path) {
        Some(pair) => Err(Error::broken(format!("{} came twice from the engine", pair[0].spec.path))),
        None => Ok(()),
    }
}

/// Files that the parent has and this backup has not, or not in comparable blocks.
fn lose_what_is_gone(view: &mut ParentView, records: &[FileRecord], change: &mut UsageChange) -> Result<()> {
    let mut cursor = view.table.cursor();
    let mut position = 0;
    while let Some(old) = view.table.next(&mut view.maps, &mut cursor)? {
        let Some(shape) = old.shape() else { continue };
        while records.get(position).is_some_and(|record| record.spec.path < old.spec.path) {
            position += 1;
        }
        let still_compared = records.get(position).is_some_and(|record| {
            record.spec.path == old.spec.path
                && record.shape().is_some_and(|new| new.block_size == shape.block_size)
        });
        if !still_compared {
            view.lose_from(&mut BlockCursor::new(&old), &old, 0, change)?;
        }
    }
    Ok(())
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
