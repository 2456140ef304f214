//! The place where bytes are kept: named objects that are written once.
//!
//! Everything above believes exactly what the contract of [`Store`] says, and the
//! public conformance suite holds every store to it. No method overwrites.
//!
//! Refuses: to replace an object; to show one that is not complete and durable;
//! to take an error for an absence.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::layout::{ObjectName, Prefix};

pub mod conformance;
pub mod disk;
mod error;
pub mod faulty;
pub mod limit;
pub mod memory;
pub mod parting;
pub mod retry;
pub mod url;

pub use disk::DiskStore;
pub use error::{Operation, StoreError};
pub use memory::MemoryStore;

/// One object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    pub name: ObjectName,
    pub size_bytes: u64,
    /// When the store believes it was written, by a clock that is not trusted.
    pub modified: Option<Timestamp>,
}

/// Where a repository's objects lie.
///
/// Contract, for all methods: what succeeded is seen by every later call of every
/// process (read after write, listing included). An error says nothing about
/// whether a write took place, except [`StoreError::AlreadyExists`] and
/// [`StoreError::NotFound`], which are facts. A future may be dropped at any
/// point, with the effect of a crash at that point.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// For error texts and lists: `file:///var/lib/backstay`. Holds no secret.
    fn location(&self) -> &str;

    /// Writes the whole object, atomically, and returns when it is durable.
    /// `AlreadyExists` when the name is taken, whatever lies there; nothing is
    /// changed then.
    async fn put_if_absent(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError>;

    /// Begins a large object. The name must be one that no other process uses
    /// (it holds the session): a store may be unable to refuse a taken name.
    async fn create(&self, name: &ObjectName) -> Result<Box<dyn Upload>, StoreError>;

    /// The whole object, which must not be larger than `max_bytes`
    /// ([`StoreError::TooLarge`]), so that a foreign object cannot fill the memory.
    async fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Bytes, StoreError>;

    /// Exactly `length` bytes from `offset`, or an error: `WrongRange` when the
    /// object ends earlier or the store answers with something else.
    async fn get_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Bytes, StoreError>;

    /// All objects under the prefix, at any depth, in no particular order. An
    /// object that exists during the whole listing is in it exactly once; one
    /// that comes or goes meanwhile may or may not be. A prefix without objects
    /// is an empty listing.
    async fn list(&self, under: &Prefix) -> Result<Box<dyn Listing>, StoreError>;

    /// The distinct next segments under the prefix that have objects below them
    /// (not the objects that lie there directly), sorted. A store of directories
    /// may show one below which nothing is left.
    async fn list_directories(&self, under: &Prefix) -> Result<Vec<String>, StoreError>;

    async fn head(&self, name: &ObjectName) -> Result<ObjectMeta, StoreError>;

    /// Makes the name of an object that is there as durable as if it had just been written here:
    /// whoever wrote it may have been stopped before that. `NotFound` when there is none.
    async fn settle(&self, name: &ObjectName) -> Result<(), StoreError>;

    /// Removes the object; one that is not there is success. Only collections, key
    /// slots, `init`'s probe and a session at its end, for its own intents, call it.
    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError>;

    /// Removes what uploads that never ended have left, if it was last written
    /// before that time, and says how many. The time is by the store's clock, so
    /// callers leave a wide margin; an upload that is swept while it still runs
    /// fails at its commit and harms nothing.
    async fn sweep_unfinished(&self, written_before: Timestamp) -> Result<u64, StoreError>;
}

/// A listing in pages of a bounded size, so that ten million objects never lie in memory.
#[async_trait]
pub trait Listing: Send {
    /// The next page, `None` at the end. An empty page is not the end. A call that
    /// failed with an `Unavailable` error may be repeated; after any other error
    /// the listing is over and must be taken as incomplete.
    async fn next_page(&mut self) -> Result<Option<Vec<ObjectMeta>>, StoreError>;
}

/// An object being written. Invisible until [`commit`](Upload::commit); dropped
/// without it, nothing stays but what the store cleans up by itself.
#[async_trait]
pub trait Upload: Send {
    /// Appends. A call that failed with an `Unavailable` error has appended
    /// nothing and may be repeated; after any other error only `abort` is left.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// Makes the object visible and durable, and says its size in bytes.
    /// `AlreadyExists` where the store can tell that the name was taken. A call
    /// that failed with an `Unavailable` error may be repeated.
    async fn commit(&mut self) -> Result<u64, StoreError>;

    /// Gives the upload up. Only worth a call where an unfinished one costs money
    /// until it is swept; dropping does the same where that is free.
    async fn abort(&mut self) -> Result<(), StoreError>;
}

impl dyn Store + '_ {
    /// Every object under the prefix in one vector: for places that are small by
    /// their nature (intents, condemned markers, key slots).
    pub async fn list_all(&self, under: &Prefix) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut listing = self.list(under).await?;
        let mut all = Vec::new();
        while let Some(page) = listing.next_page().await? {
            all.extend(page);
        }
        Ok(all)
    }

    /// `false` only when the store says that it is not there; never on an error.
    pub async fn exists(&self, name: &ObjectName) -> Result<bool, StoreError> {
        match self.head(name).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
