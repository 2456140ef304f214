//! The catalogue: the records of manifests that were read before, kept in a file of
//! this machine, so that a listing fetches only the manifests that are new.
//!
//! It is an index and never the truth. What decides about data (a restore, a
//! verification, a collection, retention, a writer's second look) reads manifests.
//! A catalogue that is missing, damaged, of another repository or key is the same
//! as none, and one that cannot be written costs time and nothing else.
//!
//! Invariant: an entry is used only while the store lists its object with the size
//! and the time that it had when it was read. The name alone is not enough: when a
//! backup has expired, the collector may put a tombstone where its manifest was.
//!
//! Refuses: to hold a name in plain text (it is sealed like every document); to
//! remember what could not be read.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use backstay_model::{BackupId, InstanceId};

use crate::document::{DOCUMENT_STORED_MAX, open_document, seal_document};
use crate::layout::InstanceLayout;
use crate::manifest::Commit;
use crate::repo::{Listed, Repo};
use crate::seal::SealKeys;
use crate::store::{DiskStore, Store, StoreError};
use crate::{Error, Result};

mod copies;
mod entry;
#[cfg(test)]
mod tests;
mod vanished;

use entry::{Entry, Remembered};
pub(crate) use vanished::begun_at;

/// Where the catalogues of one repository lie on this machine, one for each instance.
#[derive(Debug)]
pub(crate) struct Catalogue {
    files: DiskStore,
    keys: Arc<SealKeys>,
}

impl Catalogue {
    pub fn below(directory: &Path, keys: Arc<SealKeys>) -> Self {
        Self { files: DiskStore::new(directory.join(keys.repository().to_string())), keys }
    }

    /// The directory of this repository.
    pub fn directory(&self) -> &Path {
        self.files.root()
    }

    /// What is remembered; nothing when there is any doubt.
    async fn load(&self, layout: &InstanceLayout) -> Remembered {
        match self.try_load(layout).await {
            Ok(remembered) => remembered,
            Err(Error::Store(StoreError::NotFound { .. })) => Remembered::default(),
            Err(error) => {
                tracing::debug!(instance = %layout.instance(), %error, "ignored the catalogue");
                Remembered::default()
            }
        }
    }

    async fn try_load(&self, layout: &InstanceLayout) -> Result<Remembered> {
        let name = layout.catalogue();
        let sealed = self.files.get(&name, DOCUMENT_STORED_MAX).await?;
        let (keys, instance) = (Arc::clone(&self.keys), layout.instance().clone());
        off_thread(move || entry::parse(&name, &instance, &open_document(&keys, &name, &sealed)?)).await
    }

    async fn save_when_changed(&self, layout: &InstanceLayout, remembered: Remembered) {
        if !remembered.is_changed() {
            return;
        }
        let count = remembered.entries.len();
        match self.try_save(layout, remembered).await {
            Ok(()) => tracing::debug!(instance = %layout.instance(), count, "wrote the catalogue"),
            Err(error) => tracing::warn!(
                directory = %self.files.root().display(),
                %error,
                "could not write the catalogue; the next listing reads the manifests again"
            ),
        }
    }

    async fn try_save(&self, layout: &InstanceLayout, remembered: Remembered) -> Result<()> {
        let name = layout.catalogue();
        let (keys, instance) = (Arc::clone(&self.keys), layout.instance().clone());
        let sealing = name.clone();
        let sealed =
            off_thread(move || seal_document(&keys, &sealing, &entry::to_json(&instance, &remembered)?))
                .await?;
        Ok(self.files.replace(&name, sealed).await?)
    }
}

/// 100,000 records take a second to open: not on a thread that serves others.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::broken(format!("work on the catalogue did not end: {error}"))),
    }
}

/// What a listing found.
#[derive(Default)]
struct Seen {
    entries: Vec<Entry>,
    /// Everything at `backups/`, readable or not.
    there: HashSet<BackupId>,
}

impl Repo {
    /// Every committed backup of an instance, oldest first, for showing: manifests
    /// that the catalogue knows are not read again. One that cannot be read does not
    /// hide the others: it comes back as an error beside them.
    pub async fn backups(&self, instance: &InstanceId) -> Result<Listed> {
        let layout = InstanceLayout::new(instance.clone());
        let remembered = match self.catalogue() {
            Some(catalogue) => catalogue.load(&layout).await,
            None => Remembered::default(),
        };
        let known = remembered.entries.iter().map(|entry| (&entry.id, entry)).collect();
        let (listed, seen) = self.look_at_commits(&layout, &known).await?;
        self.remember(&layout, remembered, seen).await;
        Ok(listed)
    }

    /// The same for deciding: every manifest is read.
    pub async fn read_backups(&self, instance: &InstanceId) -> Result<Listed> {
        let layout = InstanceLayout::new(instance.clone());
        let (listed, seen) = self.look_at_commits(&layout, &HashMap::new()).await?;
        if let Some(catalogue) = self.catalogue() {
            // What was found to be damaged must not live on as a record.
            let remembered = catalogue.load(&layout).await;
            self.remember(&layout, remembered, seen).await;
        }
        Ok(listed)
    }

    async fn remember(&self, layout: &InstanceLayout, mut remembered: Remembered, seen: Seen) {
        if let Some(catalogue) = self.catalogue() {
            remembered.see(seen.entries, &seen.there);
            catalogue.save_when_changed(layout, remembered).await;
        }
    }

    async fn look_at_commits(
        &self,
        layout: &InstanceLayout,
        known: &HashMap<&BackupId, &Entry>,
    ) -> Result<(Listed, Seen)> {
        let mut listed = Listed::default();
        let mut seen = Seen::default();
        for (id, object) in self.list_commits(layout).await? {
            seen.there.insert(id.clone());
            if let Some(entry) = known.get(&id).filter(|entry| entry.is_of(&object)) {
                listed.records.extend(entry.record.clone());
                seen.entries.push((*entry).clone());
                continue;
            }
            let entry = match self.commit_of(layout, &id).await {
                Ok(Some(Commit::Backup(manifest))) => Entry::backup(&object, manifest.record),
                Ok(Some(Commit::Tombstone(_))) => Entry::tombstone(id, &object),
                // Deleted since it was listed.
                Ok(None) => {
                    seen.there.remove(&id);
                    continue;
                }
                Err(error @ Error::Damaged { .. }) => {
                    listed.unreadable.push((id, error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            listed.records.extend(entry.record.clone());
            if self.catalogue().is_some() && entry.comes_back_the_same() {
                seen.entries.push(entry);
            }
        }
        Ok((listed, seen))
    }
}
