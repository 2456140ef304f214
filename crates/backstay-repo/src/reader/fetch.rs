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

/// Bytes of one file that were put one behind the other: accounted for at once, as each
/// account takes the lock of the file.
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

/// The bytes of a piece, when they are in the frame and are those that the map means.
///
/// Frame and map were authenticated, so what is left to find is a slip of the writer: a
/// place that is not the block's. A file that is written out and has a checksum of its
/// whole content shows it by that, for a tenth of what the hashes cost; a verification
/// compares every hash, which names the block.
fn cut<'a>(raw: &'a [u8], piece: &Piece, keys: &SealKeys) -> Option<&'a [u8]> {
    let start = piece.place.offset as usize;
    let bytes = raw.get(start..start.checked_add(piece.length as usize)?)?;
    if piece.outlet.is_written() && piece.outlet.wants_crc() {
        return Some(bytes);
    }
    let blocks = bytes.chunks(piece.outlet.block_size() as usize);
    let good = blocks.len() == piece.hashes.len()
        && blocks.zip(&piece.hashes).all(|(block, hash)| keys.hash_block(block) == *hash);
    good.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use backstay_model::error::Fault;
    use backstay_model::parts::{FileShape, FileSpec, ParentFile, PartKind, PartTarget, PartWriter};

    use super::*;
    use crate::crc::crc32c;
    use crate::map::{Place, SessionIndex};
    use crate::seal::Cipher;
    use crate::seal::tests::keys;

    struct Nowhere;

    impl PartTarget for Nowhere {
        fn create(&self, _: &ParentFile) -> std::result::Result<Option<Box<dyn PartWriter>>, Fault> {
            Ok(None)
        }
    }

    /// A map that names the second block of a frame where it means the first.
    fn misplaced(
        target: Option<Arc<dyn PartTarget>>,
        crc: Option<u32>,
        meant: &[u8],
        keys: &SealKeys,
    ) -> Piece {
        let shape = FileShape { size: meant.len() as u64, block_size: 512 };
        let (path, kind) = ("base/1/1".to_owned(), PartKind::File(shape));
        let spec = FileSpec { path, kind, mode: 0o600, user_id: 0, group_id: 0, modified: 0 };
        Piece {
            place: Place { session: SessionIndex(0), pack: 0, frame: 0, offset: 512 },
            outlet: Arc::new(Outlet::new(ParentFile { spec, crc32c: crc }, shape, target)),
            file_offset: 0,
            length: 512,
            hashes: vec![keys.hash_block(meant)],
        }
    }

    #[test]
    fn a_block_from_a_wrong_place_is_noticed_whether_hashes_or_checksums_are_compared() {
        let keys = keys(Cipher::Aes256Gcm);
        let raw: Vec<u8> = (0..1024u32).map(|n| (n / 512 + n % 7) as u8).collect();
        let (meant, crc) = (&raw[..512], Some(crc32c(&raw[..512])));
        let target = || Some(Arc::new(Nowhere) as Arc<dyn PartTarget>);
        assert!(cut(&raw, &misplaced(None, crc, meant, &keys), &keys).is_none());
        assert!(cut(&raw, &misplaced(target(), None, meant, &keys), &keys).is_none());
        let piece = misplaced(target(), crc, meant, &keys);
        let mut run = Run::default();
        run.add(&piece.outlet, 0, cut(&raw, &piece, &keys).unwrap()).unwrap();
        assert!(matches!(run.end(), Err(Error::Damaged { object, .. }) if object == "base/1/1"));
    }
}
