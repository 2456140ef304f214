//! The CRC-32C of a file of which pieces are known.

use std::collections::BTreeMap;

use crc_fast::{CrcAlgorithm, checksum};

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
            self.crc = if self.end == 0 { crc } else { join(self.crc, crc, length) };
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
    let mut result = crc32c(&ZEROS[..(length % ZEROS.len() as u64) as usize]);
    let (mut unit, mut unit_length) = (crc32c(&ZEROS), ZEROS.len() as u64);
    let mut units = length / unit_length;
    while units > 0 {
        if units & 1 == 1 {
            result = join(result, unit, unit_length);
        }
        unit = join(unit, unit, unit_length);
        unit_length *= 2;
        units >>= 1;
    }
    result
}

/// The polynomial of CRC-32C (Castagnoli), its lowest term in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `x` to the power of 8, 16, 32 and so on, modulo the polynomial: what one, two, four
/// zero bytes multiply the checksum before them by.
const ZERO_BYTES: [u32; 64] = {
    // x to the power of 8, as the highest bit stands for 1.
    let mut powers = [1 << (31 - 8); 64];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = multiply(powers[at - 1], powers[at - 1]);
        at += 1;
    }
    powers
};

/// The product of two polynomials, modulo that of CRC-32C.
const fn multiply(a: u32, b: u32) -> u32 {
    let (mut product, mut shifted, mut bit) = (0, b, 1u32 << 31);
    while bit != 0 {
        product ^= if a & bit == 0 { 0 } else { shifted };
        shifted = (shifted >> 1) ^ if shifted & 1 == 0 { 0 } else { POLYNOMIAL };
        bit >>= 1;
    }
    product
}

/// The checksum of two stretches, the second of which has `length` bytes.
///
/// The library's own way squares matrices and takes as long as the checksum of 100 KiB,
/// which a restore of scattered pages pays for each of them; this takes a multiplication
/// for each bit of the length.
pub fn join(before: u32, behind: u32, length: u64) -> u32 {
    let moved = (0..u64::BITS - length.leading_zeros())
        .filter(|bit| length >> bit & 1 == 1)
        .fold(before, |moved, bit| multiply(ZERO_BYTES[bit as usize], moved));
    moved ^ behind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_stretch_by_stretch_makes_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..9 * 8192u64 + 77).map(|n| ((n * n) >> 9) as u8).collect();
        for length in [1, 100, 4096, 8192, bytes.len() - 1, bytes.len()] {
            let (first, rest) = bytes.split_at(length);
            let whole = rest
                .chunks(length)
                .fold(crc32c(first), |before, stretch| join(before, crc32c(stretch), stretch.len() as u64));
            assert_eq!(whole, crc32c(&bytes), "{length}");
        }
    }

    #[test]
    fn joining_agrees_with_the_library_at_every_length() {
        for length in (0..64).map(|bit| 1 << bit).chain([0, 3, 8191, 0x1234_5678_9abc, u64::MAX]) {
            let expected =
                crc_fast::checksum_combine(CrcAlgorithm::Crc32Iscsi, 0x9e37_79b9, 0x7f4a_7c15, length);
            assert_eq!(u64::from(join(0x9e37_79b9, 0x7f4a_7c15, length)), expected, "{length}");
        }
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
