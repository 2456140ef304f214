//! How much log the server holds for the archive, and when that is worth a word.

use backstay_model::{LagLevel, LagLimit, OnMaxLag};

use super::{ArchiveEvent, ArchiveWatcher};

/// Says it when a level is reached that was not, and when all is well again.
pub(super) struct Lag<'a> {
    watcher: &'a dyn ArchiveWatcher,
    limit: Option<LagLimit>,
    told: LagLevel,
}

impl<'a> Lag<'a> {
    pub fn new(watcher: &'a dyn ArchiveWatcher, limit: Option<LagLimit>) -> Self {
        Lag { watcher, limit, told: LagLevel::Within }
    }

    /// Of a server whose segments are that long.
    pub fn limit(&self, segment_bytes: u64) -> Option<LagLimit> {
        Some(self.limit?.for_segments(segment_bytes))
    }

    /// Whether that is more than half of what the server may hold.
    pub fn is_worth_a_word(&self, segment_bytes: u64, held_bytes: Option<u64>) -> bool {
        let level = self.limit(segment_bytes).zip(held_bytes).map(|(limit, held)| limit.level(held));
        level.is_some_and(|level| level > LagLevel::Within)
    }

    /// Whether the server is to be freed of it.
    pub fn see(&mut self, segment_bytes: u64, held_bytes: u64) -> bool {
        let Some(limit) = self.limit(segment_bytes) else { return false };
        let level = limit.level(held_bytes);
        if level > self.told || (level == LagLevel::Within && self.told != level) {
            self.watcher.see(ArchiveEvent::Lag { level, held_bytes, limit });
            self.told = level;
        }
        level == LagLevel::Reached && limit.on_max_lag == OnMaxLag::Gap
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<LagLevel>>);

    impl ArchiveWatcher for Told {
        fn see(&self, event: ArchiveEvent) {
            if let ArchiveEvent::Lag { level, .. } = event {
                self.0.lock().unwrap().push(level);
            }
        }
    }

    #[test]
    fn each_level_is_told_once_and_again_after_all_was_well() {
        use LagLevel::{Half, Reached, Within};
        let told = Told::default();
        let limit = LagLimit { max_bytes: 100, on_max_lag: OnMaxLag::Gap };
        let mut lag = Lag::new(&told, Some(limit));
        let frees: Vec<bool> =
            [10, 60, 99, 100, 70, 120, 50, 51, 0].into_iter().map(|held| lag.see(1, held)).collect();
        assert_eq!(frees, [false, false, false, true, false, true, false, false, false]);
        assert_eq!(*told.0.lock().unwrap(), [Half, Reached, Within, Half, Within]);
        let mut alerting = Lag::new(&told, Some(LagLimit { on_max_lag: OnMaxLag::Alert, ..limit }));
        assert!(!alerting.see(1, 1000) && !Lag::new(&told, None).see(1, u64::MAX));
    }
}
