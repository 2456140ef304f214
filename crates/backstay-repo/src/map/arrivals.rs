//! Records of files in the order in which files are finished, given back in the
//! order of their paths.
//!
//! A server may send its directories as it likes, and the file table ascends by
//! path. Sorting four million records in memory would take close to a gigabyte, so
//! they are kept as the bytes of the format; what passes a limit is sorted and put
//! into a temporary file as one *run*, and in the end all runs are merged.
//!
//! Invariants: memory is the limit, and one short frame for every run, whatever the
//! number of files; what comes out is the same whether there were runs or not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::sync::Arc;

use super::codec::{Frame, FrameDraft, KIND_LEAF, arrived_path, arrived_record, decode_leaf};
use super::{FileRecord, Sessions};
use crate::seal::SealKeys;
use crate::{Error, Result};

mod run_file;

use run_file::{RunFile, RunPlace};

/// Encoded records in memory. A record of a PostgreSQL file takes 70 to 100 bytes,
/// so a cluster of a hundred thousand files needs no temporary file at all.
const LIMIT_BYTES: usize = 8 << 20;
/// Raw bytes of a frame of a run: each run that is merged holds one, decoded.
const RUN_FRAME_RAW: usize = 16 << 10;

/// Records that arrive.
pub struct Arrivals {
    sessions: Sessions,
    keys: Arc<SealKeys>,
    /// Where a temporary file may be made, the best place first.
    places: Vec<PathBuf>,
    limit_bytes: usize,
    /// Records as in a leaf, but each with its whole path.
    draft: FrameDraft,
    /// Where each record begins in the draft's payload.
    starts: Vec<u32>,
    file: Option<RunFile>,
    runs: Vec<RunPlace>,
}

