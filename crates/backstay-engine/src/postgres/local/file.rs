//! Reading the files of a running server.
//!
//! A file has the size it had when it was opened: what it grew since is in the
//! log, and what it lost is filled up with zeros, for the log will cut it again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use backstay_model::parts::{EXTENT_SIZE, ExtentData, ExtentReader, Step};
use backstay_model::{Fault, Lsn};
use tokio::runtime::Handle;

use super::super::page::PageCheck;
use super::super::throttle::Throttle;
use crate::{Error, Result};

/// A file being read by several threads at once.
pub(super) struct OpenFile {
    pub(super) file: File,
    /// In the backup.
    pub(super) path: String,
    /// On this machine, for messages.
    pub(super) real: PathBuf,
    pub(super) size: u64,
    pub(super) content: Content,
}

/// What is known of the bytes.
pub(super) enum Content {
    /// Pages where the rules say so; whatever else otherwise.
    Relation(Arc<PageCheck>),
    /// A segment of the log that begins at `start`; what lies behind `end` is not
    /// of this backup and is delivered as zeros.
    Log {
        segment: String,
        start: Lsn,
        end: Lsn,
        zero_after: u64,
    },
    Opaque,
}

/// The extents of a file, in order.
pub(super) struct Extents {
    file: Arc<OpenFile>,
    offset: u64,
    toll: Option<Toll>,
}

/// What a reader passes before it reads.
#[derive(Clone)]
pub(super) struct Toll {
    pub(super) throttle: Arc<Throttle>,
    pub(super) runtime: Handle,
}

impl Extents {
    pub(super) fn of(file: OpenFile) -> Self {
        Self { file: Arc::new(file), offset: 0, toll: None }
    }

    pub(super) fn with_toll(self, toll: Option<Toll>) -> Self {
        Self { toll, ..self }
    }

    pub(super) fn next(&mut self) -> Option<Step> {
        let left = self.file.size - self.offset;
        if left == 0 {
            return None;
        }
        let length = left.min(u64::from(EXTENT_SIZE)) as u32;
        let offset = self.offset;
        self.offset += u64::from(length);
        let reader = Extent { file: Arc::clone(&self.file), offset, length, toll: self.toll.clone() };
        Some(Step::Extent { offset, length, data: ExtentData::Read(Box::new(reader)) })
    }
}

struct Extent {
    file: Arc<OpenFile>,
    offset: u64,
    length: u32,
    toll: Option<Toll>,
}

impl ExtentReader for Extent {
    fn read(self: Box<Self>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        self.fill(buffer).map_err(Fault::new)
    }
}

impl Extent {
    fn fill(&self, buffer: &mut Vec<u8>) -> Result<()> {
        let file = &*self.file;
        if let Some(Toll { throttle, runtime }) = &self.toll {
            throttle.pass_blocking(runtime, u64::from(self.length))?;
        }
        buffer.resize(self.length as usize, 0);
        let got = read_full_at(&file.file, buffer, self.offset)
            .map_err(|source| Error::Read { path: file.real.clone(), source })?;
        buffer[got..].fill(0);
        match &file.content {
            Content::Opaque => {}
            Content::Relation(check) => {
                check.check(&file.path, self.offset, &buffer[..got], |offset, page| {
                    read_full_at(&file.file, page, offset)
                });
            }
            Content::Log { segment, start, end, zero_after } => {
                let position = *start + self.offset;
                // A segment may have been recycled for a later part of the log while
                // it was read; the pages would say so. Behind a switch to the next
                // segment there are only zeros.
                let found = page_position(buffer);
                let padding = self.offset > 0 && found == Some(Lsn(0));
                if position < *end && found != Some(position) && !padding {
                    return Err(Error::WalMissing { segment: segment.clone() });
                }
                let keep = zero_after.saturating_sub(self.offset).min(buffer.len() as u64);
                buffer[keep as usize..].fill(0);
            }
        }
        Ok(())
    }
}

/// Where a page of the log says it belongs.
fn page_position(page: &[u8]) -> Option<Lsn> {
    Some(Lsn(u64::from_le_bytes(page.get(8..16)?.try_into().ok()?)))
}

/// Reads until the buffer is full or the file ends, and says how much it was.
fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// The bytes of a file that are already here, such as those that the server hands over
/// at the end.
pub(super) struct HeldBytes {
    bytes: Vec<u8>,
    offset: usize,
}

impl HeldBytes {
    pub(super) fn new(bytes: Vec<u8>) -> HeldBytes {
        HeldBytes { bytes, offset: 0 }
    }

    /// The next extent, until all bytes were given.
    pub(super) fn next(&mut self) -> Option<Step> {
        let left = &self.bytes[self.offset..];
        let extent = left[..left.len().min(EXTENT_SIZE as usize)].to_vec();
        let (offset, length) = (self.offset as u64, extent.len() as u32);
        self.offset += extent.len();
        (length > 0).then(|| Step::Extent { offset, length, data: ExtentData::Read(Box::new(Held(extent))) })
    }
}

struct Held(Vec<u8>);

impl ExtentReader for Held {
    fn read(mut self: Box<Self>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        std::mem::swap(buffer, &mut self.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
