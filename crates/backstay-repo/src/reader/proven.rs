//! What one run of a verification has proved, so that a pack that thirty backups need
//! is read once and not thirty times.
//!
//! Of every frame that was opened the hash of each of its blocks is remembered: also
//! of those that the backup at hand does not name, since the next one names them. A
//! later backup that names a block at the same place by the same hash has its proof.
//!
//! Invariants: nothing is proved but by bytes that were read in this run; what does not
//! fit into the memory allowed, or looks different than thought, is read again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::window::Piece;
use crate::crc::crc32c;
use crate::map::{BlockHash, Place, SessionIndex, Sessions};
use crate::seal::SealKeys;

/// About twenty gibibytes of pages; what lies beyond is read once per backup.
const REMEMBERED_BYTES: usize = 48 << 20;
/// Beside its blocks: the key and the two places of a list in a map that is half full.
const BYTES_OF_A_FRAME: usize = 96;
const BYTES_OF_A_BLOCK: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FrameName {
    session: SessionIndex,
    pack: u32,
    frame: u32,
}

impl From<&Place> for FrameName {
    fn from(place: &Place) -> Self {
        Self { session: place.session, pack: place.pack, frame: place.frame }
    }
}

/// In the order of offsets. Half of a hash: what it is compared with was authenticated
/// and is at worst a slip of our own, and nobody can look for one that fits.
#[derive(Debug, Default)]
struct Blocks {
    offsets: Box<[u32]>,
    hashes: Box<[u64]>,
    /// CRC-32C: a file has one of its own, and these are joined to it.
    crcs: Box<[u32]>,
}

/// Offset, half of the hash, checksum.
type Told = (u32, u64, u32);

#[derive(Debug)]
pub struct Proven {
    sessions: Sessions,
    frames: Mutex<Frames>,
}

#[derive(Debug)]
struct Frames {
    known: HashMap<FrameName, Blocks>,
    room_bytes: usize,
}

impl Default for Proven {
    fn default() -> Self {
        Self::within(REMEMBERED_BYTES)
    }
}

impl Proven {
    fn within(room_bytes: usize) -> Self {
        let frames = Frames { known: HashMap::new(), room_bytes };
        Self { sessions: Sessions::new(), frames: Mutex::new(frames) }
    }

    /// The numbers that all backups of this run speak in.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The CRC-32C of the block of this hash, when it was read at this place.
    pub fn crc_of(&self, place: &Place, hash: &BlockHash) -> Option<u32> {
        let frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks = frames.known.get(&FrameName::from(place))?;
        let at = blocks.offsets.binary_search(&place.offset).ok()?;
        (blocks.hashes[at] == half(hash)).then(|| blocks.crcs[at])
    }

    #[cfg(test)]
    fn has(&self, place: &Place, hash: &BlockHash) -> bool {
        self.crc_of(place, hash).is_some()
    }

    /// A frame was opened, and these are its bytes.
    pub fn opened(&self, pieces: &[Piece], raw: &[u8], keys: &SealKeys) {
        let Some(first) = pieces.first() else { return };
        let found = blocks_of(pieces, raw, keys);
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let name = FrameName::from(&first.place);
        let mut all = found;
        if let Some(known) = frames.known.remove(&name) {
            frames.room_bytes += known.bytes();
            all.extend(known.told());
        }
        all.sort_unstable();
        all.dedup_by_key(|(offset, ..)| *offset);
        let blocks = Blocks {
            offsets: all.iter().map(|(offset, ..)| *offset).collect(),
            hashes: all.iter().map(|(_, hash, _)| *hash).collect(),
            crcs: all.iter().map(|(.., crc)| *crc).collect(),
        };
        if let Some(left) = frames.room_bytes.checked_sub(blocks.bytes()) {
            frames.room_bytes = left;
            frames.known.insert(name, blocks);
        }
    }
}

impl Blocks {
    fn bytes(&self) -> usize {
        BYTES_OF_A_FRAME + self.offsets.len() * BYTES_OF_A_BLOCK
    }

    fn told(&self) -> impl Iterator<Item = Told> {
        let hashes = self.hashes.iter().copied();
        let pairs = self.offsets.iter().copied().zip(hashes).zip(self.crcs.iter().copied());
        pairs.map(|((offset, hash), crc)| (offset, hash, crc))
    }
}

