//! A large object on its way to the disk.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::Advice;

use super::on_blocking_thread;
use super::tree::Unfinished;
use crate::layout::ObjectName;
use crate::store::{Operation, StoreError, Upload};

/// The kernel is asked to begin writing after this much, so that little is left
/// for the fsync of the commit.
const WRITE_BACK_BYTES: u64 = 4 << 20;

pub(super) struct DiskUpload {
    object: ObjectName,
    /// Shared with the blocking thread, which may outlive a dropped call: it then
    /// writes the same bytes to the same place once more, or nothing.
    file: Arc<Mutex<Unfinished>>,
    written_bytes: u64,
    pushed_bytes: u64,
}

impl DiskUpload {
    pub fn new(object: ObjectName, file: Unfinished) -> Self {
        Self { object, file: Arc::new(Mutex::new(file)), written_bytes: 0, pushed_bytes: 0 }
    }

    async fn with_file(
        &self,
        operation: Operation,
        work: impl FnOnce(&mut Unfinished) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let file = Arc::clone(&self.file);
        on_blocking_thread(operation, self.object.as_str(), move || {
            work(&mut file.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await
    }
}

#[async_trait]
impl Upload for DiskUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let (offset, length) = (self.written_bytes, bytes.len() as u64);
        let end = offset + length;
        let push = (end - self.pushed_bytes >= WRITE_BACK_BYTES)
            .then(|| (self.pushed_bytes, NonZeroU64::new(end - self.pushed_bytes)));
        self.with_file(Operation::Write, move |file| {
            file.write_at(offset, &bytes)?;
            if let Some((from, length)) = push {
                // On Linux this starts the write-back of dirty pages without
                // waiting. It is advice: whether it was taken does not matter, and
                // an error of the write-back itself comes back from the fsync.
                let _ = rustix::fs::fadvise(&file.file, from, length, Advice::DontNeed);
            }
            Ok(())
        })
        .await?;
        self.written_bytes = end;
        if push.is_some() {
            self.pushed_bytes = end;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<u64, StoreError> {
        self.with_file(Operation::Commit, Unfinished::publish).await?;
        Ok(self.written_bytes)
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        self.with_file(Operation::Abort, |file| {
            file.discard();
            Ok(())
        })
        .await
    }
}
