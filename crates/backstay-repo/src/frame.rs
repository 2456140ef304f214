//! Frames: the unit of compression and encryption (`docs/format.md`, section 5).
//!
//! A [`FrameSealer`] belongs to one thread: it keeps the compressor's context and
//! its buffers, so that sealing a frame allocates nothing. It opens what it just
//! sealed and compares, when asked to: memory that flips a bit after the database
//! was read would otherwise be found on the day of the restore.

use zstd::bulk::{Compressor, Decompressor};

use crate::seal::{Codec, ObjectKind, ObjectSeal, SealError, TAG_SIZE};

/// The largest raw length of a frame, of anything but a log. Larger lengths in a frame table are
/// damage.
pub const FRAME_RAW_MAX: usize = 256 << 10;
/// A log is read span by span, never frame by frame: one frame may hold all of it.
const LOG_FRAME_RAW_MAX: usize = 16 << 20;

/// The largest raw length of a frame in a container of this kind.
pub fn raw_max(kind: ObjectKind) -> usize {
    match kind {
        ObjectKind::Log => LOG_FRAME_RAW_MAX,
        ObjectKind::Pack | ObjectKind::Map | ObjectKind::Document => FRAME_RAW_MAX,
    }
}

/// What the frame table says of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameEntry {
    /// With the tag.
    pub stored_length: u32,
    pub raw_length: u32,
    pub codec: Codec,
}

/// The level that stores every frame as it is: for databases that hold what is
/// compressed already, or machines that have bytes to spare and no time.
pub const UNCOMPRESSED: i32 = 0;

pub struct FrameSealer {
    compressor: Option<Compressor<'static>>,
    verify: Option<FrameOpener>,
    scratch: Vec<u8>,
}

impl FrameSealer {
    /// `level` is zstd's, or [`UNCOMPRESSED`], which zstd itself would take for its default.
    pub fn new(level: i32, verify: bool) -> std::io::Result<Self> {
        Ok(Self {
            compressor: (level != UNCOMPRESSED).then(|| Compressor::new(level)).transpose()?,
            verify: verify.then(FrameOpener::new).transpose()?,
            scratch: Vec::new(),
        })
    }

    /// Compresses and seals `raw` as frame `number` and appends it to `out`.
    /// A frame that does not shrink is stored as it is.
    pub fn seal(
        &mut self,
        seal: &ObjectSeal,
        number: u32,
        raw: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<FrameEntry, SealError> {
        let raw_length = u32::try_from(raw.len()).map_err(|_| SealError::WrongLength(number))?;
        let start = out.len();
        let codec = match self.compressed(raw) {
            Some(compressed) => {
                out.extend_from_slice(compressed);
                Codec::Zstd
            }
            None => {
                out.extend_from_slice(raw);
                Codec::Raw
            }
        };
        seal.seal(number, raw_length, codec, out, start)?;
        let entry = FrameEntry { stored_length: (out.len() - start) as u32, raw_length, codec };
        if let Some(opener) = &mut self.verify {
            self.scratch.clear();
            self.scratch.extend_from_slice(&out[start..]);
            if opener.open(seal, number, entry, &mut self.scratch)? != raw {
                return Err(SealError::WrongLength(number));
            }
        }
        Ok(entry)
    }

    /// The compressed bytes, when they are fewer.
    fn compressed(&mut self, raw: &[u8]) -> Option<&[u8]> {
        let compressor = self.compressor.as_mut()?;
        self.scratch.clear();
        self.scratch.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        match compressor.compress_to_buffer(raw, &mut self.scratch) {
            Ok(length) if length < raw.len() => Some(&self.scratch[..length]),
            _ => None,
        }
    }
}

pub struct FrameOpener {
    decompressor: Decompressor<'static>,
    raw: Vec<u8>,
}

impl FrameOpener {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { decompressor: Decompressor::new()?, raw: Vec::new() })
    }

    /// The raw bytes of a frame. `stored` is consumed: it is decrypted in place.
    pub fn open<'a>(
        &'a mut self,
        seal: &ObjectSeal,
        number: u32,
        entry: FrameEntry,
        stored: &'a mut [u8],
    ) -> Result<&'a [u8], SealError> {
        let raw_length = entry.raw_length as usize;
        let plain = seal.open(number, entry.raw_length, entry.codec, stored)?;
        match entry.codec {
            Codec::Raw if plain.len() == raw_length => Ok(plain),
            Codec::Raw => Err(SealError::WrongLength(number)),
            Codec::Zstd => {
                self.raw.clear();
                self.raw.reserve(raw_length);
                match self.decompressor.decompress_to_buffer(plain, &mut self.raw) {
                    Ok(length) if length == raw_length => Ok(&self.raw[..length]),
                    _ => Err(SealError::WrongLength(number)),
                }
            }
        }
    }
}

/// The smallest a stored frame can be.
pub const STORED_MIN: usize = TAG_SIZE;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::tests::keys;
    use crate::seal::{Cipher, ObjectKind};

    #[test]
    fn the_level_that_compresses_nothing_stores_every_byte_as_it_is() {
        let (_, seal) = keys(Cipher::Aes256Gcm).begin(ObjectKind::Pack, "a/packs/x-0").unwrap();
        let raw = vec![7; 100_000];
        for (level, codec, stored) in
            [(UNCOMPRESSED, Codec::Raw, raw.len()..=raw.len() + 64), (1, Codec::Zstd, 1..=1000)]
        {
            let mut out = Vec::new();
            let entry = FrameSealer::new(level, true).unwrap().seal(&seal, 0, &raw, &mut out).unwrap();
            assert_eq!(entry.codec, codec);
            assert!(stored.contains(&out.len()), "level {level}: {} bytes", out.len());
            let opened = FrameOpener::new().unwrap().open(&seal, 0, entry, &mut out).unwrap().to_vec();
            assert!(opened == raw);
        }
    }
}
