//! Which stretches of a file are written, for sending each to the disk when it is whole.
//!
//! A file is written by several threads in the order of the packs. What is sent too early
//! goes to the disk with holes, and the pages that come later cost a write each: a quarter of
//! the time of a restore, where 4 % of the pages lie elsewhere.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a stretch, unless the file is so large that there would be too many.
const STRETCH_BYTES: u64 = 8 << 20;
/// Stretches of one file at most.
const STRETCHES_MAX: u64 = 1024;
/// A file with fewer bytes is left to the kernel.
const FROM_BYTES: u64 = 1 << 20;

/// The bytes that each stretch of a file still lacks.
pub(super) struct Stretches {
    file_bytes: u64,
    stretch_bytes: u64,
    lacking: Box<[AtomicU64]>,
}

impl Stretches {
    pub fn of(file_bytes: u64) -> Self {
        // Whole pages, or those on the borders would go to the disk twice.
        let stretch_bytes = file_bytes.div_ceil(STRETCHES_MAX).max(1).next_multiple_of(STRETCH_BYTES);
        let count = if file_bytes < FROM_BYTES { 0 } else { file_bytes.div_ceil(stretch_bytes) };
        let range = |number| Self::range_of(number, stretch_bytes, file_bytes);
        let lacking = (0..count).map(range).map(|range| AtomicU64::new(range.end - range.start)).collect();
        Self { file_bytes, stretch_bytes, lacking }
    }

    fn range_of(number: u64, stretch_bytes: u64, file_bytes: u64) -> Range<u64> {
        number * stretch_bytes..((number + 1) * stretch_bytes).min(file_bytes)
    }

    fn range(&self, number: u64) -> Range<u64> {
        Self::range_of(number, self.stretch_bytes, self.file_bytes)
    }

    /// Bytes that were written, each once; calls `complete` with every stretch that is
    /// whole with them.
    pub fn written(&self, offset: u64, length: u64, mut complete: impl FnMut(Range<u64>)) {
        let mut at = offset;
        while at < offset + length {
            let number = at / self.stretch_bytes;
            let Some(lacking) = self.lacking.get(number as usize) else { return };
            let range = self.range(number);
            let here = range.end.min(offset + length).saturating_sub(at);
            if here == 0 {
                return;
            }
            if lacking.fetch_sub(here, Ordering::AcqRel) == here {
                complete(range);
            }
            at += here;
        }
    }

    /// Nothing more will be written: calls `begun` with every stretch that is not whole,
    /// because parts of it are zeros that the file has anyway.
    pub fn rest(&self, mut begun: impl FnMut(Range<u64>)) {
        for (number, lacking) in (0..).zip(&self.lacking) {
            let (range, lacking) = (self.range(number), lacking.load(Ordering::Acquire));
            if lacking != 0 && lacking != range.end - range.start {
                begun(range);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The begin and the end of each.
    fn written(stretches: &Stretches, offset: u64, length: u64) -> Vec<(u64, u64)> {
        let mut complete = Vec::new();
        stretches.written(offset, length, |range| complete.push((range.start, range.end)));
        complete
    }

    #[test]
    fn a_stretch_is_sent_when_its_last_byte_is_there_in_any_order() {
        let stretches = Stretches::of(20 * MIB);
        assert_eq!(written(&stretches, 6 * MIB, 4 * MIB), []);
        assert_eq!(written(&stretches, 0, 6 * MIB - 1), []);
        assert_eq!(written(&stretches, 6 * MIB - 1, 1), [(0, 8 * MIB)]);
        assert_eq!(written(&stretches, 10 * MIB, 10 * MIB), [(8 * MIB, 16 * MIB), (16 * MIB, 20 * MIB)]);
        stretches.rest(|range| panic!("{range:?} was sent before"));
    }

    #[test]
    fn at_the_end_what_has_zeros_in_it_is_sent_and_what_is_nothing_else_is_not() {
        let stretches = Stretches::of(24 * MIB);
        assert_eq!(written(&stretches, 8 * MIB, MIB), []);
        let mut begun = Vec::new();
        stretches.rest(|range| begun.push((range.start, range.end)));
        assert_eq!(begun, [(8 * MIB, 16 * MIB)]);
    }

    #[test]
    fn a_small_file_is_left_alone_and_a_huge_one_has_few_stretches() {
        let small = Stretches::of(MIB - 1);
        assert_eq!(written(&small, 0, MIB - 1), []);
        let huge = Stretches::of((1 << 33) + 8192);
        assert!(huge.lacking.len() <= 1024 && huge.stretch_bytes.is_multiple_of(STRETCH_BYTES));
        let huge = Stretches::of(1 << 40);
        assert_eq!(huge.lacking.len(), 1024);
        assert_eq!(written(&huge, (1 << 40) - (1 << 30), 1 << 30), [((1 << 40) - (1 << 30), 1 << 40)]);
    }
}
