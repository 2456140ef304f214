//! The planner: takes steps from the source and turns them into work, one lane at a time.

use std::sync::Arc;

use backstay_model::parts::{EXTENT_SIZE, ExtentData, FileShape, FileSpec, PartKind, PartSource, Step};

use super::parent::ParentView;
use crate::frame::FRAME_RAW_MAX;
use crate::map::{Block, BlockCursor, FileRecord, LEVELS_MAX, block_count, block_length};
use crate::usage::UsageChange;
use crate::{Error, Result};

/// Deltas of a file are written anew as one level when they hold more than this
/// share of its blocks: reading them would cost more than the saving.
const DELTA_SHARE_MAX: f64 = 0.25;

/// A file on its way through the lanes.
#[derive(Debug)]
pub struct FileJob {
    pub spec: FileSpec,
    /// `None` for a directory or a link.
    pub shape: Option<FileShape>,
    /// The parent's record, when its blocks can be compared with.
    pub parent: Option<FileRecord>,
    /// All blocks go into one new section, and the old levels are let go.
    pub rewrite: bool,
}

/// What the planner hands out.
pub enum Work {
    /// A file begins; the record of the one before is complete.
    Begin(Arc<FileJob>),
    Extent(Box<Extent>),
    /// All work handed out so far must be done before the next is asked for.
    Barrier,
}

pub struct Extent {
    pub file: Arc<FileJob>,
    pub shape: FileShape,
    pub offset: u64,
    pub length: u32,
    pub data: ExtentData,
    /// The parent's blocks at the same place; absent where it has none of that length.
    pub parent: Vec<Block>,
}

pub struct Planner {
    source: Box<dyn PartSource>,
    pub parent: Option<ParentView>,
    current: Option<Current>,
    /// What fell out of use because a file became shorter.
    pub lost: UsageChange,
    ended: bool,
}

struct Current {
    file: Arc<FileJob>,
    cursor: Option<BlockCursor>,
    next_offset: u64,
}

impl Planner {
    pub fn new(source: Box<dyn PartSource>, parent: Option<ParentView>) -> Self {
        Self { source, parent, current: None, lost: UsageChange::default(), ended: false }
    }

    pub fn next(&mut self) -> Result<Option<Work>> {
        if self.ended {
            return Ok(None);
        }
        let step = self.source.next().inspect_err(|_| self.ended = true)?;
        match step {
            None => {
                self.ended = true;
                self.close_current()?;
                Ok(None)
            }
            Some(Step::Barrier) => Ok(Some(Work::Barrier)),
            Some(Step::Begin(spec)) => {
                self.close_current()?;
                self.begin(spec).map(Some)
            }
            Some(Step::Extent { offset, length, data }) => self.extent(offset, length, data).map(Some),
        }
    }

    fn begin(&mut self, spec: FileSpec) -> Result<Work> {
        check_path(&spec.path)?;
        let shape = match &spec.kind {
            PartKind::File(shape) => Some(check_shape(&spec.path, *shape)?),
            PartKind::Directory | PartKind::Symlink(_) => None,
        };
        let parent = match (&mut self.parent, shape) {
            (Some(view), Some(shape)) => view
                .find(&spec.path)?
                .filter(|record| record.shape().is_some_and(|old| old.block_size == shape.block_size)),
            _ => None,
        };
        let rewrite = parent.as_ref().is_none_or(is_worn);
        let cursor = parent.as_ref().map(BlockCursor::new);
        let file = Arc::new(FileJob { spec, shape, parent, rewrite });
        self.current = Some(Current { file: Arc::clone(&file), cursor, next_offset: 0 });
        Ok(Work::Begin(file))
    }

    fn extent(&mut self, offset: u64, length: u32, data: ExtentData) -> Result<Work> {
        let current =
            self.current.as_mut().ok_or_else(|| Error::broken("an extent came before any file began"))?;
        let shape = current.file.shape.ok_or_else(|| {
            Error::broken(format!("{} has an extent and is no file", current.file.spec.path))
        })?;
        let end = offset + u64::from(length);
        let whole_blocks = u64::from(length).is_multiple_of(u64::from(shape.block_size)) || end == shape.size;
        if offset != current.next_offset
            || end > shape.size
            || length == 0
            || length > EXTENT_SIZE
            || !whole_blocks
        {
            return Err(Error::broken(format!(
                "extent {offset}+{length} of {} does not follow the contract",
                current.file.spec.path
            )));
        }
        current.next_offset = end;
        let first = offset / u64::from(shape.block_size);
        let count = u64::from(length).div_ceil(u64::from(shape.block_size)) as usize;
        let mut parent = Vec::new();
        match (&mut current.cursor, &mut self.parent, &current.file.parent) {
            (Some(cursor), Some(view), Some(record)) => {
                cursor.slice(&mut view.maps, first, count, &mut parent)?;
                forget_other_lengths(&mut parent, first, shape, record, &mut self.lost);
            }
            _ => parent.resize(count, Block::Absent),
        }
        Ok(Work::Extent(Box::new(Extent {
            file: Arc::clone(&current.file),
            shape,
            offset,
            length,
            data,
            parent,
        })))
    }

    /// The file is complete: what the parent had behind its end is no longer used.
    fn close_current(&mut self) -> Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let Some(shape) = current.file.shape else { return Ok(()) };
        if current.next_offset != shape.size {
            return Err(Error::broken(format!(
                "{} was announced with {} bytes and {} were delivered",
                current.file.spec.path, shape.size, current.next_offset
            )));
        }
        if let (Some(cursor), Some(view), Some(record)) =
            (&mut current.cursor, &mut self.parent, &current.file.parent)
        {
            view.lose_from(cursor, record, block_count(shape), &mut self.lost)?;
        }
        Ok(())
    }
}

/// Whether a file's levels are so many, or so heavy, that it is written anew.
fn is_worn(record: &FileRecord) -> bool {
    let total = record.shape().map_or(0, block_count);
    let deltas: u64 = record.levels.iter().rev().skip(1).map(|level| level.blocks).sum();
    record.levels.len() >= LEVELS_MAX || deltas as f64 > total as f64 * DELTA_SHARE_MAX
}

/// The last block of either file may have another length than the same block of
/// the other; then it is another block, whatever its hash says.
fn forget_other_lengths(
    blocks: &mut [Block],
    first: u64,
    shape: FileShape,
    parent: &FileRecord,
    lost: &mut UsageChange,
) {
    let Some(old) = parent.shape() else { return };
    if old.size == shape.size {
        return;
    }
    for (index, block) in blocks.iter_mut().enumerate() {
        let number = first + index as u64;
        let length = block_length(old, number);
        if length != block_length(shape, number) {
            lost.lose(block, length);
            *block = Block::Absent;
        }
    }
}

fn check_path(path: &str) -> Result<()> {
    let good = !path.is_empty()
        && path.len() <= 4096
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if good { Ok(()) } else { Err(Error::broken(format!("{path:?} cannot be the path of a part"))) }
}

fn check_shape(path: &str, shape: FileShape) -> Result<FileShape> {
    let block = shape.block_size;
    let good = block.is_power_of_two() && (512..=FRAME_RAW_MAX as u32 / 2).contains(&block);
    if good { Ok(shape) } else { Err(Error::broken(format!("{block} cannot be the block size of {path}"))) }
}
