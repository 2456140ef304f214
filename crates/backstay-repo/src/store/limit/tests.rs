use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;
use crate::store::{MemoryStore, conformance};

const PIECE: usize = 64 << 10;

/// A clock that a test turns: everybody who waits does so for its time.
#[derive(Debug, Default)]
struct TurnedPace {
    now: Mutex<Duration>,
    due: Mutex<Vec<Duration>>,
    turned: Notify,
}

#[async_trait]
impl Pace for TurnedPace {
    fn elapsed(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    async fn wait(&self, duration: Duration) {
        let due = self.elapsed() + duration;
        self.due.lock().unwrap().push(due);
        while self.elapsed() < due {
            self.turned.notified().await;
        }
    }

    fn random(&self) -> f64 {
        0.0
    }
}

impl TurnedPace {
    /// Awaits the work, and turns to the next time that somebody waits for whenever
    /// nothing else goes on.
    async fn turn_through<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            for _ in 0..32 {
                tokio::select! {
                    biased;
                    done = &mut work => return done,
                    () = tokio::task::yield_now() => {}
                }
            }
            let now = self.elapsed();
            let mut due = self.due.lock().unwrap();
            due.retain(|due| *due > now);
            if let Some(next) = due.iter().min() {
                *self.now.lock().unwrap() = *next;
            }
            drop(due);
            self.turned.notify_waiters();
        }
    }
}

fn limited(upload: &str, download: &str, cancel: &CancellationToken) -> (LimitStore, Arc<TurnedPace>) {
    let limits = Limits { upload: upload.parse().ok(), download: download.parse().ok() };
    let pace = Arc::new(TurnedPace::default());
    let shared: Arc<dyn Pace> = pace.clone();
    let store = LimitStore::new(Arc::new(MemoryStore::new()), limits, &shared, cancel);
    (store, pace)
}

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn piece() -> Bytes {
    Bytes::from(vec![7; PIECE])
}

#[track_caller]
fn near(took: Duration, seconds: f64) {
    assert!((took.as_secs_f64() / seconds - 1.0).abs() < 0.2, "{took:?} where {seconds} s were to be");
}

#[tokio::test]
async fn a_limited_store_keeps_the_contract() {
    let pace = Arc::new(TurnedPace::default());
    let make = || async {
        let limits = Limits { upload: "256KiB".parse().ok(), download: "256KiB".parse().ok() };
        let memory = Arc::new(MemoryStore::new());
        let shared: Arc<dyn Pace> = pace.clone();
        Arc::new(LimitStore::new(memory, limits, &shared, &CancellationToken::new())) as Arc<dyn Store>
    };
    let violations = pace.turn_through(conformance::run(make)).await;
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(pace.elapsed() > Duration::from_secs(1), "nothing was limited");
}

#[tokio::test]
async fn what_is_written_keeps_to_the_rate_and_reading_does_not_count() {
    let (store, pace) = limited("1MiB", "", &CancellationToken::new());
    let write = async {
        let mut upload = store.create(&name("packs/a")).await.unwrap();
        for _ in 0..80 {
            upload.write(piece()).await.unwrap();
        }
        upload.commit().await.unwrap();
        store.put_if_absent(&name("packs/b"), Bytes::from(vec![1; 5 << 20])).await.unwrap();
    };
    pace.turn_through(write).await;
    near(pace.elapsed(), 10.0);
    let before = pace.elapsed();
    pace.turn_through(store.get(&name("packs/b"), u64::MAX)).await.unwrap();
    assert_eq!(pace.elapsed(), before);
}

#[tokio::test]
async fn what_is_read_keeps_to_the_rate_and_writing_does_not_count() {
    let (store, pace) = limited("", "2MiB", &CancellationToken::new());
    store.put_if_absent(&name("a"), Bytes::from(vec![1; 8 << 20])).await.unwrap();
    assert_eq!(pace.elapsed(), Duration::ZERO);
    let read = async {
        for at in 0..64 {
            let range = store.get_range(&name("a"), at * PIECE as u64, PIECE as u64).await.unwrap();
            assert_eq!(range.len(), PIECE);
        }
        store.get(&name("a"), u64::MAX).await.unwrap();
    };
    pace.turn_through(read).await;
    near(pace.elapsed(), 6.0);
}

#[tokio::test]
async fn lanes_share_the_rate_and_none_is_left_behind() {
    let (store, pace) = limited("1MiB", "", &CancellationToken::new());
    let mut lanes = JoinSet::new();
    for lane in 0..4 {
        let (store, pace) = (store.clone(), pace.clone());
        lanes.spawn(async move {
            let mut upload = store.create(&name(&format!("packs/{lane}"))).await.unwrap();
            for _ in 0..40 {
                upload.write(piece()).await.unwrap();
            }
            upload.commit().await.unwrap();
            pace.elapsed()
        });
    }
    let ended = pace.turn_through(lanes.join_all()).await;
    near(pace.elapsed(), 10.0);
    // Each had a quarter of it all the time, so they end together.
    let first = ended.iter().min().unwrap();
    assert!(*first > Duration::from_secs(9), "one lane was done after {first:?}");
}

#[tokio::test]
async fn a_sign_of_life_does_not_queue_behind_bulk_data() {
    let (store, pace) = limited("1MiB", "1MiB", &CancellationToken::new());
    let bulk = async {
        store.put_if_absent(&name("orders/packs/a"), Bytes::from(vec![1; 100 << 20])).await.unwrap();
        store.get(&name("orders/packs/a"), u64::MAX).await.unwrap();
    };
    let beats = async {
        for second in 1..150 {
            let turn = Duration::from_secs(second);
            pace.wait(turn - pace.elapsed()).await;
            let beat = name(&format!("orders/intents/20261121T024300Z-7q3f/{second:06}"));
            store.put_if_absent(&beat, Bytes::from_static(b"alive")).await.unwrap();
            store.get(&beat, u64::MAX).await.unwrap();
            assert_eq!(pace.elapsed(), turn);
        }
    };
    pace.turn_through(async { tokio::join!(bulk, beats) }).await;
    near(pace.elapsed(), 200.0);
}

#[tokio::test]
async fn a_wait_ends_when_somebody_asks_to_stop() {
    let cancel = CancellationToken::new();
    let (store, pace) = limited("1MiB", "1MiB", &cancel);
    let object = name("packs/a");
    let put = store.put_if_absent(&object, Bytes::from(vec![1; 100 << 20]));
    let stop = async {
        pace.wait(Duration::from_millis(500)).await;
        cancel.cancel();
    };
    let (put, ()) = pace.turn_through(async { tokio::join!(put, stop) }).await;
    assert!(matches!(put, Err(StoreError::Cancelled { .. })), "{put:?}");
    assert_eq!(pace.elapsed(), Duration::from_millis(500));
    let inner: &dyn Store = &*store.inner;
    assert!(!inner.exists(&object).await.unwrap());
}
