//! The table of contents of an archive of `pg_dump`, read from its head.
//!
//! `pg_restore --list` prints the same for people: names with blanks in them cannot be
//! told from what stands beside them, and neither dependencies nor the roles of grants
//! are in it. The format is older than most servers and only ever grew; every field
//! that a version added is known here up to 1.16, which PostgreSQL 17 and 18 write.
//!
//! Refuses a version that is newer, and a head that does not end.

mod database;
mod offsets;
mod roles;
mod select;

use std::fs::File;
use std::io;
use std::path::Path;

use jiff::civil::DateTime;

pub use self::database::DatabaseShape;
pub use self::offsets::{OffsetPatch, RowOffsets};
pub use self::select::Selection;

use super::super::dump::CONTENTS;
use crate::{Error, Result};

const MAGIC: &[u8; 5] = b"PGDMP";
/// The newest that is known, in the two digits that count.
const NEWEST: (u8, u8) = (1, 16);
/// The oldest: PostgreSQL 9.0's.
const OLDEST: (u8, u8) = (1, 12);
/// A table of contents of a million objects.
const HEAD_MAX: usize = 512 << 20;

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// As it was called.
    pub database: String,
    /// `17.11`.
    pub server_version: String,
    /// Of `pg_dump`.
    pub tool_version: String,
    /// When it was begun, by the clock on the wall where `pg_dump` ran: it says no zone.
    pub begun_at: Option<DateTime>,
    pub entries: Vec<Entry>,
    layout: Layout,
}

/// Where things lie in the file, and in how many bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Layout {
    int_size: usize,
    offset_size: usize,
    /// The rows begin behind it.
    head_bytes: u64,
    /// Of each entry in the custom format: where it is said where its rows begin.
    offsets_at: Vec<u64>,
    /// The entries of which bytes lie behind the head.
    with_data: Vec<i32>,
}

/// One object, or the rows of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the archive, by which `pg_restore` is told what to take.
    pub id: i32,
    /// `TABLE`, `TABLE DATA`, `FK CONSTRAINT`, as `pg_restore --list` has it.
    pub kind: String,
    pub schema: Option<String>,
    pub name: String,
    pub owner: Option<String>,
    /// None for the one that the database lies in.
    pub tablespace: Option<String>,
    /// The statements that make it.
    pub definition: String,
    /// What has to be there before it.
    pub depends_on: Vec<i32>,
}

impl Archive {
    /// `None` when the head is longer than these bytes.
    pub fn read(head: &[u8]) -> Result<Option<Archive>> {
        let mut fields = Fields { left: head, whole: head.len(), int_size: 4 };
        match read(&mut fields) {
            Ok(archive) => Ok(Some(archive)),
            Err(Stop::NeedsMore) if head.len() < HEAD_MAX => Ok(None),
            Err(Stop::NeedsMore) => {
                Err(Error::Archive { reason: "its table of contents has no end".to_owned() })
            }
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    pub fn server_major(&self) -> Option<u32> {
        major(&self.server_version)
    }

    pub fn tool_major(&self) -> Option<u32> {
        major(&self.tool_version)
    }

    /// Names of the extensions.
    pub fn extensions(&self) -> impl Iterator<Item = &str> {
        self.of_kind("EXTENSION").map(|entry| entry.name.as_str())
    }

    pub fn has_timescaledb(&self) -> bool {
        self.extensions().any(|name| name == "timescaledb")
    }

    pub(super) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.kind == kind)
    }
}

/// `17.11 (Debian …)` is of 17.
pub(super) fn major(version: &str) -> Option<u32> {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Takes the head of an archive as it comes, in pieces of any size.
#[derive(Default)]
pub struct ArchiveReader {
    head: Vec<u8>,
    /// It is read again when so much has come: a head of any length is read a few times
    /// more than once, and not once for each piece.
    next_look: usize,
}

impl ArchiveReader {
    /// The archive, as soon as all of its head has come; no more pieces then.
    pub fn push(&mut self, piece: &[u8]) -> Result<Option<Archive>> {
        self.head.extend_from_slice(piece);
        if self.head.len() < self.next_look {
            return Ok(None);
        }
        self.next_look = self.head.len() * 2;
        Archive::read(&self.head)
    }

    /// As much as it needs, of whatever can be read.
    pub(super) fn take(mut self, from: &mut impl io::Read) -> io::Result<Result<Archive>> {
        let mut piece = vec![0; 64 << 10];
        loop {
            let read = match from.read(&mut piece)? {
                0 => return Ok(self.end()),
                count => self.push(&piece[..count]),
            };
            if let Some(read) = read.transpose() {
                return Ok(read);
            }
        }
    }

    /// There are no more pieces.
    pub fn end(self) -> Result<Archive> {
        let cut = || Error::Archive { reason: "it ends within its table of contents".to_owned() };
        Archive::read(&self.head)?.ok_or_else(cut)
    }
}

enum Stop {
    NeedsMore,
    Failed(Error),
}

type Read<T> = std::result::Result<T, Stop>;

fn wrong(reason: impl Into<String>) -> Stop {
    Stop::Failed(Error::Archive { reason: reason.into() })
}

struct Fields<'a> {
    left: &'a [u8],
    whole: usize,
    int_size: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let (taken, left) = self.left.split_at_checked(count).ok_or(Stop::NeedsMore)?;
        self.left = left;
        Ok(taken)
    }

    fn position(&self) -> u64 {
        (self.whole - self.left.len()) as u64
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.take(1)?[0])
    }

    /// A sign and the amount, its lowest byte first.
    fn int(&mut self) -> Read<i32> {
        let negative = self.byte()? != 0;
        let mut amount = 0u64;
        for (place, byte) in self.take(self.int_size)?.iter().enumerate() {
            amount |= u64::from(*byte) << (8 * place);
        }
        let amount = i32::try_from(amount).map_err(|_| wrong("a number in it is too large"))?;
        Ok(if negative { -amount } else { amount })
    }

    fn text(&mut self) -> Read<Option<String>> {
        let length = self.int()?;
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        // Names of a database that is not in UTF-8 stay recognisable, if not exact.
        Ok(Some(String::from_utf8_lossy(self.take(length)?).into_owned()))
    }

    fn skip(&mut self, fields: &[Field]) -> Read<()> {
        for field in fields {
            match field {
                Field::Int => drop(self.int()?),
                Field::Text => drop(self.text()?),
            }
        }
        Ok(())
    }
}

