//! Blocks as frames of zstd, each with its checksum: `zstd -d` reads them as one stream.

use std::io::{self, Read};

use zstd::bulk::Compressor;
use zstd::stream::read::Decoder;

pub(super) const LEVEL_LEAST: i32 = 1;
pub(super) const LEVEL_MOST: i32 = 22;
/// Of 64 MB that `pg_dump` wrote of rows of numbers, times, UUIDs and JSON, and of 3 MB of
/// prose, in blocks of 1 MiB, MB/s by one thread and how many times smaller: level 1: 375,
/// 5.30 and 91, 3.43; level 2: 259, 5.24 and 54, 3.67; level 3: 183, 5.05 and 38, 3.85;
/// gzip at level 6: 61, 5.20 and 26, 3.70. Rows want the first and prose the third; the
/// second is nowhere larger by more than one percent than what scripts with gzip had.
pub(super) const LEVEL_DEFAULT: i32 = 2;
/// The largest window that a frame may ask for: what `zstd --ultra -22` and `--long`
/// write, 128 MiB. More would let a file decide how much memory we take.
const WINDOW_LOG_MAX: u32 = 27;

pub(super) struct FrameWriter(Compressor<'static>);

impl FrameWriter {
    pub fn new(level: i32) -> io::Result<Self> {
        let mut compressor = Compressor::new(level)?;
        compressor.include_checksum(true)?;
        Ok(Self(compressor))
    }

    pub fn pack(&mut self, raw: &[u8]) -> io::Result<Vec<u8>> {
        self.0.compress(raw)
    }
}

pub(super) fn reader(packed: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let mut decoder = Decoder::new(packed)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(Box::new(decoder))
}
