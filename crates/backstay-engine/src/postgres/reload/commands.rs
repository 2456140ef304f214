//! What in statements `psql` would take for a command to itself: `\!` runs a program,
//! `\connect` leaves the database that was named.
//!
//! A `psql` that knows `\restrict` refuses them itself, and is the judge; here they are
//! found before it is started, in the head of a dump, and for an older one anywhere.
//!
//! Invariant of the strict reading: `psql` never sees a command where this saw text. What
//! the two could read differently (a quote behind a backslash, a statement that ends
//! within another) is objected to as well. Refuses to be the only guard where `psql` has one.

use std::mem::take;

/// Of a statement's words, and of a line that is quoted.
const WORD_MAX: usize = 16;
/// No command of `psql` is longer.
const COMMAND_MAX: usize = 40;

/// What must not reach `psql`, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Objection {
    pub line: u64,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Code,
    /// In single quotes; how many backslashes stand at its end, and whether a byte that
    /// may be half of a letter stands before them.
    Text {
        backslashes: u32,
        after_letter: bool,
        escapes: bool,
    },
    Name,
    /// Between dollar quotes: the quote, and what of its end was seen.
    Dollar {
        quote: Vec<u8>,
        tail: Vec<u8>,
    },
    /// A dollar, and what may be a tag.
    Tag(Vec<u8>),
    Comment,
    Block(u32),
    /// The end of a `COPY … FROM stdin`, up to the end of its line.
    BeforeRows,
    /// Rows; the beginning of the line.
    Rows(Vec<u8>),
    /// A line of which nothing is read.
    Skipped,
}

/// Reads statements as they come, in pieces of any size.
pub(super) struct Commands {
    state: State,
    strict: bool,
    line: u64,
    begins_line: bool,
    previous: u8,
    depth: u32,
    word: Vec<u8>,
    first: Vec<u8>,
    last: [Vec<u8>; 2],
    names_stdin: bool,
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

impl Commands {
    /// Every command, and everything in doubt.
    pub fn strict() -> Self {
        Self::new(true)
    }

    /// Lines that are commands, in statements as `pg_dump` writes them.
    pub fn lenient() -> Self {
        Self::new(false)
    }

    fn new(strict: bool) -> Self {
        Self {
            state: State::Code,
            strict,
            line: 1,
            begins_line: true,
            previous: 0,
            depth: 0,
            word: Vec::new(),
            first: Vec::new(),
            last: [Vec::new(), Vec::new()],
            names_stdin: false,
        }
    }

    /// The first objection to the next bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Objection> {
        let mut at = 0;
        while at < bytes.len() {
            if let State::Rows(begin) = &mut self.state
                && begin.len() > 3
                && let Some(end) = bytes[at..].iter().position(|byte| *byte == b'\n')
            {
                // The rest of a row; its end is looked at below.
                at += end;
            }
            let byte = bytes[at];
            if let Some(reason) = self.step(byte, &bytes[at..]) {
                let text = reason.map_or_else(|| quoted(&bytes[at..]), str::to_owned);
                return Some(Objection { line: self.line, text });
            }
            self.begins_line = byte == b'\n';
            self.line += u64::from(byte == b'\n');
            self.previous = byte;
            at += 1;
        }
        None
    }

