//! What a program that was told to stop may still do at the store: take its own
//! intents back, so that no collector has to find out that nobody is behind them.
//!
//! Responsible for one exception. Everything else ends at once when somebody asks
//! to stop, and a store that is away gets a few seconds and no more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::retry::{Pace, RetryPolicy, RetryStore};
use super::{Listing, ObjectMeta, Store, StoreError, Upload};
use crate::layout::{ObjectName, Prefix};

/// Somebody is waiting for the program to be gone.
const POLICY: RetryPolicy = RetryPolicy {
    attempts: 3,
    total: Duration::from_secs(3),
    first_delay: Duration::from_millis(100),
    max_delay: Duration::from_secs(1),
    call_timeout: Duration::from_secs(2),
    bytes_per_second: 256 << 10,
};

/// A store whose calls are made again, until `cancel` says stop.
pub struct PartingStore {
    /// Ends with `cancel`.
    working: RetryStore,
    /// Does not, and is in a hurry instead.
    parting: RetryStore,
    cancel: CancellationToken,
}

impl PartingStore {
    pub fn new(
        inner: Arc<dyn Store>,
        policy: RetryPolicy,
        pace: Arc<dyn Pace>,
        cancel: CancellationToken,
    ) -> Self {
        let parting =
            RetryStore::new(Arc::clone(&inner), POLICY, Arc::clone(&pace), CancellationToken::new());
        let working = RetryStore::new(inner, policy, pace, cancel.clone());
        Self { working, parting, cancel }
    }

    fn for_intents(&self, of_intents: bool) -> &RetryStore {
        if of_intents && self.cancel.is_cancelled() { &self.parting } else { &self.working }
    }
}

impl fmt::Debug for PartingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartingStore({:?})", self.working)
    }
}

#[async_trait]
impl Store for PartingStore {
    fn location(&self) -> &str {
        self.working.location()
    }

    async fn put_if_absent(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        self.working.put_if_absent(name, bytes).await
    }

    async fn create(&self, name: &ObjectName) -> Result<Box<dyn Upload>, StoreError> {
        self.working.create(name).await
    }

    async fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Bytes, StoreError> {
        self.working.get(name, max_bytes).await
    }

    async fn get_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        self.working.get_range(name, offset, length).await
    }

    async fn list(&self, under: &Prefix) -> Result<Box<dyn Listing>, StoreError> {
        self.for_intents(under.is_of_intents()).list(under).await
    }

    async fn list_directories(&self, under: &Prefix) -> Result<Vec<String>, StoreError> {
        self.working.list_directories(under).await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectMeta, StoreError> {
        self.working.head(name).await
    }

    async fn settle(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.working.settle(name).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.for_intents(name.is_of_intents()).delete(name).await
    }

    async fn sweep_unfinished(&self, written_before: Timestamp) -> Result<u64, StoreError> {
        self.working.sweep_unfinished(written_before).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::{FaultyStore, Injection, unavailable};
    use crate::store::retry::SystemPace;
    use crate::store::{MemoryStore, conformance};

    fn name(text: &str) -> ObjectName {
        text.parse().unwrap()
    }

    fn parting(inner: Arc<dyn Store>, cancel: &CancellationToken) -> PartingStore {
        PartingStore::new(inner, RetryPolicy::default(), Arc::new(SystemPace::new()), cancel.clone())
    }

    #[tokio::test]
    async fn until_somebody_asks_to_stop_it_keeps_the_contract() {
        let make = || async {
            Arc::new(parting(Arc::new(MemoryStore::new()), &CancellationToken::new())) as Arc<dyn Store>
        };
        let violations = conformance::run(make).await;
        assert!(violations.is_empty(), "{violations:#?}");
    }

    #[tokio::test]
    async fn after_it_an_intent_is_all_that_can_be_taken_back() {
        let cancel = CancellationToken::new();
        let store = parting(Arc::new(MemoryStore::new()), &cancel);
        let session = "20261121T024300Z-7q3f";
        let (intent, pack) =
            (name(&format!("in/intents/{session}/000000")), name(&format!("in/packs/{session}-0")));
        for name in [&intent, &pack] {
            store.put_if_absent(name, Bytes::from_static(b"x")).await.unwrap();
        }
        cancel.cancel();
        let store: &dyn Store = &store;
        let under = format!("in/intents/{session}").parse().unwrap();
        assert_eq!(store.list_all(&under).await.unwrap().len(), 1);
        store.delete(&intent).await.unwrap();
        assert!(store.list_all(&under).await.unwrap().is_empty());

        let stopped = [
            store.delete(&pack).await.unwrap_err(),
            store.list_all(&Prefix::root()).await.unwrap_err(),
            store.put_if_absent(&intent, Bytes::new()).await.unwrap_err(),
            store.get(&pack, 10).await.unwrap_err(),
        ];
        for error in stopped {
            assert!(matches!(error, StoreError::Cancelled { .. }), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_not_waited_for() {
        let cancel = CancellationToken::new();
        let away = FaultyStore::new(Arc::new(MemoryStore::new()), |call| {
            Injection::Fail(unavailable(call, "no route to host"))
        });
        let store = parting(Arc::new(away), &cancel);
        cancel.cancel();
        let begun = std::time::Instant::now();
        let error = store.delete(&name("in/intents/20261121T024300Z-7q3f/000000")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}
