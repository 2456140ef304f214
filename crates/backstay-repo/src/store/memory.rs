//! A store in memory, with the same semantics as the ones that last: for tests
//! of everything above it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use super::{Listing, ObjectMeta, Store, StoreError, Upload};
use crate::layout::{ObjectName, Prefix};

/// Small, so that tests turn pages.
const PAGE_ENTRIES: usize = 100;

type Objects = Arc<Mutex<BTreeMap<ObjectName, Bytes>>>;

/// Clones share their objects, like two processes at one store.
#[derive(Clone, Default)]
pub struct MemoryStore {
    objects: Objects,
}

fn locked(objects: &Objects) -> MutexGuard<'_, BTreeMap<ObjectName, Bytes>> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}

fn insert(objects: &Objects, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
    let mut objects = locked(objects);
    if objects.contains_key(name) {
        return Err(StoreError::already_exists(name));
    }
    objects.insert(name.clone(), bytes);
    Ok(())
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// The names of all objects, sorted: what a test looks at.
    pub fn names(&self) -> Vec<String> {
        locked(&self.objects).keys().map(ObjectName::to_string).collect()
    }

    /// A copy that shares nothing any more: what a crash or a rolled-back disk leaves.
    pub fn fork(&self) -> Self {
        Self { objects: Arc::new(Mutex::new(locked(&self.objects).clone())) }
    }

    /// Replaces or makes an object, as damage and other programs do. Not part of
    /// the contract; for tests.
    pub fn tamper(&self, name: &ObjectName, bytes: impl Into<Bytes>) {
        locked(&self.objects).insert(name.clone(), bytes.into());
    }

    fn find(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        locked(&self.objects).get(name).cloned().ok_or_else(|| StoreError::not_found(name))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStore({} objects)", locked(&self.objects).len())
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn location(&self) -> &str {
        "memory:"
    }

    async fn put_if_absent(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        insert(&self.objects, name, bytes)
    }

    async fn create(&self, name: &ObjectName) -> Result<Box<dyn Upload>, StoreError> {
        let objects = Arc::clone(&self.objects);
        Ok(Box::new(MemoryUpload { objects, name: name.clone(), bytes: Some(BytesMut::new()) }))
    }

    async fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Bytes, StoreError> {
        let bytes = self.find(name)?;
        let size_bytes = bytes.len() as u64;
        if size_bytes > max_bytes {
            return Err(StoreError::TooLarge { object: name.to_string(), size_bytes, max_bytes });
        }
        Ok(bytes)
    }

    async fn get_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let bytes = self.find(name)?;
        let available = (bytes.len() as u64).saturating_sub(offset);
        if available < length {
            return Err(StoreError::WrongRange { object: name.to_string(), offset, length, got: available });
        }
        // An empty range may begin anywhere, also beyond the end.
        let start = (offset as usize).min(bytes.len());
        Ok(bytes.slice(start..start + length as usize))
    }

    async fn list(&self, under: &Prefix) -> Result<Box<dyn Listing>, StoreError> {
        Ok(Box::new(MemoryListing { store: self.clone(), under: under.clone(), after: None }))
    }

    async fn list_directories(&self, under: &Prefix) -> Result<Vec<String>, StoreError> {
        let objects = locked(&self.objects);
        let skip = if under.as_str().is_empty() { 0 } else { under.as_str().len() + 1 };
        let mut found: Vec<String> = objects
            .keys()
            .filter(|name| name.is_under(under))
            .filter_map(|name| name.as_str().get(skip..)?.split_once('/'))
            .map(|(segment, _)| segment.to_owned())
            .collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectMeta, StoreError> {
        let bytes = self.find(name)?;
        Ok(ObjectMeta { name: name.clone(), size_bytes: bytes.len() as u64, modified: None })
    }

    async fn settle(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.find(name).map(drop)
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        locked(&self.objects).remove(name);
        Ok(())
    }

    async fn sweep_unfinished(&self, _written_before: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

struct MemoryUpload {
    objects: Objects,
    name: ObjectName,
    /// `None` after the commit.
    bytes: Option<BytesMut>,
}

impl MemoryUpload {
    fn over(&self) -> StoreError {
        StoreError::not_found(&self.name)
    }
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let over = self.over();
        self.bytes.as_mut().ok_or(over)?.extend_from_slice(&bytes);
        Ok(())
    }

    async fn commit(&mut self) -> Result<u64, StoreError> {
        let bytes = self.bytes.take().ok_or_else(|| self.over())?.freeze();
        let size_bytes = bytes.len() as u64;
        insert(&self.objects, &self.name, bytes)?;
        Ok(size_bytes)
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        self.bytes = None;
        Ok(())
    }
}

struct MemoryListing {
    store: MemoryStore,
    under: Prefix,
    after: Option<ObjectName>,
}

#[async_trait]
impl Listing for MemoryListing {
    async fn next_page(&mut self) -> Result<Option<Vec<ObjectMeta>>, StoreError> {
        let objects = locked(&self.store.objects);
        let from = self.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let page: Vec<ObjectMeta> = objects
            .range::<ObjectName, _>((from, Bound::Unbounded))
            .filter(|(name, _)| name.is_under(&self.under))
            .take(PAGE_ENTRIES)
            .map(|(name, bytes)| ObjectMeta {
                name: name.clone(),
                size_bytes: bytes.len() as u64,
                modified: None,
            })
            .collect();
        match page.last() {
            Some(last) => self.after = Some(last.name.clone()),
            None => return Ok(None),
        }
        Ok(Some(page))
    }
}