impl Arrivals {
    pub fn new(sessions: Sessions, keys: Arc<SealKeys>, places: Vec<PathBuf>) -> Self {
        Self {
            sessions,
            keys,
            places,
            limit_bytes: LIMIT_BYTES,
            draft: FrameDraft::new(KIND_LEAF),
            starts: Vec::new(),
            file: None,
            runs: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn with_limit(mut self, bytes: usize) -> Self {
        self.limit_bytes = bytes;
        self
    }

    pub fn push(&mut self, record: &FileRecord) -> Result<()> {
        self.starts.push(self.draft.payload.len() as u32);
        self.draft.put_record("", record);
        if self.draft.payload.len() >= self.limit_bytes { self.spill() } else { Ok(()) }
    }

    /// All records that arrived, by their paths.
    pub fn sorted(mut self) -> Result<SortedRecords> {
        if self.runs.is_empty() {
            self.sort();
            let next = 0;
            return Ok(SortedRecords { last_path: None, source: Source::Memory { arrivals: self, next } });
        }
        self.spill()?;
        let Some(file) = self.file else { return Err(Error::broken("runs lie in no file")) };
        let mut merge = Merge { file, sessions: self.sessions, runs: Vec::new(), heads: BinaryHeap::new() };
        for place in self.runs {
            merge.runs.push(OpenRun { place, records: Vec::new().into_iter() });
            merge.advance(merge.runs.len() - 1)?;
        }
        Ok(SortedRecords { last_path: None, source: Source::Runs(merge) })
    }

    fn sort(&mut self) {
        let payload = &self.draft.payload;
        self.starts.sort_by(|a, b| arrived_path(payload, *a).cmp(arrived_path(payload, *b)));
    }

    fn record(&self, number: usize) -> Result<Option<FileRecord>> {
        let Some(start) = self.starts.get(number) else { return Ok(None) };
        arrived_record(&self.draft, *start).map(Some).map_err(|error| misread(&error))
    }

    /// Puts what is in memory into the temporary file, sorted.
    fn spill(&mut self) -> Result<()> {
        self.sort();
        let (file, run) = match self.file.take() {
            Some(mut file) => {
                let run = self.write_run(&mut file)?;
                (file, run)
            }
            None => self.write_first_run()?,
        };
        self.runs.push(run);
        self.file = Some(file);
        self.draft.clear();
        self.starts.clear();
        Ok(())
    }

    /// In the first place that takes it: a file that can be made on a full disk is of
    /// no use.
    fn write_first_run(&self) -> Result<(RunFile, RunPlace)> {
        let mut failure: Option<Error> = None;
        for place in &self.places {
            let written = RunFile::create(place, &self.keys).and_then(|mut file| {
                let run = self.write_run(&mut file)?;
                Ok((file, run))
            });
            match written {
                // Where room was wanting is what a person can mend.
                Err(error @ Error::TemporaryFile { .. }) => {
                    if !failure.as_ref().is_some_and(is_full) {
                        failure = Some(error);
                    }
                }
                done => return done,
            }
        }
        Err(failure.unwrap_or_else(|| Error::broken("there is no place for a temporary file")))
    }

    fn write_run(&self, file: &mut RunFile) -> Result<RunPlace> {
        let mut run = file.begin_run();
        let (mut frame, mut entries, mut last_path) = (FrameDraft::new(KIND_LEAF), 0, String::new());
        for number in 0..self.starts.len() {
            let Some(record) = self.record(number)? else { break };
            frame.put_record(&last_path, &record);
            entries += 1;
            last_path = record.spec.path;
            if frame.encoded_length() >= RUN_FRAME_RAW || number + 1 == self.starts.len() {
                let full = std::mem::replace(&mut frame, FrameDraft::new(KIND_LEAF));
                let raw = full.with_count(entries).encode(&self.sessions).map_err(|error| misread(&error))?;
                file.append(&mut run, &raw)?;
                (entries, last_path) = (0, String::new());
            }
        }
        Ok(run)
    }
}

fn is_full(error: &Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error, Error::TemporaryFile { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
}

/// Our own bytes, a moment old: no store had them.
fn misread(error: &super::MapError) -> Error {
    Error::broken(format!("the file table in the making: {error}"))
}

/// Records in the order of their paths, each path once.
pub struct SortedRecords {
    last_path: Option<String>,
    source: Source,
}

enum Source {
    Memory { arrivals: Arrivals, next: usize },
    Runs(Merge),
}

impl SortedRecords {
    fn take(&mut self) -> Result<Option<FileRecord>> {
        let found = match &mut self.source {
            Source::Memory { arrivals, next } => {
                *next += 1;
                arrivals.record(*next - 1)?
            }
            Source::Runs(merge) => merge.take()?,
        };
        if let Some(record) = &found {
            if self.last_path.as_ref() == Some(&record.spec.path) {
                return Err(Error::broken(format!("{} came twice from the engine", record.spec.path)));
            }
            self.last_path = Some(record.spec.path.clone());
        }
        Ok(found)
    }
}

impl Iterator for SortedRecords {
    type Item = Result<FileRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take().transpose()
    }
}

/// All runs of a file side by side.
struct Merge {
    file: RunFile,
    sessions: Sessions,
    runs: Vec<OpenRun>,
    /// The least path of each run, and which run it is of.
    heads: BinaryHeap<Reverse<(String, usize)>>,
}

struct OpenRun {
    place: RunPlace,
    /// What is left of the frame that was read; its first is the head.
    records: std::vec::IntoIter<FileRecord>,
}

impl Merge {
    fn take(&mut self) -> Result<Option<FileRecord>> {
        let Some(Reverse((_, number))) = self.heads.pop() else { return Ok(None) };
        let record = self.runs[number].records.next();
        self.advance(number)?;
        Ok(record)
    }

    /// Makes the next record of a run its head.
    fn advance(&mut self, number: usize) -> Result<()> {
        let run = &mut self.runs[number];
        if run.records.as_slice().is_empty() {
            let Some(raw) = self.file.next_frame(&mut run.place)? else { return Ok(()) };
            let frame = Frame::parse(raw, &self.sessions).map_err(|error| misread(&error))?;
            run.records = decode_leaf(&frame).map_err(|error| misread(&error))?.into_iter();
        }
        if let Some(head) = run.records.as_slice().first() {
            self.heads.push(Reverse((head.spec.path.clone(), number)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
