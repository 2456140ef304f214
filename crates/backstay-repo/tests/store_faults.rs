//! What the retry layer makes of a store that fails: exactly the same results,
//! or an error, and never a lie.

#![allow(clippy::unwrap_used, reason = "functions of a test that are not tests themselves")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backstay_repo::layout::{ObjectName, Prefix};
use backstay_repo::store::faulty::{Call, FaultyStore, Injection, denied, full, unavailable};
use backstay_repo::store::retry::{Pace, RetryPolicy, RetryStore};
use backstay_repo::store::{DiskStore, MemoryStore, Operation, Store, StoreError, conformance};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

/// A clock that waiting turns, and that never lets a running call time out.
#[derive(Debug, Default)]
struct TurnedPace {
    now: Mutex<Duration>,
    waits: Mutex<Vec<Duration>>,
}

const CALL_TIMEOUT: Duration = Duration::from_secs(3_600_000);

#[async_trait]
impl Pace for TurnedPace {
    fn elapsed(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    async fn wait(&self, duration: Duration) {
        if duration >= CALL_TIMEOUT {
            return std::future::pending().await;
        }
        *self.now.lock().unwrap() += duration;
        self.waits.lock().unwrap().push(duration);
    }

    fn random(&self) -> f64 {
        0.999
    }
}

fn policy() -> RetryPolicy {
    RetryPolicy { call_timeout: CALL_TIMEOUT, ..RetryPolicy::default() }
}

fn retrying(inner: Arc<dyn Store>) -> (RetryStore, Arc<TurnedPace>) {
    let pace = Arc::new(TurnedPace::default());
    (RetryStore::new(inner, policy(), pace.clone(), CancellationToken::new()), pace)
}

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

/// Every third call fails once before it is made, every fifth after.
fn stormy(inner: Arc<dyn Store>) -> FaultyStore {
    FaultyStore::new(inner, |call| match call.number {
        n if n % 5 == 0 => Injection::LoseAnswer,
        n if n % 3 == 0 => Injection::Fail(unavailable(call, "503 slow down")),
        _ => Injection::Pass,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_a_storm_keeps_the_contract_behind_the_retry_layer() {
    let in_memory = conformance::run(|| async {
        Arc::new(retrying(Arc::new(stormy(Arc::new(MemoryStore::new())))).0) as Arc<dyn Store>
    })
    .await;
    assert!(in_memory.is_empty(), "{in_memory:#?}");

    let places = tempfile::tempdir().unwrap();
    let count = AtomicU64::new(0);
    let on_disk = conformance::run(|| async {
        let place = places.path().join(count.fetch_add(1, Ordering::SeqCst).to_string());
        Arc::new(retrying(Arc::new(stormy(Arc::new(DiskStore::new(place))))).0) as Arc<dyn Store>
    })
    .await;
    assert!(on_disk.is_empty(), "{on_disk:#?}");
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_is_success_and_anothers_object_is_not() {
    let memory = MemoryStore::new();
    let (store, _) = retrying(Arc::new(FaultyStore::lose_answer(Arc::new(memory.clone()), 1)));
    store.put_if_absent(&name("a"), Bytes::from_static(b"ours")).await.unwrap();

    // This time the first attempt never arrived, and somebody else was there.
    let (store, _) = retrying(Arc::new(FaultyStore::fail_call(Arc::new(memory.clone()), 1, |call| {
        unavailable(call, "connection reset")
    })));
    for (bytes, expected) in [(&b"other"[..], false), (b"our", false), (b"longer than theirs", false)] {
        let outcome = store.put_if_absent(&name("a"), Bytes::from_static(bytes)).await;
        assert_eq!(outcome.is_ok(), expected, "{outcome:?}");
        assert!(matches!(outcome, Err(StoreError::AlreadyExists { .. })));
    }
    assert_eq!(memory.get(&name("a"), 10).await.unwrap(), b"ours"[..]);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_success() {
    let memory = MemoryStore::new();
    let lossy = FaultyStore::new(Arc::new(memory.clone()), {
        let lost = AtomicU64::new(0);
        move |call: &Call| match call.operation {
            Operation::Commit if lost.fetch_add(1, Ordering::SeqCst) == 0 => Injection::LoseAnswer,
            _ => Injection::Pass,
        }
    });
    let (store, _) = retrying(Arc::new(lossy));
    let mut upload = store.create(&name("packs/1")).await.unwrap();
    upload.write(Bytes::from_static(b"12345")).await.unwrap();
    assert_eq!(upload.commit().await.unwrap(), 5);
    assert_eq!(memory.get(&name("packs/1"), 10).await.unwrap(), b"12345"[..]);
}

#[tokio::test]
async fn a_range_that_came_back_short_is_an_error_and_not_a_shorter_range() {
    let memory = MemoryStore::new();
    memory.put_if_absent(&name("a"), vec![7; 100].into()).await.unwrap();
    for length in [0, 1, 49] {
        let cutting = FaultyStore::new(Arc::new(memory.clone()), move |_| Injection::Cut(length));
        let outcome = retrying(Arc::new(cutting)).0.get_range(&name("a"), 10, 50).await;
        let expected = length as u64;
        assert!(matches!(outcome, Err(StoreError::WrongRange { got, .. }) if got == expected), "{outcome:?}");
    }
    let (store, _) = retrying(Arc::new(memory));
    assert_eq!(store.get_range(&name("a"), 10, 50).await.unwrap().len(), 50);
}

#[tokio::test]
async fn retrying_is_bounded_in_count_and_in_time_and_spreads_out() {
    let away = || {
        Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), |call| {
            Injection::Fail(unavailable(call, "connection refused"))
        }))
    };
    let inner = away();
    let (store, pace) = retrying(inner.clone());
    let error = store.head(&name("a")).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(inner.calls(), u64::from(policy().attempts));
    let waits = pace.waits.lock().unwrap().clone();
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= policy().max_delay), "{waits:?}");

    let inner = away();
    let pace = Arc::new(TurnedPace::default());
    let short = RetryPolicy { attempts: 1000, total: Duration::from_secs(60), ..policy() };
    let store = RetryStore::new(inner.clone(), short, pace.clone(), CancellationToken::new());
    store.head(&name("a")).await.unwrap_err();
    assert!(pace.elapsed() <= Duration::from_secs(60));
    assert!(inner.calls() > 4 && inner.calls() < 20, "{}", inner.calls());
}

#[tokio::test]
async fn only_what_may_pass_is_tried_again() {
    for make in [full, denied, |call: &Call| StoreError::NotFound { object: call.object.clone() }] {
        let inner =
            Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), move |call| Injection::Fail(make(call))));
        let (store, _) = retrying(inner.clone());
        store.put_if_absent(&name("a"), Bytes::new()).await.unwrap_err();
        assert_eq!(inner.calls(), 1);
    }
}

