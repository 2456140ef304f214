//! One file on its way out: written by several workers, complete when the last byte is there.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use backstay_model::parts::{FileShape, ParentFile, PartTarget, PartWriter};

use crate::crc::CrcFold;
use crate::{Error, Result};

pub struct Outlet {
    file: ParentFile,
    shape: FileShape,
    destination: Option<Destination>,
    crc: Mutex<CrcFold>,
    remaining: AtomicU64,
    damaged: AtomicBool,
}

/// The file is made by whoever brings its first bytes: making a thousand small files
/// takes as long as writing hundreds of megabytes, and the planner, who would have to
/// do it alone, has the workers waiting for it.
struct Destination {
    target: Arc<dyn PartTarget>,
    making: Mutex<()>,
    /// `None` inside when the target does not want the bytes.
    writer: OnceLock<Option<Box<dyn PartWriter>>>,
}

impl Destination {
    fn writer(&self, file: &ParentFile) -> Result<Option<&dyn PartWriter>> {
        if self.writer.get().is_none() {
            let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            if self.writer.get().is_none() {
                let made = self.target.create(file)?;
                let _ = self.writer.set(made);
            }
        }
        Ok(self.writer.get().and_then(|writer| writer.as_deref()))
    }
}

impl Outlet {
    /// `target` is `None` when the bytes are only checked.
    pub fn new(file: ParentFile, shape: FileShape, target: Option<Arc<dyn PartTarget>>) -> Self {
        Self {
            file,
            shape,
            destination: target.map(|target| Destination {
                target,
                making: Mutex::new(()),
                writer: OnceLock::new(),
            }),
            crc: Mutex::new(CrcFold::default()),
            remaining: AtomicU64::new(shape.size),
            damaged: AtomicBool::new(false),
        }
    }

    pub fn path(&self) -> &str {
        &self.file.spec.path
    }

    pub fn block_size(&self) -> u32 {
        self.shape.block_size
    }

    fn writer(&self) -> Result<Option<&dyn PartWriter>> {
        match &self.destination {
            Some(destination) => destination.writer(&self.file),
            None => Ok(None),
        }
    }

    /// Writes bytes; they count when
    /// [`Outlet::account`] has heard of them.
    pub fn put(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match self.writer()? {
            Some(writer) => Ok(writer.write_at(offset, bytes)?),
            None => Ok(()),
        }
    }

    /// A stretch of zeros, which the target has already.
    pub fn put_zeros(&self, offset: u64, length: u64) -> Result<()> {
        let crc = if self.wants_crc() { crate::crc::crc32c_of_zeros(length) } else { 0 };
        self.account(offset, length, crc)
    }

    /// A stretch that could not be read: the file can no longer be whole.
    pub fn skip(&self, length: u64) {
        self.damaged.store(true, Ordering::Relaxed);
        self.remaining.fetch_sub(length, Ordering::AcqRel);
    }

    /// Makes and closes a file without bytes.
    pub fn finish_empty(&self) -> Result<()> {
        if self.shape.size == 0 { self.finish() } else { Ok(()) }
    }

    /// Whether the bytes go to a target, rather than being only checked.
    pub fn is_written(&self) -> bool {
        self.destination.is_some()
    }

    /// Whether the checksum of the whole file is known.
    pub fn wants_crc(&self) -> bool {
        self.file.crc32c.is_some()
    }

    /// Notes bytes that were put, with their CRC-32C where it is wanted; the last
    /// ones complete the file.
    pub fn account(&self, offset: u64, length: u64, crc: u32) -> Result<()> {
        if self.wants_crc() {
            self.crc.lock().unwrap_or_else(PoisonError::into_inner).add(offset, crc, length);
        }
        let before = self.remaining.fetch_sub(length, Ordering::AcqRel);
        if before == length { self.finish() } else { Ok(()) }
    }

