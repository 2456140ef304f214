//! The commands of a replication stream, as far as a recovery must know them: where one ends, which
//! database is selected there, and what belongs together.
//!
//! A stream is cut between two commands or not at all, and never within a transaction: a server
//! that loads half of one takes all of it back. What a command does is nobody's concern here.
//!
//! Invariant: whatever the pieces are in which the bytes come, the same places are found. The
//! state can be written down at any byte, and the reading goes on from there.

use serde::{Deserialize, Serialize};

/// The longest line of a stream: a count or a length.
const LINE_MAX: usize = 32;
/// More arguments no server takes.
const ARGUMENTS_MAX: u64 = i32::MAX as u64;
/// The longest value of a server whose `proto-max-bulk-len` somebody raised.
const BULK_MAX: u64 = 1 << 40;
/// Of the first words of a command so much is looked at: `REPLCONF GETACK`, `SELECT 12`.
const WORD_MAX: usize = 16;

/// Bytes that are no stream of commands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stream of commands is broken at offset {at}: {reason}")]
pub struct BrokenStream {
    pub at: u64,
    pub reason: String,
}

/// Between which bytes it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Within {
    /// A line with a count or a length, as far as it came.
    Line(String),
    /// So many bytes of an argument are to come, with its line end.
    Argument(u64),
}

/// Reads a stream from one place on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReader {
    /// Bytes of the stream that were read.
    at: u64,
    within: Within,
    /// Arguments of the command that are to come; nothing between commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
    /// The beginnings of its first two arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    words: Vec<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    in_transaction: bool,
    selected: u32,
    /// Behind the last command outside of a transaction.
    boundary: u64,
    /// Selected there.
    database: u32,
    /// A command was read that changes something.
    #[serde(skip)]
    has_changes: bool,
    #[serde(skip)]
    wants_answer: bool,
    /// Of a file of a server; a stream has none.
    #[serde(skip)]
    annotations: Option<Annotations>,
}

/// When what follows came, in lines of their own between the commands of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Seconds of the server's clock, of the first one that was read, and of the last that is wanted.
    pub first: Option<i64>,
    pub last: Option<i64>,
    /// Where the first one stands.
    pub first_at: u64,
    /// What comes later than this is behind every boundary.
    pub until: Option<i64>,
    pub is_later: bool,
}

fn is_false(is: &bool) -> bool {
    !is
}

impl CommandReader {
    /// From a place between two commands.
    pub fn new(at: u64, database: u32) -> CommandReader {
        CommandReader {
            at,
            within: Within::Line(String::new()),
            left: None,
            words: Vec::new(),
            in_transaction: false,
            selected: database,
            boundary: at,
            database,
            has_changes: false,
            wants_answer: false,
            annotations: None,
        }
    }

    /// Of an append-only file whose commands begin there, up to the last second that is wanted.
    pub fn of_file(at: u64, until: Option<i64>) -> CommandReader {
        let annotations = Annotations { until, ..Annotations::default() };
        CommandReader { annotations: Some(annotations), ..CommandReader::new(at, 0) }
    }

    /// What they said so far.
    pub fn annotations(&self) -> Option<&Annotations> {
        self.annotations.as_ref()
    }

    /// Bytes of the stream that were read.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The last place at which the stream can be cut.
    pub fn boundary(&self) -> u64 {
        self.boundary
    }

    /// The database that is selected at the boundary.
    pub fn database(&self) -> u32 {
        self.database
    }

    /// Whether anything but the server's own words came since this was asked.
    pub fn has_changes(&self) -> bool {
        self.has_changes
    }

    /// The same, and nothing is left of it.
    pub fn take_changes(&mut self) -> bool {
        std::mem::take(&mut self.has_changes)
    }

    /// Whether the server asked how far this side is, since this was asked.
    pub fn take_question(&mut self) -> bool {
        std::mem::take(&mut self.wants_answer)
    }

