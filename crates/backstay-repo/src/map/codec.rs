//! The bytes of map frames: runs, leaves and roots (`docs/format.md`, section 7).

use backstay_model::parts::{FileShape, FileSpec, PartKind};

use super::{
    BlockHash, FileRecord, LeafEntry, Level, MapError, MapPlace, Place, Run, SessionIndex, Sessions,
    StoredRun,
};
use crate::varint::{self, Input};

pub const KIND_SECTION: u8 = 1;
pub const KIND_LEAF: u8 = 2;
pub const KIND_ROOT: u8 = 3;

const FILE: u8 = 0;
const DIRECTORY: u8 = 1;
const SYMLINK: u8 = 2;
const HAS_CRC: u8 = 1;
/// A run lies in one frame of at most 256 KiB, cut in blocks of at least 512 bytes.
const RUN_STORED_MAX: u64 = 512;

/// A session in the list of a frame: its length and 21 characters.
pub const SESSION_TEXT: usize = 22;

/// A map frame in the making: a payload and the sessions it names.
#[derive(Debug)]
pub struct FrameDraft {
    pub kind: u8,
    pub payload: Vec<u8>,
    sessions: Vec<SessionIndex>,
}

impl FrameDraft {
    pub fn new(kind: u8) -> Self {
        Self { kind, payload: Vec::new(), sessions: Vec::new() }
    }

    /// As it was when it was new, with the memory that it took.
    pub fn clear(&mut self) {
        self.payload.clear();
        self.sessions.clear();
    }

    /// Puts the number of entries before them.
    pub fn with_count(mut self, entries: u64) -> Self {
        let mut payload = Vec::with_capacity(self.payload.len() + 10);
        varint::put(&mut payload, entries);
        payload.append(&mut self.payload);
        self.payload = payload;
        self
    }

    /// How long the raw bytes would be now.
    pub fn encoded_length(&self) -> usize {
        1 + 10 + self.sessions.len() * SESSION_TEXT + self.payload.len()
    }

    /// The number of a session in this frame.
    fn number_of(&mut self, session: SessionIndex) -> u64 {
        let position = self.sessions.iter().position(|known| *known == session).unwrap_or_else(|| {
            self.sessions.push(session);
            self.sessions.len() - 1
        });
        position as u64
    }

    /// The raw bytes of the frame.
    pub fn encode(&self, table: &Sessions) -> Result<Vec<u8>, MapError> {
        let mut raw = Vec::with_capacity(self.payload.len() + 2 + 22 * self.sessions.len());
        raw.push(self.kind);
        varint::put(&mut raw, self.sessions.len() as u64);
        for session in &self.sessions {
            let id = table.id(*session).ok_or(MapError::TooManySessions)?;
            varint::put_text(&mut raw, id.as_str());
        }
        raw.extend_from_slice(&self.payload);
        Ok(raw)
    }

    pub fn put_run(&mut self, gap: u64, run: &Run) {
        varint::put(&mut self.payload, gap);
        varint::put(&mut self.payload, run.count << 1 | u64::from(run.stored.is_none()));
        if let Some(stored) = &run.stored {
            let session = self.number_of(stored.place.session);
            varint::put(&mut self.payload, session);
            varint::put(&mut self.payload, u64::from(stored.place.pack));
            varint::put(&mut self.payload, u64::from(stored.place.frame));
            varint::put(&mut self.payload, u64::from(stored.place.offset));
            self.payload.extend_from_slice(stored.hashes.as_flattened());
        }
    }

    pub fn put_record(&mut self, previous_path: &str, record: &FileRecord) {
        let spec = &record.spec;
        let shared = shared_prefix(previous_path, &spec.path);
        varint::put(&mut self.payload, shared as u64);
        varint::put_text(&mut self.payload, &spec.path[shared..]);
        self.payload.push(match &spec.kind {
            PartKind::File(_) => FILE,
            PartKind::Directory => DIRECTORY,
            PartKind::Symlink(_) => SYMLINK,
        });
        varint::put(&mut self.payload, u64::from(spec.mode));
        varint::put(&mut self.payload, u64::from(spec.user_id));
        varint::put(&mut self.payload, u64::from(spec.group_id));
        varint::put_signed(&mut self.payload, spec.modified);
        match &spec.kind {
            PartKind::Directory => {}
            PartKind::Symlink(target) => varint::put_text(&mut self.payload, target),
            PartKind::File(shape) => self.put_file(*shape, record),
        }
    }

