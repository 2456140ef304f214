//! A lane: one thread that reads extents, compares their blocks with the parent's,
//! and seals what is new into packs of its own.
//!
//! Everything a lane needs is its own (buffers, compressor, open pack), so lanes
//! never wait for each other; what they share is the plan before and the assembler behind.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use backstay_model::parts::{EXTENT_SIZE, ExtentData};
use backstay_model::{BackupId, Progress};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::assemble::ExtentDone;
use super::plan::Extent;
use crate::container::ContainerUpload;
use crate::crc::crc32c;
use crate::frame::FrameSealer;
use crate::layout::InstanceLayout;
use crate::manifest::PackUse;
use crate::map::{Block, Place, SessionIndex};
use crate::seal::{ObjectKind, SealKeys};
use crate::store::Store;
use crate::{Error, Result};

/// Sealed bytes are sent to the store in pieces of this size, so that a pack never
/// lies in memory as a whole.
const SEND_BYTES: usize = 1 << 20;
/// Packs of one lane that may still be on their way to durability.
const COMMITS_IN_FLIGHT: usize = 2;

/// What all lanes of one backup share.
pub struct LaneShared {
    pub store: Arc<dyn Store>,
    pub keys: Arc<SealKeys>,
    pub layout: InstanceLayout,
    pub handle: Handle,
    pub session: BackupId,
    pub index: SessionIndex,
    pub next_pack: AtomicU32,
    /// The parent's packs whose blocks are stored again.
    pub avoid: HashSet<(SessionIndex, u32)>,
    pub frame_size: usize,
    pub pack_size: u64,
    pub compression_level: i32,
    pub verify: bool,
    pub progress: Arc<Progress>,
}

pub struct Lane {
    shared: Arc<LaneShared>,
    sealer: FrameSealer,
    buffer: Vec<u8>,
    frame: Vec<u8>,
    pack: Option<(u32, ContainerUpload)>,
    commits: JoinSet<Result<PackUse>>,
    finished: Vec<PackUse>,
}

impl Lane {
    pub fn new(shared: Arc<LaneShared>) -> Result<Self> {
        let sealer = FrameSealer::new(shared.compression_level, shared.verify)
            .map_err(|error| Error::broken(error.to_string()))?;
        let frame = Vec::with_capacity(shared.frame_size);
        Ok(Self {
            shared,
            sealer,
            buffer: Vec::with_capacity(EXTENT_SIZE as usize),
            frame,
            pack: None,
            commits: JoinSet::new(),
            finished: Vec::new(),
        })
    }

    pub fn process(&mut self, extent: Extent) -> Result<ExtentDone> {
        let first_block = extent.offset / u64::from(extent.shape.block_size);
        match extent.data {
            ExtentData::Unchanged => {
                if extent.parent.contains(&Block::Absent) {
                    return Err(Error::broken(format!(
                        "the engine calls {}+{} of {} unchanged, and the parent does not have it",
                        extent.offset, extent.length, extent.file.spec.path
                    )));
                }
                let blocks = extent.parent.clone();
                Ok(ExtentDone {
                    first_block,
                    blocks,
                    parent: extent.parent,
                    length: extent.length,
                    crc32c: None,
                })
            }
            ExtentData::Read(reader) => {
                let mut buffer = std::mem::take(&mut self.buffer);
                reader.read(&mut buffer)?;
                if buffer.len() != extent.length as usize {
                    return Err(Error::broken(format!(
                        "{} bytes of {} were read where {} were announced",
                        buffer.len(),
                        extent.file.spec.path,
                        extent.length
                    )));
                }
                let crc32c = Some(crc32c(&buffer));
                let mut blocks = Vec::with_capacity(extent.parent.len());
                for (block, before) in buffer.chunks(extent.shape.block_size as usize).zip(&extent.parent) {
                    blocks.push(self.block(block, before)?);
                }
                self.buffer = buffer;
                Ok(ExtentDone { first_block, blocks, parent: extent.parent, length: extent.length, crc32c })
            }
        }
    }

    fn block(&mut self, bytes: &[u8], before: &Block) -> Result<Block> {
        if is_zero(bytes) {
            return Ok(Block::Zero);
        }
        let hash = self.shared.keys.hash_block(bytes);
        if let Block::Stored { hash: known, place } = before
            && *known == hash
            && !self.shared.avoid.contains(&(place.session, place.pack))
        {
            return Ok(*before);
        }
        let place = self.store_block(bytes)?;
        Ok(Block::Stored { hash, place })
    }

    fn store_block(&mut self, bytes: &[u8]) -> Result<Place> {
        if self.frame.len() + bytes.len() > self.shared.frame_size {
            self.flush_frame()?;
        }
        if self.pack.is_none() {
            let number = self.shared.next_pack.fetch_add(1, Ordering::Relaxed);
            let name = self.shared.layout.pack(&self.shared.session, number);
            let begin = ContainerUpload::begin(
                self.shared.store.as_ref(),
                &self.shared.keys,
                ObjectKind::Pack,
                &name,
            );
            self.pack = Some((number, self.shared.handle.block_on(begin)?));
        }
        let Some((number, pack)) = &self.pack else { return Err(Error::broken("a pack was just begun")) };
        let place = Place {
            session: self.shared.index,
            pack: *number,
            frame: pack.builder.next_frame(),
            offset: self.frame.len() as u32,
        };
        self.frame.extend_from_slice(bytes);
        Ok(place)
    }

    fn flush_frame(&mut self) -> Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let Some((_, pack)) = &mut self.pack else { return Err(Error::broken("a frame without a pack")) };
        let before = pack.builder.size();
        pack.builder.push(&mut self.sealer, &self.frame).map_err(|error| Error::broken(error.to_string()))?;
        self.frame.clear();
        self.shared.progress.stored(pack.builder.size() - before);
        if pack.builder.pending() >= SEND_BYTES {
            self.shared.handle.block_on(pack.send())?;
        }
        if pack.builder.size() >= self.shared.pack_size {
            self.close_pack()?;
        }
        Ok(())
    }

    /// Lets the pack become durable while the next one is filled.
    fn close_pack(&mut self) -> Result<()> {
        let Some((number, pack)) = self.pack.take() else { return Ok(()) };
        while self.commits.len() >= COMMITS_IN_FLIGHT {
            self.await_commit()?;
        }
        let raw_bytes = pack.builder.raw_bytes();
        self.commits.spawn_on(
            async move {
                let size = pack.commit().await?;
                Ok(PackUse { number, size, raw_bytes, live_bytes: 0 })
            },
            &self.shared.handle,
        );
        Ok(())
    }

    fn await_commit(&mut self) -> Result<()> {
        if let Some(joined) = self.shared.handle.block_on(self.commits.join_next()) {
            let pack = joined.map_err(|error| Error::broken(error.to_string()))??;
            self.finished.push(pack);
        }
        Ok(())
    }

    /// Seals what is left and waits until every pack of this lane is durable.
    pub fn finish(mut self) -> Result<Vec<PackUse>> {
        self.flush_frame()?;
        self.close_pack()?;
        while !self.commits.is_empty() {
            self.await_commit()?;
        }
        Ok(self.finished)
    }
}

/// Looks at the first word before the rest: a block that is not zero says so at once.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first == 0) && bytes.iter().all(|byte| *byte == 0)
}
