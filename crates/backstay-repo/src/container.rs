//! Containers: packs and maps, frames with a sealed table behind them
//! (`docs/format.md`, section 5).
//!
//! Written front to back in one pass without knowing how many frames there will be;
//! read from the end: trailer, table, and then any frame by itself.

use std::sync::Arc;

use bytes::Bytes;

use crate::frame::{self, FrameEntry, FrameOpener, FrameSealer, STORED_MIN};
use crate::large_buffer::large_buffer;
use crate::layout::ObjectName;
use crate::seal::{Codec, HEADER_SIZE, ObjectKind, ObjectSeal, SealError, SealKeys};
use crate::store::{Store, Upload};
use crate::varint::{self, Input};
use crate::{Error, Result};

const TRAILER_SIZE: usize = 16;
const TRAILER_MAGIC: &[u8; 4] = b"BSTE";
const TABLE_FRAME: u32 = u32::MAX;
/// What is fetched from the end in the hope that it holds the whole table: that of
/// a pack of 32 MiB is about 10 KiB, and a request costs more than the bytes.
const TAIL_GUESS: u64 = 32 << 10;
/// A table cannot be larger: 64 MiB of frames with the smallest sealed length, coded in six bytes.
const TABLE_RAW_MAX: usize = 32 << 20;

/// The bytes of a container as they come into being. It owns no store: the caller
/// sends on what [`take`](ContainerBuilder::take) gives.
pub struct ContainerBuilder {
    seal: ObjectSeal,
    pending: Vec<u8>,
    written: u64,
    table: Vec<u8>,
    frames: u32,
    raw_bytes: u64,
}

impl ContainerBuilder {
    pub fn new(keys: &SealKeys, kind: ObjectKind, name: &ObjectName) -> Result<Self, SealError> {
        let (header, seal) = keys.begin(kind, name.as_str())?;
        let mut pending = Vec::with_capacity(1 << 20);
        pending.extend_from_slice(header.as_bytes());
        Ok(Self { seal, pending, written: 0, table: Vec::new(), frames: 0, raw_bytes: 0 })
    }

    /// Makes room for an object of so many bytes, which goes back to the system when the object does.
    /// Grown step by step it would come out of what the C library keeps, and go back there.
    pub fn make_room(&mut self, bytes: usize) {
        let mut roomy = large_buffer(self.pending.len() + bytes);
        roomy.extend_from_slice(&self.pending);
        self.pending = roomy;
    }

    /// The number that the next frame will have.
    pub fn next_frame(&self) -> u32 {
        self.frames
    }

    /// Size of the object so far, sealed frames only.
    pub fn size(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    pub fn push(&mut self, sealer: &mut FrameSealer, raw: &[u8]) -> Result<u32, SealError> {
        let number = self.frames;
        let entry = sealer.seal(&self.seal, number, raw, &mut self.pending)?;
        varint::put(&mut self.table, u64::from(entry.stored_length));
        varint::put(&mut self.table, u64::from(entry.raw_length) << 1 | entry.codec as u64);
        self.frames += 1;
        self.raw_bytes += raw.len() as u64;
        Ok(number)
    }

    /// Bytes waiting to be taken.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The bytes that came since the last call.
    pub fn take(&mut self) -> Bytes {
        self.written += self.pending.len() as u64;
        let next = Vec::with_capacity(self.pending.capacity());
        Bytes::from(std::mem::replace(&mut self.pending, next))
    }

    /// Appends table and trailer. Nothing can be pushed afterwards.
    pub fn finish(&mut self) -> Result<(), SealError> {
        let start = self.pending.len();
        let raw_length = self.table.len() as u32;
        let compressed =
            zstd::bulk::compress(&self.table, 3).map_err(|_| SealError::WrongLength(TABLE_FRAME))?;
        self.pending.extend_from_slice(&compressed);
        self.seal.seal(TABLE_FRAME, raw_length, Codec::Zstd, &mut self.pending, start)?;
        let stored_length = (self.pending.len() - start) as u32;
        self.pending.extend_from_slice(&stored_length.to_le_bytes());
        self.pending.extend_from_slice(&raw_length.to_le_bytes());
        self.pending.extend_from_slice(&self.frames.to_le_bytes());
        self.pending.extend_from_slice(TRAILER_MAGIC);
        Ok(())
    }
}

/// A container on its way into the store.
pub struct ContainerUpload {
    pub builder: ContainerBuilder,
    upload: Box<dyn Upload>,
}

impl ContainerUpload {
    pub async fn begin(
        store: &dyn Store,
        keys: &SealKeys,
        kind: ObjectKind,
        name: &ObjectName,
    ) -> Result<Self> {
        let builder = ContainerBuilder::new(keys, kind, name)
            .map_err(|error| Error::damaged(name, error.to_string()))?;
        Ok(Self { builder, upload: store.create(name).await? })
    }

