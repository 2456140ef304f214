//! Turns tar entries into the pieces of a backup: begun files and their extents.
//!
//! Invariant: the pieces of a file ascend, touch each other and cover it, also
//! when the server sent only its changed blocks. At most one extent is held here.
//! It does no I/O, so that a whole backup can be tested as bytes in, pieces out.
//!
//! Refuses an incremental file nobody asked for, and a stream that ends inside of
//! a file.

use std::collections::VecDeque;
use std::sync::Arc;

use backstay_model::Finding;
use backstay_model::parts::{EXTENT_SIZE, FileShape, FileSpec, PartKind};
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use super::buffers::Buffers;
use super::incremental::{IncrementalHead, Origin};
use super::parent::ParentSizes;
use super::tally::Tally;
use super::tar::{Entry, EntryKind, Event, TarReader};
use crate::postgres::rules;
use crate::{Error, Result};

/// How PostgreSQL marks a file that holds only changed blocks.
const INCREMENTAL_PREFIX: &str = "INCREMENTAL.";

/// Where tablespaces are linked in.
const TABLESPACES: &str = "pg_tblspc";

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

pub(super) struct Assembler {
    tar: TarReader,
    /// What is put before the paths of the present archive.
    prefix: String,
    block_size: u32,
    /// Directories that the server does not send, to be told before the first
    /// entry, whose owner is theirs.
    missing: Vec<String>,
    parent: Option<ParentSizes>,
    buffers: Arc<Buffers>,
    pub(super) pieces: VecDeque<Piece>,
    pub(super) findings: Vec<Finding>,
    pub(super) received: Tally,
    present: Present,
    has_tablespaces: bool,
}

enum Present {
    Nothing,
    /// No file, or none with a name: not even the manifest has it.
    Skipped,
    /// A file that the server sends and a restored one must not find.
    Dropped(Travelled),
    Whole(Whole),
    Changed(Box<Changed>),
}

/// Path, size and sum of an entry as it travelled.
struct Travelled {
    path: String,
    size: u64,
    left: u64,
    crc32c: Digest,
}

/// A file that is sent whole.
struct Whole {
    travelled: Travelled,
    offset: u64,
    bytes: Vec<u8>,
}

/// A file of which the changed blocks are sent.
struct Changed {
    travelled: Travelled,
    entry: Entry,
    path: String,
    parent_blocks: u32,
    head_bytes: Vec<u8>,
    head: Option<IncrementalHead>,
    /// The listed block that comes next.
    next_listed: usize,
    /// The first block of the true file that no piece covers yet.
    covered: u32,
    /// Listed blocks from `covered` on that touch each other.
    run: Vec<u8>,
}

impl Assembler {
    pub(super) fn new(block_size: u32, parent: Option<ParentSizes>, buffers: Arc<Buffers>) -> Self {
        Self {
            tar: TarReader::default(),
            prefix: String::new(),
            block_size,
            missing: Vec::new(),
            parent,
            buffers,
            pieces: VecDeque::new(),
            findings: Vec::new(),
            received: Tally::default(),
            present: Present::Nothing,
            has_tablespaces: false,
        }
    }

    /// An archive begins: the data directory's own, or that of a tablespace, which
    /// comes before it.
    pub(super) fn begin_archive(&mut self, tablespace_oid: Option<u32>) {
        self.tar = TarReader::default();
        self.prefix.clear();
        if let Some(oid) = tablespace_oid {
            let link = format!("{TABLESPACES}/{oid}");
            if !self.has_tablespaces {
                self.missing.push(TABLESPACES.to_owned());
                self.has_tablespaces = true;
            }
            self.prefix = format!("{link}/");
            self.missing.push(link);
        }
    }

    pub(super) fn end_archive(&mut self) -> Result<()> {
        if self.tar.is_between_entries() {
            return Ok(());
        }
        Err(Error::Protocol { reason: "an archive of the backup ends inside of a file".to_owned() })
    }

