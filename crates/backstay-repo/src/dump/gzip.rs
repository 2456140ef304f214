//! Blocks as members of a gzip file: `gunzip` and `zcat` read them as one stream.
//!
//! Written by libdeflate, which packs better than zlib in the same time but only whole
//! buffers; read by a decoder that streams, because the members of others have no bound.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use libdeflater::{CompressionLvl, Compressor};

pub(super) const LEVEL_LEAST: i32 = 1;
pub(super) const LEVEL_MOST: i32 = 12;
/// As `gzip` has it: the level that everybody's scripts use without knowing.
pub(super) const LEVEL_DEFAULT: i32 = 6;

pub(super) struct MemberWriter(Compressor);

impl MemberWriter {
    pub fn new(level: i32) -> io::Result<Self> {
        let level = CompressionLvl::new(level).map_err(|_| io::Error::other("no such level of gzip"))?;
        Ok(Self(Compressor::new(level)))
    }

    pub fn pack(&mut self, raw: &[u8]) -> io::Result<Vec<u8>> {
        let mut packed = vec![0; self.0.gzip_compress_bound(raw.len())];
        let length = self
            .0
            .gzip_compress(raw, &mut packed)
            .map_err(|error| io::Error::other(format!("libdeflate: {error:?}")))?;
        packed.truncate(length);
        Ok(packed)
    }
}

pub(super) fn reader(packed: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
    Box::new(MultiGzDecoder::new(packed))
}
