//! A store that fails on purpose, for the tests of everything above it.
//!
//! A script sees every call before it is made and says what happens to it. Each
//! call is a point at which a process may die: stopping after the k-th, for every
//! k, is how the writer and the collector are tested.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::{Listing, ObjectMeta, Operation, Store, StoreError, Upload};
use crate::layout::{ObjectName, Prefix};

/// A call that is about to be made.
#[derive(Debug, Clone)]
pub struct Call {
    /// Counted from 1 over all calls of this store, its listings and its uploads.
    pub number: u64,
    pub operation: Operation,
    /// The object, or the prefix of a listing.
    pub object: String,
    /// Bytes that it would store.
    pub bytes: u64,
    /// Bytes of a range that it asks for.
    pub asked: u64,
}

/// What happens to a call.
pub enum Injection {
    Pass,
    /// It is not made, and fails so.
    Fail(StoreError),
    /// It is made, and the answer is lost: the caller sees `Unavailable`.
    LoseAnswer,
    /// It is not made, and no later one is either: the process is dead.
    Die,
    /// Writes: the object is stored whatever lies there, as by a server that
    /// ignores conditions. Not for uploads.
    IgnoreCondition,
    /// Reads: answers with so many bytes, whatever was asked for.
    Cut(usize),
    /// Waits for this before the call is made.
    After(Pin<Box<dyn Future<Output = ()> + Send>>),
}

type Script = dyn Fn(&Call) -> Injection + Send + Sync;

struct Shared {
    script: Box<Script>,
    calls: AtomicU64,
    dead: AtomicBool,
    log: Mutex<Vec<Call>>,
}

/// Wraps a store; clones share the count and the script.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    shared: Arc<Shared>,
}

/// What is left of an injection once waiting and dying are over.
enum Verdict {
    Pass,
    LoseAnswer,
    IgnoreCondition,
    Cut(usize),
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn Store>, script: impl Fn(&Call) -> Injection + Send + Sync + 'static) -> Self {
        let shared = Shared {
            script: Box::new(script),
            calls: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            log: Mutex::default(),
        };
        Self { inner, shared: Arc::new(shared) }
    }

    /// Only counts.
    pub fn counting(inner: Arc<dyn Store>) -> Self {
        Self::new(inner, |_| Injection::Pass)
    }

    /// The first `calls` succeed; then the process is dead.
    pub fn stop_after(inner: Arc<dyn Store>, calls: u64) -> Self {
        Self::new(inner, move |call| if call.number > calls { Injection::Die } else { Injection::Pass })
    }

    /// Call number `number` fails as `make` says.
    pub fn fail_call(
        inner: Arc<dyn Store>,
        number: u64,
        make: impl Fn(&Call) -> StoreError + Send + Sync + 'static,
    ) -> Self {
        Self::new(
            inner,
            move |call| {
                if call.number == number { Injection::Fail(make(call)) } else { Injection::Pass }
            },
        )
    }

    /// Call number `number` is made, and its answer is lost.
    pub fn lose_answer(inner: Arc<dyn Store>, number: u64) -> Self {
        Self::new(
            inner,
            move |call| {
                if call.number == number { Injection::LoseAnswer } else { Injection::Pass }
            },
        )
    }

    /// After so many bytes the disk is full.
    pub fn full_after(inner: Arc<dyn Store>, bytes: u64) -> Self {
        let stored = AtomicU64::new(0);
        Self::new(inner, move |call| {
            if stored.fetch_add(call.bytes, Ordering::SeqCst) + call.bytes > bytes && call.bytes > 0 {
                Injection::Fail(full(call))
            } else {
                Injection::Pass
            }
        })
    }

    /// Overwrites where it should refuse.
    pub fn ignoring_conditions(inner: Arc<dyn Store>) -> Self {
        Self::new(inner, |call| match call.operation {
            Operation::Put => Injection::IgnoreCondition,
            _ => Injection::Pass,
        })
    }

    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// Every call so far, in order.
    pub fn log(&self) -> Vec<Call> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn before(
        &self,
        operation: Operation,
        object: impl fmt::Display,
        bytes: u64,
    ) -> Result<(Verdict, StoreError), StoreError> {
        let number = self.shared.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let (bytes, asked) = if operation == Operation::GetRange { (0, bytes) } else { (bytes, 0) };
        let call = Call { number, operation, object: object.to_string(), bytes, asked };
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).push(call.clone());
        let lost = unavailable(&call, "the answer was lost");
        if self.shared.dead.load(Ordering::SeqCst) {
            return Err(dead(&call));
        }
        match (self.shared.script)(&call) {
            Injection::Pass => Ok((Verdict::Pass, lost)),
            Injection::LoseAnswer => Ok((Verdict::LoseAnswer, lost)),
            Injection::IgnoreCondition => Ok((Verdict::IgnoreCondition, lost)),
            Injection::Cut(length) => Ok((Verdict::Cut(length), lost)),
            Injection::Fail(error) => Err(error),
            Injection::Die => {
                self.shared.dead.store(true, Ordering::SeqCst);
                Err(dead(&call))
            }
            Injection::After(wait) => {
                wait.await;
                Ok((Verdict::Pass, lost))
            }
        }
    }
}

