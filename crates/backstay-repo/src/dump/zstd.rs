//! Blocks as frames of zstd, each with its checksum: `zstd -d` reads them as one stream.

use std::io::{self, Read};

use zstd::bulk::Compressor;
use zstd::stream::read::Decoder;

pub(super) const LEVEL_LEAST: i32 = 1;
pub(super) const LEVEL_MOST: i32 = 22;
/// As `zstd` has it.
pub(super) const LEVEL_DEFAULT: i32 = 3;
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
