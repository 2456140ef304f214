//! A disk that has no room for the end of a dump.
//!
//! One test in a process of its own: the limit on the size of files that stands for the
//! full disk is the whole process's.

#![allow(clippy::unwrap_used, reason = "functions of a test that are not tests themselves")]

use std::sync::Arc;

use backstay_model::Secret;
use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat, DumpShape};
use backstay_repo::Error;
use backstay_repo::dump::{DumpRecipe, DumpWriter};
use backstay_repo::shelf::{DiskShelf, Shelf, ShelfPath};
use backstay_repo::store::StoreError;
use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

const ROOM_BYTES: u64 = 3 << 20;
/// Sent to a process that reaches the limit; it ends one that does not look.
const FILE_TOO_LARGE: i32 = 25;

#[tokio::test]
async fn a_full_disk_is_told_as_that_and_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let shelf: Arc<dyn Shelf> = Arc::new(DiskShelf::new(place.path()));
    let path: ShelfPath = "daily/orders.dump".parse().unwrap();
    let _ignored = signal(SignalKind::from_raw(FILE_TOO_LARGE)).unwrap();
    let before = getrlimit(Resource::Fsize);
    for cipher in [DumpCipher::None, DumpCipher::Openssl, DumpCipher::Openpgp] {
        let shape = DumpShape { format: DumpFormat::Custom, compression: DumpCompression::None, cipher };
        let recipe = DumpRecipe { shape, level: None, workers: 2 };
        let secret = Secret::new("x");
        let mut writer = DumpWriter::begin(&*shelf, &path, &recipe, Some(&secret)).await.unwrap();
        setrlimit(Resource::Fsize, Rlimit { current: Some(ROOM_BYTES), maximum: before.maximum }).unwrap();
        let mut failed = None;
        for number in 0..64u8 {
            if let Err(error) = writer.write(Bytes::from(vec![number; 1 << 20])).await {
                failed = Some(error);
                break;
            }
        }
        let error = match failed {
            Some(error) => error,
            None => writer.finish().await.err().unwrap(),
        };
        setrlimit(Resource::Fsize, before).unwrap();
        assert!(matches!(error, Error::Store(StoreError::Full { .. })), "{cipher}: {error:?}");
        assert!(shelf.list_all(None).await.unwrap().is_empty());
    }
    // What was begun is gone as well.
    assert_eq!(std::fs::read_dir(place.path().join(".unfinished")).unwrap().count(), 0);
}
