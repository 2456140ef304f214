//! A shelf that is a directory.
//!
//! Files get their names as those of a repository do (see `store::disk`): written under
//! `.unfinished/`, brought to the disk, and named in a way that fails when the name is
//! taken. Files are for their owner alone, as dumps hold what the database holds.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::{Shelf, ShelfFile, ShelfListing, ShelfLock, ShelfPath, ShelfUpload};
use crate::store::disk::listing::{Walk, broken_off};
use crate::store::disk::tree::{Custody, LOCK, Seen, Tree, UNFINISHED};
use crate::store::disk::{on_blocking_thread, upload::DiskUpload};
use crate::store::{Operation, StoreError};

mod names;

/// Whoever holds the lock changes a sidecar or removes one dump: a minute is long for it.
const LOCK_TRIES: u32 = 1200;
const LOCK_TRY_AGAIN: Duration = Duration::from_millis(50);

/// Files below a directory. Cheap to clone.
#[derive(Clone)]
pub struct DiskShelf {
    tree: Arc<Tree>,
    location: Arc<str>,
}

impl DiskShelf {
    /// Nothing is opened or created yet: a place that does not exist is a shelf without
    /// files, and the first file written makes it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let location = format!("file://{}", root.display()).into();
        Self { tree: Arc::new(Tree::new(root, Custody::Shared)), location }
    }

    pub fn root(&self) -> &Path {
        self.tree.path()
    }

    /// Removes the hidden place of unfinished files when nothing is in it: for a directory
    /// that gets a file once and is no shelf of anybody's. A writer makes it again.
    pub async fn tidy(&self) {
        let hidden = self.tree.path().join(UNFINISHED);
        // One that is not empty, or not there, stays as it is.
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir(hidden)).await;
    }

    /// Removes what uploads that were killed have left, at once and not after a day: for a
    /// directory that hardly anybody comes to again. A living upload holds its file.
    pub async fn sweep_dead(&self) -> Result<u64, StoreError> {
        let tree = Arc::clone(&self.tree);
        on_blocking_thread(Operation::Delete, UNFINISHED, move || tree.sweep_dead()).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: Operation,
        path: &ShelfPath,
        work: impl FnOnce(&Arc<Tree>, &ShelfPath) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tree, owned) = (Arc::clone(&self.tree), path.clone());
        on_blocking_thread(operation, path.as_str(), move || work(&tree, &owned)).await
    }
}

#[async_trait]
impl ShelfUpload for DiskUpload {
    async fn rename(&mut self, path: &ShelfPath) -> Result<(), StoreError> {
        self.call(path.to_string()).await
    }
}

impl fmt::Debug for DiskShelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskShelf({})", self.location)
    }
}

#[async_trait]
impl Shelf for DiskShelf {
    fn location(&self) -> &str {
        &self.location
    }

    async fn create(&self, path: &ShelfPath) -> Result<Box<dyn ShelfUpload>, StoreError> {
        self.blocking(Operation::Open, path, |tree, path| {
            let unfinished = tree.begin(Operation::Write, path)?;
            Ok(Box::new(DiskUpload::new(path.to_string(), unfinished)) as Box<dyn ShelfUpload>)
        })
        .await
    }

    async fn put_if_absent(&self, path: &ShelfPath, bytes: Bytes) -> Result<(), StoreError> {
        self.blocking(Operation::Put, path, move |tree, path| {
            let mut unfinished = tree.begin(Operation::Put, path)?;
            unfinished.write_at(0, &bytes)?;
            unfinished.publish()
        })
        .await
    }

    async fn replace(&self, path: &ShelfPath, bytes: Bytes) -> Result<(), StoreError> {
        self.blocking(Operation::Put, path, move |tree, path| {
            let mut unfinished = tree.begin(Operation::Put, path)?;
            unfinished.write_at(0, &bytes)?;
            unfinished.replace()
        })
        .await
    }

    async fn link(&self, from: &ShelfPath, to: &ShelfPath) -> Result<(), StoreError> {
        let to = to.clone();
        self.blocking(Operation::Put, from, move |tree, from| names::link(tree, from, &to)).await
    }

    async fn point(&self, name: &ShelfPath, target: &ShelfPath) -> Result<(), StoreError> {
        let target = target.clone();
        self.blocking(Operation::Put, name, move |tree, name| names::point(tree, name, &target)).await
    }

    async fn get(&self, path: &ShelfPath, max_bytes: u64) -> Result<Bytes, StoreError> {
        self.blocking(Operation::Get, path, move |tree, path| tree.read_whole(path, max_bytes)).await
    }

    async fn read_range(&self, path: &ShelfPath, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        self.blocking(Operation::GetRange, path, move |tree, path| tree.read_range(path, offset, length))
            .await
    }

    async fn head(&self, path: &ShelfPath) -> Result<ShelfFile, StoreError> {
        self.blocking(Operation::Head, path, |tree, path| Ok(file(path.clone(), &tree.look_at(path)?))).await
    }

    async fn list(&self, under: Option<&ShelfPath>) -> Result<Box<dyn ShelfListing>, StoreError> {
        let under = under.map(ShelfPath::to_string).unwrap_or_default();
        let (tree, path) = (Arc::clone(&self.tree), under.clone());
        let walk = on_blocking_thread(Operation::List, &under, move || {
            Walk::begin(tree, &path, ShelfPath::is_shown)
        })
        .await?;
        Ok(Box::new(DiskShelfListing { under, walk: Some(walk) }))
    }

    async fn delete(&self, path: &ShelfPath) -> Result<(), StoreError> {
        self.blocking(Operation::Delete, path, |tree, path| tree.remove(path)).await
    }

    async fn lock(&self) -> Result<ShelfLock, StoreError> {
        for _ in 0..LOCK_TRIES {
            let tree = Arc::clone(&self.tree);
            let tried = on_blocking_thread(Operation::Open, UNFINISHED, move || tree.try_lock()).await?;
            if tried.is_some() {
                return Ok(ShelfLock { held: tried });
            }
            tokio::time::sleep(LOCK_TRY_AGAIN).await;
        }
        let held = io::Error::new(io::ErrorKind::TimedOut, "another process has held the lock for a minute");
        Err(StoreError::from_io(Operation::Open, LOCK, held))
    }

    async fn sweep_unfinished(&self, written_before: Timestamp) -> Result<u64, StoreError> {
        let tree = Arc::clone(&self.tree);
        on_blocking_thread(Operation::Delete, UNFINISHED, move || tree.sweep(written_before)).await
    }
}

fn file(path: ShelfPath, seen: &Seen) -> ShelfFile {
    ShelfFile { path, size_bytes: seen.size_bytes, modified: seen.modified }
}

struct DiskShelfListing {
    under: String,
    /// `None` while a page is being read, and for ever when its future was dropped.
    walk: Option<Walk>,
}

#[async_trait]
impl ShelfListing for DiskShelfListing {
    async fn next_page(&mut self) -> Result<Option<Vec<ShelfFile>>, StoreError> {
        let Some(mut walk) = self.walk.take() else { return Err(broken_off(&self.under)) };
        let (walk, page) = on_blocking_thread(Operation::List, &self.under, move || {
            let page = walk.page()?;
            Ok((walk, page))
        })
        .await?;
        self.walk = Some(walk);
        let files = page.into_iter().filter_map(|(path, seen)| Some(file(path.parse().ok()?, &seen)));
        Ok(Some(files.collect::<Vec<_>>()).filter(|files| !files.is_empty()))
    }
}
