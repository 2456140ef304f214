//! What the program prints: results on standard output, everything else on
//! standard error.
//!
//! Invariant: with `--json` standard output carries one JSON document and nothing
//! else, and an error is one JSON document on standard error, as the warnings are
//! before it. Colours repeat what
//! a word already says.

pub mod adopted;
pub mod backups;
pub mod collect;
pub mod drill;
pub mod dumps;
pub mod errors;
pub mod expire;
pub mod export;
pub mod extract;
pub mod globals;
pub mod hold;
pub mod init;
pub mod keys;
pub mod lines;
pub mod progress;
pub mod reload;
pub mod restore;
pub mod settings;
pub mod status;
pub mod table;
pub mod verify;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal, Write};

use backstay_model::Finding;
use serde::Serialize;

use crate::args::{ColorChoice, GlobalOptions};

/// How and where to print, decided once from the options and the terminal.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub json: bool,
    pub quiet: bool,
    progress: bool,
    color_out: bool,
    color_err: bool,
}

/// A word that may be coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Bad,
    Doubtful,
    Good,
    Strong,
}

impl Output {
    pub fn new(options: &GlobalOptions) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = |terminal: bool| match options.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !plain,
        };
        let terminal = io::stderr().is_terminal();
        Self {
            json: options.json,
            quiet: options.quiet,
            progress: terminal && !options.no_progress && !options.quiet && !options.json,
            color_out: color(io::stdout().is_terminal()),
            color_err: color(terminal),
        }
    }

    /// Without colour, progress or JSON: what tests compare.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self { json: false, quiet: false, progress: false, color_out: false, color_err: false }
    }

    pub fn shows_progress(&self) -> bool {
        self.progress
    }

    /// The word for standard output.
    pub fn paint(&self, tone: Tone, word: &str) -> String {
        paint(self.color_out, tone, word)
    }

    /// The one result of a verb: the document, or the text a person reads.
    pub fn result<T: Serialize>(&self, document: &T, text: impl FnOnce(&Output) -> String) -> io::Result<()> {
        if self.json {
            let mut json = serde_json::to_string_pretty(document)?;
            json.push('\n');
            return self.print(&json);
        }
        let text = text(self);
        self.print(&text)
    }

    /// Text as it is on standard output.
    pub fn print(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| {
            if text.is_empty() || text.ends_with('\n') { Ok(()) } else { out.write_all(b"\n") }
        });
        match written.and_then(|()| out.flush()) {
            // Whoever read us has seen enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    /// A remark for the person at the terminal; not part of the result.
    pub fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            self.err(&format!("{text}\n"));
        }
    }

    /// What a person must know although the verb did its work: on standard error
    /// also when told to be quiet, and with `--json` as one document.
    pub fn warnings(&self, findings: &[Finding]) {
        if findings.is_empty() {
            return;
        }
        if self.json {
            let document = serde_json::json!({ "warnings": findings });
            return self.err(&format!("{document}\n"));
        }
        for finding in findings {
            self.err(&format!("warning: {}: {}; {}\n", finding.subject, finding.message, finding.remedy));
        }
    }

    /// An error, once, with its causes and hints.
    pub fn error(&self, told: &errors::Told) {
        let text = if self.json { told.json() } else { told.text(self.color_err) };
        self.err(&text);
    }

    /// Nobody can be told when standard error is closed.
    fn err(&self, text: &str) {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

fn paint(on: bool, tone: Tone, word: &str) -> String {
    if !on {
        return word.to_owned();
    }
    let code = match tone {
        Tone::Bad => "1;31",
        Tone::Doubtful => "33",
        Tone::Good => "32",
        Tone::Strong => "1",
    };
    format!("\u{1b}[{code}m{word}\u{1b}[0m")
}