    /// `Some(None)`: the command that begins here.
    fn step(&mut self, byte: u8, rest: &[u8]) -> Option<Option<&'static str>> {
        if byte == 0 && self.strict {
            return Some(Some("a byte of zero"));
        }
        match &mut self.state {
            State::Tag(tag) => {
                if byte == b'$' {
                    let mut quote = take(tag);
                    quote.push(byte);
                    self.state = State::Dollar { quote, tail: Vec::new() };
                    return None;
                }
                if is_of_word(byte) && !(tag.len() == 1 && byte.is_ascii_digit()) {
                    tag.push(byte);
                    return None;
                }
                self.state = State::Code;
                return self.code(byte, rest);
            }
            State::Code => return self.code(byte, rest),
            State::Text { backslashes, after_letter, escapes } => match byte {
                b'\\' => {
                    if *backslashes == 0 {
                        *after_letter = self.previous >= 0x80;
                    }
                    *backslashes += 1;
                }
                b'\'' => {
                    let doubtful = *backslashes % 2 == 1 || (*backslashes > 0 && *after_letter);
                    if doubtful && self.strict {
                        return Some(Some("a quote behind a backslash, which is read in two ways"));
                    }
                    let is_escaped = *escapes && *backslashes % 2 == 1;
                    *backslashes = 0;
                    if !is_escaped {
                        self.state = State::Code;
                    }
                }
                _ => *backslashes = 0,
            },
            State::Name if byte == b'"' => self.state = State::Code,
            State::Name | State::Skipped if byte != b'\n' => {}
            State::Name => {}
            State::Dollar { quote, tail } => {
                tail.push(byte);
                if tail.len() > quote.len() {
                    tail.remove(0);
                }
                if tail == quote {
                    self.state = State::Code;
                }
            }
            State::Comment if matches!(byte, b'\n' | b'\r') => self.state = State::Code,
            State::Comment => {}
            State::Block(depth) => match (self.previous, byte) {
                (b'/', b'*') => {
                    *depth += 1;
                    self.previous = 0;
                    return None;
                }
                (b'*', b'/') => {
                    *depth -= 1;
                    if *depth == 0 {
                        self.state = State::Code;
                    }
                }
                _ => {}
            },
            State::BeforeRows => match byte {
                b'\n' => self.state = State::Rows(Vec::new()),
                byte if byte.is_ascii_whitespace() => {}
                _ if self.strict => return Some(Some("something behind `FROM stdin;`")),
                _ => {}
            },
            State::Rows(begin) => match byte {
                b'\n' => {
                    let is_end = begin.trim_ascii_end() == b"\\.";
                    begin.clear();
                    if is_end {
                        self.state = State::Code;
                    }
                }
                _ if begin.len() <= 3 => begin.push(byte),
                _ => {}
            },
            State::Skipped => self.state = State::Code,
        }
        None
    }

    fn code(&mut self, byte: u8, rest: &[u8]) -> Option<Option<&'static str>> {
        if is_of_word(byte) || (byte == b'$' && !self.word.is_empty()) {
            if byte == b'$' && self.strict && self.word[0].is_ascii_digit() {
                return Some(Some("a dollar behind a number, which is read in two ways"));
            }
            if self.word.len() < WORD_MAX {
                self.word.push(byte.to_ascii_lowercase());
            }
            return None;
        }
        let word = take(&mut self.word);
        let is_escaped = word == b"e" && byte == b'\'';
        if !word.is_empty() {
            self.names_stdin |= word == b"stdin";
            if self.strict && word == b"begin" && self.first == b"create" {
                return Some(Some("a function whose body is of statements"));
            }
            if self.first.is_empty() {
                self.first.clone_from(&word);
            }
            self.last.swap(0, 1);
            self.last[1] = word;
        }
        match byte {
            b'\\' => return self.command(rest),
            b'\'' => {
                self.state = State::Text { backslashes: 0, after_letter: false, escapes: is_escaped };
            }
            b'"' => {
                self.last = [Vec::new(), Vec::new()];
                self.state = State::Name;
            }
            b'$' => self.state = State::Tag(vec![byte]),
            b'-' if self.previous == b'-' => self.state = State::Comment,
            b'*' if self.previous == b'/' => {
                self.state = State::Block(1);
            }
            b'(' => self.depth += 1,
            b')' => self.depth = self.depth.saturating_sub(1),
            b';' if self.depth == 0 => {
                let is_copy = self.first == b"copy" && self.names_stdin;
                let is_plain = self.last[0] == b"from" && self.last[1] == b"stdin";
                if is_copy && is_plain {
                    self.state = State::BeforeRows;
                } else if is_copy && self.strict {
                    return Some(Some("a `COPY … FROM stdin` with options"));
                }
                self.first.clear();
                self.last = [Vec::new(), Vec::new()];
                self.names_stdin = false;
            }
            _ => {}
        }
        None
    }

    fn command(&mut self, rest: &[u8]) -> Option<Option<&'static str>> {
        if self.strict {
            return Some(None);
        }
        let own = [&b"\\restrict "[..], b"\\unrestrict "].iter().any(|word| rest.starts_with(word));
        if own || !self.begins_line {
            self.state = State::Skipped;
            return None;
        }
        Some(None)
    }
}