/// Not `Unavailable`: nothing retries the calls of a process that is gone.
fn dead(call: &Call) -> StoreError {
    StoreError::Io {
        operation: call.operation,
        object: call.object.clone(),
        cause: "the process was stopped here".into(),
    }
}

pub fn unavailable(call: &Call, why: &str) -> StoreError {
    StoreError::unavailable(call.operation, &call.object, why)
}

pub fn full(call: &Call) -> StoreError {
    StoreError::Full {
        operation: call.operation,
        object: call.object.clone(),
        cause: "no space left on device".into(),
    }
}

pub fn denied(call: &Call) -> StoreError {
    StoreError::Denied {
        operation: call.operation,
        object: call.object.clone(),
        cause: "the credentials have expired".into(),
    }
}

/// An answer that was made, and perhaps lost.
fn answer<T>(verdict: (Verdict, StoreError), result: Result<T, StoreError>) -> Result<T, StoreError> {
    match verdict {
        (Verdict::LoseAnswer, lost) => Err(lost),
        _ => result,
    }
}

fn cut(verdict: (Verdict, StoreError), result: Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
    match (&verdict.0, result) {
        (Verdict::Cut(length), Ok(bytes)) => Ok(bytes.slice(..bytes.len().min(*length))),
        (_, result) => answer(verdict, result),
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({:?}, {} calls)", self.inner, self.calls())
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn put_if_absent(&self, name: &ObjectName, bytes: Bytes) -> Result<(), StoreError> {
        let verdict = self.before(Operation::Put, name, bytes.len() as u64).await?;
        if matches!(verdict.0, Verdict::IgnoreCondition) {
            self.inner.delete(name).await?;
        }
        let result = self.inner.put_if_absent(name, bytes).await;
        answer(verdict, result)
    }

    async fn create(&self, name: &ObjectName) -> Result<Box<dyn Upload>, StoreError> {
        let verdict = self.before(Operation::Open, name, 0).await?;
        let inner = answer(verdict, self.inner.create(name).await)?;
        Ok(Box::new(FaultyUpload { store: self.clone(), name: name.clone(), inner }))
    }

    /// A read that is cut is passed on as it is: it is the caller who must notice,
    /// by the seal of what it reads.
    async fn get(&self, name: &ObjectName, max_bytes: u64) -> Result<Bytes, StoreError> {
        let verdict = self.before(Operation::Get, name, 0).await?;
        cut(verdict, self.inner.get(name, max_bytes).await)
    }

    async fn get_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let verdict = self.before(Operation::GetRange, name, length).await?;
        cut(verdict, self.inner.get_range(name, offset, length).await)
    }

    async fn list(&self, under: &Prefix) -> Result<Box<dyn Listing>, StoreError> {
        let verdict = self.before(Operation::List, under, 0).await?;
        let inner = answer(verdict, self.inner.list(under).await)?;
        Ok(Box::new(FaultyListing { store: self.clone(), under: under.clone(), inner }))
    }

    async fn list_directories(&self, under: &Prefix) -> Result<Vec<String>, StoreError> {
        let verdict = self.before(Operation::List, under, 0).await?;
        answer(verdict, self.inner.list_directories(under).await)
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectMeta, StoreError> {
        let verdict = self.before(Operation::Head, name, 0).await?;
        answer(verdict, self.inner.head(name).await)
    }

    async fn settle(&self, name: &ObjectName) -> Result<(), StoreError> {
        let verdict = self.before(Operation::Head, name, 0).await?;
        answer(verdict, self.inner.settle(name).await)
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let verdict = self.before(Operation::Delete, name, 0).await?;
        answer(verdict, self.inner.delete(name).await)
    }

    async fn sweep_unfinished(&self, written_before: Timestamp) -> Result<u64, StoreError> {
        let verdict = self.before(Operation::Delete, "unfinished uploads", 0).await?;
        answer(verdict, self.inner.sweep_unfinished(written_before).await)
    }
}

struct FaultyUpload {
    store: FaultyStore,
    name: ObjectName,
    inner: Box<dyn Upload>,
}

#[async_trait]
impl Upload for FaultyUpload {
    /// A lost answer of a write would break the contract ("a failed write has
    /// appended nothing"), which a store keeps by numbering its pieces: so it is
    /// lost before the write is made.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        match self.store.before(Operation::Write, &self.name, bytes.len() as u64).await? {
            (Verdict::LoseAnswer, lost) => Err(lost),
            _ => self.inner.write(bytes).await,
        }
    }

    async fn commit(&mut self) -> Result<u64, StoreError> {
        let verdict = self.store.before(Operation::Commit, &self.name, 0).await?;
        let result = self.inner.commit().await;
        answer(verdict, result)
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        let verdict = self.store.before(Operation::Abort, &self.name, 0).await?;
        let result = self.inner.abort().await;
        answer(verdict, result)
    }
}

struct FaultyListing {
    store: FaultyStore,
    under: Prefix,
    inner: Box<dyn Listing>,
}

#[async_trait]
impl Listing for FaultyListing {
    /// Here too: a page whose answer is lost is asked for again, so it is not taken.
    async fn next_page(&mut self) -> Result<Option<Vec<ObjectMeta>>, StoreError> {
        match self.store.before(Operation::List, &self.under, 0).await? {
            (Verdict::LoseAnswer, lost) => Err(lost),
            _ => self.inner.next_page().await,
        }
    }
}
