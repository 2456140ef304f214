//! One file on its way out: written by several workers, complete when the last byte is there.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use backstay_model::parts::PartWriter;

use super::crc::CrcFold;
use crate::{Error, Result};

pub struct Outlet {
    path: String,
    size: u64,
    block_size: u32,
    expected_crc: Option<u32>,
    writer: Option<Box<dyn PartWriter>>,
    crc: Mutex<CrcFold>,
    remaining: AtomicU64,
    damaged: AtomicBool,
}

impl Outlet {
    /// `writer` is `None` when the bytes are only checked.
    pub fn new(
        path: String,
        size: u64,
        block_size: u32,
        expected_crc: Option<u32>,
        writer: Option<Box<dyn PartWriter>>,
    ) -> Self {
        Self {
            path,
            size,
            block_size,
            expected_crc,
            writer,
            crc: Mutex::new(CrcFold::default()),
            remaining: AtomicU64::new(size),
            damaged: AtomicBool::new(false),
        }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Bytes that were compared with their hashes.
    pub fn put(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if let Some(writer) = &self.writer {
            writer.write_at(offset, bytes)?;
        }
        self.account(offset, bytes.len() as u64, |_| super::crc::crc32c(bytes))
    }

    /// A stretch of zeros, which the target has already.
    pub fn put_zeros(&self, offset: u64, length: u64) -> Result<()> {
        self.account(offset, length, super::crc::crc32c_of_zeros)
    }

    /// A stretch that could not be read: the file can no longer be whole.
    pub fn skip(&self, length: u64) {
        self.damaged.store(true, Ordering::Relaxed);
        self.remaining.fetch_sub(length, Ordering::AcqRel);
    }

    /// Closes a file without bytes.
    pub fn finish_empty(&self) -> Result<()> {
        if self.size == 0 { self.finish() } else { Ok(()) }
    }

    fn account(&self, offset: u64, length: u64, crc: impl Fn(u64) -> u32) -> Result<()> {
        if self.expected_crc.is_some() {
            let crc = crc(length);
            self.crc.lock().unwrap_or_else(PoisonError::into_inner).add(offset, crc, length);
        }
        let before = self.remaining.fetch_sub(length, Ordering::AcqRel);
        if before == length { self.finish() } else { Ok(()) }
    }

    fn finish(&self) -> Result<()> {
        if self.damaged.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(writer) = &self.writer {
            writer.finish()?;
        }
        let Some(expected) = self.expected_crc else { return Ok(()) };
        let found = self.crc.lock().unwrap_or_else(PoisonError::into_inner).finish(self.size);
        if found == Some(expected) || self.size == 0 {
            return Ok(());
        }
        Err(Error::Damaged {
            object: self.path.clone(),
            reason: "every block has its hash and the file has not its checksum".to_owned(),
        })
    }
}
