//! A temporary file of sorted runs.
//!
//! It has no name as soon as it is open, so nothing is left of it however the
//! process ends. Its frames are sealed under a key of this file alone: names of
//! files and checksums of their content would otherwise stay on a disk that keeps
//! nothing else of a backup in plain, and a bit that flips there must not come back
//! as the place of a block.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::frame::{FrameEntry, FrameOpener, FrameSealer};
use crate::seal::{Codec, ObjectKind, ObjectSeal, SealKeys};
use crate::{Error, Result};

/// What the frames are sealed as: no object of a repository has this name.
const SEALED_AS: &str = "temporary/file-table";
/// Written once and read once: the fastest compression is enough.
const LEVEL: i32 = 1;
/// Before each frame: stored length, raw length, codec.
const HEAD: usize = 9;

#[cfg(test)]
thread_local! {
    /// Where files can be made and nothing be written, for this thread.
    pub(super) static FULL_PLACES: std::cell::RefCell<Vec<PathBuf>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// One run: how much of it is still to be read.
#[derive(Debug, Clone, Copy)]
pub struct RunPlace {
    offset: u64,
    frame: u32,
    frames_left: u32,
}

pub struct RunFile {
    file: File,
    place: PathBuf,
    seal: ObjectSeal,
    sealer: FrameSealer,
    opener: FrameOpener,
    buffer: Vec<u8>,
    end: u64,
    frames: u32,
}

impl RunFile {
    pub fn create(place: &Path, keys: &SealKeys) -> Result<Self> {
        let context = |error: std::io::Error| Error::broken(error.to_string());
        let (_, seal) =
            keys.begin(ObjectKind::Map, SEALED_AS).map_err(|error| Error::broken(error.to_string()))?;
        let sealer = FrameSealer::new(LEVEL, false).map_err(context)?;
        let opener = FrameOpener::new().map_err(context)?;
        let place = place.to_owned();
        let file = match unnamed_file(&place)? {
            Ok(file) => file,
            Err(source) => return Err(Error::TemporaryFile { directory: place, source }),
        };
        Ok(Self { file, place, seal, sealer, opener, buffer: Vec::new(), end: 0, frames: 0 })
    }

    #[cfg(test)]
    pub fn raw_file(&self) -> &File {
        &self.file
    }

    pub fn begin_run(&self) -> RunPlace {
        RunPlace { offset: self.end, frame: self.frames, frames_left: 0 }
    }

    /// Appends a frame to the run that was begun last.
    pub fn append(&mut self, run: &mut RunPlace, raw: &[u8]) -> Result<()> {
        self.buffer.clear();
        self.buffer.resize(HEAD, 0);
        let entry = self
            .sealer
            .seal(&self.seal, self.frames, raw, &mut self.buffer)
            .map_err(|error| Error::broken(error.to_string()))?;
        self.buffer[..4].copy_from_slice(&entry.stored_length.to_le_bytes());
        self.buffer[4..8].copy_from_slice(&entry.raw_length.to_le_bytes());
        self.buffer[8] = entry.codec as u8;
        self.write_buffer().map_err(|source| self.failed(source))?;
        self.end += self.buffer.len() as u64;
        self.frames += 1;
        run.frames_left += 1;
        Ok(())
    }

    fn write_buffer(&self) -> std::io::Result<()> {
        #[cfg(test)]
        FULL_PLACES.with_borrow(|full| match full.contains(&self.place) {
            true => Err(std::io::Error::from(std::io::ErrorKind::StorageFull)),
            false => Ok(()),
        })?;
        self.file.write_all_at(&self.buffer, self.end)
    }

    /// The raw bytes of the run's next frame.
    pub fn next_frame(&mut self, run: &mut RunPlace) -> Result<Option<&[u8]>> {
        if run.frames_left == 0 {
            return Ok(None);
        }
        let mut head = [0; HEAD];
        self.read_exact_at(&mut head, run.offset)?;
        let [a, b, c, d, e, f, g, h, codec] = head;
        let codec = Codec::from_byte(codec).ok_or_else(|| self.changed())?;
        let entry = FrameEntry {
            stored_length: u32::from_le_bytes([a, b, c, d]),
            raw_length: u32::from_le_bytes([e, f, g, h]),
            codec,
        };
        let end = run.offset + HEAD as u64 + u64::from(entry.stored_length);
        if end > self.end || entry.raw_length as usize > crate::frame::FRAME_RAW_MAX {
            return Err(self.changed());
        }
        let mut stored = std::mem::take(&mut self.buffer);
        stored.resize(entry.stored_length as usize, 0);
        self.read_exact_at(&mut stored, run.offset + HEAD as u64)?;
        self.buffer = stored;
        let frame = run.frame;
        (run.offset, run.frame, run.frames_left) = (end, frame + 1, run.frames_left - 1);
        let changed = temporary_file_changed(&self.place);
        let opened = self.opener.open(&self.seal, frame, entry, &mut self.buffer);
        opened.map(Some).map_err(|_| changed)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::TemporaryFile { directory: self.place.clone(), source }
    }

    fn changed(&self) -> Error {
        temporary_file_changed(&self.place)
    }
}

/// The disk gave back something else than was written.
fn temporary_file_changed(place: &Path) -> Error {
    let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "what was written came back changed");
    Error::TemporaryFile { directory: place.to_owned(), source }
}

/// A file that only this process can reach.
fn unnamed_file(place: &Path) -> Result<std::io::Result<File>> {
    let number = u64::from_le_bytes(crate::key::random()?);
    let path = place.join(format!(".file-table-{number:016x}"));
    let make = || {
        std::fs::create_dir_all(place)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    };
    Ok(make())
}
