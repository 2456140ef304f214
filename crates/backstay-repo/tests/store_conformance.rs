//! Every store and every wrapper is held to the contract of `Store`.

use std::sync::Arc;

use backstay_repo::store::disk::DiskStore;
use backstay_repo::store::memory::MemoryStore;
use backstay_repo::store::{Store, conformance};

#[tokio::test]
async fn the_memory_store_keeps_the_contract() {
    let violations = conformance::run(|| async { Arc::new(MemoryStore::new()) as Arc<dyn Store> }).await;
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_store_keeps_the_contract() {
    let places = tempfile::tempdir().unwrap();
    let numbers = std::sync::atomic::AtomicU32::new(0);
    let make = || async {
        let n = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(DiskStore::new(places.path().join(n.to_string()).join("deep"))) as Arc<dyn Store>
    };
    let violations = conformance::run(make).await;
    assert!(violations.is_empty(), "{violations:#?}");
}