/// The command alone: behind it may stand a password.
fn quoted(line: &[u8]) -> String {
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let letters = line.iter().skip(1).take(COMMAND_MAX).take_while(|byte| is_of_word(byte)).count();
    // `\!` and the like are of one character.
    let end = (1 + letters.max(1)).min(line.len());
    String::from_utf8_lossy(&line[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mut commands: Commands, script: &str, piece: usize) -> Option<(u64, String)> {
        let mut pieces = script.as_bytes().chunks(piece);
        let objection = pieces.find_map(|piece| commands.push(piece));
        objection.map(|objection| (objection.line, objection.text))
    }

    #[test]
    fn of_a_command_its_word_is_told_and_nothing_that_stands_behind_it() {
        for (line, word) in [
            ("\\connect \"host=x password=secret\"", "\\connect"),
            ("\\! curl secret", "\\!"),
            ("\\copy t from program 'secret'", "\\copy"),
            ("\\", "\\"),
        ] {
            assert_eq!(quoted(line.as_bytes()), word);
        }
    }

    #[test]
    fn what_pg_dump_writes_is_no_command_however_it_is_cut() {
        let script = "-- it's \\! a comment\nSET standard_conforming_strings = on;\n\
            CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $_$ SELECT '\n\\! x' || $1; $_$;\n\
            CREATE TABLE \"a\\\n\\b\" (x text DEFAULT 'C:\n\\dir', y text DEFAULT E'it''s\\n\\\\');\n\
            COPY public.\"a b\" (x, y) FROM stdin;\n\\N\tit's\n\\! touch x\n\\\\.\n\\.\n\
            /* \\! /* nested */ \\! */ COPY public.t FROM stdin;\r\n\\.\r\n\
            SELECT 1 AS a$b$, '$q$'; SELECT pg_catalog.setval('s', 1);\n";
        for piece in [1, 2, 3, 7, 10_000] {
            assert_eq!(found(Commands::strict(), script, piece), None, "{piece}");
            assert_eq!(found(Commands::lenient(), script, piece), None, "{piece}");
        }
    }

    #[test]
    fn every_command_and_everything_that_could_hide_one_is_objected_to() {
        for (script, line) in [
            ("SELECT 1;\n\\! touch x\n", 2),
            ("SELECT 1 \\g out\n", 1),
            ("-- a\r\\! touch x\n", 1),
            ("COPY t FROM stdin;\n1\n\\.\n\\connect other\n", 4),
            ("COPY t FROM stdin; \\! x\n\\.\n", 1),
            ("COPY t FROM stdin csv;\n'\n\\.\n\\! x\n", 1),
            ("SELECT (1; COPY t FROM stdin;\n\\! x\n", 2),
            ("CREATE FUNCTION f() BEGIN ATOMIC COPY t FROM stdin;\n\\! x\n", 1),
            ("SELECT '\\'' \\! x'", 1),
            ("SELECT E'\u{83}\\\\' \\! x'", 1),
            ("SELECT 1$$'$$;\n\\! x\n", 1),
            ("SELECT '\0'", 1),
        ] {
            for piece in [1, 10_000] {
                let found = found(Commands::strict(), script, piece);
                assert_eq!(found.map(|found| found.0), Some(line), "{script:?}");
            }
        }
    }

    #[test]
    fn a_head_tells_of_commands_and_passes_by_what_pg_dump_has_for_itself() {
        let script = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nCREATE DATABASE x;\n\
                      \\unrestrict abc\n\\connect x\n";
        assert_eq!(found(Commands::lenient(), script, 10_000), Some((9, "\\connect".to_owned())));
    }
}
