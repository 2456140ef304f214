//! How far an operation is: counters that workers add to and a renderer polls.
//!
//! Atomics instead of events, because a lane must never wait for a terminal.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared between the workers of one operation and whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
    new_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    files: AtomicU64,
    phase: Mutex<String>,
}

/// One reading of a [`Progress`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProgressReading {
    /// What is being done, such as `copy` or `wait for the checkpoint`.
    pub phase: String,
    /// Zero when nobody knows.
    pub total_bytes: u64,
    pub done_bytes: u64,
    pub new_bytes: u64,
    pub stored_bytes: u64,
    pub files: u64,
}

impl Progress {
    pub fn new() -> Self {
        Self::default()
    }

    /// Names what is done now. A poisoned lock is ignored: a word on a screen is not worth a failure.
    pub fn enter(&self, phase: &str) {
        if let Ok(mut current) = self.phase.lock() {
            phase.clone_into(&mut current);
        }
    }

    /// Starts a phase that is measured from zero.
    pub fn begin(&self, phase: &str, total_bytes: u64) {
        self.enter(phase);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.done_bytes.store(0, Ordering::Relaxed);
    }

    pub fn expect(&self, total_bytes: u64) {
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
    }

    pub fn done(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn new_data(&self, bytes: u64) {
        self.new_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn stored(&self, bytes: u64) {
        self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub fn read(&self) -> ProgressReading {
        ProgressReading {
            phase: self.phase.lock().map(|phase| phase.clone()).unwrap_or_default(),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            new_bytes: self.new_bytes.load(Ordering::Relaxed),
            stored_bytes: self.stored_bytes.load(Ordering::Relaxed),
            files: self.files.load(Ordering::Relaxed),
        }
    }
}
