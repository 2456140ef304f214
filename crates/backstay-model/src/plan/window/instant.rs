//! An instant that nobody chose, for a drill.

use jiff::Timestamp;

use crate::lsn::TimelineId;
use crate::status::RecoveryWindow;

/// An instant behind the beginning of a window and before its end, each as likely as any
/// other, with the timeline of that window; `chance` is a random number. Nothing where no
/// window has an inside.
///
/// The end itself is left out: it is the latest state, and a time names it only as long as
/// nothing has been committed since.
pub fn any_instant(windows: &[RecoveryWindow], chance: u64) -> Option<(TimelineId, Timestamp)> {
    let with_inside = windows.iter().filter_map(|window| {
        let (from, length) = inside(window)?;
        Some((window.timeline?, from, length))
    });
    let all: u64 = with_inside.clone().map(|(_, _, length)| length).fold(0, u64::saturating_add);
    let mut left = chance.checked_rem(all)?;
    for (timeline, from, length) in with_inside {
        if left < length {
            let at = from.checked_add(i64::try_from(left).ok()?)?;
            return Some((timeline, Timestamp::from_microsecond(at).ok()?));
        }
        left -= length;
    }
    None
}

/// The first microsecond within it, and how many there are: PostgreSQL counts no finer.
fn inside(window: &RecoveryWindow) -> Option<(i64, u64)> {
    let is_between = window.from.subsec_nanosecond().rem_euclid(1000) != 0;
    let from = window.from.as_microsecond() + i64::from(is_between);
    let length = u64::try_from(window.to.as_microsecond().checked_sub(from)?).ok();
    Some((from, length.filter(|length| *length > 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(timeline: u32, from: &str, to: &str) -> RecoveryWindow {
        RecoveryWindow {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            timeline: Some(TimelineId(timeline)),
            from_position: None,
            to_position: None,
        }
    }

    #[test]
    fn every_instant_lies_within_a_window_and_every_window_has_its_share() {
        let windows = [
            window(1, "2026-11-21T00:00:00Z", "2026-11-21T00:00:10Z"),
            window(1, "2026-11-21T01:00:00Z", "2026-11-21T01:00:00Z"),
            window(2, "2026-11-21T02:00:00Z", "2026-11-21T02:00:30Z"),
        ];
        let second = 1_000_000;
        for (chance, timeline, instant) in [
            (0, 1, "2026-11-21T00:00:00Z"),
            (10 * second - 1, 1, "2026-11-21T00:00:09.999999Z"),
            (10 * second, 2, "2026-11-21T02:00:00Z"),
            (40 * second - 1, 2, "2026-11-21T02:00:29.999999Z"),
            (40 * second, 1, "2026-11-21T00:00:00Z"),
        ] {
            let found = any_instant(&windows, chance).unwrap();
            assert_eq!(found, (TimelineId(timeline), instant.parse().unwrap()), "{chance}");
        }
        let between = window(1, "2026-11-21T00:00:00.0000001Z", "2026-11-21T00:00:01Z");
        let found = any_instant(&[between], 0).unwrap();
        assert_eq!(found.1, "2026-11-21T00:00:00.000001Z".parse().unwrap());
        // The ends of backups without log behind them are points.
        assert_eq!(any_instant(&windows[1..2], 7), None);
        assert_eq!(any_instant(&[], 7), None);
        let unknown = RecoveryWindow { timeline: None, ..windows[0].clone() };
        assert_eq!(any_instant(&[unknown], 7), None);
    }
}
