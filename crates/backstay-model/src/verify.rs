//! What a verification looks at, and what it reports.
//!
//! Two different things must never be mixed up: "this backup is bad" (findings)
//! and "I could not look" ([`VerifyReport::unseen`]). They have different exit
//! codes, because they wake different people.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Classified, ErrorKind};
use crate::finding::{Finding, FindingLevel};

/// How deep a verification looks. Each level includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyLevel {
    /// Every object a backup needs is listed, and of the right size.
    Existence,
    /// Manifests, maps and frame tables open and resolve.
    Structure,
    /// Every frame is opened and every block compared with its hash.
    #[default]
    Digest,
}

impl fmt::Display for VerifyLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            VerifyLevel::Existence => "existence",
            VerifyLevel::Structure => "structure",
            VerifyLevel::Digest => "digest",
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a level of verification: existence, structure or digest")]
pub struct LevelError(String);

impl Classified for LevelError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hints(&self) -> Vec<String> {
        vec!["`backstay verify --level digest` reads everything".into()]
    }
}

impl FromStr for VerifyLevel {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        match text {
            "existence" => Ok(VerifyLevel::Existence),
            "structure" => Ok(VerifyLevel::Structure),
            "digest" => Ok(VerifyLevel::Digest),
            other => Err(LevelError(other.to_owned())),
        }
    }
}

/// What `verify` tells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerifyReport {
    /// What was looked at: a backup, an instance or `all`.
    pub subject: String,
    /// Everything was looked at, and nothing worse than a note was found.
    pub sound: bool,
    pub objects_read: u64,
    pub bytes_read: u64,
    pub findings: Vec<Finding>,
    /// What could not be looked at, and why. It may be sound, it may not.
    #[serde(default)]
    pub unseen: Vec<Finding>,
}

impl VerifyReport {
    /// The exit code of a verification that found something wrong.
    pub const EXIT_FINDINGS: u8 = 20;
    /// The exit code of a verification that could not look.
    pub const EXIT_UNSEEN: u8 = 21;

    pub fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), sound: true, ..Self::default() }
    }

    /// Adds what was found; anything above a note ends the soundness.
    pub fn found(&mut self, finding: Finding) {
        self.sound &= finding.level == FindingLevel::Info;
        self.findings.push(finding);
    }

    /// Adds what could not be looked at.
    pub fn not_seen(&mut self, what: Finding) {
        self.sound = false;
        self.unseen.push(what);
    }

    /// Takes in the report of a part of the subject.
    pub fn absorb(&mut self, part: VerifyReport) {
        self.sound &= part.sound;
        self.objects_read += part.objects_read;
        self.bytes_read += part.bytes_read;
        self.findings.extend(part.findings);
        self.unseen.extend(part.unseen);
    }

    pub fn exit_code(&self) -> u8 {
        let bad = self.findings.iter().any(|finding| finding.level > FindingLevel::Info);
        match (bad, self.unseen.is_empty()) {
            // Known damage outweighs what nobody has seen yet.
            (true, _) => Self::EXIT_FINDINGS,
            (false, false) => Self::EXIT_UNSEEN,
            (false, true) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_and_unseen_have_different_exit_codes_and_bad_wins() {
        let mut report = VerifyReport::new("orders");
        report.found(Finding::info("orders", "two packs are half empty", "nothing to do"));
        assert_eq!((report.sound, report.exit_code()), (true, 0));

        let mut part = VerifyReport::new("orders/1");
        part.not_seen(Finding::warning("orders/packs/1", "the store is away", "`backstay verify`"));
        assert_eq!((part.sound, part.exit_code()), (false, 21));

        report.absorb(part.clone());
        report.found(Finding::error("orders/packs/2", "frame 3 does not open", "`backstay backup`"));
        assert_eq!((report.sound, report.exit_code()), (false, 20));
        assert_eq!((report.findings.len(), report.unseen.len()), (2, 1));
    }

    #[test]
    fn levels_read_back_as_they_print_and_are_ordered() {
        for level in [VerifyLevel::Existence, VerifyLevel::Structure, VerifyLevel::Digest] {
            assert_eq!(level.to_string().parse::<VerifyLevel>().unwrap(), level);
            assert_eq!(serde_json::to_string(&level).unwrap(), format!("\"{level}\""));
        }
        assert!(VerifyLevel::Existence < VerifyLevel::Digest);
        assert!("deep".parse::<VerifyLevel>().is_err());
    }
}
