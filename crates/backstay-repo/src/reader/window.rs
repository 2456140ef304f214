//! The window: a stretch of the files to come, turned round so that each frame is read once.
//!
//! Maps are in the order of files and frames are in the order of packs. A window of
//! bounded size is collected in the first order and sorted into the second; a frame
//! that serves two windows is read twice, which is rare because blocks that were
//! stored together lie near each other in their files.

use std::collections::HashMap;
use std::sync::Arc;

use backstay_model::BackupId;

use super::outlet::Outlet;
use crate::container::Container;
use crate::map::{Block, BlockHash, Place, SessionIndex};

/// Blocks of a window: 256 MiB of pages, and about 2 MiB of memory.
const WINDOW_BLOCKS: usize = 32 << 10;
/// Files that a window may hold open.
const WINDOW_FILES: usize = 256;
/// Blocks of the first window; each one after it is twice as large. The workers have
/// nothing to do until the first is cut.
const FIRST_WINDOW_BLOCKS: usize = 256;
/// What one request fetches at most: neighbouring frames together.
const BATCH_BYTES: u64 = 1 << 20;
/// What one batch writes at most, give or take a frame: of bytes that shrank to a
/// thirteenth, a worker would have the last batch for itself while the others are done.
const BATCH_RAW_BYTES: u64 = 4 << 20;
/// Frames nobody asked for are read along when they are smaller than a new request is dear.
const GAP_BYTES: u64 = 16 << 10;

/// Blocks one behind the other, both in a frame and in a file.
pub struct Piece {
    pub place: Place,
    pub outlet: Arc<Outlet>,
    pub file_offset: u64,
    /// Bytes; only the last block of a file may be short.
    pub length: u32,
    pub hashes: Vec<BlockHash>,
}

pub struct Window {
    pieces: Vec<Piece>,
    blocks: usize,
    files: usize,
    /// Full at this many blocks.
    limit_blocks: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { pieces: Vec::new(), blocks: 0, files: 0, limit_blocks: FIRST_WINDOW_BLOCKS }
    }
}

impl Window {
    pub fn begin_file(&mut self) {
        self.files += 1;
    }

    pub fn is_full(&self) -> bool {
        self.blocks >= self.limit_blocks || self.files >= WINDOW_FILES
    }

    /// Adds one block that is to be read.
    pub fn push(&mut self, outlet: &Arc<Outlet>, number: u64, block: &Block, length: u32) {
        let Block::Stored { hash, place } = block else { return };
        self.blocks += 1;
        let block_size = outlet.block_size();
        let file_offset = number * u64::from(block_size);
        if let Some(last) = self.pieces.last_mut()
            && Arc::ptr_eq(&last.outlet, outlet)
            && last.file_offset + u64::from(last.length) == file_offset
            && *place == (Place { offset: last.place.offset.saturating_add(last.length), ..last.place })
        {
            last.length += length;
            last.hashes.push(*hash);
            return;
        }
        self.pieces.push(Piece {
            place: *place,
            outlet: Arc::clone(outlet),
            file_offset,
            length,
            hashes: vec![*hash],
        });
    }

    /// The pieces by pack, each in the order of frames; the window is empty afterwards.
    ///
    /// The pack with the fewest bytes comes first: the pages of the increments, strewn
    /// over the files, are there when the bulk of a file arrives around them, and every
    /// stretch that is written to its end is complete, and can go to the disk in one.
    pub fn take_by_pack(&mut self) -> Vec<((SessionIndex, u32), Vec<Piece>)> {
        self.blocks = 0;
        self.files = 0;
        self.limit_blocks = (self.limit_blocks * 2).min(WINDOW_BLOCKS);
        let mut packs: HashMap<(SessionIndex, u32), Vec<Piece>> = HashMap::new();
        for piece in self.pieces.drain(..) {
            packs.entry((piece.place.session, piece.place.pack)).or_default().push(piece);
        }
        let bytes = |pieces: &[Piece]| pieces.iter().map(|piece| u64::from(piece.length)).sum::<u64>();
        let mut packs: Vec<_> = packs.into_iter().collect();
        packs.sort_by_cached_key(|(pack, pieces)| (bytes(pieces), *pack));
        for (_, pieces) in &mut packs {
            pieces.sort_by_key(|piece| (piece.place.frame, piece.place.offset));
        }
        packs
    }
}

/// Neighbouring frames of one pack, fetched with one request.
pub struct Batch {
    pub pack: (BackupId, u32),
    pub container: Arc<Container>,
    pub offset: u64,
    pub length: u64,
    /// Ordered by frame.
    pub pieces: Vec<Piece>,
}

/// Cuts the pieces of one pack into batches; beside them come the pieces that name
/// a frame which the pack does not have.
pub fn batches(
    pack: &(BackupId, u32),
    container: &Arc<Container>,
    pieces: Vec<Piece>,
) -> (Vec<Batch>, Vec<Piece>) {
    let mut cut: Vec<Batch> = Vec::new();
    let mut homeless = Vec::new();
    let mut raw_bytes = 0;
    for piece in pieces {
        let Some(place) = container.frames().get(piece.place.frame as usize) else {
            homeless.push(piece);
            continue;
        };
        let end = place.offset + u64::from(place.entry.stored_length);
        raw_bytes += u64::from(piece.length);
        match cut.last_mut() {
            // A frame is never parted: two batches would open it twice.
            Some(batch)
                if end <= batch.offset + batch.length
                    || place.offset <= batch.offset + batch.length + GAP_BYTES
                        && end - batch.offset <= BATCH_BYTES
                        && raw_bytes <= BATCH_RAW_BYTES =>
            {
                batch.length = batch.length.max(end - batch.offset);
                batch.pieces.push(piece);
            }
            _ => {
                raw_bytes = u64::from(piece.length);
                cut.push(Batch {
                    pack: pack.clone(),
                    container: Arc::clone(container),
                    offset: place.offset,
                    length: end - place.offset,
                    pieces: vec![piece],
                });
            }
        }
    }
    (cut, homeless)
}
