//! An open repository: a store, its keys, and the parameters it was made with.

use std::sync::Arc;

use backstay_model::{BackupId, BackupRecord, InstanceId, RepositoryId};
use jiff::Timestamp;

use crate::document::{DOCUMENT_STORED_MAX, open_document, seal_document};
use crate::layout::{InstanceLayout, ObjectName, is_instance};
use crate::manifest::{Commit, Manifest};
use crate::seal::{Cipher, SealKeys};
use crate::store::{Store, StoreError};
use crate::writer::{BackupWriter, WriterOptions};
use crate::{Error, Result};

/// What `init` decided once for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// Raw bytes of a full frame.
    pub frame_size: u32,
    /// A pack is closed when it has passed this size.
    pub pack_size: u64,
}

/// 128 KiB is sixteen pages of PostgreSQL: small enough for one page to be read
/// alone, large enough for zstd to find what there is to find (measured: 64 KiB
/// costs 2 % more space, 1 MiB makes a scattered read eight times as dear).
pub const FRAME_SIZE: u32 = 128 << 10;
/// Large enough that a request's price disappears, small enough to be written again.
pub const PACK_SIZE: u64 = 32 << 20;

impl Default for Parameters {
    fn default() -> Self {
        Self { frame_size: FRAME_SIZE, pack_size: PACK_SIZE }
    }
}

#[derive(Debug)]
pub struct Repo {
    store: Arc<dyn Store>,
    keys: Arc<SealKeys>,
    parameters: Parameters,
}

impl Repo {
    /// From parts that were checked (`init`, `open`).
    pub fn from_parts(store: Arc<dyn Store>, keys: SealKeys, parameters: Parameters) -> Self {
        Self { store, keys: Arc::new(keys), parameters }
    }

    pub fn id(&self) -> RepositoryId {
        self.keys.repository()
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn seal_keys(&self) -> &Arc<SealKeys> {
        &self.keys
    }

    pub fn parameters(&self) -> Parameters {
        self.parameters
    }

    pub fn is_encrypted(&self) -> bool {
        self.keys.cipher() != Cipher::None
    }

    /// Stores a sealed document under a name that nothing has.
    pub async fn put_document(&self, name: &ObjectName, json: &[u8]) -> Result<()> {
        let object = seal_document(&self.keys, name, json)?;
        Ok(self.store.put_if_absent(name, object).await?)
    }

    pub async fn get_document(&self, name: &ObjectName) -> Result<Vec<u8>> {
        let object = self.store.get(name, DOCUMENT_STORED_MAX).await?;
        open_document(&self.keys, name, &object)
    }

    pub(crate) async fn read_commit(&self, name: &ObjectName) -> Result<Commit> {
        let json = self.get_document(name).await?;
        Commit::parse(name, &json)
    }

    /// Instances that have anything in this repository.
    pub async fn instances(&self) -> Result<Vec<InstanceId>> {
        let directories = self.store.list_directories(&crate::layout::Prefix::root()).await?;
        Ok(directories.iter().filter_map(|name| is_instance(name)).collect())
    }

    /// Ids of everything at `backups/`: manifests and tombstones alike, oldest first.
    pub async fn commit_ids(&self, instance: &InstanceId) -> Result<Vec<BackupId>> {
        let layout = InstanceLayout::new(instance.clone());
        let mut listing = self.store.list(&layout.backups()).await?;
        let mut ids = Vec::new();
        while let Some(page) = listing.next_page().await? {
            ids.extend(page.iter().filter_map(|object| layout.session_of_backup(&object.name)));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// The manifest of one backup; a tombstone is the same as none.
    pub async fn manifest(&self, instance: &InstanceId, backup: &BackupId) -> Result<Manifest> {
        let name = InstanceLayout::new(instance.clone()).backup(backup);
        let none = || Error::NoSuchBackup { instance: instance.clone(), backup: backup.clone() };
        match self.read_commit(&name).await {
            Ok(Commit::Backup(manifest)) => {
                // The name is authenticated; this catches a writer that is wrong about itself.
                if manifest.record.id == *backup && manifest.record.instance == *instance {
                    Ok(*manifest)
                } else {
                    Err(Error::damaged(&name, "it describes another backup than its name says"))
                }
            }
            Ok(Commit::Tombstone(_)) | Err(Error::Store(StoreError::NotFound { .. })) => Err(none()),
            Err(error) => Err(error),
        }
    }

    /// Begins a backup. `parent` is what it would build on; the writer says what it does.
    pub async fn begin_backup(
        self: &Arc<Self>,
        instance: &InstanceId,
        parent: Option<BackupId>,
        started_at: Timestamp,
        options: WriterOptions,
    ) -> Result<BackupWriter> {
        BackupWriter::begin(Arc::clone(self), instance, parent, started_at, options).await
    }

    /// Every committed backup of an instance, oldest first. One that cannot be read
    /// does not hide the others: it comes back as an error beside them.
    pub async fn backups(&self, instance: &InstanceId) -> Result<Listed> {
        let mut listed = Listed::default();
        for id in self.commit_ids(instance).await? {
            match self.manifest(instance, &id).await {
                Ok(manifest) => listed.records.push(manifest.record),
                Err(Error::NoSuchBackup { .. }) => {}
                Err(error @ Error::Damaged { .. }) => listed.unreadable.push((id, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }
}

/// What a listing of backups found.
#[derive(Debug, Default)]
pub struct Listed {
    pub records: Vec<BackupRecord>,
    /// Manifests that exist and are damaged.
    pub unreadable: Vec<(BackupId, Error)>,
}
