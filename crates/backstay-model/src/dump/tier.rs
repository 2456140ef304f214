//! Tiers: the same dump kept as one of the days, of the weeks and of the months.
//!
//! The dump of a Sunday is that week's, the dump of the first of a month is that
//! month's; of several on such a day, the first. Days are those of UTC, as the schedules are.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::UnknownWord;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    #[default]
    Daily,
    Weekly,
    Monthly,
}

impl Tier {
    pub const ALL: [Tier; 3] = [Tier::Daily, Tier::Weekly, Tier::Monthly];

    /// The tiers to which a dump of this time belongs; the days are always among them.
    pub fn of(taken_at: Timestamp) -> Vec<Tier> {
        let date = taken_at.to_zoned(TimeZone::UTC).date();
        let mut tiers = vec![Tier::Daily];
        if date.weekday() == Weekday::Sunday {
            tiers.push(Tier::Weekly);
        }
        if date.day() == 1 {
            tiers.push(Tier::Monthly);
        }
        tiers
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Tier::Daily => "daily",
            Tier::Weekly => "weekly",
            Tier::Monthly => "monthly",
        })
    }
}

impl FromStr for Tier {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let known = Tier::ALL.into_iter().find(|tier| tier.to_string() == text);
        known.ok_or_else(|| UnknownWord { given: text.to_owned(), known: "daily, weekly and monthly" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sundays_are_kept_for_the_weeks_and_firsts_for_the_months() {
        for (time, tiers) in [
            ("2024-01-06T23:59:59Z", &[Tier::Daily][..]),
            ("2024-01-07T02:00:00Z", &[Tier::Daily, Tier::Weekly]),
            ("2024-01-01T02:00:00Z", &[Tier::Daily, Tier::Monthly]),
            ("2024-09-01T00:00:00Z", &[Tier::Daily, Tier::Weekly, Tier::Monthly]),
        ] {
            assert_eq!(Tier::of(time.parse().unwrap()), tiers, "{time}");
        }
    }
}
