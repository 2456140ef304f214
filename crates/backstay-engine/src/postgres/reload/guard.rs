//! Statements on their way to `psql`: fenced, so that nothing in them is a command to it.
//!
//! `pg_dump` itself puts its statements between `\restrict KEY` and `\unrestrict KEY`,
//! which anybody can write; these are left out, and ours, with a key that no dump knows,
//! stand in their place. For a `psql` that has no such word every statement is read here.
//!
//! Refuses a dump that holds any other command.

use backstay_model::Finding;
use bytes::Bytes;

use super::super::client_programs::ClientPrograms;
use super::commands::Commands;
use super::target::ReloadTarget;
use crate::{Error, Result};

/// The comment with which `pg_dump` begins is far shorter, and so is what stands behind
/// its end marker.
const HEAD_MAX: usize = 16 << 10;
const TAIL: usize = 4096;

pub(super) struct Guard {
    /// Ours; `None` where `psql` does not know the word.
    key: Option<String>,
    reading: Option<Commands>,
    /// Until it is known whether the dump begins with a key.
    head: Option<Vec<u8>>,
    /// The key with which the dump began.
    theirs: Option<Vec<u8>>,
    tail: Vec<u8>,
}

impl Guard {
    pub fn draw(programs: &ClientPrograms) -> Result<Guard> {
        let key = match programs.restricts() {
            true => Some(random_key()?),
            false => None,
        };
        let reading = key.is_none().then(Commands::strict);
        Ok(Guard { key, reading, head: Some(Vec::new()), theirs: None, tail: Vec::new() })
    }

    /// What `psql` has to be told before all else.
    pub fn opening(&self) -> String {
        self.key.as_ref().map(|key| format!("\\restrict {key}\n")).unwrap_or_default()
    }

    /// The next bytes of the dump; those that `psql` may have now.
    pub fn pass(&mut self, bytes: &Bytes) -> Result<Vec<Bytes>> {
        let Some(head) = &mut self.head else { return self.body(bytes) };
        head.extend_from_slice(bytes);
        let begin = match command_of(head) {
            Begin::NotYet if head.len() < HEAD_MAX => return Ok(Vec::new()),
            begin => begin,
        };
        let mut head = self.head.take().unwrap_or_default();
        if let Begin::Key { from, to } = begin {
            let line = head.drain(from..to).collect::<Vec<_>>();
            self.theirs = Some(line.trim_ascii()[RESTRICT.len()..].trim_ascii().to_vec());
        }
        self.body(&head.into())
    }

    /// The end of the dump; the last bytes.
    pub fn end(&mut self) -> Result<Vec<Bytes>> {
        let mut last = match self.head.take() {
            Some(head) => self.body(&head.into())?,
            None => Vec::new(),
        };
        let mut tail = std::mem::take(&mut self.tail);
        if let Some(key) = &self.theirs {
            tail = without(&tail, &[b"\\unrestrict ", key.as_slice()].concat());
        }
        self.read(&tail)?;
        if let Some(key) = &self.key {
            tail.extend_from_slice(format!("\n\\unrestrict {key}\n").as_bytes());
        }
        last.push(tail.into());
        Ok(last)
    }

    /// All but the last, of which the end is to be seen first.
    fn body(&mut self, bytes: &Bytes) -> Result<Vec<Bytes>> {
        let mut passed = Vec::new();
        if bytes.len() >= TAIL {
            passed.push(Bytes::from(std::mem::take(&mut self.tail)));
            let ready = bytes.len() - TAIL;
            passed.push(bytes.slice(..ready));
            self.tail.extend_from_slice(&bytes[ready..]);
        } else {
            self.tail.extend_from_slice(bytes);
            let ready = self.tail.len().saturating_sub(TAIL);
            passed.push(self.tail.drain(..ready).collect::<Vec<_>>().into());
        }
        passed.retain(|bytes| !bytes.is_empty());
        for bytes in &passed {
            self.read(bytes)?;
        }
        Ok(passed)
    }

    fn read(&mut self, bytes: &[u8]) -> Result<()> {
        match self.reading.as_mut().and_then(|reading| reading.push(bytes)) {
            Some(objection) => Err(Error::CommandInStatements {
                line: Some(objection.line),
                command: objection.text,
                is_guess: true,
            }),
            None => Ok(()),
        }
    }
}

const RESTRICT: &[u8] = b"\\restrict ";

enum Begin {
    /// Comments and blank lines so far.
    NotYet,
    Statement,
    /// The line from its first byte to the one behind its end.
    Key {
        from: usize,
        to: usize,
    },
}

