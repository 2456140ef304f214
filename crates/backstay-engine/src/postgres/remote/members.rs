//! The files of an archive while they arrive: whole ones, changed ones, the label.
//!
//! Invariant: what each of them puts out covers the true file from its start to
//! its end, in extents that touch. At most one extent is held.

use std::collections::VecDeque;

use backstay_model::parts::{EXTENT_SIZE, FileShape, FileSpec, PartKind};
use crc_fast::{CrcAlgorithm, Digest};

use super::buffers::Buffers;
use super::incremental::{IncrementalHead, Origin};
use super::tally::Tally;
use super::tar::Entry;
use crate::postgres::rules;
use crate::{Error, Result};

/// What recovery begins with.
pub(super) const LABEL: &str = "backup_label";

/// How the lines of a label begin that make it one of an increment.
const LABEL_MARK: &[u8] = b"INCREMENTAL FROM ";

/// The label text is a person's, at most a kilobyte; the rest is ten short lines.
const LABEL_MAX: usize = 64 << 10;

/// What comes out, in order.
#[derive(Debug)]
pub(super) enum Piece {
    Begin(FileSpec),
    Bytes { offset: u64, bytes: Vec<u8> },
    Zeros { offset: u64, length: u32 },
    Unchanged { offset: u64, length: u32 },
}

impl Piece {
    /// Memory that waits with it.
    pub(super) fn held_bytes(&self) -> u64 {
        match self {
            Piece::Bytes { bytes, .. } => bytes.capacity() as u64,
            _ => 0,
        }
    }
}

/// Path, size and sum of an entry as it travelled.
pub(super) struct Travelled {
    path: String,
    size: u64,
    pub(super) left: u64,
    crc32c: Digest,
}

/// A `backup_label` that must be read before it is handed on.
pub(super) struct Label {
    pub(super) travelled: Travelled,
    entry: Entry,
    text: Vec<u8>,
}

/// A file that is sent whole.
pub(super) struct Whole {
    pub(super) travelled: Travelled,
    offset: u64,
    bytes: Vec<u8>,
}

/// A file of which the changed blocks are sent.
pub(super) struct Changed {
    pub(super) travelled: Travelled,
    entry: Entry,
    /// The true name, without the mark.
    path: String,
    parent_blocks: u32,
    /// Blocks of a full file.
    segment_blocks: u32,
    head_bytes: Vec<u8>,
    head: Option<IncrementalHead>,
    /// The listed block that comes next.
    next_listed: usize,
    /// The first block of the true file that no piece covers yet.
    covered: u32,
    /// Listed blocks from `covered` on that touch each other.
    run: Vec<u8>,
}

impl Travelled {
    pub(super) fn new(path: &str, size: u64) -> Self {
        let crc32c = Digest::new(CrcAlgorithm::Crc32Iscsi);
        Self { path: path.to_owned(), size, left: size, crc32c }
    }

    pub(super) fn take(&mut self, content: &[u8]) {
        self.left -= content.len() as u64;
        self.crc32c.update(content);
    }

    pub(super) fn count(&self, received: &mut Tally) {
        received.add(&self.path, self.size, self.crc32c.finalize() as u32);
    }
}

impl Label {
    pub(super) fn new(travelled: Travelled, entry: Entry) -> Self {
        Self { travelled, entry, text: Vec::new() }
    }

    pub(super) fn take(&mut self, content: &[u8]) -> Result<()> {
        self.travelled.take(content);
        self.text.extend_from_slice(content);
        if self.text.len() > LABEL_MAX {
            return Err(Error::Protocol { reason: "the label of the backup is too long".to_owned() });
        }
        Ok(())
    }

    /// Drops the lines that mark an increment: the files are complete here, and a
    /// server that finds the marks refuses to start.
    pub(super) fn finish(self, pieces: &mut VecDeque<Piece>) -> Travelled {
        let lines = self.text.split_inclusive(|byte| *byte == b'\n');
        let bytes: Vec<u8> = lines.filter(|line| !line.starts_with(LABEL_MARK)).flatten().copied().collect();
        let size = bytes.len() as u64;
        let shape = PartKind::File(FileShape { size, block_size: rules::unit_of(LABEL, size, 0) });
        pieces.push_back(Piece::Begin(spec(LABEL.to_owned(), shape, &self.entry)));
        if !bytes.is_empty() {
            pieces.push_back(Piece::Bytes { offset: 0, bytes });
        }
        self.travelled
    }
}

impl Whole {
    pub(super) fn new(travelled: Travelled) -> Self {
        Self { travelled, offset: 0, bytes: Vec::new() }
    }

    pub(super) fn take(&mut self, mut content: &[u8], buffers: &Buffers, pieces: &mut VecDeque<Piece>) {
        self.travelled.take(content);
        while !content.is_empty() {
            if self.bytes.capacity() == 0 {
                self.bytes = buffers.take(self.travelled.size - self.offset);
            }
            let take = content.len().min(EXTENT_SIZE as usize - self.bytes.len());
            self.bytes.extend_from_slice(&content[..take]);
            content = &content[take..];
            if self.bytes.len() == EXTENT_SIZE as usize {
                self.flush(pieces);
            }
        }
    }

    pub(super) fn finish(mut self, pieces: &mut VecDeque<Piece>) -> Travelled {
        self.flush(pieces);
        self.travelled
    }

    fn flush(&mut self, pieces: &mut VecDeque<Piece>) {
        if !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            let length = bytes.len() as u64;
            pieces.push_back(Piece::Bytes { offset: self.offset, bytes });
            self.offset += length;
        }
    }
}

