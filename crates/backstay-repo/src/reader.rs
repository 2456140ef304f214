//! Reading a backup: its files, a restore of them, a check of every byte.

use std::sync::Arc;

use backstay_model::error::Fault;
use backstay_model::parts::{ParentFile, ParentFiles};
use tokio::runtime::Handle;

mod content;
pub(crate) mod damage;
mod fetch;
mod open_packs;
mod outlet;
mod proven;
mod restore;
mod unread;
mod window;

pub use content::BackupContents;
pub use damage::{Damage, damage_in};
pub(crate) use proven::Proven;
pub use restore::{Depth, OnDamage, RestoreOptions, RestoreSummary};

use crate::layout::InstanceLayout;
use crate::manifest::Manifest;
use crate::map::{FileRecord, FileTable, FileTableCursor, MapFrames, Sessions};
use crate::repo::Repo;
use crate::{Error, Result};

/// One committed backup, opened for reading.
pub struct BackupReader {
    repo: Arc<Repo>,
    manifest: Arc<Manifest>,
    /// What a run of a verification proved before it came to this backup.
    proven: Option<Arc<Proven>>,
}

impl BackupReader {
    pub fn new(repo: Arc<Repo>, manifest: Manifest) -> Self {
        Self { repo, manifest: Arc::new(manifest), proven: None }
    }

    /// Passes over what the run has proved. Only for a reader that writes nothing.
    pub(crate) fn in_run(self, proven: Arc<Proven>) -> Self {
        Self { proven: Some(proven), ..self }
    }

    fn again(&self) -> Self {
        Self {
            repo: Arc::clone(&self.repo),
            manifest: Arc::clone(&self.manifest),
            proven: self.proven.clone(),
        }
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn layout(&self) -> InstanceLayout {
        InstanceLayout::new(self.manifest.record.instance.clone())
    }

    /// The maps of this backup. Blocking: not for async threads.
    pub(crate) fn open_maps(&self, handle: Handle) -> Result<(MapFrames, FileTable)> {
        let mut maps = MapFrames::new(
            Arc::clone(self.repo.store()),
            Arc::clone(self.repo.seal_keys()),
            self.layout(),
            handle,
            self.proven.as_ref().map_or_else(Sessions::new, |proven| proven.sessions().clone()),
        )?;
        for (session, number, size) in self.manifest.maps() {
            maps.know(session, number, size)?;
        }
        let table = FileTable::open(&mut maps, &self.manifest.root_place())?;
        Ok((maps, table))
    }

    /// All files in the order of their paths. Opening is async, reading blocks.
    pub async fn files(&self) -> Result<BackupFiles> {
        let handle = Handle::current();
        let reader = self.again();
        let opened = tokio::task::spawn_blocking(move || reader.open_maps(handle)).await;
        let (maps, table) = opened.map_err(|error| Error::broken(error.to_string()))??;
        let cursor = table.cursor();
        Ok(BackupFiles { maps, table, cursor })
    }
}

impl BackupReader {
    /// For whoever looks into single files. Opening is async, reading blocks.
    pub async fn contents(&self) -> Result<BackupContents> {
        let (handle, reader) = (Handle::current(), self.again());
        let opened = tokio::task::spawn_blocking(move || BackupContents::open(reader, handle)).await;
        opened.map_err(|error| Error::broken(error.to_string()))?
    }
}

/// The file table of a backup as a stream; [`ParentFiles`] for engines.
pub struct BackupFiles {
    maps: MapFrames,
    table: FileTable,
    cursor: FileTableCursor,
}

impl BackupFiles {
    pub fn next_record(&mut self) -> Result<Option<FileRecord>> {
        self.table.next(&mut self.maps, &mut self.cursor)
    }
}

impl ParentFiles for BackupFiles {
    fn next(&mut self) -> Result<Option<ParentFile>, Fault> {
        let record = self.next_record()?;
        Ok(record.map(|record| ParentFile { spec: record.spec, crc32c: record.crc32c }))
    }
}
