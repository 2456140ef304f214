//! Reading from a server no faster than its owner allows, so that a backup by day
//! leaves the disk and the line to those the server is for.
//!
//! One throttle for a whole backup: all its readers share it, and pass in the order
//! in which they came. Holds nothing while it waits, and ends with the backup.

use std::sync::{Arc, Mutex, PoisonError};

use backstay_model::{ByteRate, Pacer};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Error, Result};

#[derive(Debug)]
pub struct Throttle {
    pacer: Mutex<Pacer>,
    begun: Instant,
    cancelled: CancellationToken,
}

impl Throttle {
    /// `None` for no limit.
    pub fn new(rate: Option<ByteRate>, cancelled: &CancellationToken) -> Option<Arc<Self>> {
        rate.map(|rate| {
            Arc::new(Self {
                pacer: Mutex::new(Pacer::new(rate)),
                begun: Instant::now(),
                cancelled: cancelled.clone(),
            })
        })
    }

    /// Waits until so many bytes may be read.
    pub async fn pass(&self, bytes: u64) -> Result<()> {
        let now = self.begun.elapsed();
        let wait = self.pacer.lock().unwrap_or_else(PoisonError::into_inner).book(now, bytes);
        if wait.is_zero() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Err(Error::Cancelled),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    /// The same, on a thread that may block and does not drive the runtime.
    pub fn pass_blocking(&self, runtime: &Handle, bytes: u64) -> Result<()> {
        runtime.block_on(self.pass(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn throttle(rate: &str, cancelled: &CancellationToken) -> Arc<Throttle> {
        Throttle::new(rate.parse().ok(), cancelled).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn readers_on_several_threads_share_one_rate() {
        let throttle = throttle("4MiB", &CancellationToken::new());
        let runtime = Handle::current();
        let begun = std::time::Instant::now();
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (throttle, runtime) = (Arc::clone(&throttle), runtime.clone());
                tokio::task::spawn_blocking(move || {
                    (0..16).try_for_each(|_| throttle.pass_blocking(&runtime, 64 << 10))
                })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap().unwrap();
        }
        // A busy machine may be late, and nothing may be early.
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(800), "4 MiB at 4 MiB/s took {took:?}");
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_told_to_stop() {
        let cancelled = CancellationToken::new();
        let throttle = throttle("1KiB", &cancelled);
        let stop = async {
            tokio::task::yield_now().await;
            cancelled.cancel();
        };
        let (passed, ()) = tokio::join!(throttle.pass(1 << 40), stop);
        assert!(matches!(passed, Err(Error::Cancelled)));
        assert!(Throttle::new(None, &cancelled).is_none());
    }
}