    /// Takes the next bytes of the archive.
    pub(super) fn feed(&mut self, mut input: Bytes) -> Result<()> {
        while let Some(event) = self.tar.next(&mut input)? {
            match event {
                Event::Entry(entry) => self.begin(entry)?,
                Event::Content(content) => self.content(&content)?,
            }
        }
        Ok(())
    }

    fn begin(&mut self, entry: Entry) -> Result<()> {
        self.present = Present::Skipped;
        for directory in self.missing.drain(..) {
            // Its own mode is only in an archive that comes later; the directories
            // of a cluster share one.
            self.pieces.push_back(Piece::Begin(spec(directory, PartKind::Directory, &entry)));
        }
        let Some(path) = self.path_of(&entry) else { return Ok(()) };
        match entry.kind {
            EntryKind::Directory => {
                let known = path.is_empty() || (path == TABLESPACES && self.has_tablespaces);
                if !known {
                    self.pieces.push_back(Piece::Begin(spec(path, PartKind::Directory, &entry)));
                }
                Ok(())
            }
            EntryKind::Symlink(ref target) => {
                // The link of a tablespace is made again from the tablespace map.
                if !path.starts_with(TABLESPACES) {
                    let target = String::from_utf8_lossy(target).into_owned();
                    self.pieces.push_back(Piece::Begin(spec(path, PartKind::Symlink(target), &entry)));
                }
                Ok(())
            }
            EntryKind::File => self.begin_file(path, entry),
            EntryKind::Other(_) => {
                self.findings.push(Finding::warning(
                    path,
                    "is neither a file nor a directory and was left out",
                    "remove it from the data directory: `ls -l` shows what it is",
                ));
                Ok(())
            }
        }
    }

    fn begin_file(&mut self, path: String, entry: Entry) -> Result<()> {
        let size = entry.size;
        let travelled =
            Travelled { path: path.clone(), size, left: size, crc32c: Digest::new(CrcAlgorithm::Crc32Iscsi) };
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
        self.present = match (name.strip_prefix(INCREMENTAL_PREFIX), &self.parent) {
            (Some(name), Some(parent)) => {
                let path = format!("{directory}/{name}");
                let Some(parent_size) = parent.size_of(&path) else {
                    return Err(Error::Protocol {
                        reason: format!("changed blocks of {path}, which the parent does not have"),
                    });
                };
                Present::Changed(Box::new(Changed {
                    travelled,
                    entry,
                    path,
                    parent_blocks: u32::try_from(parent_size / u64::from(self.block_size))
                        .unwrap_or(u32::MAX),
                    head_bytes: Vec::new(),
                    head: None,
                    next_listed: 0,
                    covered: 0,
                    run: Vec::new(),
                }))
            }
            _ if is_dropped(&path) => Present::Dropped(travelled),
            _ => {
                let block_size = rules::unit_of(&path, size, self.block_size);
                let shape = PartKind::File(FileShape { size, block_size });
                self.pieces.push_back(Piece::Begin(spec(path, shape, &entry)));
                Present::Whole(Whole { travelled, offset: 0, bytes: Vec::new() })
            }
        };
        self.finish_if_empty(size)
    }

    fn content(&mut self, mut content: &[u8]) -> Result<()> {
        let left = match &mut self.present {
            Present::Nothing => {
                return Err(Error::Protocol { reason: "content without a file".to_owned() });
            }
            Present::Skipped => return Ok(()),
            Present::Dropped(travelled) => {
                travelled.take(content);
                travelled.left
            }
            Present::Whole(whole) => {
                whole.travelled.take(content);
                while !content.is_empty() {
                    if whole.bytes.capacity() == 0 {
                        whole.bytes = self.buffers.take(whole.travelled.size - whole.offset);
                    }
                    let take = content.len().min(EXTENT_SIZE as usize - whole.bytes.len());
                    whole.bytes.extend_from_slice(&content[..take]);
                    content = &content[take..];
                    if whole.bytes.len() == EXTENT_SIZE as usize {
                        whole.flush(&mut self.pieces);
                    }
                }
                whole.travelled.left
            }
            Present::Changed(changed) => {
                changed.travelled.take(content);
                changed.take(content, self.block_size, &self.buffers, &mut self.pieces)?;
                changed.travelled.left
            }
        };
        self.finish_if_empty(left)
    }