impl Changed {
    pub(super) fn new(
        travelled: Travelled,
        entry: Entry,
        path: String,
        parent_blocks: u32,
        segment_blocks: u32,
    ) -> Self {
        Self {
            travelled,
            entry,
            path,
            parent_blocks,
            segment_blocks,
            head_bytes: Vec::new(),
            head: None,
            next_listed: 0,
            covered: 0,
            run: Vec::new(),
        }
    }

    pub(super) fn take(
        &mut self,
        mut content: &[u8],
        block_size: u32,
        buffers: &Buffers,
        pieces: &mut VecDeque<Piece>,
    ) -> Result<()> {
        self.travelled.take(content);
        while self.head.is_none() && !content.is_empty() {
            match IncrementalHead::parse(&self.head_bytes, block_size, self.segment_blocks)? {
                Ok(head) => self.open(head, block_size, pieces)?,
                Err(needed) => {
                    let take = content.len().min(needed - self.head_bytes.len());
                    self.head_bytes.extend_from_slice(&content[..take]);
                    content = &content[take..];
                }
            }
        }
        while !content.is_empty() {
            let into_block = self.run.len() % block_size as usize;
            if into_block == 0 {
                self.seek_next_block(block_size, pieces)?;
                if self.run.capacity() == 0 {
                    self.run = buffers.take(u64::from(self.run_blocks(block_size)) * u64::from(block_size));
                }
            }
            let take = content.len().min(block_size as usize - into_block);
            self.run.extend_from_slice(&content[..take]);
            content = &content[take..];
        }
        Ok(())
    }

    /// The head is complete, and with it the true size.
    fn open(&mut self, head: IncrementalHead, block_size: u32, pieces: &mut VecDeque<Piece>) -> Result<()> {
        if head.file_length(block_size) != self.travelled.size {
            return Err(Error::Protocol {
                reason: format!("the list of changed blocks of {} does not fit its size", self.path),
            });
        }
        let size = u64::from(head.true_blocks()) * u64::from(block_size);
        let shape = PartKind::File(FileShape { size, block_size });
        pieces.push_back(Piece::Begin(spec(std::mem::take(&mut self.path), shape, &self.entry)));
        self.head_bytes = Vec::new();
        self.head = Some(head);
        Ok(())
    }

    /// Before the first byte of a listed block: closes the run if the block does
    /// not touch it, and covers what lies between.
    fn seek_next_block(&mut self, block_size: u32, pieces: &mut VecDeque<Piece>) -> Result<()> {
        let listed = self.head.as_ref().and_then(|head| head.blocks.get(self.next_listed)).copied();
        let Some(block) = listed else {
            return Err(Error::Protocol { reason: "more changed blocks than were listed".to_owned() });
        };
        let run_end = self.covered + (self.run.len() / block_size as usize) as u32;
        if block != run_end || self.run.len() >= EXTENT_SIZE as usize {
            self.flush(block_size, pieces);
            self.cover(block, block_size, pieces);
        }
        self.next_listed += 1;
        Ok(())
    }

    /// Listed blocks that touch each other, from the one that begins now; as many as an
    /// extent has, at most.
    fn run_blocks(&self, block_size: u32) -> u32 {
        let from = self.next_listed.saturating_sub(1);
        let listed = self.head.as_ref().map_or(&[][..], |head| &head.blocks[from..]);
        let most = (EXTENT_SIZE / block_size) as usize;
        let touching = listed.windows(2).take(most).take_while(|pair| pair[0] + 1 == pair[1]).count();
        touching as u32 + 1
    }

    fn flush(&mut self, block_size: u32, pieces: &mut VecDeque<Piece>) {
        if !self.run.is_empty() {
            let bytes = std::mem::take(&mut self.run);
            let blocks = (bytes.len() / block_size as usize) as u32;
            let offset = u64::from(self.covered) * u64::from(block_size);
            pieces.push_back(Piece::Bytes { offset, bytes });
            self.covered += blocks;
        }
    }

    /// Covers the unlisted blocks before `until`.
    fn cover(&mut self, until: u32, block_size: u32, pieces: &mut VecDeque<Piece>) {
        let Some(head) = &self.head else { return };
        let most = EXTENT_SIZE / block_size;
        while self.covered < until {
            let (origin, origin_end) = head.origin_after(self.covered, self.parent_blocks);
            let blocks = (origin_end.min(until) - self.covered).min(most);
            let offset = u64::from(self.covered) * u64::from(block_size);
            let length = blocks * block_size;
            pieces.push_back(match origin {
                Origin::Parent => Piece::Unchanged { offset, length },
                Origin::Zeros => Piece::Zeros { offset, length },
            });
            self.covered += blocks;
        }
    }

    pub(super) fn finish(mut self, block_size: u32, pieces: &mut VecDeque<Piece>) -> Result<Travelled> {
        if self.head.is_none() {
            match IncrementalHead::parse(&self.head_bytes, block_size, self.segment_blocks)? {
                Ok(head) => self.open(head, block_size, pieces)?,
                Err(_) => {
                    return Err(Error::Protocol {
                        reason: format!("the list of changed blocks of {} is cut off", self.path),
                    });
                }
            }
        }
        self.flush(block_size, pieces);
        let end = self.head.as_ref().map_or(0, IncrementalHead::true_blocks);
        self.cover(end, block_size, pieces);
        Ok(self.travelled)
    }
}

pub(super) fn spec(path: String, kind: PartKind, entry: &Entry) -> FileSpec {
    FileSpec {
        path,
        kind,
        mode: entry.mode,
        user_id: entry.user_id,
        group_id: entry.group_id,
        modified: entry.modified,
    }
}
