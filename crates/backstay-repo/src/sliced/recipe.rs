//! How the recipe and the lists of slices are written down.

use serde::{Deserialize, Serialize};

use super::{HASH_BYTES, Paths, Run, SliceHash};
use crate::reader::BackupContents;
use crate::varint::{self, Input, Malformed};
use crate::{Error, Result};

const FORMAT: u32 = 1;

/// What a stream says of itself, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub format: u32,
    /// Bytes of the stream.
    pub length: u64,
    /// Parts of the recipe.
    pub recipes: u32,
    /// No tray has this number or a higher one.
    pub next_tray: u32,
}

impl About {
    pub(super) fn new(length: u64, recipes: u32, next_tray: u32) -> About {
        About { format: FORMAT, length, recipes, next_tray }
    }

    /// Of the stream under these paths; nothing where a backup has none.
    pub(super) fn read(contents: &mut BackupContents, paths: &Paths) -> Result<Option<About>> {
        let path = paths.about();
        let Some(json) = contents.read(&path)? else { return Ok(None) };
        let about: About =
            serde_json::from_slice(&json).map_err(|error| damaged(&path, &error.to_string()))?;
        if about.format > FORMAT {
            return Err(Error::NewerFormat { found: about.format, known: FORMAT });
        }
        Ok(Some(about))
    }
}

fn damaged(path: &str, reason: &str) -> Error {
    Error::Damaged { object: path.to_owned(), reason: reason.to_owned() }
}

/// Runs of one part: the tray as the difference from the one before, then place and length.
#[derive(Default)]
pub(super) struct RecipePart {
    bytes: Vec<u8>,
    last_tray: u32,
    /// It may grow still.
    open: Option<Run>,
}

impl RecipePart {
    pub fn push(&mut self, run: Run) {
        match &mut self.open {
            Some(open) if open.tray == run.tray && open.offset + open.length == run.offset => {
                open.length += run.length;
            }
            _ => {
                self.close();
                self.open = Some(run);
            }
        }
    }

    fn close(&mut self) {
        let Some(run) = self.open.take() else { return };
        varint::put_signed(&mut self.bytes, i64::from(run.tray) - i64::from(self.last_tray));
        varint::put(&mut self.bytes, run.offset.into());
        varint::put(&mut self.bytes, run.length.into());
        self.last_tray = run.tray;
    }

    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The part, which is empty afterwards.
    pub fn take(&mut self) -> Vec<u8> {
        self.close();
        std::mem::take(self).bytes
    }
}

/// The runs of a recipe, part after part.
pub(super) struct Runs {
    paths: Paths,
    parts: std::ops::Range<u32>,
    runs: std::vec::IntoIter<Run>,
}

impl Runs {
    pub fn new(paths: Paths, about: &About) -> Runs {
        Runs { paths, parts: 0..about.recipes, runs: Vec::new().into_iter() }
    }

    pub fn next(&mut self, contents: &mut BackupContents) -> Result<Option<Run>> {
        loop {
            if let Some(run) = self.runs.next() {
                return Ok(Some(run));
            }
            let Some(part) = self.parts.next() else { return Ok(None) };
            let path = self.paths.recipe(part);
            let bytes = contents.read(&path)?.ok_or_else(|| damaged(&path, "the backup does not have it"))?;
            self.runs = runs(&bytes).map_err(|error| damaged(&path, &error.to_string()))?.into_iter();
        }
    }
}

fn runs(bytes: &[u8]) -> Result<Vec<Run>, Malformed> {
    let mut input = Input::new(bytes);
    let (mut runs, mut tray) = (Vec::new(), 0i64);
    let number = |number: u64| u32::try_from(number).map_err(|_| Malformed);
    while !input.is_empty() {
        tray = tray.checked_add(input.signed()?).ok_or(Malformed)?;
        let (offset, length) = (number(input.number()?)?, number(input.number()?)?);
        offset.checked_add(length).filter(|_| length > 0).ok_or(Malformed)?;
        runs.push(Run { tray: u32::try_from(tray).map_err(|_| Malformed)?, offset, length });
    }
    Ok(runs)
}

/// One slice of a tray behind the others: its length, and its hash.
pub(super) fn put_slice(list: &mut Vec<u8>, length: u32, hash: &SliceHash) {
    varint::put(list, length.into());
    list.extend_from_slice(hash);
}

/// The slices of a tray, in their order, and how long their list is.
pub(super) fn slices(
    contents: &mut BackupContents,
    paths: &Paths,
    tray: u32,
) -> Result<(Vec<(u32, SliceHash)>, u64)> {
    let path = paths.slices(tray);
    let bytes = contents.read(&path)?.ok_or_else(|| damaged(&path, "the backup does not have it"))?;
    let mut input = Input::new(&bytes);
    let mut slices = Vec::new();
    let mut read = || -> Result<(), Malformed> {
        while !input.is_empty() {
            let length = u32::try_from(input.number()?).map_err(|_| Malformed)?;
            let mut hash = [0; HASH_BYTES];
            hash.copy_from_slice(input.take(HASH_BYTES)?);
            slices.push((length, hash));
        }
        Ok(())
    };
    read().map_err(|error| damaged(&path, &error.to_string()))?;
    Ok((slices, bytes.len() as u64))
}
