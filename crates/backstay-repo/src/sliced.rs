//! Sliced streams: a file whose length is not known before its end, and whose content moves.
//!
//! In the snapshot of a server a value that grew moves everything behind it, so that nothing lies
//! where the parent has it. Such a stream is cut where its own bytes say (FastCDC), into *slices*
//! of some 400 bytes, and each is looked for among those of the parent, in whose order most of them
//! come again. What is new lies one behind the other in *trays* of 1 MiB, and the *recipe* says
//! which parts of which trays make up the stream.
//!
//! Trays, the hashes of their slices, and the recipe are files of the backup like all others: so
//! a stream needs nothing of the stored format, and a tray of the parent is carried on by the
//! reference that an unchanged file is (`docs/format.md`, section 12).
//!
//! Invariant: a backup holds every tray that its recipe names, whole.

mod parent;
mod place;
mod recipe;
mod source;

pub use place::{SlicedPlace, SlicedTarget};
pub use recipe::About;
pub use source::{GivenUp, SlicedParent, SlicedSource};

use crate::seal::SealKeys;

/// Slices have so many bytes: at least, mostly, and at most. One that holds five values of 80 bytes
/// is new when one of them is; its hash is a fortieth of it (decision 26 has what others cost).
const SLICE_LEAST: usize = 128;
const SLICE_USUAL: usize = 360;
const SLICE_MOST: usize = 1024;
/// A tray is closed before it would be larger.
const TRAY_BYTES: usize = 1 << 20;
/// A part of the recipe is closed when it has reached this size.
const RECIPE_BYTES: usize = 1 << 20;
/// The unit in which files of a stream are compared and stored.
const BLOCK_SIZE: u32 = 64 << 10;

/// Enough that two slices with one hash are never seen: they are keyed, so that nobody can make
/// them, and a hundred million meet a hundred thousand at a time.
const HASH_BYTES: usize = 10;

type SliceHash = [u8; HASH_BYTES];

fn hash(keys: &SealKeys, slice: &[u8]) -> SliceHash {
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(&keys.hash_block(slice)[..HASH_BYTES]);
    hash
}

/// A part of the stream: bytes of one tray.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    tray: u32,
    offset: u32,
    length: u32,
}

/// The names of what makes up one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Paths(String);

impl Paths {
    fn tray(&self, number: u32) -> String {
        format!("{}/tray-{number:08}", self.0)
    }

    fn slices(&self, number: u32) -> String {
        format!("{}/slices-{number:08}", self.0)
    }

    fn recipe(&self, number: u32) -> String {
        format!("{}/recipe-{number:08}", self.0)
    }

    fn about(&self) -> String {
        format!("{}/about", self.0)
    }

    /// The number of a tray, of the path of one.
    fn tray_of(&self, path: &str) -> Option<u32> {
        path.strip_prefix(&self.0)?.strip_prefix("/tray-")?.parse().ok()
    }
}

#[cfg(test)]
mod tests;
