//! A stream on its way into a backup: sliced, compared with the parent, put into trays.
//!
//! The planner asks for steps, one lane at a time: slicing and hashing go one after the other, at
//! several hundred MB a second, and compressing and sealing beside them on all lanes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use backstay_model::ErrorKind;
use backstay_model::error::{Classified, Fault};
use backstay_model::parts::{
    ByteStream, EXTENT_SIZE, ExtentData, ExtentReader, FileShape, FileSpec, PartKind, PartSource, Step,
};
use bytes::Bytes;
use fastcdc::v2020::{FastCDC, Normalization};

use super::parent::{Found, ParentSlices, TraySizes};
use super::recipe::{About, RecipePart, put_slice};
use super::{
    BLOCK_SIZE, Paths, RECIPE_BYTES, Run, SLICE_LEAST, SLICE_MOST, SLICE_USUAL, SliceHash, TRAY_BYTES, hash,
};
use crate::reader::BackupContents;
use crate::seal::SealKeys;
use crate::{Error, Result};

/// Why nothing more could be compared with the parent, if something could not.
#[derive(Debug, Clone, Default)]
pub struct GivenUp(Arc<Mutex<Option<String>>>);

impl GivenUp {
    pub fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The stream of the backup to compare with. What is taken over of it must be declared as the
/// parent of the backup that is made.
pub struct SlicedParent(Option<ParentSlices>);

impl SlicedParent {
    /// Reads the recipe, which may take a while. Blocks.
    ///
    /// # Errors
    ///
    /// Where the parent's stream cannot be read.
    pub fn open(path: &str, contents: BackupContents) -> Result<SlicedParent> {
        ParentSlices::open(contents, &Paths(path.to_owned())).map(SlicedParent)
    }
}

/// The files of a sliced stream, below a path of their own.
pub struct SlicedSource {
    paths: Paths,
    stream: Box<dyn ByteStream>,
    keys: Arc<SealKeys>,
    parent: Option<ParentSlices>,
    given_up: GivenUp,
    /// What came and was not sliced yet.
    input: Vec<u8>,
    has_ended: bool,
    length: u64,
    /// The tray that is filled, and the list of its slices.
    tray: Vec<u8>,
    list: Vec<u8>,
    tray_number: u32,
    recipe: RecipePart,
    recipes: u32,
    /// Trays of the parent that this stream needs as well.
    kept: BTreeMap<u32, TraySizes>,
    steps: VecDeque<Step>,
    is_over: bool,
}

impl SlicedSource {
    pub fn new(
        path: &str,
        stream: Box<dyn ByteStream>,
        keys: Arc<SealKeys>,
        parent: Option<SlicedParent>,
    ) -> SlicedSource {
        let parent = parent.and_then(|parent| parent.0);
        SlicedSource {
            paths: Paths(path.to_owned()),
            given_up: GivenUp::default(),
            stream,
            keys,
            tray_number: parent.as_ref().map_or(0, |parent| parent.next_tray),
            parent,
            input: Vec::new(),
            has_ended: false,
            length: 0,
            tray: Vec::new(),
            list: Vec::new(),
            recipe: RecipePart::default(),
            recipes: 0,
            kept: BTreeMap::new(),
            steps: VecDeque::new(),
            is_over: false,
        }
    }

    /// Asked when the stream has ended.
    pub fn given_up(&self) -> GivenUp {
        self.given_up.clone()
    }

    /// Where the parent has it. Where that is damaged the backup ends: trays that it has taken over
    /// may lie in the same pack. Whoever takes it hears why, and begins again without the parent.
    fn known(&mut self, hash: &SliceHash, length: u32) -> Result<Option<Found>> {
        let Some(parent) = &mut self.parent else { return Ok(None) };
        let error = match parent.find(hash, length) {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => error,
            found => return found,
        };
        *self.given_up.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        Err(error)
    }

    fn work(&mut self) -> Result<(), Fault> {
        if !self.has_ended && self.input.len() < EXTENT_SIZE as usize {
            self.has_ended = !self.stream.next(&mut self.input)?;
            return Ok(());
        }
        self.slice()?;
        if self.has_ended {
            self.end()?;
        }
        Ok(())
    }