/// The blocks of a frame as far as they can be told: those that are named, by where they
/// are named, and between them those of a file that fills the frame in blocks of one size.
fn blocks_of(pieces: &[Piece], raw: &[u8], keys: &SealKeys) -> Vec<Told> {
    let mut found = Vec::new();
    for piece in pieces {
        let Some(bytes) =
            raw.get(piece.place.offset as usize..).and_then(|rest| rest.get(..piece.length as usize))
        else {
            continue;
        };
        let block_size = piece.outlet.block_size();
        let blocks = bytes.chunks(block_size as usize);
        for (number, (block, named)) in (0..).zip(blocks.zip(&piece.hashes)) {
            // It was compared a moment ago where it is right.
            let offset = piece.place.offset + number * block_size;
            if keys.hash_block(block) == *named {
                found.push((offset, half(named), crc32c(block)));
            }
        }
    }
    let Some(block_size) = pieces.first().map(|piece| piece.outlet.block_size()) else { return found };
    let regular = |piece: &Piece| {
        piece.outlet.block_size() == block_size && piece.place.offset.is_multiple_of(block_size)
    };
    if pieces.iter().all(regular) {
        let named: Vec<u32> = found.iter().map(|(offset, ..)| *offset).collect();
        for (number, block) in (0..).zip(raw.chunks(block_size as usize)) {
            let offset = number * block_size;
            if !named.contains(&offset) {
                found.push((offset, half(&keys.hash_block(block)), crc32c(block)));
            }
        }
    }
    found
}

fn half(hash: &BlockHash) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use backstay_model::parts::{FileShape, FileSpec, ParentFile, PartKind};

    use super::super::outlet::Outlet;
    use super::*;
    use crate::seal::Cipher;
    use crate::seal::tests::keys;

    const BLOCK: u32 = 512;

    fn piece(offset: u32, blocks: &[u8], keys: &SealKeys) -> Piece {
        let shape = FileShape { size: 1 << 20, block_size: BLOCK };
        let (path, kind) = ("base/1/1".to_owned(), PartKind::File(shape));
        let spec = FileSpec { path, kind, mode: 0o600, user_id: 0, group_id: 0, modified: 0 };
        Piece {
            place: place(offset),
            outlet: Arc::new(Outlet::new(ParentFile { spec, crc32c: None }, shape, None)),
            file_offset: 0,
            length: blocks.len() as u32,
            hashes: blocks.chunks(BLOCK as usize).map(|block| keys.hash_block(block)).collect(),
        }
    }

    fn place(offset: u32) -> Place {
        Place { session: SessionIndex(0), pack: 3, frame: 4, offset }
    }

    #[test]
    fn a_block_is_proved_at_its_place_by_its_hash_and_nothing_else_is() {
        let keys = keys(Cipher::Aes256Gcm);
        let raw: Vec<u8> = (0..4 * BLOCK).map(|n| (n / BLOCK) as u8 + 1).collect();
        let block = |number: usize| &raw[number * BLOCK as usize..][..BLOCK as usize];
        let proven = Proven::default();
        proven.opened(&[piece(BLOCK, block(1), &keys)], &raw, &keys);
        for number in 0..4 {
            let hash = keys.hash_block(block(number));
            let offset = number as u32 * BLOCK;
            assert!(proven.has(&place(offset), &hash), "block {number}");
            assert!(!proven.has(&place(offset), &keys.hash_block(b"other")), "another hash");
            assert!(!proven.has(&place(offset + 1), &hash), "another place");
            assert!(!proven.has(&Place { frame: 5, ..place(offset) }, &hash), "another frame");
        }
    }

    #[test]
    fn what_does_not_fit_is_forgotten_and_what_is_irregular_is_known_where_it_is_named() {
        let keys = keys(Cipher::Aes256Gcm);
        let raw: Vec<u8> = (0..2 * BLOCK).map(|n| n as u8).collect();
        let named = &raw[7..7 + BLOCK as usize];
        let small = Proven::within(10);
        small.opened(&[piece(7, named, &keys)], &raw, &keys);
        assert!(!small.has(&place(7), &keys.hash_block(named)));

        let proven = Proven::default();
        proven.opened(&[piece(7, named, &keys)], &raw, &keys);
        assert!(proven.has(&place(7), &keys.hash_block(named)));
        assert!(!proven.has(&place(0), &keys.hash_block(&raw[..BLOCK as usize])));
        // What is seen later is added.
        let next = &raw[9..9 + BLOCK as usize];
        proven.opened(&[piece(9, next, &keys)], &raw, &keys);
        assert!(
            proven.has(&place(7), &keys.hash_block(named)) && proven.has(&place(9), &keys.hash_block(next))
        );
    }

    #[test]
    fn a_hash_that_is_not_that_of_the_bytes_is_never_proved() {
        let keys = keys(Cipher::Aes256Gcm);
        let raw = vec![1; BLOCK as usize];
        let mut lying = piece(0, &raw, &keys);
        let claimed = keys.hash_block(b"what the map says");
        lying.hashes = vec![claimed];
        let proven = Proven::default();
        proven.opened(&[lying], &raw, &keys);
        assert!(!proven.has(&place(0), &claimed));
        assert!(proven.has(&place(0), &keys.hash_block(&raw)));
    }
}
