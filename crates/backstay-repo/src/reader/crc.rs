//! The CRC-32C of a file whose pieces arrive in any order.

use std::collections::BTreeMap;

use crc_fast::{CrcAlgorithm, checksum, checksum_combine};

/// Folds pieces as soon as they touch; the others wait. What waits is bounded by
/// the window of the restore, not by the file.
#[derive(Debug, Default)]
pub struct CrcFold {
    crc: u32,
    end: u64,
    waiting: BTreeMap<u64, (u32, u64)>,
}

impl CrcFold {
    pub fn add(&mut self, offset: u64, crc: u32, length: u64) {
        self.waiting.insert(offset, (crc, length));
        while let Some((crc, length)) = self.waiting.remove(&self.end) {
            self.crc = if self.end == 0 {
                crc
            } else {
                checksum_combine(CrcAlgorithm::Crc32Iscsi, self.crc.into(), crc.into(), length) as u32
            };
            self.end += length;
        }
    }

    /// The checksum, when everything up to `size` has come.
    pub fn finish(&self, size: u64) -> Option<u32> {
        (self.end == size && self.waiting.is_empty()).then_some(self.crc)
    }
}

pub fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

const ZEROS: [u8; 8192] = [0; 8192];

/// The checksum of `length` zero bytes, by doubling.
pub fn crc32c_of_zeros(length: u64) -> u32 {
    let combine = |a: u32, b: u32, length: u64| {
        checksum_combine(CrcAlgorithm::Crc32Iscsi, a.into(), b.into(), length) as u32
    };
    let mut result = crc32c(&ZEROS[..(length % ZEROS.len() as u64) as usize]);
    let (mut unit, mut unit_length) = (crc32c(&ZEROS), ZEROS.len() as u64);
    let mut units = length / unit_length;
    while units > 0 {
        if units & 1 == 1 {
            result = combine(result, unit, unit_length);
        }
        unit = combine(unit, unit, unit_length);
        unit_length *= 2;
        units >>= 1;
    }
    result
}

/// Joins the checksum of a block of one certain length to that of what stands before
/// it, at a hundredth of the price of joining any two lengths: what so many bytes do to
/// the checksum before them is linear, so the effect on each of its bits is enough.
pub struct CrcJoin {
    length: u32,
    columns: [u32; 32],
}

impl CrcJoin {
    pub fn behind(length: u32) -> Self {
        let column =
            |bit: usize| checksum_combine(CrcAlgorithm::Crc32Iscsi, 1 << bit, 0, u64::from(length)) as u32;
        Self { length, columns: std::array::from_fn(column) }
    }

    /// Of the blocks that it joins, in bytes.
    pub fn length(&self) -> u32 {
        self.length
    }

    pub fn join(&self, before: u32, block: u32) -> u32 {
        let moved = self
            .columns
            .iter()
            .enumerate()
            .fold(0, |sum, (bit, column)| sum ^ (column & 0u32.wrapping_sub(before >> bit & 1)));
        moved ^ block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_block_by_block_makes_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..9 * 8192u64).map(|n| ((n * n) >> 9) as u8).collect();
        let join = CrcJoin::behind(8192);
        let whole = bytes.chunks(8192).map(crc32c).reduce(|before, block| join.join(before, block));
        assert_eq!(whole, Some(crc32c(&bytes)));
    }

    #[test]
    fn zeros_by_doubling_are_the_zeros_read() {
        for length in [0u64, 1, 100, 8191, 8192, 8193, 65536, 100_000, 1 << 20] {
            assert_eq!(crc32c_of_zeros(length), crc32c(&vec![0; length as usize]), "{length}");
        }
    }

    #[test]
    fn pieces_fold_in_any_order() {
        let bytes: Vec<u8> = (0..50_000u32).map(|n| ((n * n) >> 7) as u8).collect();
        let cuts = [0usize, 1, 8192, 8192 * 3, 40_000, 50_000];
        let mut pieces: Vec<_> = cuts.windows(2).map(|cut| (cut[0], cut[1])).collect();
        pieces.reverse();
        pieces.swap(0, 2);
        let mut fold = CrcFold::default();
        for (start, end) in pieces {
            assert_eq!(fold.finish(50_000), None);
            fold.add(start as u64, crc32c(&bytes[start..end]), (end - start) as u64);
        }
        assert_eq!(fold.finish(50_000), Some(crc32c(&bytes)));
        assert_eq!(fold.finish(50_001), None);
    }
}