    /// All that is there, but for bytes whose slice may not have ended.
    fn slice(&mut self) -> Result<()> {
        let mut input = std::mem::take(&mut self.input);
        let least = if self.has_ended { 1 } else { SLICE_MOST };
        let mut at = 0;
        let slicer = FastCDC::with_level(&input, SLICE_LEAST, SLICE_USUAL, SLICE_MOST, Normalization::Level1);
        while input.len() - at >= least {
            let (_, end) = slicer.cut(at, input.len() - at);
            self.take(&input[at..end])?;
            at = end;
        }
        self.length += at as u64;
        input.drain(..at);
        self.input = input;
        Ok(())
    }

    fn take(&mut self, slice: &[u8]) -> Result<()> {
        let (hash, length) = (hash(&self.keys, slice), slice.len() as u32);
        let run = match self.known(&hash, length)? {
            Some(known) => {
                self.kept.insert(known.run.tray, known.sizes);
                known.run
            }
            None => {
                if self.tray.len() + slice.len() > TRAY_BYTES {
                    self.close_tray()?;
                }
                let offset = self.tray.len() as u32;
                self.tray.extend_from_slice(slice);
                put_slice(&mut self.list, length, &hash);
                Run { tray: self.tray_number, offset, length }
            }
        };
        self.recipe.push(run);
        if self.recipe.size() >= RECIPE_BYTES {
            self.close_recipe();
        }
        Ok(())
    }

    fn close_tray(&mut self) -> Result<()> {
        if self.tray.is_empty() {
            return Ok(());
        }
        let (tray, list) = (std::mem::take(&mut self.tray), std::mem::take(&mut self.list));
        self.file(self.paths.tray(self.tray_number), tray);
        self.file(self.paths.slices(self.tray_number), list);
        let next = self.tray_number.checked_add(1);
        self.tray_number = next.ok_or_else(|| Error::broken("a stream has no more trays"))?;
        Ok(())
    }

    fn close_recipe(&mut self) {
        let part = self.recipe.take();
        self.file(self.paths.recipe(self.recipes), part);
        self.recipes += 1;
    }

    fn end(&mut self) -> Result<()> {
        self.close_tray()?;
        self.close_recipe();
        for (tray, sizes) in std::mem::take(&mut self.kept) {
            self.unchanged(self.paths.tray(tray), sizes.tray);
            self.unchanged(self.paths.slices(tray), sizes.slices);
        }
        let about = About::new(self.length, self.recipes, self.tray_number);
        let about = serde_json::to_vec(&about).map_err(|error| Error::broken(error.to_string()))?;
        self.file(self.paths.about(), about);
        self.is_over = true;
        Ok(())
    }

    fn file(&mut self, path: String, bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        self.steps.push_back(Step::Begin(spec(path, bytes.len() as u64)));
        for (number, part) in bytes.chunks(EXTENT_SIZE as usize).enumerate() {
            let offset = number * EXTENT_SIZE as usize;
            let data = ExtentData::Read(Box::new(Held(bytes.slice(offset..offset + part.len()))));
            self.steps.push_back(Step::Extent { offset: offset as u64, length: part.len() as u32, data });
        }
    }

    fn unchanged(&mut self, path: String, size: u64) {
        self.steps.push_back(Step::Begin(spec(path, size)));
        let mut offset = 0;
        while offset < size {
            let length = (size - offset).min(EXTENT_SIZE.into()) as u32;
            self.steps.push_back(Step::Extent { offset, length, data: ExtentData::Unchanged });
            offset += u64::from(length);
        }
    }
}

impl PartSource for SlicedSource {
    fn next(&mut self) -> Result<Option<Step>, Fault> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Ok(Some(step));
            }
            if self.is_over {
                return Ok(None);
            }
            self.work()?;
        }
    }
}

/// Nothing of it comes from a file system, so nothing of it differs between two backups.
fn spec(path: String, size: u64) -> FileSpec {
    let kind = PartKind::File(FileShape { size, block_size: BLOCK_SIZE });
    FileSpec { path, kind, mode: 0o600, user_id: 0, group_id: 0, modified: 0 }
}

/// Bytes that are there already.
struct Held(Bytes);

impl ExtentReader for Held {
    fn read(self: Box<Self>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        buffer.clear();
        buffer.extend_from_slice(&self.0);
        Ok(())
    }
}
