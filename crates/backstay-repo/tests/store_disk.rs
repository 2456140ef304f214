//! What only a disk has: modes, links, foreign files, remains of crashes.

#![allow(clippy::unwrap_used, reason = "functions of a test that are not tests themselves")]

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use backstay_repo::layout::{ObjectName, Prefix};
use backstay_repo::store::{DiskStore, Store, StoreError};
use bytes::Bytes;
use jiff::Timestamp;

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn names(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    Ok(store.list_all(&Prefix::root()).await?.into_iter().map(|meta| meta.name.to_string()).collect())
}

#[tokio::test]
async fn what_is_written_is_for_its_owner_alone_and_leaves_no_temporary() {
    let place = tempfile::tempdir().unwrap();
    let store = DiskStore::new(place.path().join("new/repository"));
    store.put_if_absent(&name("orders/packs/1"), Bytes::from_static(b"x")).await.unwrap();
    let mut upload = store.create(&name("orders/packs/2")).await.unwrap();
    upload.write(Bytes::from_static(b"y")).await.unwrap();
    assert_eq!(std::fs::read_dir(store.root().join(".unfinished")).unwrap().count(), 1);
    upload.commit().await.unwrap();
    assert_eq!(std::fs::read_dir(store.root().join(".unfinished")).unwrap().count(), 0);
    for file in ["orders/packs/1", "orders/packs/2"] {
        assert_eq!(mode(&store.root().join(file)), 0o600);
    }
    for directory in ["", "orders", "orders/packs", ".unfinished"] {
        assert_eq!(mode(&store.root().join(directory)), 0o700);
    }
}

#[tokio::test]
async fn reading_makes_no_directory_and_an_absent_place_is_an_empty_store() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("absent");
    let store = DiskStore::new(&root);
    assert!(matches!(store.get(&name("backstay.json"), 10).await, Err(StoreError::NotFound { .. })));
    assert!(names(&store).await.unwrap().is_empty());
    store.delete(&name("a/b")).await.unwrap();
    assert_eq!(store.sweep_unfinished(Timestamp::MAX).await.unwrap(), 0);
    assert!(!root.exists());
}

#[tokio::test]
async fn a_symbolic_link_inside_is_an_error_and_not_a_shorter_list() {
    let place = tempfile::tempdir().unwrap();
    let store = DiskStore::new(place.path().join("repository"));
    store.put_if_absent(&name("orders/packs/1"), Bytes::new()).await.unwrap();
    std::fs::create_dir(place.path().join("elsewhere")).unwrap();
    symlink(place.path().join("elsewhere"), store.root().join("orders/maps")).unwrap();
    assert!(names(&store).await.is_err());
    let inside = store.root().join("orders/packs/1");
    symlink(&inside, store.root().join("orders/packs/2")).unwrap();
    assert!(store.get(&name("orders/packs/2"), 10).await.is_err());
    // The place itself may be one.
    let link = place.path().join("link");
    std::fs::remove_file(store.root().join("orders/maps")).unwrap();
    std::fs::remove_file(store.root().join("orders/packs/2")).unwrap();
    symlink(store.root(), &link).unwrap();
    assert_eq!(names(&DiskStore::new(link)).await.unwrap(), ["orders/packs/1"]);
}

#[tokio::test]
async fn files_of_others_are_neither_listed_nor_in_the_way() {
    let place = tempfile::tempdir().unwrap();
    let store = DiskStore::new(place.path());
    store.put_if_absent(&name("orders/packs/1"), Bytes::new()).await.unwrap();
    std::fs::create_dir(place.path().join("lost+found")).unwrap();
    std::fs::write(place.path().join("lost+found/x"), "x").unwrap();
    std::fs::write(place.path().join("orders/packs/.hidden"), "x").unwrap();
    std::fs::write(place.path().join("orders/packs/a file"), "x").unwrap();
    assert_eq!(names(&store).await.unwrap(), ["orders/packs/1"]);
    assert_eq!(store.list_directories(&Prefix::root()).await.unwrap(), ["orders"]);
}

#[tokio::test]
async fn remains_of_a_crash_are_swept_when_they_are_old_and_only_then() {
    let place = tempfile::tempdir().unwrap();
    let store = DiskStore::new(place.path());
    let mut upload = store.create(&name("orders/packs/1")).await.unwrap();
    upload.write(Bytes::from_static(b"half")).await.unwrap();
    assert_eq!(store.sweep_unfinished(Timestamp::UNIX_EPOCH).await.unwrap(), 0);
    assert_eq!(store.sweep_unfinished(Timestamp::MAX).await.unwrap(), 1);
    // The upload that was swept under its writer fails and harms nothing.
    assert!(upload.commit().await.is_err());
    assert!(names(&store).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_deleted_session_leaves_no_empty_directories() {
    let place = tempfile::tempdir().unwrap();
    let store = DiskStore::new(place.path());
    for text in ["orders/maps/s/0", "orders/maps/s/1", "orders/packs/1"] {
        store.put_if_absent(&name(text), Bytes::new()).await.unwrap();
    }
    store.delete(&name("orders/maps/s/0")).await.unwrap();
    assert!(place.path().join("orders/maps/s").exists());
    store.delete(&name("orders/maps/s/1")).await.unwrap();
    assert!(!place.path().join("orders/maps").exists());
    store.put_if_absent(&name("orders/maps/s/0"), Bytes::new()).await.unwrap();
}

#[tokio::test]
async fn a_place_that_is_gone_under_a_running_process_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("repository");
    let store = DiskStore::new(&root);
    store.put_if_absent(&name("a/b"), Bytes::new()).await.unwrap();
    // As after an unmount: another, empty directory lies at the same path.
    std::fs::remove_dir_all(&root).unwrap();
    std::fs::create_dir(&root).unwrap();
    assert!(store.put_if_absent(&name("a/c"), Bytes::new()).await.is_err());
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_where_a_directory_should_be_is_an_error_and_no_absence_of_a_write() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let store = DiskStore::new(&file);
    assert!(store.put_if_absent(&name("a"), Bytes::new()).await.is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"x");
}
