//! Single files of a backup, each whole in memory: for small ones that say what the others mean.
//!
//! Everything blocks: not for async threads.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::BackupReader;
use super::open_packs::OpenPacks;
use crate::crc::crc32c;
use crate::frame::FrameOpener;
use crate::map::{
    Block, BlockCursor, BlockHash, FileTable, MapFrames, Place, SessionIndex, block_count, block_length,
};
use crate::{Error, Result};

/// The largest file that is read so.
const FILE_MAX: u64 = 16 << 20;
/// Opened frames that are kept: small files lie beside each other.
const FRAMES: usize = 8;

pub struct BackupContents {
    reader: BackupReader,
    handle: Handle,
    maps: MapFrames,
    table: FileTable,
    packs: OpenPacks,
    opener: FrameOpener,
    frames: VecDeque<(FrameKey, Arc<Vec<u8>>)>,
}

type FrameKey = (SessionIndex, u32, u32);

impl BackupContents {
    pub(super) fn open(reader: BackupReader, handle: Handle) -> Result<BackupContents> {
        let (maps, table) = reader.open_maps(handle.clone())?;
        let packs = OpenPacks::new(reader.again(), handle.clone());
        let opener = FrameOpener::new().map_err(|error| Error::broken(error.to_string()))?;
        Ok(BackupContents { reader, handle, maps, table, packs, opener, frames: VecDeque::new() })
    }

    /// The bytes of a file, each block compared with its hash; nothing where there is no such file.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], also for a file that is larger than any that is read so.
    pub fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(record) = self.table.find(&mut self.maps, path)? else { return Ok(None) };
        let damaged = |reason: &str| Error::Damaged { object: path.to_owned(), reason: reason.to_owned() };
        let shape = record.shape().ok_or_else(|| damaged("it is no file"))?;
        if shape.size > FILE_MAX {
            return Err(damaged("it is larger than it can be"));
        }
        let mut blocks = Vec::new();
        BlockCursor::new(&record).whole_slice(&mut self.maps, 0, block_count(shape) as usize, &mut blocks)?;
        let mut bytes = Vec::with_capacity(shape.size as usize);
        for (number, block) in blocks.iter().enumerate() {
            let length = block_length(shape, number as u64) as usize;
            match block {
                Block::Zero | Block::Absent => bytes.resize(bytes.len() + length, 0),
                Block::Stored { hash, place } => self.block(hash, place, length, &mut bytes)?,
            }
        }
        match record.crc32c {
            Some(crc) if crc != crc32c(&bytes) => Err(damaged("its content is not what its checksum says")),
            _ => Ok(Some(bytes)),
        }
    }

    fn block(&mut self, hash: &BlockHash, place: &Place, length: usize, into: &mut Vec<u8>) -> Result<()> {
        let frame = self.frame((place.session, place.pack, place.frame))?;
        let start = place.offset as usize;
        let bytes = frame
            .get(start..start + length)
            .filter(|bytes| self.reader.repo.seal_keys().hash_block(bytes) == *hash);
        let Some(bytes) = bytes else {
            let name = self.packs.open(&self.maps, (place.session, place.pack))?.name().clone();
            let reason = format!("frame {} does not hold the blocks that a map names", place.frame);
            return Err(Error::damaged(&name, reason));
        };
        into.extend_from_slice(bytes);
        Ok(())
    }

    fn frame(&mut self, key: FrameKey) -> Result<Arc<Vec<u8>>> {
        if let Some((_, frame)) = self.frames.iter().find(|(of, _)| *of == key) {
            return Ok(Arc::clone(frame));
        }
        let container = self.packs.open(&self.maps, (key.0, key.1))?;
        let place = container.place(key.2)?;
        let (store, length) = (self.reader.repo.store(), u64::from(place.entry.stored_length));
        let read = store.get_range(container.name(), place.offset, length);
        let mut stored = Vec::from(self.handle.block_on(read)?);
        let raw = container.open_frame(&mut self.opener, key.2, &mut stored)?.to_vec();
        if self.frames.len() >= FRAMES {
            self.frames.pop_front();
        }
        let frame = Arc::new(raw);
        self.frames.push_back((key, Arc::clone(&frame)));
        Ok(frame)
    }
}
