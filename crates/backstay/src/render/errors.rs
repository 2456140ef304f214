//! Errors, once each: `error:`, `caused by:`, `hint:`.

use std::error::Error;
use std::fmt::Write;

use backstay_model::plan::Refusal;
use backstay_model::{ErrorKind, Fault, Finding};
use serde::Serialize;

use super::{Tone, paint};

/// An error as it is told: its own text, the causes below it, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    pub kind: ErrorKind,
    pub message: String,
    pub causes: Vec<String>,
    pub hints: Vec<String>,
}

impl Told {
    pub fn fault(fault: &Fault) -> Self {
        let mut told =
            Self { kind: fault.kind(), message: fault.to_string(), causes: Vec::new(), hints: fault.hints() };
        told.follow(fault.source());
        told
    }

    pub fn refusal(refusal: &Refusal) -> Self {
        Self {
            kind: refusal.kind,
            message: refusal.message.clone(),
            causes: Vec::new(),
            hints: refusal.hints.clone(),
        }
    }

    /// What was found where only an error is looked for.
    pub fn finding(finding: &Finding, kind: ErrorKind) -> Self {
        Self {
            kind,
            message: format!("{}: {}", finding.subject, finding.message),
            causes: Vec::new(),
            hints: vec![finding.remedy.clone()],
        }
    }

    /// A layer that passes the one below through would say the same twice.
    fn follow(&mut self, mut cause: Option<&(dyn Error + 'static)>) {
        while let Some(error) = cause {
            let text = error.to_string();
            if self.causes.last().unwrap_or(&self.message) != &text {
                self.causes.push(text);
            }
            cause = error.source();
        }
    }

    pub fn text(&self, color: bool) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{} {}", paint(color, Tone::Bad, "error:"), self.message);
        for cause in &self.causes {
            let _ = writeln!(out, "  {} {cause}", paint(color, Tone::Strong, "caused by:"));
        }
        for hint in &self.hints {
            let _ = writeln!(out, "  {} {hint}", paint(color, Tone::Good, "hint:"));
        }
        if self.kind == ErrorKind::Internal {
            let _ = writeln!(out, "  this is a bug in Backstay; `--verbose` shows more for a report");
        }
        out
    }

    pub fn json(&self) -> String {
        let mut text = serde_json::to_string(&serde_json::json!({ "error": self })).unwrap_or_default();
        text.push('\n');
        text
    }
}
