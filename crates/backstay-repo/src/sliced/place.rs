//! A sliced stream on its way out of a backup: each part of a tray goes where the recipe says.
//!
//! The trays come in the order of their numbers and by several threads; the stream is written in
//! as many places at once. What is needed for that is the recipe the other way round: 16 bytes for
//! each run, of which a stream without a parent has one for each MiB.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstay_model::error::Fault;
use backstay_model::parts::{ParentFile, PartKind, PartTarget, PartWriter};

use super::Paths;
use super::recipe::{About, Runs};
use crate::reader::BackupContents;
use crate::{Error, Result};

/// Where the parts of trays go.
pub struct SlicedPlace {
    paths: Paths,
    /// Of the stream, in bytes.
    pub length: u64,
    trays: HashMap<u32, Arc<[Stretch]>>,
}

/// Bytes of a tray, and where they belong in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    offset: u32,
    length: u32,
    to: u64,
    /// Where the bytes end, of all up to this one: a slice that comes twice lies in two of them.
    reach: u64,
}

impl SlicedPlace {
    /// Of the stream below a path. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] where the recipe does not make up the stream, or there is none.
    pub fn read(contents: &mut BackupContents, path: &str) -> Result<SlicedPlace> {
        let paths = Paths(path.to_owned());
        let damaged = |reason: &str| Error::Damaged { object: paths.about(), reason: reason.to_owned() };
        let about =
            About::read(contents, &paths)?.ok_or_else(|| damaged("the backup holds no such stream"))?;
        let mut trays: BTreeMap<u32, Vec<Stretch>> = BTreeMap::new();
        let (mut runs, mut to) = (Runs::new(paths.clone(), &about), 0);
        while let Some(run) = runs.next(contents)? {
            let stretch = Stretch { offset: run.offset, length: run.length, to, reach: 0 };
            trays.entry(run.tray).or_default().push(stretch);
            to += u64::from(run.length);
        }
        if to != about.length {
            return Err(damaged("its recipe makes up another length"));
        }
        let trays = trays.into_iter().map(|(tray, mut stretches)| {
            stretches.sort_by_key(|stretch| (stretch.offset, stretch.to));
            let mut reach = 0;
            for stretch in &mut stretches {
                reach = reach.max(u64::from(stretch.offset) + u64::from(stretch.length));
                stretch.reach = reach;
            }
            (tray, stretches.into())
        });
        let trays = trays.collect();
        Ok(SlicedPlace { paths, length: about.length, trays })
    }
}

/// A target that is given the stream as if it were one file, which has its length and reads as
/// zeros: zeros are not written.
pub struct SlicedTarget {
    place: SlicedPlace,
    stream: Arc<dyn PartWriter>,
    /// Takes all that is not of the stream.
    others: Arc<dyn PartTarget>,
    /// Bytes of the stream that are in trays which are whole.
    whole: Arc<AtomicU64>,
}

impl SlicedTarget {
    pub fn new(place: SlicedPlace, stream: Arc<dyn PartWriter>, others: Arc<dyn PartTarget>) -> SlicedTarget {
        SlicedTarget { place, stream, others, whole: Arc::default() }
    }

    /// Every byte of the stream is there.
    ///
    /// # Errors
    ///
    /// Where a tray of the recipe was not in the backup.
    pub fn finish(self) -> Result<()> {
        let whole = self.whole.load(Ordering::Acquire);
        if whole != self.place.length {
            return Err(Error::Damaged {
                object: self.place.paths.about(),
                reason: format!("trays for {whole} of its {} bytes are there", self.place.length),
            });
        }
        Ok(self.stream.finish()?)
    }
}

impl PartTarget for SlicedTarget {
    fn create(&self, file: &ParentFile) -> Result<Option<Box<dyn PartWriter>>, Fault> {
        let path = &file.spec.path;
        if let Some(stretches) = self.place.paths.tray_of(path).and_then(|tray| self.place.trays.get(&tray)) {
            let size = match &file.spec.kind {
                PartKind::File(shape) => shape.size,
                PartKind::Directory | PartKind::Symlink(_) => 0,
            };
            if stretches.last().is_some_and(|last| last.reach > size) {
                let reason = "the recipe names bytes behind its end".to_owned();
                return Err(Error::Damaged { object: path.clone(), reason }.into());
            }
            return Ok(Some(Box::new(TrayWriter {
                stretches: Arc::clone(stretches),
                stream: Arc::clone(&self.stream),
                whole: Arc::clone(&self.whole),
            })));
        }
        if path.starts_with(&format!("{}/", self.place.paths.0)) || *path == self.place.paths.0 {
            return Ok(None);
        }
        self.others.create(file)
    }
}

struct TrayWriter {
    stretches: Arc<[Stretch]>,
    stream: Arc<dyn PartWriter>,
    whole: Arc<AtomicU64>,
}

impl PartWriter for TrayWriter {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let end = offset + bytes.len() as u64;
        let first = self.stretches.partition_point(|one| one.reach <= offset);
        for one in self.stretches.iter().skip(first) {
            let (from, to) = (u64::from(one.offset), u64::from(one.offset) + u64::from(one.length));
            if from >= end {
                break;
            }
            let (from_here, to_here) = (from.max(offset), to.min(end));
            if from_here < to_here {
                let part = &bytes[(from_here - offset) as usize..(to_here - offset) as usize];
                self.stream.write_at(one.to + (from_here - from), part)?;
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), Fault> {
        let held: u64 = self.stretches.iter().map(|stretch| u64::from(stretch.length)).sum();
        self.whole.fetch_add(held, Ordering::AcqRel);
        Ok(())
    }
}
