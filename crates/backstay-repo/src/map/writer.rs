//! Writing maps: sections while the files go by; leaves and the root (`leaves`) at the end.
//!
//! Blocking, and in one thread at a time. Holds one frame, whatever the size of the database.

use std::sync::Arc;

use backstay_model::BackupId;
use tokio::runtime::Handle;

use super::codec::{FrameDraft, KIND_SECTION, SESSION_TEXT};
use super::{Level, MAP_FRAME_RAW, MAP_OBJECT_SIZE, MapError, MapPlace, Run, SessionIndex, Sessions};
use crate::container::ContainerUpload;
use crate::frame::FrameSealer;
use crate::layout::InstanceLayout;
use crate::seal::{ObjectKind, SealKeys};
use crate::store::Store;
use crate::{Error, Result};

/// Maps are four fifths hashes, which do not compress; a higher level buys nothing.
const LEVEL: i32 = 3;
/// A run without its hashes: six numbers, and a session that its frame did not name yet.
const RUN_HEAD_MAX: usize = 6 * 10 + SESSION_TEXT;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenMap {
    pub number: u32,
    pub size: u64,
}

pub struct MapWriter {
    store: Arc<dyn Store>,
    keys: Arc<SealKeys>,
    layout: InstanceLayout,
    handle: Handle,
    session: BackupId,
    index: SessionIndex,
    sessions: Sessions,
    sealer: FrameSealer,
    current: Option<ContainerUpload>,
    map: u32,
    draft: FrameDraft,
    written: Vec<WrittenMap>,
}

/// A section that grows run by run. Empty until the first one.
#[derive(Debug, Default)]
pub struct SectionBuilder {
    at: Option<MapPlace>,
    next_block: u64,
    runs: u64,
    blocks: u64,
}

impl SectionBuilder {
    /// The finished section; `None` when nothing was put in.
    pub fn finish(self) -> Option<Level> {
        self.at.map(|at| Level { at, runs: self.runs, blocks: self.blocks })
    }
}

impl MapWriter {
    pub fn new(
        store: Arc<dyn Store>,
        keys: Arc<SealKeys>,
        layout: InstanceLayout,
        handle: Handle,
        session: BackupId,
        sessions: Sessions,
    ) -> Result<Self> {
        let index = sessions.index_of(&session).map_err(internal)?;
        let sealer = FrameSealer::new(LEVEL, true).map_err(|error| Error::broken(error.to_string()))?;
        let draft = FrameDraft::new(KIND_SECTION);
        Ok(Self {
            store,
            keys,
            layout,
            handle,
            session,
            index,
            sessions,
            sealer,
            current: None,
            map: 0,
            draft,
            written: Vec::new(),
        })
    }

    /// Appends a run to a section. Runs of one section come in ascending order, and
    /// sections do not interleave: a file ends before the next one begins.
    pub fn push_run(&mut self, section: &mut SectionBuilder, run: &Run) -> Result<()> {
        let bound = RUN_HEAD_MAX + run.stored.as_ref().map_or(0, |stored| stored.hashes.len() * 16);
        if self.draft.encoded_length() + bound > MAP_FRAME_RAW {
            self.flush_section()?;
        }
        let gap =
            run.first_block.checked_sub(section.next_block).ok_or_else(|| internal(MapError::Unordered))?;
        if section.at.is_none() {
            section.at = Some(MapPlace {
                session: self.index,
                map: self.map,
                frame: self.current.as_ref().map_or(0, |current| current.builder.next_frame()),
                offset: self.draft.payload.len() as u32,
            });
        }
        self.draft.put_run(gap, run);
        section.next_block = run.first_block + run.count;
        section.runs += 1;
        section.blocks += run.count;
        Ok(())
    }

    /// Ends the frame of sections, so that other frames may follow.
    pub(super) fn flush_section(&mut self) -> Result<()> {
        if self.draft.payload.is_empty() {
            return Ok(());
        }
        let draft = std::mem::replace(&mut self.draft, FrameDraft::new(KIND_SECTION));
        let raw = draft.encode(&self.sessions).map_err(internal)?;
        self.push_frame(&raw)?;
        Ok(())
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(super) fn index(&self) -> SessionIndex {
        self.index
    }

    /// Seals a frame and says where it lies.
    pub(super) fn push_frame(&mut self, raw: &[u8]) -> Result<(u32, u32)> {
        if self.current.is_none() {
            let name = self.layout.map(&self.session, self.map);
            let begin = ContainerUpload::begin(self.store.as_ref(), &self.keys, ObjectKind::Map, &name);
            self.current = Some(self.handle.block_on(begin)?);
        }
        let Some(current) = &mut self.current else {
            return Err(Error::broken("a map object was just begun"));
        };
        let frame = current.builder.push(&mut self.sealer, raw).map_err(internal)?;
        let at = (self.map, frame);
        if current.builder.size() >= MAP_OBJECT_SIZE {
            self.close_object()?;
        } else if current.builder.pending() >= 1 << 20 {
            self.handle.block_on(current.send())?;
        }
        Ok(at)
    }

    fn close_object(&mut self) -> Result<()> {
        if let Some(current) = self.current.take() {
            let size = self.handle.block_on(current.commit())?;
            self.written.push(WrittenMap { number: self.map, size });
            self.map += 1;
        }
        Ok(())
    }

    /// Commits the last object and says what was written.
    pub fn finish(&mut self) -> Result<Vec<WrittenMap>> {
        self.flush_section()?;
        self.close_object()?;
        Ok(std::mem::take(&mut self.written))
    }
}

pub(super) fn internal(error: impl Into<MapError>) -> Error {
    let error: MapError = error.into();
    Error::broken(error.to_string())
}