/// Lets every call run into its limit at once.
#[derive(Debug)]
struct ImpatientPace;

#[async_trait]
impl Pace for ImpatientPace {
    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
    async fn wait(&self, _: Duration) {}
    fn random(&self) -> f64 {
        0.0
    }
}

#[tokio::test]
async fn a_call_that_never_answers_is_given_up_and_can_be_cancelled() {
    let silent = || {
        Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), |_| {
            Injection::After(Box::pin(std::future::pending()))
        }))
    };
    let inner = silent();
    let store = RetryStore::new(inner.clone(), policy(), Arc::new(ImpatientPace), CancellationToken::new());
    let error = store.get(&name("a"), 10).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(inner.calls(), u64::from(policy().attempts));

    let cancel = CancellationToken::new();
    let pace = Arc::new(TurnedPace::default());
    let store = RetryStore::new(silent(), policy(), pace, cancel.clone());
    let absent = name("a");
    let (outcome, ()) = tokio::join!(store.get(&absent, 10), async { cancel.cancel() });
    assert!(matches!(outcome, Err(StoreError::Cancelled { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_listing_that_breaks_off_is_an_error_and_never_a_short_list() {
    let memory = MemoryStore::new();
    for i in 0..450 {
        memory.put_if_absent(&name(&format!("many/{i}")), Bytes::new()).await.unwrap();
    }
    for broken_call in 1..=6 {
        let store = FaultyStore::fail_call(Arc::new(memory.clone()), broken_call, denied);
        let store: &dyn Store = &store;
        let listed = store.list_all(&"many".parse::<Prefix>().unwrap()).await;
        assert!(listed.is_err(), "call {broken_call}");
    }
}

#[tokio::test]
async fn a_full_disk_ends_the_upload_and_leaves_no_object() {
    let memory = MemoryStore::new();
    let store = FaultyStore::full_after(Arc::new(memory.clone()), 1000);
    let mut upload = store.create(&name("packs/1")).await.unwrap();
    upload.write(vec![0; 900].into()).await.unwrap();
    let error = upload.write(vec![0; 200].into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }));
    drop(upload);
    assert!(memory.names().is_empty());
}