    /// Sends what waits.
    pub async fn send(&mut self) -> Result<()> {
        if self.builder.pending() > 0 {
            let bytes = self.builder.take();
            self.upload.write(bytes).await?;
        }
        Ok(())
    }

    /// Makes the object visible; says its size.
    pub async fn commit(mut self) -> Result<u64> {
        self.builder.finish().map_err(|error| Error::broken(error.to_string()))?;
        self.send().await?;
        Ok(self.upload.commit().await?)
    }
}

/// A container that was opened for reading: its keys and where its frames lie.
pub struct Container {
    name: ObjectName,
    seal: ObjectSeal,
    frames: Vec<FramePlace>,
}

/// Where one frame lies.
#[derive(Debug, Clone, Copy)]
pub struct FramePlace {
    pub offset: u64,
    pub entry: FrameEntry,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container").field("name", &self.name).field("frames", &self.frames.len()).finish()
    }
}

impl Container {
    /// Reads header, trailer and table. `size` is the one the manifest names: an object
    /// of another size is damaged, whatever its end looks like.
    pub async fn open(
        store: &Arc<dyn Store>,
        keys: &SealKeys,
        kind: ObjectKind,
        name: &ObjectName,
        size: u64,
    ) -> Result<Self> {
        let damaged = |error: SealError| Error::damaged(name, error.to_string());
        if size < (HEADER_SIZE + STORED_MIN + TRAILER_SIZE) as u64 {
            return Err(damaged(SealError::Truncated));
        }
        let head = store.get_range(name, 0, HEADER_SIZE as u64).await?;
        let seal = keys.open(kind, name.as_str(), &head).map_err(damaged)?;
        let tail_length = TAIL_GUESS.min(size - HEADER_SIZE as u64);
        let tail = store.get_range(name, size - tail_length, tail_length).await?;
        let trailer = Trailer::parse(&tail).map_err(damaged)?;
        let table_end = size - TRAILER_SIZE as u64;
        let table_start = table_end
            .checked_sub(u64::from(trailer.stored_length))
            .filter(|start| *start >= HEADER_SIZE as u64)
            .ok_or_else(|| damaged(SealError::Truncated))?;
        let mut stored = if u64::from(trailer.stored_length) + TRAILER_SIZE as u64 <= tail_length {
            let from = tail.len() - TRAILER_SIZE - trailer.stored_length as usize;
            tail[from..tail.len() - TRAILER_SIZE].to_vec()
        } else {
            store.get_range(name, table_start, u64::from(trailer.stored_length)).await?.to_vec()
        };
        let frames = parse_table(kind, &seal, trailer, &mut stored, table_start).map_err(damaged)?;
        Ok(Self { name: name.clone(), seal, frames })
    }

    /// One that was read whole.
    pub fn of_bytes(keys: &SealKeys, kind: ObjectKind, name: &ObjectName, object: &[u8]) -> Result<Self> {
        let damaged = |error: SealError| match error {
            SealError::NewerFormat(found) => {
                Error::NewerFormat { found: found.into(), known: crate::seal::FORMAT_VERSION.into() }
            }
            other => Error::damaged(name, other.to_string()),
        };
        if object.len() < HEADER_SIZE + STORED_MIN + TRAILER_SIZE {
            return Err(damaged(SealError::Truncated));
        }
        let seal = keys.open(kind, name.as_str(), &object[..HEADER_SIZE]).map_err(damaged)?;
        let trailer = Trailer::parse(object).map_err(damaged)?;
        let table_end = object.len() - TRAILER_SIZE;
        let table_start = table_end
            .checked_sub(trailer.stored_length as usize)
            .filter(|start| *start >= HEADER_SIZE)
            .ok_or_else(|| damaged(SealError::Truncated))?;
        let mut stored = object[table_start..table_end].to_vec();
        let frames = parse_table(kind, &seal, trailer, &mut stored, table_start as u64).map_err(damaged)?;
        Ok(Self { name: name.clone(), seal, frames })
    }

    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    pub fn frames(&self) -> &[FramePlace] {
        &self.frames
    }

