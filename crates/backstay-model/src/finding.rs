//! What a check says: a level, a subject, a message and what to do about it.
//!
//! A finding is not an error. A check that could look and did not like what it
//! saw returns findings; a check that could not look returns an error.

use serde::{Deserialize, Serialize};

/// Ordered: a report is as bad as its worst finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingLevel {
    Info,
    Warning,
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub level: FindingLevel,
    /// The object, file or backup it is about, by the name a person can look up.
    pub subject: String,
    pub message: String,
    /// What to do: names a command or a setting.
    pub remedy: String,
}

impl Finding {
    pub fn error(subject: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            level: FindingLevel::Error,
            subject: subject.into(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    pub fn warning(
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            level: FindingLevel::Warning,
            subject: subject.into(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    pub fn info(subject: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            level: FindingLevel::Info,
            subject: subject.into(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}
