//! A large object on its way to the disk.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::Advice;

use super::on_blocking_thread;
use super::tree::Unfinished;
use crate::store::{Operation, StoreError, Upload};

/// The kernel is asked to begin writing after this much, so that little is left
/// for the fsync of the commit.
const WRITE_BACK_BYTES: u64 = 4 << 20;

pub(crate) struct DiskUpload {
    object: String,
    /// Shared with the blocking thread, which may outlive a dropped call. The next
    /// call waits for it, and finds how it ended in the file's own state: what it
    /// failed to write or to sync is never tried again and then believed.
    file: Arc<Mutex<Unfinished>>,
    written_bytes: u64,
    pushed_bytes: u64,
}

impl DiskUpload {
    pub fn new(object: String, file: Unfinished) -> Self {
        Self { object, file: Arc::new(Mutex::new(file)), written_bytes: 0, pushed_bytes: 0 }
    }

    /// Names the object otherwise than it was begun, before its commit.
    pub async fn call(&mut self, object: String) -> Result<(), StoreError> {
        let name = object.clone();
        self.with_file(Operation::Commit, move |file| file.call(name)).await?;
        self.object = object;
        Ok(())
    }

    async fn with_file(
        &self,
        operation: Operation,
        work: impl FnOnce(&mut Unfinished) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let file = Arc::clone(&self.file);
        on_blocking_thread(operation, &self.object, move || {
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use super::super::tree::{Custody, Tree};
    use super::*;
    use crate::layout::ObjectName;

    fn begun(place: &std::path::Path) -> DiskUpload {
        let object: ObjectName = "orders/packs/1".parse().unwrap();
        let tree = Arc::new(Tree::new(place.to_owned(), Custody::Sole));
        let unfinished = tree.begin(Operation::Write, &object).unwrap();
        DiskUpload::new(object.to_string(), unfinished)
    }

    /// Puts in the file's place one that can be neither written at an offset nor
    /// synced, and gives the real one back.
    fn swap_for_a_pipe(upload: &DiskUpload) -> File {
        let (reader, _writer) = std::io::pipe().unwrap();
        let pipe = File::from(OwnedFd::from(reader));
        std::mem::replace(&mut upload.file.lock().unwrap().file, pipe)
    }

    fn put_back(upload: &DiskUpload, file: File) {
        upload.file.lock().unwrap().file = file;
    }

    #[tokio::test]
    async fn a_sync_that_failed_is_not_believed_when_the_next_one_succeeds() {
        let place = tempfile::tempdir().unwrap();
        let mut upload = begun(place.path());
        upload.write(Bytes::from_static(b"12345")).await.unwrap();
        let file = swap_for_a_pipe(&upload);
        let first = upload.commit().await.unwrap_err();
        assert!(!first.is_transient(), "{first}");
        // As the kernel does: it has told of the bytes that are lost, and is content.
        put_back(&upload, file);
        for _ in 0..2 {
            let again = upload.commit().await.unwrap_err();
            assert!(matches!(again, StoreError::Io { .. }), "{again}");
        }
        assert!(upload.write(Bytes::from_static(b"6")).await.is_err());
        assert!(!place.path().join("orders/packs/1").exists());
    }

    #[tokio::test]
    async fn a_write_that_failed_ends_the_upload() {
        let place = tempfile::tempdir().unwrap();
        let mut upload = begun(place.path());
        let file = swap_for_a_pipe(&upload);
        let first = upload.write(Bytes::from_static(b"12345")).await.unwrap_err();
        assert!(!first.is_transient(), "{first}");
        put_back(&upload, file);
        assert!(matches!(upload.write(Bytes::from_static(b"12345")).await, Err(StoreError::Io { .. })));
        assert!(matches!(upload.commit().await, Err(StoreError::Io { .. })));
        assert!(!place.path().join("orders/packs/1").exists());
    }

    #[tokio::test]
    async fn a_commit_that_nobody_waited_for_decides_the_next_one() {
        let place = tempfile::tempdir().unwrap();
        let mut upload = begun(place.path());
        upload.write(Bytes::from_static(b"12345")).await.unwrap();
        upload.file.lock().unwrap().publish().unwrap();
        assert_eq!(upload.commit().await.unwrap(), 5);

        let mut upload = begun(place.path());
        upload.object = "orders/packs/2".to_owned();
        let file = swap_for_a_pipe(&upload);
        upload.file.lock().unwrap().publish().unwrap_err();
        put_back(&upload, file);
        assert!(matches!(upload.commit().await, Err(StoreError::Io { .. })));
    }
}
