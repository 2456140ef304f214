//! Extent buffers that go round between the receiver and the readers.
//!
//! A reader takes the received bytes by swapping vectors; what it gives in return
//! is used for the next extent, so that a backup of any size allocates a handful.

use std::sync::Mutex;

use backstay_model::parts::EXTENT_SIZE;

/// As many buffers are kept; more are freed.
const KEPT: usize = 8;

#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// An empty buffer with room for `length` bytes, an extent at most: what waits
    /// must not take more memory than it holds.
    pub(super) fn take(&self, length: u64) -> Vec<u8> {
        if length < u64::from(EXTENT_SIZE) {
            return Vec::with_capacity(length as usize);
        }
        let kept = self.0.lock().ok().and_then(|mut kept| kept.pop());
        kept.unwrap_or_else(|| Vec::with_capacity(EXTENT_SIZE as usize))
    }

    /// Takes a buffer back, if it is one that is worth keeping.
    pub(super) fn give(&self, mut buffer: Vec<u8>) {
        let worth_keeping = (EXTENT_SIZE as usize..=2 * EXTENT_SIZE as usize).contains(&buffer.capacity());
        if let Ok(mut kept) = self.0.lock()
            && worth_keeping
            && kept.len() < KEPT
        {
            buffer.clear();
            kept.push(buffer);
        }
    }
}
