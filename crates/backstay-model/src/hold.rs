//! A hold: a backup may not go, whatever retention says.
//!
//! A hold without an end has one so far away that nobody meets it: whoever reads a time
//! and knows nothing of holds without end is right all the same.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Until when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub until: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Hold {
    /// Until then, or until it is removed.
    pub fn new(until: Option<Timestamp>, reason: Option<String>) -> Self {
        Self { until: until.unwrap_or_else(without_end), reason }
    }

    pub fn is_in_force(&self, at: Timestamp) -> bool {
        self.until > at
    }

    pub fn has_end(&self) -> bool {
        self.until < without_end()
    }
}

/// The last day that every reader of times can write.
fn without_end() -> Timestamp {
    jiff::civil::date(9999, 12, 30).to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |day| day.timestamp())
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.has_end() {
            true => write!(f, "held until {}", self.until)?,
            false => f.write_str("held until the hold is removed")?,
        }
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_says_until_when_and_why() {
        let until = "2027-01-01T00:00:00Z".parse().unwrap();
        let hold = Hold::new(Some(until), Some("audit".to_owned()));
        assert_eq!(hold.to_string(), "held until 2027-01-01T00:00:00Z (audit)");
        assert!(hold.is_in_force("2026-12-31T23:59:59Z".parse().unwrap()) && !hold.is_in_force(until));
        let endless = Hold::new(None, None);
        assert_eq!(endless.to_string(), "held until the hold is removed");
        assert_eq!(endless.until.to_string(), "9999-12-30T00:00:00Z");
        assert!(endless.is_in_force(until));
    }
}
