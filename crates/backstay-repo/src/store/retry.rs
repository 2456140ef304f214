//! The one layer in which a call to a store is made again.
//!
//! Bounded in count and in time, with a time limit inside it for every single
//! call, and exact all the same: a write whose answer was lost is looked at
//! before it is called a failure or a conflict.
//!
//! Refuses: to repeat anything but `Unavailable`; to wait after it was cancelled.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Listing, ObjectMeta, Operation, Store, StoreError, Upload};
use crate::layout::{ObjectName, Prefix};

mod pace;

pub use pace::{Pace, SystemPace};

/// How long and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Calls in all, the first one included; at least 1.
    pub attempts: u32,
    /// No attempt begins after this much time.
    pub total: Duration,
    /// Wait before the second attempt; doubled from then on, and jittered.
    pub first_delay: Duration,
    pub max_delay: Duration,
    /// One call may take this long, and ...
    pub call_timeout: Duration,
    /// ... a second more for each so many bytes that it moves.
    pub bytes_per_second: u64,
}

impl Default for RetryPolicy {
    /// Rides out the restart of a server and a minute of "slow down"; a store that
    /// is away for longer is the scheduler's business.
    fn default() -> Self {
        Self {
            attempts: 8,
            total: Duration::from_secs(180),
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(20),
            call_timeout: Duration::from_secs(30),
            bytes_per_second: 256 << 10,
        }
    }
}

/// A store whose calls are made again when they fail for the moment.
#[derive(Clone)]
pub struct RetryStore {
    inner: Arc<dyn Store>,
    retry: Retry,
}

#[derive(Clone)]
struct Retry {
    policy: RetryPolicy,
    pace: Arc<dyn Pace>,
    cancel: CancellationToken,
}

/// One operation on its way through its attempts.
struct Attempts<'r> {
    retry: &'r Retry,
    operation: Operation,
    object: &'r str,
    moved_bytes: u64,
    begun: Duration,
    made: u32,
}

impl RetryStore {
    pub fn new(
        inner: Arc<dyn Store>,
        policy: RetryPolicy,
        pace: Arc<dyn Pace>,
        cancel: CancellationToken,
    ) -> Self {
        Self { inner, retry: Retry { policy, pace, cancel } }
    }
}

impl fmt::Debug for RetryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryStore({:?})", self.inner)
    }
}

impl Retry {
    fn attempts<'r>(&'r self, operation: Operation, object: &'r str, moved_bytes: u64) -> Attempts<'r> {
        Attempts { retry: self, operation, object, moved_bytes, begun: self.pace.elapsed(), made: 0 }
    }
}

impl Attempts<'_> {
    fn cancelled(&self) -> StoreError {
        StoreError::Cancelled { operation: self.operation, object: self.object.to_owned() }
    }

    /// One call, within its time.
    async fn call<T>(&mut self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.made += 1;
        let policy = &self.retry.policy;
        let limit =
            policy.call_timeout + Duration::from_secs(self.moved_bytes / policy.bytes_per_second.max(1));
        tokio::select! {
            biased;
            () = self.retry.cancel.cancelled() => Err(self.cancelled()),
            result = call => result,
            () = self.retry.pace.wait(limit) => Err(StoreError::unavailable(
                self.operation,
                self.object,
                format!("no answer within {} s", limit.as_secs()),
            )),
        }
    }

    /// Waits before the next attempt, or gives the error back when there is none.
    async fn pause_after(&self, error: StoreError) -> Result<(), StoreError> {
        let policy = &self.retry.policy;
        let pace = &self.retry.pace;
        let doubled = policy.first_delay.saturating_mul(1 << (self.made.max(1) - 1).min(16));
        // Half of it is random, so that many clients do not come back in step.
        let delay = doubled.min(policy.max_delay).mul_f64(0.5 + 0.5 * pace.random());
        let spent = pace.elapsed().saturating_sub(self.begun);
        if !error.is_transient() || self.made >= policy.attempts || spent + delay > policy.total {
            return Err(error);
        }
        tracing::debug!(operation = %self.operation, object = self.object, attempt = self.made, %error, "trying again");
        tokio::select! {
            biased;
            () = self.retry.cancel.cancelled() => Err(self.cancelled()),
            () = pace.wait(delay) => Ok(()),
        }
    }

    async fn run<T, F: Future<Output = Result<T, StoreError>>>(
        mut self,
        make: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        loop {
            match self.call(make()).await {
                Ok(value) => return Ok(value),
                Err(error) => self.pause_after(error).await?,
            }
        }
    }
}

#[async_trait]
impl Store for RetryStore {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn put_if_absent(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let mut attempts = self.retry.attempts(Operation::Put, name.as_str(), bytes.len() as u64);
        loop {
            let error = match attempts.call(self.inner.put_if_absent(name, bytes.clone())).await {
                Ok(()) => return Ok(()),
                // The answer of an earlier attempt may have been lost: if what lies
                // there is what we wrote, it is ours.
                Err(taken @ StoreError::AlreadyExists { .. }) if attempts.made > 1 => {
                    let same = match self.get(name, bytes.len() as u64).await {
                        Ok(there) => there == bytes,
                        Err(StoreError::TooLarge { .. } | StoreError::NotFound { .. }) => false,
                        Err(error) => return Err(error),
                    };
                    return if same { Ok(()) } else { Err(taken) };
                }
                Err(error) => error,
            };
            attempts.pause_after(error).await?;
        }
    }

