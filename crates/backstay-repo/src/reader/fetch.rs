//! A worker of a restore: fetches a batch, opens its frames, compares every block
//! with its hash, and writes it out.

use std::sync::Arc;

use backstay_model::{BackupId, Progress};
use crc_fast::{CrcAlgorithm, Digest};
use tokio::runtime::Handle;

use super::outlet::Outlet;
use super::proven::Proven;
use super::window::{Batch, Piece};
use crate::frame::FrameOpener;
use crate::seal::SealKeys;
use crate::store::Store;
use crate::{Error, Result};

pub struct Fetcher {
    store: Arc<dyn Store>,
    keys: Arc<SealKeys>,
    handle: Handle,
    progress: Arc<Progress>,
    proven: Option<Arc<Proven>>,
    opener: FrameOpener,
    stored: Vec<u8>,
}

/// A frame, or a stretch of them, that could not be used, and what wanted it.
pub struct Unusable {
    pub error: Error,
    pub pack: (BackupId, u32),
    pub pieces: Vec<Piece>,
}

impl Fetcher {
    pub fn new(
        store: Arc<dyn Store>,
        keys: Arc<SealKeys>,
        handle: Handle,
        progress: Arc<Progress>,
        proven: Option<Arc<Proven>>,
    ) -> Result<Self> {
        let opener = FrameOpener::new().map_err(|error| Error::broken(error.to_string()))?;
        Ok(Self { store, keys, handle, progress, proven, opener, stored: Vec::new() })
    }

    /// Works a batch off. What is damaged comes back; an error of the target ends the restore.
    pub fn run(&mut self, batch: Batch) -> Result<Vec<Unusable>> {
        let name = batch.container.name();
        let bytes = match self.handle.block_on(self.store.get_range(name, batch.offset, batch.length)) {
            Ok(bytes) => bytes,
            Err(error) => {
                return Ok(vec![Unusable { error: error.into(), pack: batch.pack, pieces: batch.pieces }]);
            }
        };
        let mut unusable = Vec::new();
        let mut run = Run::default();
        let mut pieces = batch.pieces.into_iter().peekable();
        while let Some(first) = pieces.next() {
            let frame = first.place.frame;
            let mut of_frame = vec![first];
            while let Some(next) = pieces.next_if(|piece| piece.place.frame == frame) {
                of_frame.push(next);
            }
            let place = batch.container.place(frame)?;
            let start = (place.offset - batch.offset) as usize;
            self.stored.clear();
            self.stored.extend_from_slice(&bytes[start..start + place.entry.stored_length as usize]);
            match batch.container.open_frame(&mut self.opener, frame, &mut self.stored) {
                Err(error) => unusable.push(Unusable { error, pack: batch.pack.clone(), pieces: of_frame }),
                Ok(raw) => {
                    if let Some(proven) = &self.proven {
                        proven.opened(&of_frame, raw, &self.keys);
                    }
                    for piece in of_frame {
                        match cut(raw, &piece, &self.keys) {
                            Some(bytes) => {
                                piece.outlet.put(piece.file_offset, bytes)?;
                                run.add(&piece.outlet, piece.file_offset, bytes)?;
                                self.progress.done(bytes.len() as u64);
                            }
                            None => {
                                let reason =
                                    format!("frame {frame} does not hold the blocks that a map names");
                                let error = Error::damaged(name, reason);
                                unusable.push(Unusable {
                                    error,
                                    pack: batch.pack.clone(),
                                    pieces: vec![piece],
                                });
                            }
                        }
                    }
                }
            }
        }
        run.end()?;
        Ok(unusable)
    }
}

/// Bytes of one file that were put one behind the other. Joining the checksums of two
/// stretches costs as much as computing that of 100 KiB; carrying one on costs nothing.
#[derive(Default)]
struct Run(Option<Stretch>);

struct Stretch {
    outlet: Arc<Outlet>,
    start: u64,
    end: u64,
    crc: Option<Digest>,
}

impl Run {
    fn add(&mut self, outlet: &Arc<Outlet>, offset: u64, bytes: &[u8]) -> Result<()> {
        let touches = |stretch: &Stretch| Arc::ptr_eq(&stretch.outlet, outlet) && stretch.end == offset;
        if !self.0.as_ref().is_some_and(touches) {
            self.end()?;
        }
        let stretch = self.0.get_or_insert_with(|| Stretch {
            outlet: Arc::clone(outlet),
            start: offset,
            end: offset,
            crc: outlet.wants_crc().then(|| Digest::new(CrcAlgorithm::Crc32Iscsi)),
        });
        if let Some(crc) = &mut stretch.crc {
            crc.update(bytes);
        }
        stretch.end += bytes.len() as u64;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(Stretch { outlet, start, end, crc }) = self.0.take() else { return Ok(()) };
        outlet.account(start, end - start, crc.map_or(0, |crc| crc.finalize() as u32))
    }
}

/// The bytes of a piece, when they are in the frame and every hash is right.
fn cut<'a>(raw: &'a [u8], piece: &Piece, keys: &SealKeys) -> Option<&'a [u8]> {
    let start = piece.place.offset as usize;
    let bytes = raw.get(start..start.checked_add(piece.length as usize)?)?;
    let blocks = bytes.chunks(piece.outlet.block_size() as usize);
    let good = blocks.len() == piece.hashes.len()
        && blocks.zip(&piece.hashes).all(|(block, hash)| keys.hash_block(block) == *hash);
    good.then_some(bytes)
}
