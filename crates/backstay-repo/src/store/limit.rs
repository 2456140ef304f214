//! A store whose bytes keep to a rate, so that a backup leaves room on the line
//! and the disk for others.
//!
//! Responsible for content alone: listings and looks cost nothing, and neither do
//! intents and heartbeats. They are small, and one that stood in a queue of bulk data
//! until it is late would let a living session be taken for dead. It stands outside
//! of the retries, so that waiting for its turn counts against no call's time limit.
//! All lanes share one bucket for each direction and pass in the order in which they
//! came.
//!
//! Refuses: to wait after it was cancelled; to hold anything while it waits.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backstay_model::{ByteRate, Pacer};
use bytes::Bytes;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::retry::Pace;
use super::{Listing, ObjectMeta, Operation, Store, StoreError, Upload};
use crate::layout::{ObjectName, Prefix};

/// How many bytes a second may go each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub upload: Option<ByteRate>,
    pub download: Option<ByteRate>,
}

impl Limits {
    pub fn is_none(&self) -> bool {
        *self == Limits::default()
    }
}

#[derive(Clone)]
pub struct LimitStore {
    inner: Arc<dyn Store>,
    upload: Gate,
    download: Gate,
}

/// One direction. Clones share the bucket.
#[derive(Clone)]
struct Gate {
    pacer: Option<Arc<Mutex<Pacer>>>,
    pace: Arc<dyn Pace>,
    cancel: CancellationToken,
}

impl LimitStore {
    pub fn new(
        inner: Arc<dyn Store>,
        limits: Limits,
        pace: &Arc<dyn Pace>,
        cancel: &CancellationToken,
    ) -> Self {
        let gate = |rate: Option<ByteRate>| Gate {
            pacer: rate.map(|rate| Arc::new(Mutex::new(Pacer::new(rate)))),
            pace: Arc::clone(pace),
            cancel: cancel.clone(),
        };
        Self { inner, upload: gate(limits.upload), download: gate(limits.download) }
    }
}

impl fmt::Debug for LimitStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LimitStore({:?})", self.inner)
    }
}

impl Gate {
    /// Waits until so many bytes may pass.
    async fn pass(&self, bytes: u64, operation: Operation, object: &ObjectName) -> Result<(), StoreError> {
        let Some(pacer) = self.pacer.as_ref().filter(|_| !object.is_of_intents()) else { return Ok(()) };
        let wait = pacer.lock().unwrap_or_else(PoisonError::into_inner).book(self.pace.elapsed(), bytes);
        if wait.is_zero() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {
                Err(StoreError::Cancelled { operation, object: object.to_string() })
            }
            () = self.pace.wait(wait) => Ok(()),
        }
    }
}

#[async_trait]
impl Store for LimitStore {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn put_if_absent(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.upload.pass(bytes.len() as u64, Operation::Put, name).await?;
        self.inner.put_if_absent(name, bytes).await
    }

    async fn create(&self, name: &ObjectName) -> Result<Box<dyn Upload>, StoreError> {
        let inner = self.inner.create(name).await?;
        Ok(Box::new(LimitUpload { name: name.clone(), inner, gate: self.upload.clone() }))
    }

    /// How much comes is known only afterwards, and waited for then.
    async fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Bytes, StoreError> {
        let bytes = self.inner.get(name, max_bytes).await?;
        self.download.pass(bytes.len() as u64, Operation::Get, name).await?;
        Ok(bytes)
    }

    async fn get_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        self.download.pass(length, Operation::GetRange, name).await?;
        self.inner.get_range(name, offset, length).await
    }

    async fn list(&self, under: &Prefix) -> Result<Box<dyn Listing>, StoreError> {
        self.inner.list(under).await
    }

    async fn list_directories(&self, under: &Prefix) -> Result<Vec<String>, StoreError> {
        self.inner.list_directories(under).await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectMeta, StoreError> {
        self.inner.head(name).await
    }

    async fn settle(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.settle(name).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name).await
    }

    async fn sweep_unfinished(&self, written_before: Timestamp) -> Result<u64, StoreError> {
        self.inner.sweep_unfinished(written_before).await
    }
}

struct LimitUpload {
    name: ObjectName,
    inner: Box<dyn Upload>,
    gate: Gate,
}

#[async_trait]
impl Upload for LimitUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.gate.pass(bytes.len() as u64, Operation::Write, &self.name).await?;
        self.inner.write(bytes).await
    }

    async fn commit(&mut self) -> Result<u64, StoreError> {
        self.inner.commit().await
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests;
