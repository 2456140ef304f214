//! How a recovery stops at its target, and which way it takes there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::TargetError;
use crate::lsn::TimelineId;

/// Which timeline a recovery follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TargetTimeline {
    /// That on which the base was taken.
    Current,
    /// The newest that came from the base's.
    #[default]
    Latest,
    Number(TimelineId),
}

impl FromStr for TargetTimeline {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text {
            "current" => Ok(TargetTimeline::Current),
            "latest" => Ok(TargetTimeline::Latest),
            number => match number.parse() {
                Ok(number) if number > 0 => Ok(TargetTimeline::Number(TimelineId(number))),
                _ => Err(TargetError::Timeline(text.to_owned())),
            },
        }
    }
}

impl fmt::Display for TargetTimeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetTimeline::Current => f.write_str("current"),
            TargetTimeline::Latest => f.write_str("latest"),
            TargetTimeline::Number(number) => number.fmt(f),
        }
    }
}

impl From<TargetTimeline> for String {
    fn from(timeline: TargetTimeline) -> String {
        timeline.to_string()
    }
}

impl TryFrom<String> for TargetTimeline {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

/// What a server does at its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetAction {
    /// It opens for writing, on a timeline of its own.
    #[default]
    Promote,
    /// It can be read, and waits until somebody tells it to go on.
    Pause,
}

impl fmt::Display for TargetAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TargetAction::Promote => "promote",
            TargetAction::Pause => "pause",
        })
    }
}

/// What may be said of a target beside the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StopOptions {
    /// Stop before what the target names, instead of behind it.
    pub exclusive: bool,
    pub timeline: TargetTimeline,
    pub action: TargetAction,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_one_of_two_words_or_a_number() {
        for text in ["current", "latest", "1", "17"] {
            assert_eq!(text.parse::<TargetTimeline>().unwrap().to_string(), text);
        }
        for bad in ["", "0", "-1", "newest", "1@0/3000028"] {
            assert!(matches!(bad.parse::<TargetTimeline>(), Err(TargetError::Timeline(_))), "{bad:?}");
        }
    }
}
