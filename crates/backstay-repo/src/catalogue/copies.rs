//! Copies of documents that never change, on this machine: the sealed bytes as the
//! store gave them.
//!
//! A copy is as good as the object: it opens only under the object's name and this
//! repository's key, and a name is given once. So a collector, which must know what
//! every backup needs, asks the store for what is new and for nothing else. What a
//! copy says can only be too much: the one thing that ever follows a manifest under
//! its name is a tombstone, and then objects stay that could have gone.
//!
//! Invariant: a copy is used only for an object that the store has just listed, with
//! the size of the copy.
//!
//! Refuses: to keep what did not open; to be needed (a copy that is missing,
//! damaged or cannot be written is the same as none).

use std::collections::HashSet;

use bytes::Bytes;

use super::Catalogue;
use crate::Result;
use crate::document::{DOCUMENT_STORED_MAX, open_document};
use crate::layout::{self, ObjectName, Prefix};
use crate::repo::Repo;
use crate::store::{ObjectMeta, Store};

/// A larger document is fetched each time, so that copies of the manifests of a
/// thousand backups take a gigabyte at the very most.
const COPY_BYTES_MAX: u64 = 1 << 20;

impl Catalogue {
    async fn copy_of(&self, listed: &ObjectMeta) -> Option<Vec<u8>> {
        let copy = self.files.get(&layout::copy(&listed.name), COPY_BYTES_MAX).await.ok()?;
        if copy.len() as u64 != listed.size_bytes {
            return None;
        }
        open_document(&self.keys, &listed.name, &copy).ok()
    }

    async fn keep_copy(&self, name: &ObjectName, sealed: Bytes) {
        if sealed.len() as u64 > COPY_BYTES_MAX {
            return;
        }
        if let Err(error) = self.files.replace(&layout::copy(name), sealed).await {
            tracing::debug!(%name, %error, "could not keep a copy");
        }
    }

    /// Lets the copies below `prefix` go whose objects are not there any more.
    pub(super) async fn forget_copies(&self, prefix: &Prefix, there: &HashSet<ObjectName>) {
        let files: &dyn Store = &self.files;
        let Ok(copies) = files.list_all(&layout::copies(prefix)).await else { return };
        for copy in copies {
            if !layout::copied(&copy.name).is_some_and(|name| there.contains(&name))
                && let Err(error) = files.delete(&copy.name).await
            {
                tracing::debug!(name = %copy.name, %error, "a copy of what is gone stays");
            }
        }
    }
}

impl Repo {
    /// A document that the store has listed just now: from its copy on this machine,
    /// where there is one.
    pub(crate) async fn listed_document(&self, listed: &ObjectMeta) -> Result<Vec<u8>> {
        let Some(catalogue) = self.catalogue() else { return self.get_document(&listed.name).await };
        if let Some(json) = catalogue.copy_of(listed).await {
            return Ok(json);
        }
        let sealed = self.store().get(&listed.name, DOCUMENT_STORED_MAX).await?;
        let json = open_document(self.seal_keys(), &listed.name, &sealed)?;
        catalogue.keep_copy(&listed.name, sealed).await;
        Ok(json)
    }

    /// Says what a complete listing of `prefix` had: copies of other objects go.
    pub(crate) async fn only_these_are_there(
        &self,
        prefix: &Prefix,
        there: impl IntoIterator<Item = ObjectName>,
    ) {
        if let Some(catalogue) = self.catalogue() {
            catalogue.forget_copies(prefix, &there.into_iter().collect()).await;
        }
    }
}
