//! What a thread writes, as chunks that an async task takes: a few ahead, no more.
//!
//! Makers of archives write into files and pipes as they please; whoever compresses and
//! stores their bytes waits for a whole chunk.

use std::io::{self, Write};
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::{Error, Result};

const CHUNK: usize = 256 << 10;
const CHUNKS_AHEAD: usize = 4;

/// A path and what the system said of it.
pub(in crate::postgres) type Failed = (PathBuf, io::Error);
pub(in crate::postgres) type Written = mpsc::Receiver<Result<Bytes>>;

/// The side that writes. What was not flushed is never received.
pub(in crate::postgres) struct ChunkWriter {
    sender: mpsc::Sender<Result<Bytes>>,
    chunk: BytesMut,
}

/// Both sides.
pub(in crate::postgres) fn chunk_writer() -> (ChunkWriter, Written) {
    let (sender, written) = mpsc::channel(CHUNKS_AHEAD);
    (ChunkWriter { sender, chunk: BytesMut::with_capacity(CHUNK) }, written)
}

impl ChunkWriter {
    /// Writes what `make` makes; its failure is the last that the receiver gets. A receiver
    /// that has gone away ends the work, and nobody is told.
    pub(in crate::postgres) fn fill(mut self, make: impl FnOnce(&mut Self) -> Result<(), Failed>) {
        if let Err((path, source)) = make(&mut self)
            && source.kind() != io::ErrorKind::BrokenPipe
        {
            // An error here means the same as a broken pipe.
            let _ = self.sender.blocking_send(Err(Error::Read { path, source }));
        }
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, BytesMut::with_capacity(CHUNK)).freeze();
        self.sender.blocking_send(Ok(chunk)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}
