//! The place where portable dumps lie: plain files beside those of others.
//!
//! The second contract for places of bytes. A [`Store`](crate::store::Store) is ours
//! alone and nothing in it is written over; a shelf is a directory that people and other
//! programs look into and put things in as well. What both share is the way a file gets
//! its name: whole, durable, and never in the place of another.
//!
//! Invariant: a file that somebody else put there is changed by no method but
//! [`replace`](Shelf::replace) and [`delete`](Shelf::delete), whose callers know by a
//! sidecar that it is ours.
//!
//! Refuses: hidden names; to show a file that is not complete; to point a name at a
//! file when a plain file has that name.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::store::{StoreError, Upload};

mod disk;
mod path;

pub use disk::DiskShelf;
pub use path::{ShelfPath, ShelfPathError};

/// One file as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShelfFile {
    pub path: ShelfPath,
    pub size_bytes: u64,
    /// By a clock that is not trusted, and of whoever copied the file last.
    pub modified: Option<Timestamp>,
}

/// A file of a shelf on its way.
#[async_trait]
pub trait ShelfUpload: Upload {
    /// Lets the commit give it this name, and not the one that it was begun for.
    async fn rename(&mut self, path: &ShelfPath) -> Result<(), StoreError>;
}

/// Contract, for all methods: what succeeded is durable and seen by every later call. A
/// future may be dropped at any point, with the effect of a crash at that point.
#[async_trait]
pub trait Shelf: Send + Sync + fmt::Debug {
    /// For error texts and lists: `file:///var/backups/postgres`. Holds no secret.
    fn location(&self) -> &str;

    /// Begins a file, invisible until its commit, which fails with `AlreadyExists` when
    /// the name is taken by then, whatever lies there.
    async fn create(&self, path: &ShelfPath) -> Result<Box<dyn ShelfUpload>, StoreError>;

    /// Writes a small file whole. `AlreadyExists` when the name is taken.
    async fn put_if_absent(&self, path: &ShelfPath, bytes: Bytes) -> Result<(), StoreError>;

    /// Writes a small file whole in the place of the one that has the name: for reports,
    /// which are renewed. A reader finds the old one whole or the new one whole.
    async fn replace(&self, path: &ShelfPath, bytes: Bytes) -> Result<(), StoreError>;

    /// Gives a file a second name: a hard link, or a copy where there are none.
    /// `AlreadyExists` when the name is taken.
    async fn link(&self, from: &ShelfPath, to: &ShelfPath) -> Result<(), StoreError>;

    /// Makes `name` a pointer to `target`, in the place of the pointer that was there
    /// before. `AlreadyExists` when something has the name that is no pointer.
    async fn point(&self, name: &ShelfPath, target: &ShelfPath) -> Result<(), StoreError>;

    /// The whole file, which must not be larger than `max_bytes`.
    async fn get(&self, path: &ShelfPath, max_bytes: u64) -> Result<Bytes, StoreError>;

    /// Exactly `length` bytes from `offset`, or an error. Through a pointer, of its target.
    async fn read_range(&self, path: &ShelfPath, offset: u64, length: u64) -> Result<Bytes, StoreError>;

    /// Through a pointer, what its target looks like.
    async fn head(&self, path: &ShelfPath) -> Result<ShelfFile, StoreError>;

    /// Every plain file below the directory (`None`: below all), whoever made it, at any
    /// depth and in no particular order. Pointers, other links, hidden names and names
    /// that are no text are left out. A directory that does not exist has no files; one
    /// that cannot be read is an error.
    async fn list(&self, under: Option<&ShelfPath>) -> Result<Box<dyn ShelfListing>, StoreError>;

    /// Removes the file or the pointer; one that is not there is success. Directories stay.
    async fn delete(&self, path: &ShelfPath) -> Result<(), StoreError>;

    /// Waits until nobody else changes what sidecars say or takes files away, here or on
    /// another machine, and keeps them from it until the lock is dropped. Not to be asked
    /// for twice at once. A file system without locks keeps nobody away.
    async fn lock(&self) -> Result<ShelfLock, StoreError>;

    /// Removes what uploads that never ended have left, if it was last written before
    /// that time by the shelf's clock, and says how many.
    async fn sweep_unfinished(&self, written_before: Timestamp) -> Result<u64, StoreError>;
}

/// Held as long as it lives; the kernel lets it go however its holder dies.
#[derive(Debug)]
#[must_use = "it is held as long as it lives"]
pub struct ShelfLock {
    /// `None` where nobody else can be.
    pub held: Option<std::fs::File>,
}

/// A listing in pages of a bounded size.
#[async_trait]
pub trait ShelfListing: Send {
    /// The next page, `None` at the end. After an error the listing is over and must be
    /// taken as incomplete.
    async fn next_page(&mut self) -> Result<Option<Vec<ShelfFile>>, StoreError>;
}

impl dyn Shelf + '_ {
    /// Every file below the directory in one vector, sorted by path: for shelves whose
    /// files a person could count.
    pub async fn list_all(&self, under: Option<&ShelfPath>) -> Result<Vec<ShelfFile>, StoreError> {
        let mut listing = self.list(under).await?;
        let mut all = Vec::new();
        while let Some(page) = listing.next_page().await? {
            all.extend(page);
        }
        all.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }
}
