//! Blocks as frames of zstd, each with its checksum: `zstd -d` reads them as one stream.

use std::io::{self, Read};

use zstd::bulk::Compressor;
use zstd::stream::read::Decoder;

pub(super) const LEVEL_LEAST: i32 = 1;
pub(super) const LEVEL_MOST: i32 = 22;
/// Of 64 MB that `pg_dump` wrote of rows of numbers, times, UUIDs and JSON, and of 3 MB of
/// prose, in blocks of 1 MiB, MB/s by one thread and how many times smaller: level 1: 375,
/// 5.30 and 91, 3.43; level 2: 259, 5.24 and 54, 3.67; level 3: 183, 5.05 and 38, 3.85;
/// gzip at level 6: 61, 5.20 and 26, 3.70. Rows want the first and prose the third, and a
/// database has both: where nobody chose a level, the blocks choose between these two.
const LEVELS_TRIED: [i32; 2] = [1, 3];
/// One block in so many is packed at both levels, and the smaller of them decides on those
/// that follow: a sixteenth of the work of the dearer level, and a table of other content
/// is noticed within 16 MiB.
const BLOCKS_TO_A_TRIAL: u32 = 16;
/// The largest window that a frame may ask for: what `zstd --ultra -22` and `--long`
/// write, 128 MiB. More would let a file decide how much memory we take.
const WINDOW_LOG_MAX: u32 = 27;

pub(super) struct FrameWriter {
    /// One, or those that are tried against each other.
    compressors: Vec<Compressor<'static>>,
    chosen: usize,
    blocks: u32,
}

impl FrameWriter {
    /// At the level, or at whichever of two suits the blocks.
    pub fn new(level: Option<i32>) -> io::Result<Self> {
        let levels = match &level {
            Some(level) => std::slice::from_ref(level),
            None => &LEVELS_TRIED[..],
        };
        let compressor = |level: &i32| {
            let mut compressor = Compressor::new(*level)?;
            compressor.include_checksum(true)?;
            Ok(compressor)
        };
        let compressors = levels.iter().map(compressor).collect::<io::Result<_>>()?;
        Ok(Self { compressors, chosen: 0, blocks: 0 })
    }

    pub fn pack(&mut self, raw: &[u8]) -> io::Result<Vec<u8>> {
        let is_trial = self.compressors.len() > 1 && self.blocks.is_multiple_of(BLOCKS_TO_A_TRIAL);
        self.blocks = self.blocks.wrapping_add(1);
        let mut packed = self.compressors[self.chosen].compress(raw)?;
        if !is_trial {
            return Ok(packed);
        }
        for (number, compressor) in self.compressors.iter_mut().enumerate() {
            if number != self.chosen {
                let other = compressor.compress(raw)?;
                if other.len() < packed.len() {
                    (packed, self.chosen) = (other, number);
                }
            }
        }
        Ok(packed)
    }
}

pub(super) fn reader(packed: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let mut decoder = Decoder::new(packed)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(Box::new(decoder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_content_is_packed_at_the_level_that_makes_it_smaller_and_a_change_is_noticed() {
        // Rows that differ in digits, and words whose order is that of no table.
        let rows = |block: u32| -> Vec<u8> {
            let row =
                |n: u32| format!("{}\t{}\t{}\tpending\n", n, n.wrapping_mul(2_654_435_761) % 100_000, n / 7);
            (0..20_000).flat_map(|n| row(block * 20_000 + n).into_bytes()).collect()
        };
        let mut state = 7u32;
        let mut prose = || -> Vec<u8> {
            let mut text = String::new();
            while text.len() < 400_000 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let word = (state >> 20) % 900;
                text.push_str(&format!(
                    "{}{} ",
                    ["restore", "table", "the", "of", "proof"][word as usize % 5],
                    word * word
                ));
            }
            text.into_bytes()
        };
        let best = |raw: &[u8]| {
            LEVELS_TRIED.map(|level| FrameWriter::new(Some(level)).unwrap().pack(raw).unwrap().len())
        };
        let mut writer = FrameWriter::new(None).unwrap();
        let mut chosen = Vec::new();
        for block in 0..4 * BLOCKS_TO_A_TRIAL {
            let raw = if block < 2 * BLOCKS_TO_A_TRIAL { rows(block) } else { prose() };
            let packed = writer.pack(&raw).unwrap();
            let smallest = best(&raw).into_iter().min().unwrap();
            if block % BLOCKS_TO_A_TRIAL == 0 {
                assert_eq!(packed.len(), smallest, "block {block}");
            }
            let mut back = Vec::new();
            reader(Box::new(io::Cursor::new(packed))).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == raw, "block {block}");
            chosen.push(writer.chosen);
        }
        assert!(chosen.contains(&0) && chosen.contains(&1), "one level was best for all: {chosen:?}");
    }
}
