//! How much log a server may hold for its archive on its own disk: the leash.
//!
//! Invariant: nothing is ever given up where nobody chose that. Without a choice, the
//! answer to a server that holds too much is a louder word.

use serde::{Deserialize, Serialize};

/// What is done when a server holds as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMaxLag {
    /// It is told, and the server goes on holding.
    #[default]
    Alert,
    /// The slot is dropped, and the archive goes on behind what it held.
    Gap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LagLimit {
    pub max_bytes: u64,
    pub on_max_lag: OnMaxLag,
}

/// How what a server holds stands to what it may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LagLevel {
    #[default]
    Within,
    /// More than half of it.
    Half,
    /// All of it, or more.
    Reached,
}

impl LagLimit {
    /// Log goes to and fro in segments: a limit of less than this many would be reached by
    /// an archive that does its best.
    pub const MIN_SEGMENTS: u64 = 2;

    /// The same, and never less than an archive needs that does its best.
    pub fn for_segments(self, segment_bytes: u64) -> LagLimit {
        LagLimit { max_bytes: self.max_bytes.max(Self::MIN_SEGMENTS * segment_bytes), ..self }
    }

    pub fn level(&self, held_bytes: u64) -> LagLevel {
        match held_bytes {
            held if held >= self.max_bytes => LagLevel::Reached,
            held if held > self.max_bytes / 2 => LagLevel::Half,
            _ => LagLevel::Within,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_limit_is_a_warning_and_less_than_two_segments_is_none() {
        let limit = LagLimit { max_bytes: 100, on_max_lag: OnMaxLag::default() };
        assert_eq!(limit.on_max_lag, OnMaxLag::Alert);
        let levels = [0, 50, 51, 99, 100, u64::MAX].map(|held| limit.level(held));
        use LagLevel::{Half, Reached, Within};
        assert_eq!(levels, [Within, Within, Half, Half, Reached, Reached]);
        assert_eq!(limit.for_segments(80).max_bytes, 160);
        assert_eq!(limit.for_segments(16).max_bytes, 100);
    }
}
