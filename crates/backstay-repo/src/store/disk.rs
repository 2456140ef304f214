//! `file://`: objects are files below one directory.
//!
//! A file is written under `.unfinished/`, brought to the disk, and only then
//! given its name, in a way that fails when the name is taken; then its directory
//! is brought to the disk. So a name never shows half an object, after a power
//! failure neither.
//!
//! Refuses: symbolic links inside the repository (a listing that silently leaves
//! out what lies behind one would make the collector delete too much).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::{Listing, ObjectMeta, Operation, Store, StoreError, Upload};
use crate::layout::{ObjectName, Prefix};

pub(crate) mod listing;
mod settle;
pub(crate) mod tree;
pub(crate) mod upload;

use listing::DiskListing;
use tree::{Custody, Tree};
use upload::DiskUpload;

/// Objects as files below a directory. Cheap to clone.
#[derive(Clone)]
pub struct DiskStore {
    tree: Arc<Tree>,
    location: Arc<str>,
}

impl DiskStore {
    /// Nothing is opened or created yet: a place that does not exist reads as a
    /// store without objects, and the first object written makes it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let location = format!("file://{}", root.display()).into();
        Self { tree: Arc::new(Tree::new(root, Custody::Sole)), location }
    }

    pub fn root(&self) -> &Path {
        self.tree.path()
    }

    /// Writes a file in the place of the one that has the name. Not a method of
    /// [`Store`], where nothing is written over: this is for local files that can be
    /// made again, and a reader finds the old one whole or the new one whole.
    pub(crate) async fn replace(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let owned = name.clone();
        self.blocking(Operation::Put, name.as_str(), move |tree| {
            // What a process left that was killed on the way: it is older than the file
            // that came after it. One that is still being written is taken from its
            // writer at worst, who then leaves the name to us.
            if let Ok(Some(written)) = tree.look_at(&owned).map(|file| file.modified) {
                tree.sweep(written)?;
            }
            let mut unfinished = tree.begin(Operation::Put, &owned)?;
            unfinished.write_at(0, &bytes)?;
            unfinished.replace()
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: Operation,
        object: &str,
        work: impl FnOnce(&Arc<Tree>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let tree = Arc::clone(&self.tree);
        on_blocking_thread(operation, object, move || work(&tree)).await
    }
}

/// Runs file system work where it may block. A thread that died is a bug of ours
/// and is told as an error of the operation, never as its success.
pub(crate) async fn on_blocking_thread<T: Send + 'static>(
    operation: Operation,
    object: &str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) if join.is_cancelled() => {
            Err(StoreError::Cancelled { operation, object: object.to_owned() })
        }
        Err(join) => Err(StoreError::Io { operation, object: object.to_owned(), cause: Box::new(join) }),
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskStore({})", self.location)
    }
}

#[async_trait]
impl Store for DiskStore {
    fn location(&self) -> &str {
        &self.location
    }

    async fn put_if_absent(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let owned = name.clone();
        self.blocking(Operation::Put, name.as_str(), move |tree| {
            let mut unfinished = tree.begin(Operation::Put, &owned)?;
            unfinished.write_at(0, &bytes)?;
            unfinished.publish()
        })
        .await
    }

    async fn create(&self, name: &ObjectName) -> Result<Box<dyn Upload>, StoreError> {
        let owned = name.clone();
        self.blocking(Operation::Open, name.as_str(), move |tree| {
            let unfinished = tree.begin(Operation::Write, &owned)?;
            Ok(Box::new(DiskUpload::new(owned.to_string(), unfinished)) as Box<dyn Upload>)
        })
        .await
    }

    async fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Bytes, StoreError> {
        let owned = name.clone();
        self.blocking(Operation::Get, name.as_str(), move |tree| tree.read_whole(&owned, max_bytes)).await
    }

    async fn get_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let owned = name.clone();
        self.blocking(Operation::GetRange, name.as_str(), move |tree| tree.read_range(&owned, offset, length))
            .await
    }

    async fn list(&self, under: &Prefix) -> Result<Box<dyn Listing>, StoreError> {
        let owned = under.clone();
        self.blocking(Operation::List, under.as_str(), move |tree| {
            Ok(Box::new(DiskListing::begin(Arc::clone(tree), owned)?) as Box<dyn Listing>)
        })
        .await
    }

    async fn list_directories(&self, under: &Prefix) -> Result<Vec<String>, StoreError> {
        let owned = under.clone();
        self.blocking(Operation::List, under.as_str(), move |tree| listing::directories(tree, &owned)).await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectMeta, StoreError> {
        let owned = name.clone();
        self.blocking(Operation::Head, name.as_str(), move |tree| {
            let seen = tree.look_at(&owned)?;
            Ok(ObjectMeta { name: owned, size_bytes: seen.size_bytes, modified: seen.modified })
        })
        .await
    }

    async fn settle(&self, name: &ObjectName) -> Result<(), StoreError> {
        let owned = name.clone();
        self.blocking(Operation::Head, name.as_str(), move |tree| tree.settle(&owned)).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let owned = name.clone();
        self.blocking(Operation::Delete, name.as_str(), move |tree| tree.remove(&owned)).await
    }

    async fn sweep_unfinished(&self, written_before: Timestamp) -> Result<u64, StoreError> {
        self.blocking(Operation::Delete, tree::UNFINISHED, move |tree| tree.sweep(written_before)).await
    }
}
