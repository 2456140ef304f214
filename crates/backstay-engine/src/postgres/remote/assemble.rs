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
use backstay_model::parts::{FileShape, PartKind};
use bytes::Bytes;

use super::buffers::Buffers;
use super::members::{Changed, LABEL, Label, Piece, Travelled, Whole, spec};
use super::parent::ParentSizes;
use super::tally::Tally;
use super::tar::{Entry, EntryKind, Event, TarReader};
use crate::postgres::rules;
use crate::{Error, Result};

/// How PostgreSQL marks a file that holds only changed blocks.
const INCREMENTAL_PREFIX: &str = "INCREMENTAL.";

/// Where tablespaces are linked in.
const TABLESPACES: &str = "pg_tblspc";

/// Where their links led.
const TABLESPACE_MAP: &str = "tablespace_map";

pub(super) struct Assembler {
    tar: TarReader,
    /// What is put before the paths of the present archive.
    prefix: String,
    block_size: u32,
    segment_blocks: u32,
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
    /// The label of an increment.
    Label(Box<Label>),
    Whole(Whole),
    Changed(Box<Changed>),
}

impl Assembler {
    pub(super) fn new(
        block_size: u32,
        segment_blocks: u32,
        parent: Option<ParentSizes>,
        buffers: Arc<Buffers>,
    ) -> Self {
        Self {
            tar: TarReader::default(),
            prefix: String::new(),
            block_size,
            segment_blocks,
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
        let travelled = Travelled::new(&path, size);
        self.present = match (true_path(&path), &self.parent) {
            (Some(true_path), Some(parent)) => {
                let parent_size = parent.size_of(&true_path).ok_or_else(|| Error::Protocol {
                    reason: format!("changed blocks of {true_path}, which the parent does not have"),
                })?;
                let parent_blocks = u32::try_from(parent_size / u64::from(self.block_size));
                let parent_blocks = parent_blocks.unwrap_or(u32::MAX);
                Present::Changed(Box::new(Changed::new(
                    travelled,
                    entry,
                    true_path,
                    parent_blocks,
                    self.segment_blocks,
                )))
            }
            (None, Some(_)) if path == LABEL => Present::Label(Box::new(Label::new(travelled, entry))),
            _ if is_dropped(&path, size) => Present::Dropped(travelled),
            _ => {
                let block_size = rules::unit_of(&path, size, self.block_size);
                let shape = PartKind::File(FileShape { size, block_size });
                self.pieces.push_back(Piece::Begin(spec(path, shape, &entry)));
                Present::Whole(Whole::new(travelled))
            }
        };
        self.finish_if_empty(size)
    }

    fn content(&mut self, content: &[u8]) -> Result<()> {
        let pieces = &mut self.pieces;
        let travelled = match &mut self.present {
            Present::Nothing => {
                return Err(Error::Protocol { reason: "content without a file".to_owned() });
            }
            Present::Skipped => return Ok(()),
            Present::Dropped(travelled) => {
                travelled.take(content);
                travelled
            }
            Present::Label(label) => {
                label.take(content)?;
                &label.travelled
            }
            Present::Whole(whole) => {
                whole.take(content, &self.buffers, pieces);
                &whole.travelled
            }
            Present::Changed(changed) => {
                changed.take(content, self.block_size, &self.buffers, pieces)?;
                &changed.travelled
            }
        };
        let left = travelled.left;
        self.finish_if_empty(left)
    }

    fn finish_if_empty(&mut self, left: u64) -> Result<()> {
        if left > 0 {
            return Ok(());
        }
        let pieces = &mut self.pieces;
        let travelled = match std::mem::replace(&mut self.present, Present::Nothing) {
            Present::Nothing | Present::Skipped => return Ok(()),
            Present::Dropped(travelled) => travelled,
            Present::Label(label) => label.finish(pieces),
            Present::Whole(whole) => whole.finish(pieces),
            Present::Changed(changed) => changed.finish(self.block_size, pieces)?,
        };
        travelled.count(&mut self.received);
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

/// The name of the file whose changed blocks an entry holds.
fn true_path(path: &str) -> Option<String> {
    let (directory, name) = path.rsplit_once('/')?;
    name.strip_prefix(INCREMENTAL_PREFIX).map(|name| format!("{directory}/{name}"))
}

/// A standby's archive has its `standby.signal`; a restored copy must not follow
/// anybody. The two files that a backup itself makes are what recovery begins
/// with; a map of no tablespaces is sent, too, and says nothing.
fn is_dropped(path: &str, size: u64) -> bool {
    match path {
        LABEL => false,
        TABLESPACE_MAP => size == 0,
        _ => rules::verdict(path) == rules::Verdict::Skip,
    }
}

#[cfg(test)]
mod tests;
