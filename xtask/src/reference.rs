//! `cargo xtask reference`: the pages of `docs/reference`, written by the program
//! itself. With `--check` nothing is written, and a page that is not what the
//! program says is an error, so a reference cannot drift.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::backstay;
use crate::process::{project, run_quietly};

const DIRECTORY: &str = "docs/reference";

#[derive(Args, Default)]
pub struct Options {
    /// Only compare, and fail when a page differs
    #[arg(long)]
    pub check: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let program = backstay::build(backstay::Profile::Dev)?;
    let says = |arguments: &[&str]| {
        // A terminal of another width must not change the page.
        run_quietly(Command::new(&program).args(arguments).env("COLUMNS", "100").env("NO_COLOR", "1"))
    };
    let pages = [
        ("configuration.md", says(&["config", "reference"])?),
        ("configuration.schema.json", says(&["config", "schema"])?),
        ("command-line.md", command_line(&says)?),
    ];
    let mut different = Vec::new();
    for (name, text) in &pages {
        let text = format!("{}\n", text.trim_end());
        let path = project().join(DIRECTORY).join(name);
        if fs::read_to_string(&path).is_ok_and(|written| written == text) {
            continue;
        }
        if options.check {
            different.push(format!("{DIRECTORY}/{name}"));
        } else {
            write(&path, &text)?;
            println!("written: {DIRECTORY}/{name}");
        }
    }
    if !different.is_empty() {
        bail!("{} differ from what the program says: run `cargo xtask reference`", different.join(", "));
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// The help of the program and of every verb, verbs of verbs included.
fn command_line(says: &impl Fn(&[&str]) -> Result<String>) -> Result<String> {
    let mut page =
        "# The command line\n\nWritten by `cargo xtask reference` from the program's own help.\n".to_owned();
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(verb) = waiting.pop() {
        let mut arguments: Vec<&str> = verb.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = says(&arguments)?;
        let name =
            std::iter::once("backstay").chain(verb.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
        let trimmed: Vec<&str> = help.lines().map(str::trim_end).collect();
        page.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", trimmed.join("\n").trim_end()));
        let mut below: Vec<Vec<String>> =
            verbs_in(&help).into_iter().map(|below| verb.iter().cloned().chain([below]).collect()).collect();
        // The stack is taken from its end, and the page keeps the order of the help.
        below.reverse();
        waiting.extend(below);
    }
    Ok(page)
}

/// The names under `Commands:` of a help text.
fn verbs_in(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| line.trim_end() != "Commands:")
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        // Deeper lines continue a description.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verbs_of_a_help_text_are_found() {
        let help = "About\n\nUsage: x\n\nCommands:\n  backup  Base backup\n          now\n  key     Keys\n  help    Print\n\nOptions:\n  -h  Help\n";
        assert_eq!(verbs_in(help), ["backup", "key"]);
        assert!(verbs_in("Usage: x\n").is_empty());
    }
}
