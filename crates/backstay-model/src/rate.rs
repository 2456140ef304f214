//! A rate in bytes a second, as a person writes it, and the arithmetic that holds
//! bytes to it.
//!
//! A [`Pacer`] is told the time and says how long to wait: it owns no clock, so
//! that whoever uses it waits in his own way, without holding anything.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Classified, ErrorKind};
use crate::size::ByteSize;

/// What may pass at once after a time of rest. Short, so that a rate holds for a
/// network whose neighbours notice a second of silence.
const BURST: Duration = Duration::from_millis(250);

/// Below this a rate is a slip of the pen: `50` where `50MiB` was meant.
const LEAST_BYTES_PER_SECOND: u64 = 1 << 10;

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a rate of at least 1KiB a second, such as \"50MiB\"")]
pub struct RateError(String);

impl Classified for RateError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRate(NonZeroU64);

impl ByteRate {
    /// `None` for nothing a second, which would be for ever.
    pub fn per_second(bytes: u64) -> Option<Self> {
        NonZeroU64::new(bytes).map(Self)
    }

    pub fn bytes_per_second(self) -> u64 {
        self.0.get()
    }

    /// How long so many bytes take.
    pub fn time_for(self, bytes: u64) -> Duration {
        let per_second = u128::from(self.0.get());
        let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl FromStr for ByteRate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let size = text.trim().strip_suffix("/s").unwrap_or(text).parse::<ByteSize>();
        size.ok()
            .filter(|size| size.0 >= LEAST_BYTES_PER_SECOND)
            .and_then(|size| Self::per_second(size.0))
            .ok_or_else(|| RateError(text.to_owned()))
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", ByteSize(self.0.get()))
    }
}

/// Gives every booking its place in time, in the order in which they are made: who
/// asks for little waits behind what was asked for before, and never for what was
/// asked for later. So nobody starves, and a large booking holds up nobody for
/// longer than its bytes take.
#[derive(Debug)]
pub struct Pacer {
    rate: ByteRate,
    /// Up to here everything that was booked has had its time.
    booked_until: Duration,
}

impl Pacer {
    pub fn new(rate: ByteRate) -> Self {
        Self { rate, booked_until: Duration::ZERO }
    }

    /// Books bytes at a moment of the caller's clock, which never goes back, and
    /// says how long to wait before they may pass. By any moment no more has passed
    /// than the rate allows, and the burst.
    pub fn book(&mut self, now: Duration, bytes: u64) -> Duration {
        let begin = self.booked_until.max(now.saturating_sub(BURST));
        self.booked_until = begin.saturating_add(self.rate.time_for(bytes));
        self.booked_until.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> ByteRate {
        text.parse().unwrap()
    }

    #[test]
    fn a_rate_reads_as_people_write_it_and_a_slip_is_refused() {
        assert_eq!(rate("50MiB").bytes_per_second(), 50 << 20);
        assert_eq!(rate(" 1.5 GiB/s").bytes_per_second(), 3 << 29);
        assert_eq!(rate("50MiB").to_string(), "50.0 MiB/s");
        for bad in ["", "0", "50", "0MiB", "fast", "-1MiB", "/s"] {
            assert!(bad.parse::<ByteRate>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn by_any_moment_no_more_has_passed_than_the_rate_and_the_burst() {
        let rate = rate("1MiB");
        let burst = BURST.as_secs_f64() * rate.bytes_per_second() as f64;
        let mut pacer = Pacer::new(rate);
        let (mut now, mut passed) = (Duration::ZERO, 0_u64);
        let begun = Duration::from_secs(100);
        for round in 0..2_000_u64 {
            // Ever so often there is a rest, and a booking that is larger than any burst.
            now = now.max(begun) + Duration::from_millis(if round % 100 == 0 { 3_000 } else { 0 });
            let bytes = if round % 77 == 0 { 3 << 20 } else { round * 7 % 9_000 };
            now += pacer.book(now, bytes);
            passed += bytes;
            let allowed = (now - begun).as_secs_f64() * rate.bytes_per_second() as f64 + burst;
            assert!(passed as f64 <= allowed + 1.0, "{passed} of {allowed} after {now:?}");
        }
    }

    #[test]
    fn bookings_have_their_turn_in_the_order_in_which_they_are_made() {
        let mut pacer = Pacer::new(rate("1MiB"));
        let now = Duration::from_secs(9);
        let waits: Vec<Duration> = (0..8).map(|_| pacer.book(now, 1 << 20)).collect();
        assert_eq!(waits[0], Duration::from_secs(1) - BURST);
        for pair in waits.windows(2) {
            assert_eq!(pair[1] - pair[0], Duration::from_secs(1));
        }
    }

    #[test]
    fn absurd_numbers_wait_for_long_and_do_not_overflow() {
        let mut pacer = Pacer::new(ByteRate::per_second(1).unwrap());
        let year = Duration::from_secs(365 * 24 * 3600);
        assert!(pacer.book(Duration::ZERO, u64::MAX) > year);
        assert!(pacer.book(Duration::MAX, u64::MAX) >= Duration::ZERO);
        assert_eq!(ByteRate::per_second(0), None);
    }
}