    fn finish_if_empty(&mut self, left: u64) -> Result<()> {
        if left > 0 {
            return Ok(());
        }
        let travelled = match std::mem::replace(&mut self.present, Present::Nothing) {
            Present::Nothing | Present::Skipped => return Ok(()),
            Present::Dropped(travelled) => travelled,
            Present::Whole(mut whole) => {
                whole.flush(&mut self.pieces);
                whole.travelled
            }
            Present::Changed(mut changed) => {
                changed.finish(self.block_size, &mut self.pieces)?;
                changed.travelled
            }
        };
        let crc32c = travelled.crc32c.finalize() as u32;
        self.received.add(&travelled.path, travelled.size, crc32c);
        Ok(())
    }

    /// The path below the data directory; `None` for what has no place in a backup.
    fn path_of(&mut self, entry: &Entry) -> Option<String> {
        let Ok(name) = std::str::from_utf8(&entry.path) else {
            self.findings.push(Finding::warning(
                String::from_utf8_lossy(&entry.path),
                "has a name that is not UTF-8 and was left out",
                "rename or remove it with `mv` or `rm`: it is not one of PostgreSQL's files",
            ));
            return None;
        };
        let name = name.strip_prefix("./").unwrap_or(name).trim_end_matches('/');
        let name = if name == "." { "" } else { name };
        let climbs = name.starts_with('/') || name.split('/').any(|part| part == "..");
        (!climbs).then(|| format!("{}{name}", self.prefix))
    }
}

impl Travelled {
    fn take(&mut self, content: &[u8]) {
        self.left -= content.len() as u64;
        self.crc32c.update(content);
    }
}

impl Whole {
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
    fn take(
        &mut self,
        mut content: &[u8],
        block_size: u32,
        buffers: &Buffers,
        pieces: &mut VecDeque<Piece>,
    ) -> Result<()> {
        while self.head.is_none() && !content.is_empty() {
            match IncrementalHead::parse(&self.head_bytes, block_size)? {
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
                    self.run = buffers.take(u64::from(self.run_blocks()) * u64::from(block_size));
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

    /// Listed blocks that touch each other, from the one that begins now.
    fn run_blocks(&self) -> u32 {
        let from = self.next_listed.saturating_sub(1);
        let listed = self.head.as_ref().map_or(&[][..], |head| &head.blocks[from..]);
        let touching = listed.windows(2).take_while(|pair| pair[0] + 1 == pair[1]).count();
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

    fn finish(&mut self, block_size: u32, pieces: &mut VecDeque<Piece>) -> Result<()> {
        if self.head.is_none() {
            match IncrementalHead::parse(&self.head_bytes, block_size)? {
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
        Ok(())
    }
}

/// A standby's archive has its `standby.signal`; a restored copy must not follow
/// anybody. The two files that a backup itself makes are what recovery begins with.
fn is_dropped(path: &str) -> bool {
    let made_by_backup = matches!(path, "backup_label" | "tablespace_map");
    !made_by_backup && rules::verdict(path) == rules::Verdict::Skip
}

fn spec(path: String, kind: PartKind, entry: &Entry) -> FileSpec {
    FileSpec {
        path,
        kind,
        mode: entry.mode,
        user_id: entry.user_id,
        group_id: entry.group_id,
        modified: entry.modified,
    }
}

#[cfg(test)]
mod tests;
