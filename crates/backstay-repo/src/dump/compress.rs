//! Compression of a dump by several threads, in order.
//!
//! The stream is cut into blocks of one size, and each becomes a gzip member or a zstd
//! frame of its own, which the programs of both formats read as one stream. So all cores
//! work on one table, where `pg_dump` itself uses one thread for it.
//!
//! Invariant: no more blocks are in memory than there are threads, and one.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use backstay_model::dump::DumpCompression;
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::gzip::MemberWriter;
use super::zstd::FrameWriter;
use super::{DumpError, ended, gzip, zstd};
use crate::Result;

/// What is compressed at once. Blocks twice as large pack prose by one percent better and
/// rows not at all, and take twice the memory; half as large, neither is worse by more
/// than one percent, and each costs a hand-over between threads.
pub const BLOCK_BYTES: usize = 1 << 20;

enum BlockWriter {
    Gzip(MemberWriter),
    Zstd(FrameWriter),
}

#[derive(Debug, Clone, Copy)]
enum Codec {
    Gzip(i32),
    /// `None`: what suits the blocks.
    Zstd(Option<i32>),
}

impl Codec {
    fn writer(self) -> io::Result<BlockWriter> {
        Ok(match self {
            Codec::Gzip(level) => BlockWriter::Gzip(MemberWriter::new(level)?),
            Codec::Zstd(level) => BlockWriter::Zstd(FrameWriter::new(level)?),
        })
    }
}

impl BlockWriter {
    fn pack(&mut self, raw: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            BlockWriter::Gzip(writer) => writer.pack(raw),
            BlockWriter::Zstd(writer) => writer.pack(raw),
        }
    }
}

/// Threads that compress blocks, and the blocks that they have.
pub(super) struct Packer {
    codec: Codec,
    /// Their tables are large: one is made for each thread and not for each block.
    idle: Arc<Mutex<Vec<BlockWriter>>>,
    in_work: VecDeque<JoinHandle<Result<Bytes>>>,
    at_most: usize,
}

impl Packer {
    /// `None` where the bytes stay as they are.
    pub fn new(compression: DumpCompression, level: Option<i32>, workers: usize) -> Result<Option<Self>> {
        let (codec, least, most) = match compression {
            DumpCompression::None | DumpCompression::Inside => return Ok(None),
            DumpCompression::Gzip => {
                (Codec::Gzip(level.unwrap_or(gzip::LEVEL_DEFAULT)), gzip::LEVEL_LEAST, gzip::LEVEL_MOST)
            }
            DumpCompression::Zstd => (Codec::Zstd(level), zstd::LEVEL_LEAST, zstd::LEVEL_MOST),
        };
        if let Some(level) = level
            && !(least..=most).contains(&level)
        {
            return Err(DumpError::NoSuchLevel { compression, level, least, most }.into());
        }
        // One more, so that none is idle while its block waits for the one before it.
        let at_most = workers.max(1) + 1;
        Ok(Some(Self { codec, idle: Arc::default(), in_work: VecDeque::new(), at_most }))
    }

    /// Hands a block to a thread. Gives back the oldest one, finished, when there are as
    /// many as there may be.
    pub async fn push(&mut self, raw: Bytes) -> Result<Option<Bytes>> {
        let oldest = match self.in_work.len() >= self.at_most {
            true => self.next().await?,
            false => None,
        };
        let (codec, idle) = (self.codec, Arc::clone(&self.idle));
        self.in_work.push_back(tokio::task::spawn_blocking(move || pack(codec, &idle, &raw)));
        Ok(oldest)
    }

    /// The oldest block that was handed out, when it is finished; `None` when there is none.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.in_work.pop_front() {
            Some(work) => ended(work.await).map(Some),
            None => Ok(None),
        }
    }
}

fn pack(codec: Codec, idle: &Mutex<Vec<BlockWriter>>, raw: &[u8]) -> Result<Bytes> {
    let failed = |source| DumpError::Compress { source };
    let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut writer = match kept {
        Some(writer) => writer,
        None => codec.writer().map_err(failed)?,
    };
    let packed = writer.pack(raw).map_err(failed)?;
    idle.lock().unwrap_or_else(PoisonError::into_inner).push(writer);
    Ok(packed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn blocks_come_back_in_the_order_in_which_they_were_given() {
        for compression in [DumpCompression::Gzip, DumpCompression::Zstd] {
            let mut packer = Packer::new(compression, None, 3).unwrap().unwrap();
            let mut packed = Vec::new();
            let mut raw = Vec::new();
            for number in 0..40u32 {
                // Of very different lengths, so that the later ones are ready earlier.
                let block = vec![number as u8; if number % 2 == 0 { 900_000 } else { 3 }];
                raw.extend_from_slice(&block);
                packed.extend(packer.push(block.into()).await.unwrap());
                assert!(packer.in_work.len() <= packer.at_most);
            }
            while let Some(block) = packer.next().await.unwrap() {
                packed.push(block);
            }
            assert_eq!(packed.len(), 40);
            let whole: Box<dyn io::Read + Send> = Box::new(io::Cursor::new(packed.concat()));
            let mut reader = match compression {
                DumpCompression::Gzip => gzip::reader(whole),
                _ => zstd::reader(whole).unwrap(),
            };
            let mut back = Vec::new();
            io::Read::read_to_end(&mut reader, &mut back).unwrap();
            assert!(back == raw, "{compression}");
        }
    }

    #[test]
    fn a_level_that_there_is_not_is_refused_with_those_that_there_are() {
        for (compression, level) in [(DumpCompression::Gzip, 13), (DumpCompression::Zstd, 0)] {
            let error = Packer::new(compression, Some(level), 1).err().unwrap().to_string();
            assert!(error.contains("its levels are 1 to"), "{error}");
        }
        assert!(Packer::new(DumpCompression::Inside, Some(99), 1).unwrap().is_none());
    }
}