    fn put_file(&mut self, shape: FileShape, record: &FileRecord) {
        varint::put(&mut self.payload, shape.size);
        varint::put(&mut self.payload, u64::from(shape.block_size));
        self.payload.push(if record.crc32c.is_some() { HAS_CRC } else { 0 });
        if let Some(crc) = record.crc32c {
            self.payload.extend_from_slice(&crc.to_le_bytes());
        }
        self.payload.extend_from_slice(&record.digest);
        varint::put(&mut self.payload, record.levels.len() as u64);
        for level in &record.levels {
            let session = self.number_of(level.at.session);
            varint::put(&mut self.payload, session);
            varint::put(&mut self.payload, u64::from(level.at.map));
            varint::put(&mut self.payload, u64::from(level.at.frame));
            varint::put(&mut self.payload, u64::from(level.at.offset));
            varint::put(&mut self.payload, level.runs);
            varint::put(&mut self.payload, level.blocks);
        }
    }

    pub fn put_leaf_entry(&mut self, entry: &LeafEntry) {
        varint::put_text(&mut self.payload, &entry.first_path);
        let session = self.number_of(entry.session);
        varint::put(&mut self.payload, session);
        varint::put(&mut self.payload, u64::from(entry.map));
        varint::put(&mut self.payload, u64::from(entry.frame));
        self.payload.extend_from_slice(&entry.digest);
        varint::put(&mut self.payload, entry.entries);
    }
}

fn shared_prefix(a: &str, b: &str) -> usize {
    let mut shared = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    while !b.is_char_boundary(shared) {
        shared -= 1;
    }
    shared
}

/// An opened map frame.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub sessions: Vec<SessionIndex>,
    raw: Vec<u8>,
    payload_at: usize,
}

impl Frame {
    pub fn parse(raw: &[u8], table: &Sessions) -> Result<Self, MapError> {
        let mut input = Input::new(raw);
        let kind = input.byte()?;
        let count = input.number()?;
        let mut sessions = Vec::new();
        for _ in 0..count {
            let text = input.text()?;
            let id = text.parse().map_err(|_| MapError::NotASession(text.to_owned()))?;
            sessions.push(table.index_of(&id)?);
        }
        let payload_at = input.position();
        Ok(Self { kind, sessions, raw: raw.to_vec(), payload_at })
    }

    pub fn payload(&self) -> &[u8] {
        &self.raw[self.payload_at..]
    }

    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    pub fn expect(&self, wanted: u8) -> Result<&Self, MapError> {
        if self.kind == wanted { Ok(self) } else { Err(MapError::WrongFrame { found: self.kind, wanted }) }
    }

    /// Reads the run at `offset`; `next_block` is where the one before ended.
    /// Says the run and the offset behind it; `None` at the end of the frame.
    pub fn run_at(&self, offset: usize, next_block: u64) -> Result<Option<(Run, usize)>, MapError> {
        let payload = self.payload();
        if offset >= payload.len() {
            return Ok(None);
        }
        let mut input = Input::new(&payload[offset..]);
        let first_block = next_block.checked_add(input.number()?).ok_or(MapError::Malformed)?;
        let packed = input.number()?;
        let count = packed >> 1;
        if count == 0 || first_block.checked_add(count).is_none() {
            return Err(MapError::Malformed);
        }
        let stored = if packed & 1 == 1 {
            None
        } else {
            if count > RUN_STORED_MAX {
                return Err(MapError::Malformed);
            }
            let session = session_in(&self.sessions, &mut input)?;
            let place = Place {
                session,
                pack: input.number_u32()?,
                frame: input.number_u32()?,
                offset: input.number_u32()?,
            };
            let hashes = (0..count).map(|_| input.array::<16>()).collect::<Result<Vec<BlockHash>, _>>()?;
            Some(StoredRun { place, hashes })
        };
        Ok(Some((Run { first_block, count, stored }, offset + input.position())))
    }
}

