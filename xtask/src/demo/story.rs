//! Telling the demo: numbered chapters, the commands as typed, and how long each took.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::interruption::Interruption;
use crate::process::line_of;

pub struct Story {
    chapters: u32,
    since: Instant,
    interruption: Interruption,
}

impl Story {
    pub fn begin(interruption: Interruption) -> Story {
        Story { chapters: 0, since: Instant::now(), interruption }
    }

    /// Begins a chapter and its clock, unless the story was interrupted.
    pub fn chapter(&mut self, title: &str) -> Result<()> {
        self.interruption.check()?;
        self.chapters += 1;
        println!("\n{}. {title}", self.chapters);
        self.since = Instant::now();
        Ok(())
    }

    pub fn say(&mut self, text: &str) {
        println!("   {text}");
    }

    /// Says what was done since the last clock, and restarts it.
    pub fn done(&mut self, text: &str) {
        println!("   {text} ({})", seconds(self.since.elapsed().as_secs_f64()));
        self.since = Instant::now();
    }

    pub fn quote(&mut self, text: &str) {
        for line in text.trim().lines() {
            println!("     {line}");
        }
    }

    /// What must not be overlooked by whoever believes that he has seen everything.
    pub fn warn(&mut self, text: &str) {
        let mut mark = "NOT SHOWN: ";
        for line in text.lines() {
            println!("   {mark}{line}");
            mark = "           ";
        }
    }

    /// Shows a command, lets it speak for itself, and says how long it took.
    pub fn show(&mut self, command: &mut Command) -> Result<()> {
        println!("   $ {}", line_of(command));
        let begun = Instant::now();
        let status = command.status().with_context(|| format!("run `{}`", line_of(command)))?;
        if !status.success() {
            bail!("`{}` ended with {status}", line_of(command));
        }
        println!("   ({})", seconds(begun.elapsed().as_secs_f64()));
        self.since = Instant::now();
        Ok(())
    }
}

pub fn seconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.2} s") } else { format!("{value:.0} s") }
}

pub fn mebibytes(bytes: u64) -> String {
    let value = bytes as f64 / f64::from(1 << 20);
    if value < 100.0 { format!("{value:.1} MiB") } else { format!("{value:.0} MiB") }
}

/// `2000000` as `2,000,000`.
pub fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(1234), "1,234");
        assert_eq!(thousands(2_000_000), "2,000,000");
        assert_eq!(mebibytes(3 << 19), "1.5 MiB");
        assert_eq!(seconds(0.123), "0.12 s");
        assert_eq!(seconds(74.6), "75 s");
    }
}
