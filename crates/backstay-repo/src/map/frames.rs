//! Reading map frames from the store, with a small cache.
//!
//! Blocking: it is used from lanes and planners, which are threads of their own.
//! One request fetches a stretch of neighbouring frames, because maps are read in
//! order and a remote store charges by the request.

use std::collections::HashMap;
use std::sync::Arc;

use backstay_model::BackupId;
use tokio::runtime::Handle;

use super::codec::Frame;
use super::{MapError, SessionIndex, Sessions};
use crate::container::Container;
use crate::frame::FrameOpener;
use crate::layout::InstanceLayout;
use crate::reader::damage::as_damage;
use crate::seal::{ObjectKind, SealKeys};
use crate::store::Store;
use crate::{Error, Result};

/// Frames kept decoded: eight levels of one file, the leaves around it, and room
/// for what is read ahead. 128 × 64 KiB = 8 MiB.
const CACHED_FRAMES: usize = 128;
/// Open map objects kept: their tables are small.
const CACHED_CONTAINERS: usize = 64;
/// What one request fetches at most.
const READ_AHEAD_BYTES: u64 = 512 << 10;

/// Reads the map frames of one instance's backups.
pub struct MapFrames {
    store: Arc<dyn Store>,
    keys: Arc<SealKeys>,
    layout: InstanceLayout,
    handle: Handle,
    sessions: Sessions,
    /// Sizes of the map objects, as the manifest says.
    sizes: HashMap<(SessionIndex, u32), u64>,
    containers: HashMap<(SessionIndex, u32), (u64, Arc<Container>)>,
    frames: HashMap<(SessionIndex, u32, u32), (u64, Arc<Frame>)>,
    opener: FrameOpener,
    clock: u64,
    requested_bytes: u64,
}

impl MapFrames {
    pub fn new(
        store: Arc<dyn Store>,
        keys: Arc<SealKeys>,
        layout: InstanceLayout,
        handle: Handle,
        sessions: Sessions,
    ) -> Result<Self> {
        let opener = FrameOpener::new().map_err(|error| Error::broken(error.to_string()))?;
        Ok(Self {
            store,
            keys,
            layout,
            handle,
            sessions,
            sizes: HashMap::new(),
            containers: HashMap::new(),
            frames: HashMap::new(),
            opener,
            clock: 0,
            requested_bytes: 0,
        })
    }

    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub fn layout(&self) -> &InstanceLayout {
        &self.layout
    }

    /// Bytes asked of the store so far.
    pub fn requested_bytes(&self) -> u64 {
        self.requested_bytes
    }

    /// Makes a map object known. Only objects that a manifest names are ever read.
    pub fn know(&mut self, session: &BackupId, map: u32, size: u64) -> Result<()> {
        let index = self.sessions.index_of(session).map_err(|error| Error::broken(error.to_string()))?;
        self.sizes.insert((index, map), size);
        Ok(())
    }

    pub fn is_known(&self, session: SessionIndex, map: u32) -> bool {
        self.sizes.contains_key(&(session, map))
    }

    /// Says which object an error about its content belongs to.
    pub fn damaged(&self, session: SessionIndex, map: u32, error: &MapError) -> Error {
        match self.sessions.id(session) {
            Some(id) => Error::damaged(&self.layout.map(&id, map), error.to_string()),
            None => Error::broken("a session number of another table"),
        }
    }

    /// Frames that a container has.
    pub fn frame_count(&mut self, session: SessionIndex, map: u32) -> Result<u32> {
        Ok(self.container(session, map)?.frames().len() as u32)
    }

    fn container(&mut self, session: SessionIndex, map: u32) -> Result<Arc<Container>> {
        self.clock += 1;
        if let Some((used, container)) = self.containers.get_mut(&(session, map)) {
            *used = self.clock;
            return Ok(Arc::clone(container));
        }
        let id =
            self.sessions.id(session).ok_or_else(|| Error::broken("a session number of another table"))?;
        let name = self.layout.map(&id, map);
        let Some(size) = self.sizes.get(&(session, map)).copied() else {
            return Err(Error::damaged(&name, "a map names it and the manifest does not"));
        };
        let open = Container::open(&self.store, &self.keys, ObjectKind::Map, &name, size);
        let opened = self.handle.block_on(open).map_err(as_damage);
        let container = Arc::new(opened?);
        evict(&mut self.containers, CACHED_CONTAINERS);
        self.containers.insert((session, map), (self.clock, Arc::clone(&container)));
        Ok(container)
    }

    /// One frame, from the cache or the store.
    pub fn frame(&mut self, session: SessionIndex, map: u32, frame: u32) -> Result<Arc<Frame>> {
        self.clock += 1;
        if let Some((used, found)) = self.frames.get_mut(&(session, map, frame)) {
            *used = self.clock;
            return Ok(Arc::clone(found));
        }
        let container = self.container(session, map)?;
        let first = container.place(frame)?;
        let mut last = frame;
        let mut length = u64::from(first.entry.stored_length);
        while let Some(next) = container.frames().get(last as usize + 1) {
            let more = u64::from(next.entry.stored_length);
            if length + more > READ_AHEAD_BYTES || (last - frame) as usize + 1 >= CACHED_FRAMES / 8 {
                break;
            }
            length += more;
            last += 1;
        }
        let got = self.handle.block_on(self.store.get_range(container.name(), first.offset, length));
        let bytes = got.map_err(|error| as_damage(error.into()))?;
        self.requested_bytes += length;
        let mut wanted = None;
        for number in frame..=last {
            let place = container.place(number)?;
            let start = (place.offset - first.offset) as usize;
            let mut stored = bytes[start..start + place.entry.stored_length as usize].to_vec();
            let raw = container.open_frame(&mut self.opener, number, &mut stored)?;
            let parsed = Frame::parse(raw, &self.sessions)
                .map_err(|error| Error::damaged(container.name(), error.to_string()))?;
            let parsed = Arc::new(parsed);
            if number == frame {
                wanted = Some(Arc::clone(&parsed));
            }
            evict(&mut self.frames, CACHED_FRAMES);
            self.frames.insert((session, map, number), (self.clock, parsed));
        }
        wanted.ok_or_else(|| Error::broken("the wanted frame is the first of its stretch"))
    }
}

/// Makes room for one more: the entry that was not used for longest goes.
fn evict<K: Copy + Eq + std::hash::Hash, V>(cache: &mut HashMap<K, (u64, V)>, limit: usize) {
    if cache.len() >= limit
        && let Some(oldest) = cache.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key)
    {
        cache.remove(&oldest);
    }
}
