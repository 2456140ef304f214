//! Why a dump stays, in the words that a person reads in the list.

use std::fmt;

use jiff::SignedDuration;
use serde::Serialize;

use super::Tier;
use crate::hold::Hold;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpKeepReason {
    /// The tier has no rule.
    NoRetention,
    /// The `nth` newest of its database in its tier, of so many that are kept.
    Nth {
        tier: Tier,
        nth: u32,
        of: u32,
    },
    Younger {
        than: SignedDuration,
    },
    /// Somebody said so.
    Held(Hold),
    Minimum {
        nth: u32,
        of: u32,
    },
    /// Of its database, in all tiers together.
    LastGood,
    /// Others that were taken together with it stay.
    WithItsSet,
    /// It ended after the instant for which the plan is made.
    Later,
}

impl fmt::Display for DumpKeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DumpKeepReason::NoRetention => f.write_str("no retention is set"),
            DumpKeepReason::Nth { tier, nth, of } => write!(f, "{tier} {nth} of {of}"),
            DumpKeepReason::Younger { than } => write!(f, "younger than {}", Age(*than)),
            DumpKeepReason::Held(hold) => hold.fmt(f),
            DumpKeepReason::Minimum { nth, of } => write!(f, "minimum {nth} of {of}"),
            DumpKeepReason::LastGood => f.write_str("the last good one"),
            DumpKeepReason::WithItsSet => f.write_str("taken together with one that stays"),
            DumpKeepReason::Later => f.write_str("later than the time asked for"),
        }
    }
}

impl Serialize for DumpKeepReason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// In the largest unit of which it is a whole number, days at most: `30 days`.
struct Age(SignedDuration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)];
        let (unit, length) =
            units.into_iter().find(|(_, length)| seconds % length == 0).unwrap_or(("second", 1));
        let number = seconds / length;
        write!(f, "{number} {unit}{}", if number == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_the_unit_in_which_it_was_set() {
        for (hours, seconds, told) in [
            (24 * 30, 0, "younger than 30 days"),
            (24, 0, "younger than 1 day"),
            (36, 0, "younger than 36 hours"),
            (0, 90, "younger than 90 seconds"),
            (0, 120, "younger than 2 minutes"),
            (0, 0, "younger than 0 days"),
        ] {
            let than = SignedDuration::from_hours(hours) + SignedDuration::from_secs(seconds);
            assert_eq!(DumpKeepReason::Younger { than }.to_string(), told);
        }
    }
}
