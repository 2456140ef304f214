//! Where the rows of each table begin in an archive, found while it streams by.
//!
//! `pg_dump` that writes into a pipe cannot go back and say it in the table of contents.
//! `pg_restore --jobs` then lets every session read the file from its beginning until it
//! comes to its table, and does not know which tables are the large ones that should come
//! first. Said in the copy that it reads, each session goes where it must.
//!
//! Only ever a help: an archive that does not read as expected is left as it is, for
//! `pg_restore` to judge.

use std::collections::{BTreeMap, BTreeSet};

use super::{Archive, Layout};

/// `K_OFFSET_POS_SET` of `pg_dump`: the position that follows is known.
const IS_SET: u8 = 2;
/// `BLK_DATA` and `BLK_BLOBS`.
const ROWS: u8 = 1;
const LARGE_OBJECTS: u8 = 3;

/// Bytes that belong at a place in the table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetPatch {
    pub at: u64,
    pub bytes: Vec<u8>,
}

/// Takes an archive in the custom format, from its first byte, in pieces of any size.
pub struct RowOffsets {
    layout: Layout,
    /// The places in the table of contents, by the number of the entry.
    offsets_at: BTreeMap<i32, u64>,
    position: u64,
    state: State,
    /// Of a number that is read.
    digits: Vec<u8>,
    begun_at: u64,
    found: Vec<(i32, u64)>,
    watched: Option<Watched>,
}

/// An entry whose rows are kept, as they are in the archive.
struct Watched {
    entry: i32,
    limit: usize,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Kind,
    Entry { large_objects: bool },
    LargeObject,
    Length { large_objects: bool },
    Bytes { left: u64, large_objects: bool },
    Lost,
}

impl RowOffsets {
    pub fn of(archive: &Archive) -> RowOffsets {
        let numbers = archive.entries.iter().map(|entry| entry.id);
        RowOffsets {
            layout: archive.layout.clone(),
            offsets_at: numbers.zip(archive.layout.offsets_at.iter().copied()).collect(),
            position: 0,
            state: State::Head,
            digits: Vec::new(),
            begun_at: 0,
            found: Vec::new(),
            watched: None,
        }
    }

    /// And keeps the rows of this entry, unless they are more than so many bytes.
    pub(in crate::postgres::reload) fn watching(archive: &Archive, entry: i32, limit: usize) -> RowOffsets {
        let watched = Some(Watched { entry, limit, bytes: Vec::new() });
        RowOffsets { watched, ..RowOffsets::of(archive) }
    }

    /// The rows of the entry that was watched; nothing when there were too many.
    pub(in crate::postgres::reload) fn watched(&self) -> Option<&[u8]> {
        let watched = self.watched.as_ref()?;
        (watched.bytes.len() <= watched.limit).then_some(watched.bytes.as_slice())
    }

    pub fn push(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let taken = match self.state {
                State::Lost => return,
                State::Head => {
                    let left = self.layout.head_bytes - self.position;
                    let taken = up_to(piece, left);
                    if taken as u64 == left {
                        self.state = State::Kind;
                    }
                    taken
                }
                State::Kind => {
                    self.begun_at = self.position;
                    self.state = match piece[0] {
                        ROWS => State::Entry { large_objects: false },
                        LARGE_OBJECTS => State::Entry { large_objects: true },
                        _ => State::Lost,
                    };
                    1
                }
                State::Bytes { left, large_objects } => {
                    let taken = up_to(piece, left);
                    if let Some(watched) = &mut self.watched
                        && self.found.last().is_some_and(|(entry, _)| *entry == watched.entry)
                        && watched.bytes.len() <= watched.limit
                    {
                        watched.bytes.extend_from_slice(&piece[..taken]);
                    }
                    self.state = match left - taken as u64 {
                        0 => State::Length { large_objects },
                        left => State::Bytes { left, large_objects },
                    };
                    taken
                }
                State::Entry { .. } | State::LargeObject | State::Length { .. } => {
                    // A sign, and the amount with its lowest byte first.
                    let taken = piece.len().min(1 + self.layout.int_size - self.digits.len());
                    self.digits.extend_from_slice(&piece[..taken]);
                    if self.digits.len() > self.layout.int_size {
                        self.number();
                    }
                    taken
                }
            };
            self.position += taken as u64;
            piece = &piece[taken..];
        }
    }

    fn number(&mut self) {
        let amount =
            self.digits.iter().skip(1).rev().fold(0u64, |amount, digit| amount << 8 | u64::from(*digit));
        let is_negative = self.digits.first() != Some(&0);
        self.digits.clear();
        self.state = match self.state {
            _ if is_negative => State::Lost,
            State::Entry { large_objects } => match i32::try_from(amount) {
                Ok(entry) => {
                    self.found.push((entry, self.begun_at));
                    match large_objects {
                        true => State::LargeObject,
                        false => State::Length { large_objects },
                    }
                }
                Err(_) => State::Lost,
            },
            State::LargeObject if amount == 0 => State::Kind,
            State::LargeObject => State::Length { large_objects: true },
            State::Length { large_objects: true } if amount == 0 => State::LargeObject,
            State::Length { large_objects: false } if amount == 0 => State::Kind,
            State::Length { large_objects } => State::Bytes { left: amount, large_objects },
            other => other,
        };
    }

    /// Whether it ended before the rows that its table of contents names. Not known of one
    /// that does not read as expected.
    pub fn is_cut(&self) -> bool {
        match self.state {
            State::Lost => false,
            State::Kind => {
                let found: BTreeSet<i32> = self.found.iter().map(|(entry, _)| *entry).collect();
                self.layout.with_data.iter().any(|entry| !found.contains(entry))
            }
            _ => true,
        }
    }

    /// What the table of contents should say; nothing when the archive did not read to
    /// its end as one.
    pub fn finish(self) -> Vec<OffsetPatch> {
        if self.state != State::Kind {
            return Vec::new();
        }
        let size = self.layout.offset_size;
        let patch = |(entry, begun_at): &(i32, u64)| {
            let at = *self.offsets_at.get(entry)?;
            let position = begun_at.to_le_bytes();
            // One that its field cannot hold is not said.
            if position.iter().skip(size).any(|byte| *byte != 0) {
                return None;
            }
            let mut bytes = vec![IS_SET];
            bytes.extend(position.iter().take(size));
            Some(OffsetPatch { at, bytes })
        };
        self.found.iter().filter_map(patch).collect()
    }
}

fn up_to(piece: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()))
}
