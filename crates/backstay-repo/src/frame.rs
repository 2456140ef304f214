//! Frames: the unit of compression and encryption (`docs/format.md`, section 5).
//!
//! A [`FrameSealer`] belongs to one thread: it keeps the compressor's context and
//! its buffers, so that sealing a frame allocates nothing. It opens what it just
//! sealed and compares, when asked to: memory that flips a bit after the database
//! was read would otherwise be found on the day of the restore.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, DCtx, InBuffer, OutBuffer};

use crate::large_buffer::large_buffer;
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

/// Where it was measured: other levels search in other ways.
const LOG_LEVEL_OF_TABLES: i32 = 3;
const LOG_TABLE_BITS: u32 = 15;

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

    /// For spans of a log. zstd takes tables of a megabyte for frames of this size, which no processor
    /// has beside it: with smaller ones a seventh of the time goes, and a hundredth of the bytes
    /// comes or goes.
    pub fn for_log(level: i32, verify: bool) -> std::io::Result<Self> {
        let mut sealer = Self::new(level, verify)?;
        if level == LOG_LEVEL_OF_TABLES
            && let Some(compressor) = &mut sealer.compressor
        {
            compressor.set_parameter(CParameter::HashLog(LOG_TABLE_BITS))?;
            compressor.set_parameter(CParameter::ChainLog(LOG_TABLE_BITS))?;
        }
        Ok(sealer)
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
            let is_same = match codec {
                Codec::Zstd if raw.len() > FRAME_RAW_MAX => {
                    expands_to(seal.open(number, raw_length, codec, &mut self.scratch)?, raw)
                }
                _ => opener.open(seal, number, entry, &mut self.scratch)? == raw,
            };
            if !is_same {
                return Err(SealError::WrongLength(number));
            }
        }
        Ok(entry)
    }

    /// The compressed bytes, when they are fewer.
    fn compressed(&mut self, raw: &[u8]) -> Option<&[u8]> {
        let compressor = self.compressor.as_mut()?;
        let bound = zstd::zstd_safe::compress_bound(raw.len());
        self.scratch.clear();
        if self.scratch.capacity() < bound {
            self.scratch = large_buffer(bound);
        }
        match compressor.compress_to_buffer(raw, &mut self.scratch) {
            Ok(length) if length < raw.len() => Some(&self.scratch[..length]),
            _ => None,
        }
    }
}

/// Whether a large frame is these bytes, without holding them a second time.
fn expands_to(compressed: &[u8], raw: &[u8]) -> bool {
    let mut context = DCtx::create();
    let mut part = vec![0; DCtx::out_size()];
    let (mut input, mut rest) = (InBuffer::around(compressed), raw);
    loop {
        let mut output = OutBuffer::around(&mut part[..]);
        let Ok(is_open) = context.decompress_stream(&mut output, &mut input) else { return false };
        let Some(behind) = rest.strip_prefix(output.as_slice()) else { return false };
        if is_open == 0 {
            return behind.is_empty() && input.pos() == compressed.len();
        }
        // Cut short: nothing comes of it any more.
        if behind.len() == rest.len() && input.pos() == compressed.len() {
            return false;
        }
        rest = behind;
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

    /// The same behind what is there in `out`. On an error something may have been added to it.
    pub fn open_into(
        &mut self,
        seal: &ObjectSeal,
        number: u32,
        entry: FrameEntry,
        stored: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let raw_length = entry.raw_length as usize;
        let plain = seal.open(number, entry.raw_length, entry.codec, stored)?;
        let begin = out.len();
        let length = match entry.codec {
            Codec::Raw => {
                out.extend_from_slice(plain);
                plain.len()
            }
            // Without writing zeros first: those of a whole segment of the log take milliseconds.
            Codec::Zstd if begin == 0 => {
                out.reserve(raw_length);
                self.decompressor
                    .decompress_to_buffer(plain, out)
                    .map_err(|_| SealError::WrongLength(number))?
            }
            Codec::Zstd => {
                out.resize(begin + raw_length, 0);
                let to = &mut out[begin..];
                self.decompressor
                    .decompress_to_buffer(plain, to)
                    .map_err(|_| SealError::WrongLength(number))?
            }
        };
        if length == raw_length { Ok(()) } else { Err(SealError::WrongLength(number)) }
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

    #[test]
    fn a_large_frame_is_compared_as_it_expands() {
        let raw: Vec<u8> = (0u32..1_500_000).flat_map(|at| (at / 7).to_le_bytes()).collect();
        let compressed = zstd::bulk::compress(&raw, 3).unwrap();
        assert!(expands_to(&compressed, &raw));
        let mut other = raw.clone();
        other[5_000_000] ^= 1;
        assert!(!expands_to(&compressed, &other) && !expands_to(&compressed, &raw[..raw.len() - 1]));
        assert!(!expands_to(&compressed[..compressed.len() - 1], &raw) && !expands_to(b"", &raw));
        let longer = [&raw[..], b"x"].concat();
        assert!(!expands_to(&compressed, &longer));
    }

    #[test]
    fn a_large_frame_comes_back_behind_what_is_there() {
        let (_, seal) = keys(Cipher::Aes256Gcm).begin(ObjectKind::Log, "a/log/x").unwrap();
        let raw: Vec<u8> = (0u32..300_000).flat_map(|at| (at / 3).to_le_bytes()).collect();
        for level in [UNCOMPRESSED, 3] {
            let mut out = Vec::new();
            let entry = FrameSealer::new(level, true).unwrap().seal(&seal, 0, &raw, &mut out).unwrap();
            let mut into = b"before".to_vec();
            let mut opener = FrameOpener::new().unwrap();
            opener.open_into(&seal, 0, entry, &mut out.clone(), &mut into).unwrap();
            assert!(into[..6] == *b"before" && into[6..] == raw);
            let wrong = FrameEntry { raw_length: entry.raw_length + 1, ..entry };
            assert!(opener.open_into(&seal, 0, wrong, &mut out, &mut into).is_err());
        }
    }
}
