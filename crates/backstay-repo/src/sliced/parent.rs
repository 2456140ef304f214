//! The slices of the parent, as far as they are near to where the stream is.
//!
//! A server sends its values in the order in which it keeps them, and most stay where they are.
//! So a window goes over the parent's slices, with the stream: what is in it can be found, and
//! memory does not grow with the size of a database.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::recipe::{About, Runs, slices};
use super::{Paths, Run, SliceHash};
use crate::Result;
use crate::reader::BackupContents;

/// Slices behind the last one that was found, and before it: some 20 MiB of a stream. With those of
/// the run that reaches out of it they are fewer than tables of 64 Ki take in; those of twice the size
/// would take 5 MiB more.
const AHEAD: u64 = 40 << 10;
const BEHIND: u64 = 12 << 10;
/// Trays of which the parent uses less than this share are let go, with what is used of them.
const USED_LEAST: f64 = 0.6;
/// Lists of slices that are kept.
const LISTS: usize = 64;

/// Where the parent has a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub run: Run,
    /// The sizes of the tray and of the list of its slices, which are carried on with it.
    pub sizes: TraySizes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraySizes {
    pub tray: u64,
    pub slices: u64,
}

pub(super) struct ParentSlices {
    contents: BackupContents,
    paths: Paths,
    runs: Runs,
    pub next_tray: u32,
    /// Bytes of each tray that the parent uses.
    used: BTreeMap<u32, u64>,
    lists: VecDeque<(u32, Arc<List>)>,
    window: VecDeque<(SliceHash, Found)>,
    /// The number of the first slice of the window.
    first: u64,
    index: HashMap<SliceHash, u64>,
    /// The slice behind the last one that was found.
    expected: u64,
    missed: u64,
    ended: bool,
}

struct List {
    slices: Vec<(u32, SliceHash)>,
    sizes: TraySizes,
}

impl ParentSlices {
    /// Nothing where the parent has no such stream.
    pub fn open(mut contents: BackupContents, paths: &Paths) -> Result<Option<ParentSlices>> {
        let Some(about) = About::read(&mut contents, paths)? else { return Ok(None) };
        let mut used: BTreeMap<u32, u64> = BTreeMap::new();
        let mut runs = Runs::new(paths.clone(), &about);
        while let Some(run) = runs.next(&mut contents)? {
            *used.entry(run.tray).or_default() += u64::from(run.length);
        }
        Ok(Some(ParentSlices {
            runs: Runs::new(paths.clone(), &about),
            contents,
            paths: paths.clone(),
            next_tray: about.next_tray,
            used,
            lists: VecDeque::new(),
            window: VecDeque::new(),
            first: 0,
            index: HashMap::new(),
            expected: 0,
            missed: 0,
            ended: false,
        }))
    }

    pub fn find(&mut self, hash: &SliceHash, length: u32) -> Result<Option<Found>> {
        self.fill()?;
        let found = self.index.get(hash).copied().and_then(|number| {
            let (_, found) = self.window.get(usize::try_from(number - self.first).ok()?)?;
            (found.run.length == length).then_some((number, *found))
        });
        let Some((number, found)) = found else {
            self.missed += 1;
            if self.missed >= AHEAD / 2 {
                // What is looked for may lie behind much that the stream has no more.
                self.expected += AHEAD / 2;
                self.missed = 0;
            }
            return Ok(None);
        };
        self.missed = 0;
        self.expected = number + 1;
        Ok(Some(found))
    }

    fn fill(&mut self) -> Result<()> {
        while !self.ended && self.first + (self.window.len() as u64) < self.expected + AHEAD {
            match self.runs.next(&mut self.contents)? {
                Some(run) => self.add(run)?,
                None => self.ended = true,
            }
        }
        while self.first + BEHIND < self.expected {
            let Some((hash, _)) = self.window.pop_front() else { break };
            // A later one of the same content has taken its place.
            if self.index.get(&hash) == Some(&self.first) {
                self.index.remove(&hash);
            }
            self.first += 1;
        }
        Ok(())
    }

    fn add(&mut self, run: Run) -> Result<()> {
        let list = self.list(run.tray)?;
        let used = self.used.get(&run.tray).copied().unwrap_or(0);
        if (used as f64) < USED_LEAST * list.sizes.tray as f64 {
            return Ok(());
        }
        let mut end = 0u32;
        for (length, hash) in &list.slices {
            let slice = Run { tray: run.tray, offset: end, length: *length };
            // Of a list that makes sense it never is.
            end = end.saturating_add(*length);
            if slice.offset >= run.offset && end <= run.offset + run.length {
                self.index.insert(*hash, self.first + self.window.len() as u64);
                self.window.push_back((*hash, Found { run: slice, sizes: list.sizes }));
            }
        }
        Ok(())
    }

    fn list(&mut self, tray: u32) -> Result<Arc<List>> {
        if let Some((_, list)) = self.lists.iter().find(|(of, _)| *of == tray) {
            return Ok(Arc::clone(list));
        }
        let (slices, bytes) = slices(&mut self.contents, &self.paths, tray)?;
        let sizes =
            TraySizes { tray: slices.iter().map(|(length, _)| u64::from(*length)).sum(), slices: bytes };
        let list = Arc::new(List { slices, sizes });
        if self.lists.len() >= LISTS {
            self.lists.pop_front();
        }
        self.lists.push_back((tray, Arc::clone(&list)));
        Ok(list)
    }
}
