//! The commands of a page.
//!
//! In a `console` block a line that begins with `$ ` is a command, lines after it
//! that begin with `> ` continue it, and all others are what it prints. A command
//! may fail when the next one is `echo $?`. Three comments address this reader:
//! `<!-- guide: skip -->` leaves the next block out, `<!-- guide: run`, lines
//! of shell, `-->` does what the reader of the page has already done, and
//! `<!-- guide: with redis -->` says that the page is about that server.

use anyhow::{Result, bail};

#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    Command(Command),
    Skipped { line: usize },
}

#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// Of the page, counted from one.
    pub line: usize,
    pub text: String,
    /// Empty: whatever it prints is right.
    pub expected: Vec<String>,
    pub may_fail: bool,
}

const SHOW_STATUS: &str = "echo $?";
const WITH_REDIS: &str = "<!-- guide: with redis -->";

pub fn is_about_redis(page: &str) -> bool {
    page.lines().any(|line| line.trim() == WITH_REDIS)
}

pub fn parts(page: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut skip_next = false;
    let mut lines = page.lines().enumerate().map(|(at, line)| (at + 1, line));
    while let Some((at, line)) = lines.next() {
        match line.trim() {
            "<!-- guide: skip -->" => skip_next = true,
            WITH_REDIS => {}
            "<!-- guide: run" => {
                let body = until(&mut lines, "-->", at)?;
                let text = body.iter().map(|(_, line)| *line).collect::<Vec<_>>().join("\n");
                parts.push(Part::Command(Command { line: at, text, expected: Vec::new(), may_fail: false }));
            }
            comment if comment.starts_with("<!-- guide:") => bail!("line {at}: {comment} is not understood"),
            "```console" => {
                let block = until(&mut lines, "```", at)?;
                if std::mem::take(&mut skip_next) {
                    parts.push(Part::Skipped { line: at });
                } else {
                    parts.extend(commands(&block)?.into_iter().map(Part::Command));
                }
            }
            _ => {}
        }
    }
    Ok(parts)
}

fn until<'a>(
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
    end: &str,
    begun: usize,
) -> Result<Vec<(usize, &'a str)>> {
    let mut body = Vec::new();
    for (at, line) in lines {
        if line.trim() == end {
            return Ok(body);
        }
        body.push((at, line));
    }
    bail!("line {begun}: its end, {end}, is missing")
}

fn commands(block: &[(usize, &str)]) -> Result<Vec<Command>> {
    let mut commands: Vec<Command> = Vec::new();
    for (at, line) in block {
        if let Some(text) = line.strip_prefix("$ ") {
            if text == SHOW_STATUS
                && let Some(before) = commands.last_mut()
            {
                before.may_fail = true;
            }
            commands.push(Command {
                line: *at,
                text: text.to_owned(),
                expected: Vec::new(),
                may_fail: false,
            });
            continue;
        }
        let Some(command) = commands.last_mut() else { bail!("line {at}: output before the first command") };
        match line.strip_prefix("> ").or((*line == ">").then_some("")) {
            Some(more) if command.expected.is_empty() => {
                command.text.push('\n');
                command.text.push_str(more);
            }
            _ => command.expected.push((*line).to_owned()),
        }
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: usize, text: &str, expected: &[&str], may_fail: bool) -> Part {
        let expected = expected.iter().map(|line| (*line).to_owned()).collect();
        Part::Command(Command { line, text: text.to_owned(), expected, may_fail })
    }

    #[test]
    fn a_page_is_read_as_a_person_reads_it() {
        let page = "# Title\n\n<!-- guide: run\nmkdir x\ncd x\n-->\n```console\n$ cat <<END\n> one\n> END\none\n\
                    $ false\n$ echo $?\n1\n```\n```toml\n$ not a command\n```\n<!-- guide: skip -->\n```console\n$ reboot\n```\n";
        assert_eq!(
            parts(page).unwrap(),
            [
                command(3, "mkdir x\ncd x", &[], false),
                command(8, "cat <<END\none\nEND", &["one"], false),
                command(12, "false", &[], true),
                command(13, "echo $?", &["1"], false),
                Part::Skipped { line: 20 },
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for page in ["```console\noutput\n```\n", "```console\n$ true\n", "<!-- guide: frobnicate -->\n"] {
            assert!(parts(page).is_err(), "{page:?}");
        }
    }
}
