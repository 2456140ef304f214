//! The contract between an engine, which knows what database files mean, and the
//! repository, which knows where bytes go. Neither knows the other; `ops` brings
//! a [`PartSource`] of one to the writer of the other, and a [`PartTarget`] back.
//!
//! The repository *pulls*: its lanes (threads that may block) ask the source for
//! the next step and then read the extent outside of any lock. So one large file
//! keeps all cores busy, a stream from the network and a local directory look the
//! same, and nobody needs a queue between reading and compressing.

use crate::error::Fault;

/// The largest extent: the unit in which work is handed out. Large enough that
/// a hand-over costs nothing beside it, and small enough to stay in a core's own
/// cache from the read over checksum and hash to the compressor: with 1 MiB the copy
/// out of the page cache alone cost three times as much.
pub const EXTENT_SIZE: u32 = 256 << 10;

/// What kind of entry a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartKind {
    File(FileShape),
    Directory,
    /// A symbolic link and the target as it was stored.
    Symlink(String),
}

/// How the bytes of a file are to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileShape {
    /// Exactly as many bytes will be delivered.
    pub size: u64,
    /// The unit of change in bytes, a power of two from 512 to 128 KiB: the
    /// database's page for relation files. Everything is compared with the
    /// parent in these units.
    pub block_size: u32,
}

/// One entry of a backup: a file, a directory or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Relative, `/` between the parts, no `.` and `..`, no leading or trailing `/`.
    /// Parents of a path come before it, or are created by the target on demand.
    pub path: String,
    pub kind: PartKind,
    /// Permission bits, as in `st_mode & 0o7777`.
    pub mode: u32,
    pub user_id: u32,
    pub group_id: u32,
    /// Seconds since 1970-01-01T00:00:00Z.
    pub modified: i64,
}

/// What the repository does next.
pub enum Step {
    /// An entry begins; the one before it is complete. A path comes at most once.
    Begin(FileSpec),
    /// The next bytes of the file that began last. Extents ascend and touch each
    /// other; all but the last are a multiple of the block size, and they cover the file.
    Extent { offset: u64, length: u32, data: ExtentData },
    /// Nothing more is asked of the source until every extent handed out before
    /// has been *read*. A source puts it before it tells the server that the copy
    /// is over (`pg_backup_stop`).
    Barrier,
}

/// Where the bytes of an extent come from.
pub enum ExtentData {
    /// They are read by the lane that took the extent.
    Read(Box<dyn ExtentReader>),
    /// The engine knows them to be what the declared parent holds at the same
    /// offset of the same path (PostgreSQL's `INCREMENTAL`). Only allowed when
    /// [`ParentFiles`] has the range; a source that is wrong about it gets an error.
    Unchanged,
}

/// Reads one extent, once, on a thread that may block.
pub trait ExtentReader: Send {
    /// Leaves exactly the extent's `length` bytes in `buffer`, whose former
    /// content is of no interest; an implementation that already holds the bytes
    /// may swap its own vector in. A short file is filled up as the engine's
    /// rules say; an error ends the backup.
    fn read(self: Box<Self>, buffer: &mut Vec<u8>) -> Result<(), Fault>;
}

/// A base backup as a sequence of steps.
pub trait PartSource: Send {
    /// The next step, `None` at the end. May block. Not called again after an
    /// error or the end.
    fn next(&mut self) -> Result<Option<Step>, Fault>;
}

/// Bytes of which nobody knows how many will come, such as the snapshot of a server that
/// sends it as it is made.
pub trait ByteStream: Send {
    /// Adds some to `buffer`, at least one; `false` at the end. May block. Not called again after
    /// an error or the end.
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<bool, Fault>;
}

/// What the declared parent knows of a file, for an engine that wants to say
/// [`ExtentData::Unchanged`] or to hand the server a manifest.
pub trait ParentFiles: Send {
    /// All files in the order of their paths, one after the other; never all in memory.
    fn next(&mut self) -> Result<Option<ParentFile>, Fault>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentFile {
    pub spec: FileSpec,
    /// CRC-32C of the whole content, where the backup saw all of it.
    pub crc32c: Option<u32>,
}

/// Where a restore puts the parts.
pub trait PartTarget: Send + Sync {
    /// Makes the entry. For a file: at its full size, reading as zeros, to be
    /// written in any order by several threads. Never opens something that exists.
    /// Called by several threads at once: directories and links in the order of their
    /// paths, files in any order, each after the directories above it that are parts.
    fn create(&self, file: &ParentFile) -> Result<Option<Box<dyn PartWriter>>, Fault>;
}

/// An open file of a restore.
pub trait PartWriter: Send + Sync {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault>;

    /// All bytes are written. Durability is the target's business, at its end.
    fn finish(&self) -> Result<(), Fault>;
}
