//! An open repository: a store, its keys, and the parameters it was made with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_model::{BackupId, BackupRecord, InstanceId, RepositoryId};
use jiff::Timestamp;

use crate::catalogue::Catalogue;
use crate::document::{DOCUMENT_STORED_MAX, open_document, seal_document};
use crate::layout::{InstanceLayout, ObjectName, is_instance};
use crate::manifest::{Commit, Manifest};
use crate::seal::{Cipher, SealKeys};
use crate::store::{ObjectMeta, Store, StoreError};
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
    catalogue: Option<Catalogue>,
}

impl Repo {
    /// From parts that were checked (`init`, `open`).
    pub fn from_parts(store: Arc<dyn Store>, keys: SealKeys, parameters: Parameters) -> Self {
        Self { store, keys: Arc::new(keys), parameters, catalogue: None }
    }

    /// Keeps a catalogue below this directory of the machine, which need not exist.
    pub fn with_catalogue(mut self, directory: &Path) -> Self {
        self.catalogue = Some(Catalogue::below(directory, Arc::clone(&self.keys)));
        self
    }

    /// Where a temporary file may be made: where a person said, else beside the
    /// catalogue rather than in the system's place, which is memory on many machines.
    pub(crate) fn temporary_places(&self) -> Vec<PathBuf> {
        let said = std::env::var_os("TMPDIR").filter(|place| !place.is_empty()).map(PathBuf::from);
        let beside = self.catalogue.as_ref().map(|catalogue| catalogue.directory().to_owned());
        in_order(said, beside, std::env::temp_dir())
    }

    pub(crate) fn catalogue(&self) -> Option<&Catalogue> {
        self.catalogue.as_ref()
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
        let listed = self.list_commits(&InstanceLayout::new(instance.clone())).await?;
        Ok(listed.into_iter().map(|(id, _)| id).collect())
    }

    /// Everything at `backups/` as the store lists it, oldest first.
    pub(crate) async fn list_commits(&self, layout: &InstanceLayout) -> Result<Vec<(BackupId, ObjectMeta)>> {
        let mut listing = self.store.list(&layout.backups()).await?;
        let mut commits = Vec::new();
        while let Some(page) = listing.next_page().await? {
            commits.extend(
                page.into_iter()
                    .filter_map(|object| layout.session_of_backup(&object.name).map(|id| (id, object))),
            );
        }
        commits.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(commits)
    }

    /// The manifest of one backup; a tombstone is the same as none.
    pub async fn manifest(&self, instance: &InstanceId, backup: &BackupId) -> Result<Manifest> {
        match self.commit_of(&InstanceLayout::new(instance.clone()), backup).await? {
            Some(Commit::Backup(manifest)) => Ok(*manifest),
            Some(Commit::Tombstone(_)) | None => {
                Err(Error::NoSuchBackup { instance: instance.clone(), backup: backup.clone() })
            }
        }
    }

    /// What lies at `backups/<session>`; `None` when the store says that nothing does.
    pub(crate) async fn commit_of(
        &self,
        layout: &InstanceLayout,
        session: &BackupId,
    ) -> Result<Option<Commit>> {
        let name = layout.backup(session);
        match self.read_commit(&name).await {
            // The name is authenticated; this catches a writer that is wrong about itself.
            Ok(Commit::Backup(manifest))
                if manifest.record.id != *session || manifest.record.instance != *layout.instance() =>
            {
                Err(Error::damaged(&name, "it describes another backup than its name says"))
            }
            Ok(commit) => Ok(Some(commit)),
            Err(Error::Store(StoreError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins a backup. `parent` is what it would build on; the writer says what it does.
    pub async fn begin_backup(
        self: &Arc<Self>,
        instance: &InstanceId,
        parent: Option<BackupId>,
        now: Timestamp,
        options: WriterOptions,
    ) -> Result<BackupWriter> {
        BackupWriter::begin(Arc::clone(self), instance, parent, now, options).await
    }
}

/// What a listing of backups found.
#[derive(Debug, Default)]
pub struct Listed {
    pub records: Vec<BackupRecord>,
    /// Manifests that exist and are damaged.
    pub unreadable: Vec<(BackupId, Error)>,
}

/// Each place once, the best first.
fn in_order(said: Option<PathBuf>, beside: Option<PathBuf>, system: PathBuf) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = said.into_iter().chain(beside).collect();
    if !places.contains(&system) {
        places.push(system);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_for_temporary_files_that_a_person_named_comes_first() {
        let [said, beside, system] = ["/srv/room", "/var/cache/backstay", "/tmp"].map(PathBuf::from);
        assert_eq!(in_order(None, Some(beside.clone()), system.clone()), [beside.clone(), system.clone()]);
        let all = in_order(Some(said.clone()), Some(beside.clone()), said.clone());
        assert_eq!(all, [said, beside]);
        assert_eq!(in_order(None, None, system.clone()), [system]);
    }
}
