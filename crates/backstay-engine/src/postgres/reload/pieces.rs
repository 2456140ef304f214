//! Cuts a script of `pg_dump` or `pg_dumpall` as `psql` does: into lines that stand between
//! statements, statements, and the rows that follow a `COPY`.
//!
//! Invariant: the pieces are all bytes of the script in their order, however these come.
//! What is inside of quotes, of dollar quotes, of a function's `BEGIN ATOMIC` and of rows
//! is never taken for a line between statements.

use memchr::{memchr, memchr2, memmem, memrchr};

use super::words::Words;
use crate::{Error, Result};

/// A name has 63 bytes, each of which may be written as two.
const LINE_MAX_BYTES: usize = 8 << 10;
/// `$name$`, of a name.
const TAG_MAX_BYTES: usize = 256;

/// One piece, or a part of one where it is long.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Nothing but spaces and ends of lines.
    Gap(&'a [u8]),
    /// A comment between statements, whole and with the end of its line.
    Comment(&'a [u8]),
    /// A command to `psql`, likewise.
    Command(&'a [u8]),
    Statement(&'a [u8]),
    /// The statement that came has ended, and these are its first words.
    End(&'a Words),
    /// Rows, with the line that ends them.
    Rows(&'a [u8]),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Between,
    /// After one `-` between statements.
    Dash,
    Comment,
    Command,
    Plain,
    Word,
    /// After one `-` or `/` within a statement.
    PlainDash,
    Slash,
    LineComment,
    BlockComment {
        depth: u32,
        last: u8,
    },
    Text {
        escapes: bool,
    },
    /// After a quote that ends a text, unless it is doubled.
    TextQuote {
        escapes: bool,
    },
    Escaped,
    Name,
    NameQuote,
    Tag,
    Dollar {
        matched: usize,
    },
    /// Behind the `;` of a `COPY`, up to the end of the line.
    BeforeRows,
    Rows,
}

/// Where in a script we are.
pub(super) struct Pieces {
    at: At,
    words: Words,
    /// A line between statements, a word, or a tag.
    held: Vec<u8>,
    tag: Vec<u8>,
    /// Of a line of rows, the first bytes and the length.
    row: (Vec<u8>, u64),
}

impl Default for Pieces {
    fn default() -> Self {
        Self {
            at: At::Between,
            words: Words::default(),
            held: Vec::new(),
            tag: Vec::new(),
            row: (Vec::new(), 0),
        }
    }
}

impl Pieces {
    /// Whether the script may end here; its last line may lack its end.
    pub fn is_between(&self) -> bool {
        matches!(self.at, At::Between | At::Dash | At::Comment)
    }

    pub fn push(&mut self, bytes: &[u8], out: &mut impl FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        // Where the piece began that is not given out yet.
        let mut from = 0;
        let mut next = 0;
        while next < bytes.len() {
            if self.at == At::Rows {
                next += self.rows(&bytes[next..]);
                if self.at == At::Between {
                    out(Piece::Rows(&bytes[from..next]))?;
                    from = next;
                }
                continue;
            }
            let byte = bytes[next];
            match self.at {
                At::Between => match byte {
                    b'-' | b'\\' => {
                        if from < next {
                            out(Piece::Gap(&bytes[from..next]))?;
                        }
                        self.held.clear();
                        self.held.push(byte);
                        self.at = if byte == b'-' { At::Dash } else { At::Command };
                        next += 1;
                        from = next;
                    }
                    byte if byte.is_ascii_whitespace() => next += 1,
                    _ => {
                        if from < next {
                            out(Piece::Gap(&bytes[from..next]))?;
                        }
                        from = next;
                        self.words.begin();
                        self.at = At::Plain;
                    }
                },
                At::Dash if byte == b'-' => {
                    self.held.push(byte);
                    self.at = At::Comment;
                    next += 1;
                    from = next;
                }
                At::Dash => {
                    // A statement that begins with a minus: none of `pg_dumpall`.
                    out(Piece::Statement(b"-"))?;
                    self.words.begin();
                    self.at = At::Plain;
                }
                At::Comment | At::Command => {
                    let rest = &bytes[next..];
                    let end = memchr(b'\n', rest);
                    let line = &rest[..end.map_or(rest.len(), |end| end + 1)];
                    next += line.len();
                    from = next;
                    self.hold_line(line)?;
                    if end.is_some() {
                        match self.at {
                            At::Comment => out(Piece::Comment(&self.held))?,
                            _ => out(Piece::Command(&self.held))?,
                        }
                        self.at = At::Between;
                    }
                }
                At::BeforeRows => {
                    next += 1;
                    if byte == b'\n' {
                        out(Piece::Statement(&bytes[from..next]))?;
                        out(Piece::End(&self.words))?;
                        from = next;
                        self.row = (Vec::new(), 0);
                        self.at = At::Rows;
                    }
                }
                _ => {
                    let passed = self.passed(&bytes[next..]);
                    if passed > 0 {
                        next += passed;
                        continue;
                    }
                    let is_taken = self.statement(byte)?;
                    if is_taken {
                        next += 1;
                    }
                    if is_taken && byte == b';' && self.at == At::Plain && self.words.has_ended() {
                        if self.words.is_followed_by_rows() {
                            self.at = At::BeforeRows;
                        } else {
                            out(Piece::Statement(&bytes[from..next]))?;
                            out(Piece::End(&self.words))?;
                            from = next;
                            self.at = At::Between;
                        }
                    }
                }
            }
        }
        if from == bytes.len() {
            return Ok(());
        }
        match self.at {
            At::Between => out(Piece::Gap(&bytes[from..])),
            At::Rows => out(Piece::Rows(&bytes[from..])),
            At::Dash | At::Comment | At::Command => Ok(()),
            _ => out(Piece::Statement(&bytes[from..])),
        }
    }

    /// The rows that these bytes begin with, of which nothing is given out: how many bytes.
    pub fn pass_rows(&mut self, bytes: &[u8]) -> usize {
        if self.at == At::Rows { self.rows(bytes) } else { 0 }
    }

    /// How many bytes of a long comment stay is nobody's matter; of a command all do.
    fn hold_line(&mut self, line: &[u8]) -> Result<()> {
        if self.held.len() + line.len() <= LINE_MAX_BYTES {
            self.held.extend_from_slice(line);
            return Ok(());
        }
        if self.at == At::Command {
            return Err(Error::Archive {
                reason: "it has a command to `psql` that is longer than any of `pg_dumpall`".to_owned(),
            });
        }
        let room = LINE_MAX_BYTES.saturating_sub(self.held.len());
        self.held.extend_from_slice(&line[..room.min(line.len())]);
        if line.ends_with(b"\n") && !self.held.ends_with(b"\n") {
            self.held.push(b'\n');
        }
        Ok(())
    }

    /// Takes rows up to the line that ends them, and says how many bytes.
    fn rows(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            if self.row.1 == 0 {
                taken += ordinary(&bytes[taken..]);
            }
            let rest = &bytes[taken..];
            let line = &rest[..memchr(b'\n', rest).map_or(rest.len(), |end| end + 1)];
            taken += line.len();
            let (begin, length) = &mut self.row;
            let room = 4_usize.saturating_sub(begin.len());
            begin.extend_from_slice(&line[..room.min(line.len())]);
            *length += line.len() as u64;
            if line.ends_with(b"\n") {
                let is_end = *length == begin.len() as u64 && matches!(&begin[..], b"\\.\n" | b"\\.\r\n");
                self.row = (Vec::new(), 0);
                if is_end {
                    self.at = At::Between;
                    break;
                }
            }
        }
        taken
    }

    /// How many of the next bytes are of a text or a body, and nothing to look at: these
    /// are as long as rows where a dump holds large objects, or `INSERT` in place of `COPY`.
    fn passed(&self, bytes: &[u8]) -> usize {
        let end = match self.at {
            At::Text { escapes } if escapes || self.words.backslash_escapes() => memchr2(b'\'', b'\\', bytes),
            At::Text { .. } => memchr(b'\'', bytes),
            At::Dollar { matched: 0 } => memchr(b'$', bytes),
            At::LineComment => memchr(b'\n', bytes),
            _ => return 0,
        };
        end.unwrap_or(bytes.len())
    }

    /// The next byte of a statement; `false`: it is to be looked at again.
    fn statement(&mut self, byte: u8) -> Result<bool> {
        let is_name = byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        match &mut self.at {
            At::Plain => {
                self.at = match byte {
                    b'\'' => At::Text { escapes: false },
                    b'"' => At::Name,
                    b'-' => At::PlainDash,
                    b'/' => At::Slash,
                    b'$' => {
                        self.tag.clear();
                        At::Tag
                    }
                    b'\\' => {
                        return Err(Error::Archive {
                            reason: "it has a command to `psql` within a statement".to_owned(),
                        });
                    }
                    _ if is_name => {
                        self.held.clear();
                        self.held.push(byte);
                        At::Word
                    }
                    byte => {
                        self.words.mark(byte);
                        At::Plain
                    }
                };
            }
            At::Word if is_name || byte == b'$' => {
                if self.held.len() < TAG_MAX_BYTES {
                    self.held.push(byte);
                }
            }
            At::Word => {
                self.words.word(&self.held);
                let escapes = self.held.eq_ignore_ascii_case(b"e") || self.words.backslash_escapes();
                self.at = if byte == b'\'' { At::Text { escapes } } else { At::Plain };
                return Ok(byte == b'\'');
            }
            At::PlainDash => {
                self.at = if byte == b'-' { At::LineComment } else { At::Plain };
                return Ok(byte == b'-');
            }
            At::Slash => {
                self.at = if byte == b'*' { At::BlockComment { depth: 1, last: 0 } } else { At::Plain };
                return Ok(byte == b'*');
            }
            At::LineComment => {
                if byte == b'\n' {
                    self.at = At::Plain;
                }
            }
            At::BlockComment { depth, last } => {
                match (*last, byte) {
                    (b'*', b'/') => (*depth, *last) = (*depth - 1, 0),
                    (b'/', b'*') => (*depth, *last) = (*depth + 1, 0),
                    (_, byte) => *last = byte,
                }
                if *depth == 0 {
                    self.at = At::Plain;
                }
            }
            At::Text { escapes } => {
                let escapes = *escapes || self.words.backslash_escapes();
                match byte {
                    b'\'' => self.at = At::TextQuote { escapes },
                    b'\\' if escapes => self.at = At::Escaped,
                    _ => {}
                }
            }
            At::Escaped => self.at = At::Text { escapes: true },
            At::TextQuote { escapes } => {
                let escapes = *escapes;
                if byte == b'\'' {
                    self.at = At::Text { escapes };
                } else {
                    self.words.other();
                    self.at = At::Plain;
                }
                return Ok(byte == b'\'');
            }
            At::Name => {
                if byte == b'"' {
                    self.at = At::NameQuote;
                }
            }
            At::NameQuote => {
                if byte == b'"' {
                    self.at = At::Name;
                } else {
                    self.words.other();
                    self.at = At::Plain;
                }
                return Ok(byte == b'"');
            }
            At::Tag => {
                let may_be = is_name && !(self.tag.is_empty() && byte.is_ascii_digit());
                if byte == b'$' {
                    self.tag.insert(0, b'$');
                    self.tag.push(b'$');
                    self.at = At::Dollar { matched: 0 };
                } else if may_be && self.tag.len() < TAG_MAX_BYTES {
                    self.tag.push(byte);
                } else {
                    self.at = At::Plain;
                    return Ok(false);
                }
            }
            At::Dollar { matched } => {
                *matched = match self.tag.get(*matched) {
                    Some(expected) if *expected == byte => *matched + 1,
                    // A tag has no `$` but at its ends.
                    _ => usize::from(byte == b'$'),
                };
                if *matched == self.tag.len() {
                    self.words.other();
                    self.at = At::Plain;
                }
            }
            At::Between | At::Dash | At::Comment | At::Command | At::BeforeRows | At::Rows => {}
        }
        Ok(true)
    }
}

/// From the beginning of a line, how many bytes are lines that do not begin as the end of
/// rows does.
fn ordinary(bytes: &[u8]) -> usize {
    const BEGIN: &[u8] = b"\n\\.";
    if bytes.starts_with(&BEGIN[1..]) {
        return 0;
    }
    let line = memmem::find(bytes, BEGIN).or_else(|| memrchr(b'\n', bytes));
    line.map_or(0, |end| end + 1)
}
