//! Maps: which blocks make up which file, and where each block lies
//! (`docs/format.md`, section 7).
//!
//! Three kinds of frames in the same containers: *sections* say where the blocks of
//! one file are, *leaves* list files, the *root* lists leaves. A file's record names
//! up to [`LEVELS_MAX`] sections, newest first, so that an increment writes the runs
//! that changed and nothing else; a leaf in which nothing changed is not written
//! again. Everything is read and written in the order of paths and blocks, in
//! bounded memory.

use backstay_model::BackupId;
use backstay_model::parts::{FileShape, FileSpec, PartKind};

use crate::seal::SealError;
use crate::varint::Malformed;

mod arrivals;
mod codec;
mod frames;
mod leaves;
mod overlay;
mod sessions;
mod table;
mod writer;

pub use arrivals::{Arrivals, SortedRecords};
pub use codec::{decode_leaf, decode_root};
pub use frames::MapFrames;
pub use leaves::{TableDraft, WrittenTable};
pub use overlay::BlockCursor;
pub use sessions::{SessionIndex, Sessions};
pub use table::{FileTable, FileTableCursor};
pub use writer::{MapWriter, SectionBuilder, WrittenMap};

/// Levels that a file may have before the next backup writes it anew as one: each
/// one costs a reader a cursor and a lookup per block.
pub const LEVELS_MAX: usize = 8;
/// Raw size of a map frame: one read of a remote store, and what a cursor holds.
pub const MAP_FRAME_RAW: usize = 64 << 10;
/// A leaf ends with the entry that brings its raw bytes to this; the longest entry
/// (a path and the target of a link) fits in what is left of a frame.
pub const LEAF_LENGTH_MAX: usize = 48 << 10;
/// A map object is closed when it has passed this size.
pub const MAP_OBJECT_SIZE: u64 = 8 << 20;

pub type BlockHash = [u8; 16];

/// What a block of zeros counts as in a file's digest.
pub const ZERO_HASH: BlockHash = [0; 16];

/// Where a stored block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub session: SessionIndex,
    pub pack: u32,
    pub frame: u32,
    /// Of the block's first byte in the raw bytes of the frame.
    pub offset: u32,
}

/// One block of a file, as the maps know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// No level names it: it is not part of the file.
    Absent,
    Zero,
    Stored {
        hash: BlockHash,
        place: Place,
    },
}

impl Block {
    pub fn hash(&self) -> &BlockHash {
        match self {
            Block::Stored { hash, .. } => hash,
            Block::Zero | Block::Absent => &ZERO_HASH,
        }
    }
}

/// Blocks that lie one behind the other in one frame, or are all zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub first_block: u64,
    pub count: u64,
    /// `None` for zeros.
    pub stored: Option<StoredRun>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    pub place: Place,
    pub hashes: Vec<BlockHash>,
}

/// A place in the payload of a map frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MapPlace {
    pub session: SessionIndex,
    pub map: u32,
    pub frame: u32,
    pub offset: u32,
}

/// One section of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    pub at: MapPlace,
    pub runs: u64,
    pub blocks: u64,
}

/// One entry of the file table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    pub spec: FileSpec,
    pub crc32c: Option<u32>,
    pub digest: BlockHash,
    /// Newest first; empty for an empty file, a directory or a link.
    pub levels: Vec<Level>,
}

impl FileRecord {
    /// The shape of a regular file.
    pub fn shape(&self) -> Option<FileShape> {
        match &self.spec.kind {
            PartKind::File(shape) => Some(*shape),
            PartKind::Directory | PartKind::Symlink(_) => None,
        }
    }
}

/// How many blocks a file has.
pub fn block_count(shape: FileShape) -> u64 {
    shape.size.div_ceil(u64::from(shape.block_size.max(1)))
}

/// The length of one block: the last one of a file may be shorter.
pub fn block_length(shape: FileShape, block: u64) -> u32 {
    let size = u64::from(shape.block_size);
    size.min(shape.size.saturating_sub(block * size)) as u32
}

/// One leaf, as the root names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafEntry {
    pub first_path: String,
    pub session: SessionIndex,
    pub map: u32,
    pub frame: u32,
    pub digest: BlockHash,
    pub entries: u64,
}

/// Why the bytes of a map make no sense. The caller adds which object it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("a map frame is not coded as the format says")]
    Malformed,
    #[error("a map frame of kind {found} lies where one of kind {wanted} should")]
    WrongFrame { found: u8, wanted: u8 },
    #[error("a map names {0:?} as a session")]
    NotASession(String),
    #[error("a map is not in ascending order")]
    Unordered,
    #[error("more sessions are named than any chain has")]
    TooManySessions,
}

impl From<Malformed> for MapError {
    fn from(_: Malformed) -> Self {
        MapError::Malformed
    }
}

/// Where the root frames of a backup lie, in its own maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootPlace {
    pub session: BackupId,
    /// `(map object, frame)` in order.
    pub frames: Vec<(u32, u32)>,
}

#[cfg(test)]
mod tests;
