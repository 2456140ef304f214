//! The head of an `INCREMENTAL.*` file of PostgreSQL 17, and what it says about
//! the true file.
//!
//! Such a file lists the blocks that follow in it and a *truncation length*. The
//! true file is made of them and of the file before: a block that is not listed
//! is taken from the file before while it lies below the truncation length and
//! the file before has it; otherwise it is zero. The true file ends behind the
//! truncation length or behind the last listed block, whichever is later. That is
//! what `pg_combinebackup` does, and what [`IncrementalHead::origin_after`] says.

use crate::{Error, Result};

/// First four bytes, in the byte order of the server's machine, which the list
/// that follows shares; a machine of the other order is refused by it.
const MAGIC: u32 = 0xd3ae_1f0d;

/// Magic, number of blocks, truncation length.
const FIXED_LENGTH: usize = 12;

/// Where a run of unlisted blocks comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Parent,
    Zeros,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct IncrementalHead {
    /// Listed blocks, ascending.
    pub blocks: Vec<u32>,
    pub truncation_length: u32,
    /// Bytes before the first block.
    pub length: usize,
}

impl IncrementalHead {
    /// Parses the head once `bytes` holds all of it; before that, the length that
    /// is needed to get on. `segment_blocks`: what one file of a relation can hold.
    pub(super) fn parse(bytes: &[u8], block_size: u32, segment_blocks: u32) -> Result<Result<Self, usize>> {
        let Some(fixed) = bytes.get(..FIXED_LENGTH) else {
            return Ok(Err(FIXED_LENGTH));
        };
        let word = |bytes: &[u8], index: usize| -> u32 {
            let at = index * 4;
            bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
        };
        if word(fixed, 0) != MAGIC {
            return Err(malformed("does not begin as one"));
        }
        let count = word(fixed, 1);
        if count > segment_blocks {
            return Err(malformed("lists more blocks than a segment has"));
        }
        let list_length = FIXED_LENGTH + 4 * count as usize;
        // Blocks, when there are any, begin at a multiple of their size.
        let length = match count {
            0 => list_length,
            _ => list_length.next_multiple_of(block_size as usize),
        };
        if bytes.len() < length {
            return Ok(Err(length));
        }
        let blocks: Vec<u32> = (0..count as usize).map(|index| word(bytes, 3 + index)).collect();
        if !blocks.is_sorted_by(|a, b| a < b) || blocks.last().is_some_and(|last| *last >= segment_blocks) {
            return Err(malformed("lists its blocks out of order"));
        }
        // Some servers of version 17 measure the whole relation from here on; what lies
        // behind this file is in the files that follow it.
        let truncation_length = word(fixed, 2).min(segment_blocks);
        Ok(Ok(Self { blocks, truncation_length, length }))
    }

    /// Blocks of the true file.
    pub(super) fn true_blocks(&self) -> u32 {
        self.truncation_length.max(self.blocks.last().map_or(0, |last| last + 1))
    }

    /// What an incremental file of this head must be long.
    pub(super) fn file_length(&self, block_size: u32) -> u64 {
        self.length as u64 + self.blocks.len() as u64 * u64::from(block_size)
    }

    /// Where the unlisted block `block` comes from, and the first block behind it
    /// for which that may be another place. `parent_blocks`: whole blocks of the
    /// file before.
    pub(super) fn origin_after(&self, block: u32, parent_blocks: u32) -> (Origin, u32) {
        let kept = self.truncation_length.min(parent_blocks);
        if block < kept { (Origin::Parent, kept) } else { (Origin::Zeros, u32::MAX) }
    }
}

fn malformed(reason: &str) -> Error {
    Error::Protocol { reason: format!("an incremental file {reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u32 = 8192;
    const SEGMENT: u32 = 131_072;

    fn head(blocks: &[u32], truncation_length: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [MAGIC, blocks.len() as u32, truncation_length].iter().chain(blocks) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        if !blocks.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        }
        bytes
    }

    #[test]
    fn a_head_asks_for_what_it_still_needs() {
        let bytes = head(&[3, 5], 10);
        assert_eq!(IncrementalHead::parse(&[], BLOCK, SEGMENT).unwrap(), Err(12));
        assert_eq!(IncrementalHead::parse(&bytes[..12], BLOCK, SEGMENT).unwrap(), Err(8192));
        let parsed = IncrementalHead::parse(&bytes, BLOCK, SEGMENT).unwrap().unwrap();
        assert_eq!((parsed.blocks.as_slice(), parsed.length), ([3, 5].as_slice(), 8192));
        assert_eq!(parsed.file_length(BLOCK), 3 * 8192);
        let empty = IncrementalHead::parse(&head(&[], 7), BLOCK, SEGMENT).unwrap().unwrap();
        assert_eq!((empty.length, empty.true_blocks(), empty.file_length(BLOCK)), (12, 7, 12));
    }

    #[test]
    fn a_list_that_just_fills_a_block_needs_no_padding_block() {
        let blocks: Vec<u32> = (0..2045).collect();
        let parsed = IncrementalHead::parse(&head(&blocks, 1), BLOCK, SEGMENT).unwrap().unwrap();
        assert_eq!((parsed.length, parsed.true_blocks()), (8192, 2045));
    }

    #[test]
    fn unlisted_blocks_come_from_the_parent_or_are_zero() {
        let parsed = IncrementalHead::parse(&head(&[12], 10), BLOCK, SEGMENT).unwrap().unwrap();
        assert_eq!(parsed.true_blocks(), 13);
        // The file before is longer: below the truncation length it is used.
        assert_eq!(parsed.origin_after(0, 40), (Origin::Parent, 10));
        assert_eq!(parsed.origin_after(11, 40), (Origin::Zeros, u32::MAX));
        // The file before is shorter.
        assert_eq!(parsed.origin_after(3, 4), (Origin::Parent, 4));
        assert_eq!(parsed.origin_after(4, 4), (Origin::Zeros, u32::MAX));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(IncrementalHead::parse(&[0; 12], BLOCK, SEGMENT).is_err());
        assert!(IncrementalHead::parse(&head(&[5, 3], 9), BLOCK, SEGMENT).is_err());
        for count in [SEGMENT + 1, u32::MAX] {
            let mut many = head(&[], 9);
            many[4..8].copy_from_slice(&count.to_le_bytes());
            assert!(IncrementalHead::parse(&many, BLOCK, SEGMENT).is_err());
        }
        assert!(IncrementalHead::parse(&head(&[SEGMENT], 9), BLOCK, SEGMENT).is_err());
        assert!(IncrementalHead::parse(&head(&[SEGMENT - 1], 9), BLOCK, SEGMENT).is_ok());
    }

    #[test]
    fn a_length_that_counts_the_files_behind_ends_with_the_segment() {
        // The first file of a relation that was cut from four files to three and a bit.
        let parsed = IncrementalHead::parse(&head(&[7], 3 * SEGMENT + 5), BLOCK, SEGMENT).unwrap().unwrap();
        assert_eq!(parsed.true_blocks(), SEGMENT);
        assert_eq!(parsed.origin_after(8, SEGMENT), (Origin::Parent, SEGMENT));
    }
}