/// What the first line is that is no comment.
fn command_of(head: &[u8]) -> Begin {
    let mut from = 0;
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let is_whole = line.ends_with(b"\n");
        let text = line.trim_ascii();
        if is_whole && text.starts_with(RESTRICT) {
            // The end of the line stays, so that lines have their numbers.
            return Begin::Key { from, to: from + line.len() - 1 };
        }
        if is_whole && !text.is_empty() && !text.starts_with(b"--") {
            return Begin::Statement;
        }
        from += line.len();
    }
    Begin::NotYet
}

/// The end of a dump without this line, behind which nothing does anything.
fn without(tail: &[u8], line: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = tail.split_inclusive(|byte| *byte == b'\n').collect();
    let does_nothing = |text: &[u8]| text.is_empty() || text.starts_with(b"--");
    let behind = lines.iter().rev().take_while(|text| does_nothing(text.trim_ascii())).count();
    let at = lines.len() - behind;
    let found = at.checked_sub(1).filter(|at| lines[*at].trim_ascii() == line);
    let kept = lines.iter().enumerate().filter(|(number, _)| Some(*number) != found);
    kept.flat_map(|(_, line)| line.iter().copied()).collect()
}

fn random_key() -> Result<String> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|_| Error::NoRandomness)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl ReloadTarget {
    /// What is to be said of the `psql` that statements would go through.
    pub fn statement_findings(&self) -> Result<Vec<Finding>> {
        let programs = self.programs(None)?;
        Ok(match programs.restricts() {
            true => Vec::new(),
            false => vec![Finding::warning(
                format!("psql {}", programs.version()),
                "it knows no `\\restrict`: a dump with commands to it, or with what could be one, is refused on \
                 the way",
                "install the newest minor version of the package `postgresql-client-…`",
            )],
        })
    }
}

/// Refuses a dump whose beginning holds commands to `psql`, before anything is asked or done.
pub fn refuse_commands(head: &[u8]) -> Result<()> {
    const READ_OTHERWISE: &[u8] = b"standard_conforming_strings = off";
    if head.windows(READ_OTHERWISE.len()).any(|window| window == READ_OTHERWISE) {
        return Ok(());
    }
    match Commands::lenient().push(head) {
        Some(objection) => Err(Error::CommandInStatements {
            line: Some(objection.line),
            command: objection.text,
            is_guess: false,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(script: &str, piece: usize, key: Option<&str>) -> Result<String> {
        let mut guard = Guard {
            key: key.map(str::to_owned),
            reading: key.is_none().then(Commands::strict),
            head: Some(Vec::new()),
            theirs: None,
            tail: Vec::new(),
        };
        let mut passed = guard.opening().into_bytes();
        for piece in script.as_bytes().chunks(piece) {
            guard
                .pass(&Bytes::copy_from_slice(piece))?
                .iter()
                .for_each(|bytes| passed.extend_from_slice(bytes));
        }
        guard.end()?.iter().for_each(|bytes| passed.extend_from_slice(bytes));
        Ok(String::from_utf8(passed).unwrap())
    }

    #[test]
    fn the_keys_of_a_dump_are_left_out_and_ours_stand_around_it() {
        let rows =
            "COPY t FROM stdin;\n\\restrict b\n\\unrestrict a\n\\.\n".to_owned() + &"-- x\n".repeat(3000);
        let end = "--\n-- PostgreSQL database dump complete\n--\n\n";
        let theirs = format!("--\n-- a dump\n--\n\n\\restrict a\n\nSET x;\n{rows}{end}\\unrestrict a\n\n");
        let bare = format!("--\n-- a dump\n--\n\n\n\nSET x;\n{rows}{end}\n");
        for piece in [1, 100, 5000, 100_000] {
            assert_eq!(through(&theirs, piece, None).unwrap(), bare);
            let fenced = format!("\\restrict k\n{bare}\n\\unrestrict k\n");
            assert_eq!(through(&theirs, piece, Some("k")).unwrap(), fenced);
            assert_eq!(through(&bare, piece, Some("k")).unwrap(), fenced);
        }
        // The key of somebody else is left to `psql`, which knows only ours.
        let other = theirs.replace("\\unrestrict a\n\n", "\\unrestrict b\n\n");
        assert!(through(&other, 100, Some("k")).unwrap().contains("\\unrestrict b"));
        assert!(through(&other, 100, None).is_err());
        assert!(through(&format!("{theirs}\\! x\n"), 100, None).is_err());
    }
}
