//! The time in a name: how it is written, and how it is read back. Always UTC.
//!
//! Refuses, with [`Moment::new`] and [`give_back_the_day`], every format from which the
//! day cannot be read again: retention needs it, and without it dumps of two days meet.

use std::ops::RangeInclusive;

use jiff::civil::Date;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

const DEFAULT_FORMAT: &str = "%Y%m%d_%H%M%S";

/// Between two formats that are read together; their texts are compared afterwards, so
/// it does no harm in one of them.
const BETWEEN: &str = "|";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    format: String,
    /// How many bytes it comes to, over a year.
    widths: RangeInclusive<usize>,
    sample: String,
}

impl Default for Moment {
    fn default() -> Self {
        Self { format: DEFAULT_FORMAT.to_owned(), widths: 15..=15, sample: "20240101_000000".to_owned() }
    }
}

impl Moment {
    /// `None` for a format that says nothing, or that cannot be part of a path.
    pub fn new(format: &str) -> Option<Self> {
        let samples: Option<Vec<String>> = extremes().map(|at| written(format, at)).collect();
        let samples = samples?;
        let widths = samples.iter().map(String::len);
        let widths = widths.clone().min()?..=widths.max()?;
        let strange = |text: &String| text.is_empty() || text.chars().any(|c| c.is_control() || c == '\\');
        if samples.iter().any(strange) {
            return None;
        }
        let sample = samples.into_iter().next()?;
        Some(Self { format: format.to_owned(), widths, sample })
    }

    pub fn format(&self) -> &str {
        &self.format
    }

    pub fn sample(&self) -> &str {
        &self.sample
    }

    pub fn widths(&self) -> RangeInclusive<usize> {
        self.widths.clone()
    }

    pub fn write(&self, at: Timestamp) -> String {
        // What was written over a year can be written; the rest is for the compiler.
        written(&self.format, at).unwrap_or_else(|| at.strftime(DEFAULT_FORMAT).to_string())
    }

    /// Whether the text can be of this format: for throwing out the impossible early.
    pub fn could_be(&self, text: &str) -> bool {
        strtime::parse(&self.format, text).is_ok()
    }
}

fn written(format: &str, at: Timestamp) -> Option<String> {
    strtime::format(format, &at.to_zoned(TimeZone::UTC)).ok()
}

/// What is long and what is short, of every format: each day of a leap year, in its
/// first second, in one of single digits and in its last.
fn extremes() -> impl Iterator<Item = Timestamp> {
    const SECONDS: [i64; 3] = [0, 3_661, 86_399];
    (0..366).flat_map(|day| SECONDS.into_iter().filter_map(move |second| in_2024(day * 86_400 + second)))
}

/// Times of three years, in all months and in both halves of the day.
fn probes() -> impl Iterator<Item = Timestamp> {
    (0..31).filter_map(|nth| in_2024(nth * (35 * 86_400 + 5_827)))
}

fn in_2024(seconds: i64) -> Option<Timestamp> {
    let first = Date::constant(2024, 1, 1).to_zoned(TimeZone::UTC).ok()?.timestamp();
    first.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// The instant of which these are the texts, each in its format.
pub(super) fn read(texts: &[(&Moment, &str)]) -> Option<Timestamp> {
    let formats: Vec<&str> = texts.iter().map(|(moment, _)| moment.format()).collect();
    let joined: Vec<&str> = texts.iter().map(|(_, text)| *text).collect();
    let mut read = BrokenDownTime::parse(formats.join(BETWEEN), joined.join(BETWEEN)).ok()?;
    read.set_offset(Some(Offset::UTC));
    let at = read.to_timestamp().ok()?;
    // A weekday that is not the date's, or two dates that differ, are no time of ours.
    texts.iter().all(|(moment, text)| moment.write(at) == *text).then_some(at)
}

/// Whether these formats write the same all day long.
pub(super) fn say_the_day_only(texts: &[(&Moment, &str)]) -> bool {
    const AFTER_NOON: i64 = 13 * 3_600 + 37 * 60 + 21;
    let (Some(first), Some(later)) = (in_2024(0), in_2024(AFTER_NOON)) else { return false };
    texts.iter().all(|(moment, _)| moment.write(first) == moment.write(later))
}

/// Whether the day of a dump can be read from what these formats write together.
pub(super) fn give_back_the_day(moments: &[&Moment]) -> bool {
    probes().all(|at| {
        let texts: Vec<String> = moments.iter().map(|moment| moment.write(at)).collect();
        let pairs: Vec<_> = moments.iter().copied().zip(texts.iter().map(String::as_str)).collect();
        let day = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
        read(&pairs).is_some_and(|back| back <= at && day(back) == day(at))
    })
}