enum Field {
    Int,
    Text,
}

fn read(fields: &mut Fields<'_>) -> Read<Archive> {
    if fields.take(MAGIC.len())? != MAGIC {
        return Err(wrong("it does not begin as one"));
    }
    let version = (fields.byte()?, fields.byte()?);
    let _revision = fields.byte()?;
    if version > NEWEST {
        let found = format!("{}.{}", version.0, version.1);
        return Err(Stop::Failed(Error::ArchiveTooNew { found }));
    }
    if version < OLDEST {
        return Err(wrong(format!("its version {}.{} is of before PostgreSQL 9.0", version.0, version.1)));
    }
    fields.int_size = usize::from(fields.byte()?);
    let offset_size = usize::from(fields.byte()?);
    if !(1..=8).contains(&fields.int_size) || !(1..=8).contains(&offset_size) {
        return Err(wrong("its numbers have a strange size"));
    }
    const CUSTOM: u8 = 1;
    let format = fields.byte()?;
    match version >= (1, 15) {
        true => drop(fields.byte()?),
        false => drop(fields.int()?),
    }
    let begun_at = begun_at(fields)?;
    let database = fields.text()?.unwrap_or_default();
    let server_version = first_word(fields.text()?);
    let tool_version = first_word(fields.text()?);
    let count = fields.int()?;
    /// `K_OFFSET_NO_DATA` of `pg_dump`.
    const NO_DATA: u8 = 3;
    let (mut entries, mut offsets_at, mut with_data) = (Vec::<Entry>::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        entries.push(entry(fields, version)?);
        match format == CUSTOM {
            // Where its rows begin, when that was known.
            true => {
                offsets_at.push(fields.position());
                if fields.take(1 + offset_size)?[0] != NO_DATA {
                    with_data.extend(entries.last().map(|entry| entry.id));
                }
            }
            // The file they are in.
            false => drop(fields.text()?),
        }
    }
    let layout = Layout {
        int_size: fields.int_size,
        offset_size,
        head_bytes: fields.position(),
        offsets_at,
        with_data,
    };
    Ok(Archive { database, server_version, tool_version, begun_at, entries, layout })
}

/// Seven fields, as C has them; the last says whether it was summer.
fn begun_at(fields: &mut Fields<'_>) -> Read<Option<DateTime>> {
    let (second, minute, hour) = (fields.int()?, fields.int()?, fields.int()?);
    let (day, month, year) = (fields.int()?, fields.int()?, fields.int()?);
    fields.skip(&[Field::Int])?;
    let small = |number| i8::try_from(number).ok();
    let made = || {
        let year = i16::try_from(year).ok()?.checked_add(1900)?;
        let (month, day) = (small(month)?.checked_add(1)?, small(day)?);
        DateTime::new(year, month, day, small(hour)?, small(minute)?, small(second)?, 0).ok()
    };
    Ok(made())
}

fn entry(fields: &mut Fields<'_>, version: (u8, u8)) -> Read<Entry> {
    let id = fields.int()?;
    // Whether it has rows, and its numbers in the catalogue.
    fields.skip(&[Field::Int, Field::Text, Field::Text])?;
    let name = fields.text()?.unwrap_or_default();
    let kind = fields.text()?.unwrap_or_default();
    fields.skip(&[Field::Int])?;
    let definition = fields.text()?.unwrap_or_default();
    // The statements that drop it and that copy its rows.
    fields.skip(&[Field::Text, Field::Text])?;
    let schema = fields.text()?.filter(|schema| !schema.is_empty());
    let tablespace = fields.text()?.filter(|tablespace| !tablespace.is_empty());
    // Access method, kind of relation.
    if version >= (1, 14) {
        fields.skip(&[Field::Text])?;
    }
    if version >= (1, 16) {
        fields.skip(&[Field::Int])?;
    }
    let owner = fields.text()?.filter(|owner| !owner.is_empty());
    fields.skip(&[Field::Text])?;
    let mut depends_on = Vec::new();
    while let Some(number) = fields.text()? {
        depends_on.push(number.parse().map_err(|_| wrong("a dependency in it has no number"))?);
    }
    Ok(Entry { id, kind, schema, name, owner, tablespace, definition, depends_on })
}

fn first_word(text: Option<String>) -> String {
    text.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
}

/// Reads the table of contents of an archive that lies somewhere: a file in the custom
/// format, or a directory. Blocks.
pub fn read_lying(path: &Path) -> Result<Archive> {
    let path = if path.is_dir() { path.join(CONTENTS) } else { path.to_owned() };
    let failed = |source| Error::Read { path: path.clone(), source };
    let mut file = File::open(&path).map_err(failed)?;
    ArchiveReader::default().take(&mut file).map_err(failed)?
}

#[cfg(test)]
mod tests;
