//! How many bytes of each pack a backup uses, kept by differences to the parent.
//!
//! What it is for: finding packs that a backup no longer needs, and how much a
//! restore reads in vain. A pack leaves the books only when nothing of it is used
//! *and* a walk over the new maps has confirmed it (`writer::finish`).

use std::collections::HashMap;

use crate::map::{Block, Place, SessionIndex};

/// Bytes that came into use or fell out of it, by pack.
#[derive(Debug, Default, Clone)]
pub struct UsageChange(HashMap<(SessionIndex, u32), i64>);

impl UsageChange {
    pub fn gain(&mut self, place: &Place, bytes: u32) {
        *self.0.entry((place.session, place.pack)).or_default() += i64::from(bytes);
    }

    pub fn lose(&mut self, block: &Block, bytes: u32) {
        if let Block::Stored { place, .. } = block {
            *self.0.entry((place.session, place.pack)).or_default() -= i64::from(bytes);
        }
    }

    pub fn merge(&mut self, other: &UsageChange) {
        for (pack, bytes) in &other.0 {
            *self.0.entry(*pack).or_default() += bytes;
        }
    }

    pub fn of(&self, pack: (SessionIndex, u32)) -> i64 {
        self.0.get(&pack).copied().unwrap_or(0)
    }
}

/// Frames that a restore reads over the frames that a fresh full backup would have.
///
/// Estimated from the live share `x` of each pack: a frame of `k` blocks must be
/// read unless all of them are dead, which happens with `(1 - x)^k` when the dead
/// ones are scattered. Clustered changes are overestimated, which makes a rebase
/// come sooner and never later than needed.
pub fn restore_amplification(
    packs: impl IntoIterator<Item = (u64, u64)>,
    frame_size: u32,
    block_size: u32,
) -> f64 {
    let frame = f64::from(frame_size);
    let blocks_per_frame = (frame / f64::from(block_size)).max(1.0);
    let (mut read, mut fresh) = (0.0, 0.0);
    for (raw_bytes, live_bytes) in packs {
        if raw_bytes == 0 {
            continue;
        }
        let share = (live_bytes as f64 / raw_bytes as f64).clamp(0.0, 1.0);
        read += raw_bytes as f64 / frame * (1.0 - (1.0 - share).powf(blocks_per_frame));
        fresh += live_bytes as f64 / frame;
    }
    if fresh < 1.0 { 1.0 } else { (read / fresh).max(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_backup_reads_what_it_must_and_a_worn_one_more() {
        let fresh = restore_amplification([(100 << 20, 100 << 20)], 128 << 10, 8 << 10);
        assert!((fresh - 1.0).abs() < 1e-9, "{fresh}");
        let week = 0.96f64.powi(7);
        let worn = restore_amplification(
            [(1000 << 20, (1_048_576_000.0 * week) as u64), (250 << 20, 250 << 20)],
            128 << 10,
            8 << 10,
        );
        assert!((1.2..1.4).contains(&worn), "seven days of 4 % a day: {worn}");
        assert!((restore_amplification([], 128 << 10, 8 << 10) - 1.0).abs() < 1e-9);
    }
}
