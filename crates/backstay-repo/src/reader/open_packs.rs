//! The packs that are being read, with their frame tables.

use std::collections::HashMap;
use std::sync::Arc;

use backstay_model::BackupId;
use tokio::runtime::Handle;

use super::BackupReader;
use crate::container::Container;
use crate::map::{MapFrames, SessionIndex};
use crate::seal::ObjectKind;
use crate::{Error, Result};

/// Packs whose frame tables are kept: about 40 KiB each.
const OPEN_PACKS: usize = 64;

pub struct OpenPacks {
    reader: BackupReader,
    handle: Handle,
    sizes: HashMap<(BackupId, u32), u64>,
    open: HashMap<(SessionIndex, u32), (u64, Arc<Container>)>,
    clock: u64,
    /// How many were opened, some of them again.
    pub opened: u64,
}

impl OpenPacks {
    pub fn new(reader: BackupReader, handle: Handle) -> Self {
        let sizes = reader
            .manifest
            .packs()
            .map(|(session, pack)| ((session.clone(), pack.number), pack.size))
            .collect();
        Self { reader, handle, sizes, open: HashMap::new(), clock: 0, opened: 0 }
    }

    pub fn name(&self, maps: &MapFrames, pack: (SessionIndex, u32)) -> Result<(BackupId, u32)> {
        let id =
            maps.sessions().id(pack.0).ok_or_else(|| Error::broken("a session number of another table"))?;
        Ok((id, pack.1))
    }

    pub fn open(&mut self, maps: &MapFrames, pack: (SessionIndex, u32)) -> Result<Arc<Container>> {
        self.clock += 1;
        if let Some((used, container)) = self.open.get_mut(&pack) {
            *used = self.clock;
            return Ok(Arc::clone(container));
        }
        let key = self.name(maps, pack)?;
        let name = self.reader.layout().pack(&key.0, key.1);
        let size = *self
            .sizes
            .get(&key)
            .ok_or_else(|| Error::damaged(&name, "a map names it and the manifest does not"))?;
        let open = Container::open(
            self.reader.repo.store(),
            self.reader.repo.seal_keys(),
            ObjectKind::Pack,
            &name,
            size,
        );
        let container = Arc::new(self.handle.block_on(open)?);
        self.opened += 1;
        if self.open.len() >= OPEN_PACKS
            && let Some(oldest) = self.open.iter().min_by_key(|(_, (used, _))| *used).map(|(pack, _)| *pack)
        {
            self.open.remove(&oldest);
        }
        self.open.insert(pack, (self.clock, Arc::clone(&container)));
        Ok(container)
    }
}