    fn finish(&self) -> Result<()> {
        if self.damaged.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(writer) = self.writer()? {
            writer.finish()?;
        }
        let Some(expected) = self.file.crc32c else { return Ok(()) };
        let size = self.shape.size;
        let found = self.crc.lock().unwrap_or_else(PoisonError::into_inner).finish(size);
        if found == Some(expected) || size == 0 {
            return Ok(());
        }
        Err(Error::Damaged {
            object: self.path().to_owned(),
            reason: "its blocks do not make the checksum that it had at the backup".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use backstay_model::error::Fault;
    use backstay_model::parts::{FileSpec, PartKind};

    use super::*;

    /// Counts how often its file was made and finished, and keeps its bytes.
    #[derive(Default)]
    struct OneFile {
        made: AtomicU64,
        finished: Arc<AtomicU64>,
        bytes: Arc<Mutex<Vec<u8>>>,
    }

    struct OneWriter {
        finished: Arc<AtomicU64>,
        bytes: Arc<Mutex<Vec<u8>>>,
    }

    impl PartTarget for OneFile {
        fn create(&self, _: &ParentFile) -> Result<Option<Box<dyn PartWriter>>, Fault> {
            self.made.fetch_add(1, Ordering::Relaxed);
            let (finished, bytes) = (Arc::clone(&self.finished), Arc::clone(&self.bytes));
            Ok(Some(Box::new(OneWriter { finished, bytes })))
        }
    }

    impl PartWriter for OneWriter {
        fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
            let mut file = self.bytes.lock().unwrap();
            file[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn finish(&self) -> Result<(), Fault> {
            self.finished.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn file(shape: FileShape, crc32c: Option<u32>) -> ParentFile {
        let kind = PartKind::File(shape);
        let path = "base/1/1259".to_owned();
        let spec = FileSpec { path, kind, mode: 0o600, user_id: 0, group_id: 0, modified: 0 };
        ParentFile { spec, crc32c }
    }

    #[test]
    fn workers_that_come_together_make_one_file() {
        const WORKERS: usize = 8;
        const STRETCH: usize = 4096;
        for round in 0..200u8 {
            let content: Vec<u8> = (0..WORKERS * STRETCH).map(|n| (n / 7) as u8 ^ round).collect();
            let crc = crate::crc::crc32c(&content);
            let shape = FileShape { size: content.len() as u64, block_size: 512 };
            let target = Arc::new(OneFile::default());
            *target.bytes.lock().unwrap() = vec![0; content.len()];
            let outlet = Outlet::new(file(shape, Some(crc)), shape, Some(target.clone()));
            let together = Barrier::new(WORKERS);
            std::thread::scope(|scope| {
                for (number, stretch) in content.chunks(STRETCH).enumerate() {
                    let (outlet, together) = (&outlet, &together);
                    scope.spawn(move || {
                        together.wait();
                        let offset = (number * STRETCH) as u64;
                        outlet.put(offset, stretch).unwrap();
                        let crc = crate::crc::crc32c(stretch);
                        outlet.account(offset, stretch.len() as u64, crc).unwrap();
                    });
                }
            });
            assert_eq!(target.made.load(Ordering::Relaxed), 1);
            assert_eq!(target.finished.load(Ordering::Relaxed), 1);
            assert_eq!(*target.bytes.lock().unwrap(), content);
        }
    }

    #[test]
    fn a_file_of_zeros_is_made_though_nobody_writes_to_it() {
        let shape = FileShape { size: 16384, block_size: 8192 };
        let target = Arc::new(OneFile::default());
        let crc = crate::crc::crc32c(&[0; 16384]);
        let outlet = Outlet::new(file(shape, Some(crc)), shape, Some(target.clone()));
        outlet.put_zeros(8192, 8192).unwrap();
        assert_eq!(target.finished.load(Ordering::Relaxed), 0);
        outlet.put_zeros(0, 8192).unwrap();
        assert_eq!((target.made.load(Ordering::Relaxed), target.finished.load(Ordering::Relaxed)), (1, 1));
    }
}