    pub fn place(&self, frame: u32) -> Result<FramePlace> {
        self.frames.get(frame as usize).copied().ok_or_else(|| {
            Error::damaged(&self.name, format!("frame {frame} is named by a map and is not in its table"))
        })
    }

    /// The same, behind what is there in `out`.
    pub fn open_frame_into(
        &self,
        opener: &mut FrameOpener,
        frame: u32,
        stored: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let place = self.place(frame)?;
        opener
            .open_into(&self.seal, frame, place.entry, stored, out)
            .map_err(|error| Error::damaged(&self.name, error.to_string()))
    }

    /// Opens the stored bytes of a frame of this container.
    pub fn open_frame<'a>(
        &self,
        opener: &'a mut FrameOpener,
        frame: u32,
        stored: &'a mut [u8],
    ) -> Result<&'a [u8]> {
        let place = self.place(frame)?;
        opener
            .open(&self.seal, frame, place.entry, stored)
            .map_err(|error| Error::damaged(&self.name, error.to_string()))
    }
}

#[derive(Clone, Copy)]
struct Trailer {
    stored_length: u32,
    raw_length: u32,
    frames: u32,
}

impl Trailer {
    fn parse(tail: &[u8]) -> Result<Self, SealError> {
        let start = tail.len().checked_sub(TRAILER_SIZE).ok_or(SealError::Truncated)?;
        let mut input = Input::new(&tail[start..]);
        let mut word = || input.array::<4>().map(u32::from_le_bytes).map_err(|_| SealError::Truncated);
        let trailer = Self { stored_length: word()?, raw_length: word()?, frames: word()? };
        if &tail[start + 12..] != TRAILER_MAGIC || trailer.raw_length as usize > TABLE_RAW_MAX {
            return Err(SealError::Truncated);
        }
        Ok(trailer)
    }
}

fn parse_table(
    kind: ObjectKind,
    seal: &ObjectSeal,
    trailer: Trailer,
    stored: &mut [u8],
    table_start: u64,
) -> Result<Vec<FramePlace>, SealError> {
    let plain = seal.open(TABLE_FRAME, trailer.raw_length, Codec::Zstd, stored)?;
    let raw = zstd::bulk::decompress(plain, trailer.raw_length as usize)
        .map_err(|_| SealError::WrongLength(TABLE_FRAME))?;
    let mut input = Input::new(&raw);
    let mut frames = Vec::new();
    let mut offset = HEADER_SIZE as u64;
    let wrong = |_| SealError::WrongLength(TABLE_FRAME);
    while !input.is_empty() {
        let stored_length = input.number_u32().map_err(wrong)?;
        let packed = input.number().map_err(wrong)?;
        let codec = Codec::from_byte((packed & 1) as u8).ok_or(SealError::WrongLength(TABLE_FRAME))?;
        let raw_length = u32::try_from(packed >> 1).map_err(|_| SealError::WrongLength(TABLE_FRAME))?;
        if raw_length as usize > frame::raw_max(kind) || (stored_length as usize) < STORED_MIN {
            return Err(SealError::WrongLength(TABLE_FRAME));
        }
        frames.push(FramePlace { offset, entry: FrameEntry { stored_length, raw_length, codec } });
        offset += u64::from(stored_length);
    }
    // The authenticated table and the plain trailer must tell the same story.
    if raw.len() != trailer.raw_length as usize
        || offset != table_start
        || frames.len() != trailer.frames as usize
    {
        return Err(SealError::WrongLength(TABLE_FRAME));
    }
    Ok(frames)
}
