//! Bytes that come from a task, for a reader that blocks: of `tar`, which reads no other way.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Ends when the sender is gone. Only for threads that may block.
pub(crate) struct Chunks {
    chunks: mpsc::Receiver<Bytes>,
    left: Bytes,
}

impl Chunks {
    pub fn of(chunks: mpsc::Receiver<Bytes>) -> Self {
        Self { chunks, left: Bytes::new() }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.left = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.left.len());
        self.left.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
