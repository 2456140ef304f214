//! Buffers that go back to the system when they are dropped.
//!
//! The C library keeps a block of up to 32 MiB, once it was freed, for the thread that had it,
//! and several threads read large spans in turn: 150 MiB were held for two of 16. A larger
//! block goes back at once, and what is not touched of it costs nothing.

const GIVEN_BACK_BYTES: usize = 33 << 20;
const LARGE_BYTES: usize = 1 << 20;

/// An empty one with room for so many bytes.
pub fn large_buffer(length: usize) -> Vec<u8> {
    Vec::with_capacity(if length < LARGE_BYTES { length } else { length.max(GIVEN_BACK_BYTES) })
}
