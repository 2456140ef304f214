//! The file itself, below all layers: counted and digested as it is read.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::{digest, hmac};
use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

use crate::store::StoreError;

/// What went wrong first. It happened nearest to the file, and what the layers above say
/// of it are consequences.
pub(super) enum Trouble {
    Unreadable(StoreError),
    Damaged {
        offset_bytes: u64,
        reason: String,
    },
    Unsupported(&'static str),
    /// An archive that holds more than a dump: what it holds.
    Several(&'static str),
    Stopped,
}

/// Clones are the same file: a layer has one, and whoever looks at the end another.
#[derive(Clone)]
pub(super) struct Source(Arc<Mutex<File>>);

struct File {
    stored_bytes: u64,
    ranges: mpsc::Receiver<Result<Bytes, StoreError>>,
    range: Bytes,
    offset_bytes: u64,
    sha256: digest::Context,
    hmac: Option<hmac::Context>,
    trouble: Option<Trouble>,
}

/// What the file is, read to its end.
pub(super) struct Whole {
    pub stored_bytes: u64,
    pub sha256: digest::Digest,
    pub hmac: Option<hmac::Tag>,
}

impl Source {
    pub fn new(stored_bytes: u64, ranges: mpsc::Receiver<Result<Bytes, StoreError>>) -> Self {
        Self(Arc::new(Mutex::new(File {
            stored_bytes,
            ranges,
            range: Bytes::new(),
            offset_bytes: 0,
            sha256: digest::Context::new(&digest::SHA256),
            hmac: None,
            trouble: None,
        })))
    }

    fn file(&self) -> MutexGuard<'_, File> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before the first byte is read.
    pub fn authenticate(&self, context: hmac::Context) {
        self.file().hmac = Some(context);
    }

    /// Remembers damage, unless something was wrong before.
    pub fn damaged(&self, reason: impl FnOnce() -> String) {
        let mut file = self.file();
        if file.trouble.is_none() {
            file.trouble = Some(Trouble::Damaged { offset_bytes: file.offset_bytes, reason: reason() });
        }
    }

    /// Remembers what we do not have, unless something was wrong before.
    pub fn unsupported(&self, what: &'static str) {
        self.file().trouble.get_or_insert(Trouble::Unsupported(what));
    }

    /// Remembers what an archive holds that is no one dump, unless something was wrong before.
    pub fn several(&self, what: &'static str) {
        self.file().trouble.get_or_insert(Trouble::Several(what));
    }

    pub fn take_trouble(&self) -> Option<Trouble> {
        self.file().trouble.take()
    }

    /// Reads what no layer wanted, and gives out the digests over everything.
    pub fn whole(mut self) -> io::Result<Whole> {
        io::copy(&mut self, &mut io::sink())?;
        let mut file = self.file();
        let sha256 = std::mem::replace(&mut file.sha256, digest::Context::new(&digest::SHA256)).finish();
        let hmac = file.hmac.take().map(hmac::Context::sign);
        Ok(Whole { stored_bytes: file.stored_bytes, sha256, hmac })
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file().read(buffer)
    }
}

impl File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.range.is_empty() {
            if self.offset_bytes == self.stored_bytes {
                return Ok(0);
            }
            let trouble = match self.ranges.blocking_recv() {
                Some(Ok(range)) => {
                    self.range = range;
                    continue;
                }
                Some(Err(error)) => Trouble::Unreadable(error),
                None => Trouble::Stopped,
            };
            self.trouble.get_or_insert(trouble);
            return Err(io::Error::other("the file cannot be read on"));
        }
        let length = buffer.len().min(self.range.len());
        self.range.copy_to_slice(&mut buffer[..length]);
        self.offset_bytes += length as u64;
        self.sha256.update(&buffer[..length]);
        if let Some(context) = &mut self.hmac {
            context.update(&buffer[..length]);
        }
        Ok(length)
    }
}