/// All files of a leaf, in order.
pub fn decode_leaf(frame: &Frame) -> Result<Vec<FileRecord>, MapError> {
    let frame = frame.expect(KIND_LEAF)?;
    let mut input = Input::new(frame.payload());
    let count = input.number()?;
    let mut records: Vec<FileRecord> = Vec::new();
    let mut path = String::new();
    for _ in 0..count {
        let shared = usize::try_from(input.number()?).map_err(|_| MapError::Malformed)?;
        let rest = input.text()?;
        if !path.is_char_boundary(shared) || shared > path.len() {
            return Err(MapError::Malformed);
        }
        let mut next = path[..shared].to_owned();
        next.push_str(rest);
        if !records.is_empty() && next <= path {
            return Err(MapError::Unordered);
        }
        path = next;
        records.push(decode_record(&frame.sessions, &mut input, path.clone())?);
    }
    Ok(records)
}

/// A session by its number in a frame.
fn session_in(sessions: &[SessionIndex], input: &mut Input<'_>) -> Result<SessionIndex, MapError> {
    let number = usize::try_from(input.number()?).map_err(|_| MapError::Malformed)?;
    sessions.get(number).copied().ok_or(MapError::Malformed)
}

/// The path of a record that was put behind no other; nothing where there is none.
pub fn arrived_path(payload: &[u8], start: u32) -> &[u8] {
    let mut input = Input::new(payload.get(start as usize..).unwrap_or_default());
    let path = input.number().and_then(|_| input.number()).and_then(|length| input.take(length as usize));
    path.unwrap_or_default()
}

/// A record that was put behind no other.
pub fn arrived_record(draft: &FrameDraft, start: u32) -> Result<FileRecord, MapError> {
    let mut input = Input::new(draft.payload.get(start as usize..).unwrap_or_default());
    input.number()?;
    let path = input.text()?.to_owned();
    decode_record(&draft.sessions, &mut input, path)
}

fn decode_record(
    sessions: &[SessionIndex],
    input: &mut Input<'_>,
    path: String,
) -> Result<FileRecord, MapError> {
    let kind = input.byte()?;
    let (mode, user_id, group_id) = (input.number_u32()?, input.number_u32()?, input.number_u32()?);
    let modified = input.signed()?;
    let spec = |kind| FileSpec { path, kind, mode, user_id, group_id, modified };
    let plain = |spec| FileRecord { spec, crc32c: None, digest: super::ZERO_HASH, levels: Vec::new() };
    match kind {
        DIRECTORY => Ok(plain(spec(PartKind::Directory))),
        SYMLINK => {
            let target = input.text()?.to_owned();
            Ok(plain(spec(PartKind::Symlink(target))))
        }
        FILE => {
            let shape = FileShape { size: input.number()?, block_size: input.number_u32()? };
            let flags = input.byte()?;
            if shape.block_size == 0 || flags & !HAS_CRC != 0 {
                return Err(MapError::Malformed);
            }
            let crc32c = if flags & HAS_CRC == 0 { None } else { Some(u32::from_le_bytes(input.array()?)) };
            let digest = input.array()?;
            let count = input.number()?;
            let levels = (0..count).map(|_| decode_level(sessions, input)).collect::<Result<Vec<_>, _>>()?;
            Ok(FileRecord { spec: spec(PartKind::File(shape)), crc32c, digest, levels })
        }
        _ => Err(MapError::Malformed),
    }
}

fn decode_level(sessions: &[SessionIndex], input: &mut Input<'_>) -> Result<Level, MapError> {
    let session = session_in(sessions, input)?;
    let at = MapPlace {
        session,
        map: input.number_u32()?,
        frame: input.number_u32()?,
        offset: input.number_u32()?,
    };
    Ok(Level { at, runs: input.number()?, blocks: input.number()? })
}

/// All leaves of a root frame, in order.
pub fn decode_root(frame: &Frame) -> Result<Vec<LeafEntry>, MapError> {
    let frame = frame.expect(KIND_ROOT)?;
    let mut input = Input::new(frame.payload());
    let count = input.number()?;
    let mut leaves = Vec::new();
    for _ in 0..count {
        let first_path = input.text()?.to_owned();
        let session = session_in(&frame.sessions, &mut input)?;
        leaves.push(LeafEntry {
            first_path,
            session,
            map: input.number_u32()?,
            frame: input.number_u32()?,
            digest: input.array()?,
            entries: input.number()?,
        });
    }
    Ok(leaves)
}