    async fn create(&self, name: &ObjectName) -> Result<Box<dyn Upload>, StoreError> {
        let attempts = self.retry.attempts(Operation::Open, name.as_str(), 0);
        let inner = attempts.run(|| self.inner.create(name)).await?;
        Ok(Box::new(RetryUpload { store: self.clone(), name: name.clone(), inner, written_bytes: 0 }))
    }

    async fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Bytes, StoreError> {
        // A bound is not a size: without one the plain limit must do.
        let expected = if max_bytes == u64::MAX { 0 } else { max_bytes };
        let attempts = self.retry.attempts(Operation::Get, name.as_str(), expected);
        attempts.run(|| self.inner.get(name, max_bytes)).await
    }

    async fn get_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let attempts = self.retry.attempts(Operation::GetRange, name.as_str(), length);
        let bytes = attempts.run(|| self.inner.get_range(name, offset, length)).await?;
        // Everything above cuts the answer where it asked for the bytes to lie.
        let got = bytes.len() as u64;
        if got != length {
            return Err(StoreError::WrongRange { object: name.to_string(), offset, length, got });
        }
        Ok(bytes)
    }

    async fn list(&self, under: &Prefix) -> Result<Box<dyn Listing>, StoreError> {
        let attempts = self.retry.attempts(Operation::List, under.as_str(), 0);
        let inner = attempts.run(|| self.inner.list(under)).await?;
        Ok(Box::new(RetryListing { retry: self.retry.clone(), under: under.clone(), inner }))
    }

    async fn list_directories(&self, under: &Prefix) -> Result<Vec<String>, StoreError> {
        let attempts = self.retry.attempts(Operation::List, under.as_str(), 0);
        attempts.run(|| self.inner.list_directories(under)).await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectMeta, StoreError> {
        let attempts = self.retry.attempts(Operation::Head, name.as_str(), 0);
        attempts.run(|| self.inner.head(name)).await
    }

    async fn settle(&self, name: &ObjectName) -> Result<(), StoreError> {
        let attempts = self.retry.attempts(Operation::Head, name.as_str(), 0);
        attempts.run(|| self.inner.settle(name)).await
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let attempts = self.retry.attempts(Operation::Delete, name.as_str(), 0);
        attempts.run(|| self.inner.delete(name)).await
    }

    async fn sweep_unfinished(&self, written_before: Timestamp) -> Result<u64, StoreError> {
        let attempts = self.retry.attempts(Operation::Delete, "unfinished uploads", 0);
        attempts.run(|| self.inner.sweep_unfinished(written_before)).await
    }
}

struct RetryListing {
    retry: Retry,
    under: Prefix,
    inner: Box<dyn Listing>,
}

#[async_trait]
impl Listing for RetryListing {
    async fn next_page(&mut self) -> Result<Option<Vec<ObjectMeta>>, StoreError> {
        let mut attempts = self.retry.attempts(Operation::List, self.under.as_str(), 0);
        loop {
            match attempts.call(self.inner.next_page()).await {
                Ok(page) => return Ok(page),
                Err(error) => attempts.pause_after(error).await?,
            }
        }
    }
}

struct RetryUpload {
    store: RetryStore,
    name: ObjectName,
    inner: Box<dyn Upload>,
    written_bytes: u64,
}

#[async_trait]
impl Upload for RetryUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let length = bytes.len() as u64;
        let mut attempts = self.store.retry.attempts(Operation::Write, self.name.as_str(), length);
        loop {
            match attempts.call(self.inner.write(bytes.clone())).await {
                Ok(()) => break,
                Err(error) => attempts.pause_after(error).await?,
            }
        }
        self.written_bytes += length;
        Ok(())
    }

    async fn commit(&mut self) -> Result<u64, StoreError> {
        // What is still to be brought to the disk or put together counts as moved.
        let bytes = self.written_bytes;
        let mut attempts = self.store.retry.attempts(Operation::Commit, self.name.as_str(), bytes);
        loop {
            let error = match attempts.call(self.inner.commit()).await {
                Ok(size_bytes) => return Ok(size_bytes),
                Err(error) => error,
            };
            let over = matches!(error, StoreError::AlreadyExists { .. } | StoreError::NotFound { .. });
            if over && attempts.made > 1 {
                // The upload is gone, or its name is taken: perhaps by an earlier
                // attempt whose answer was lost. The name is ours alone, so an
                // object of our size under it is our object.
                return match self.store.head(&self.name).await {
                    Ok(meta) if meta.size_bytes == bytes => Ok(bytes),
                    Ok(_) | Err(StoreError::NotFound { .. }) => Err(error),
                    Err(unseen) => Err(unseen),
                };
            }
            attempts.pause_after(error).await?;
        }
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        // Once: what is left is swept later.
        self.inner.abort().await
    }
}