    /// # Errors
    ///
    /// Where the bytes are no commands; nothing can be read behind that.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), BrokenStream> {
        while !bytes.is_empty() {
            let taken = match &mut self.within {
                Within::Argument(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    // Of arguments behind the second nothing is looked at.
                    if let Some(word) = self.words.last_mut().filter(|word| word.len() < WORD_MAX)
                        && self.left.is_some()
                    {
                        let room = WORD_MAX - word.len();
                        word.extend(bytes.iter().take(taken.min(room)).map(|byte| *byte as char));
                    }
                    *left -= taken as u64;
                    if *left == 0 {
                        self.at += taken as u64;
                        bytes = bytes.get(taken..).unwrap_or_default();
                        self.argument_ended();
                        continue;
                    }
                    taken
                }
                Within::Line(line) => match memchr::memchr(b'\n', bytes) {
                    Some(end) => {
                        line.extend(bytes.iter().take(end.min(LINE_MAX * 2)).map(|byte| *byte as char));
                        let line = std::mem::take(line);
                        self.at += end as u64 + 1;
                        bytes = bytes.get(end + 1..).unwrap_or_default();
                        self.line_ended(&line)?;
                        continue;
                    }
                    None => {
                        line.extend(bytes.iter().take(LINE_MAX * 2).map(|byte| *byte as char));
                        let (is_long, first) = (line.len() > LINE_MAX, line.chars().next());
                        if is_long {
                            return Err(self.broken("a line does not end"));
                        }
                        // The end of a file may be all that comes of it.
                        if first.is_some_and(|first| !self.may_begin_with(first)) {
                            return Err(self.not_to_begin());
                        }
                        bytes.len()
                    }
                },
            };
            self.at += taken as u64;
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    fn line_ended(&mut self, line: &str) -> Result<(), BrokenStream> {
        let number = |sign: char, most: u64| {
            let digits = line.strip_suffix('\r')?.strip_prefix(sign)?;
            digits.parse::<u64>().ok().filter(|number| *number <= most && line.len() <= LINE_MAX)
        };
        match self.left {
            None if line.starts_with('#') && self.annotations.is_some() => self.annotated(line),
            None => {
                let count = number('*', ARGUMENTS_MAX).filter(|count| *count > 0);
                self.left = Some(count.ok_or_else(|| self.not_to_begin())?);
                self.words.clear();
            }
            Some(_) => {
                let length = number('$', BULK_MAX);
                let length = length.ok_or_else(|| self.not_to_begin())?;
                if self.words.len() < 2 {
                    self.words.push(String::new());
                } else if let Some(word) = self.words.last_mut() {
                    // What follows is not added to it.
                    word.extend(std::iter::repeat_n(' ', WORD_MAX.saturating_sub(word.len())));
                }
                self.within = Within::Argument(length + 2);
            }
        }
        Ok(())
    }

    /// `#TS:1795387246`. Others mean nothing to a server either.
    fn annotated(&mut self, line: &str) {
        let at = self.at - line.len() as u64 - 1;
        let second = line.strip_prefix("#TS:").and_then(|text| text.trim_end().parse().ok());
        let (Some(known), Some(second)) = (&mut self.annotations, second) else { return };
        if known.first.is_none() {
            (known.first, known.first_at) = (Some(second), at);
        }
        known.is_later |= known.until.is_some_and(|until| second > until);
        if !known.is_later {
            known.last = Some(second);
        }
        self.stands_between();
    }

    fn argument_ended(&mut self) {
        self.within = Within::Line(String::new());
        let left = self.left.map_or(0, |left| left.saturating_sub(1));
        self.left = Some(left);
        if left == 0 {
            self.left = None;
            self.command_ended();
        }
    }

    fn command_ended(&mut self) {
        let word = |number: usize| self.words.get(number).map_or("", |word| word.trim_end());
        let first = word(0).to_ascii_uppercase();
        match first.as_str() {
            "PING" => {}
            "REPLCONF" => self.wants_answer |= word(1).eq_ignore_ascii_case("GETACK"),
            "SELECT" => self.selected = word(1).parse().unwrap_or(self.selected),
            "MULTI" => self.in_transaction = true,
            "EXEC" => {
                self.in_transaction = false;
                self.has_changes = true;
            }
            _ => self.has_changes = true,
        }
        self.words.clear();
        self.stands_between();
    }

    /// Here it can be cut, unless within a transaction.
    fn stands_between(&mut self) {
        let is_later = self.annotations.as_ref().is_some_and(|known| known.is_later);
        if !self.in_transaction && !is_later {
            self.boundary = self.at;
            self.database = self.selected;
        }
    }

    fn may_begin_with(&self, first: char) -> bool {
        match self.left {
            None => first == '*' || first == '#' && self.annotations.is_some(),
            Some(_) => first == '$',
        }
    }

    fn not_to_begin(&self) -> BrokenStream {
        self.broken(match self.left {
            None => "a command was to begin",
            Some(_) => "an argument was to begin",
        })
    }

    fn broken(&self, reason: &str) -> BrokenStream {
        BrokenStream { at: self.at, reason: reason.to_owned() }
    }
}

/// The command that selects a database, as the stream has it.
pub fn select(database: u32) -> Vec<u8> {
    let number = database.to_string();
    format!("*2\r\n$6\r\nSELECT\r\n${}\r\n{number}\r\n", number.len()).into_bytes()
}

#[cfg(test)]
mod tests;
