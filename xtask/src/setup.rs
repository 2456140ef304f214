//! What a bare Debian machine with a Rust toolchain lacks, put there once.
//!
//! Invariant: whatever is prepared appears under its final name only when it is
//! whole, and two chores never prepare at the same time.

pub mod packages;
pub mod python;
pub mod roots;

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

/// Holds off every other chore that would prepare something, until it is dropped.
pub struct PreparationLock(File);

impl PreparationLock {
    pub fn take(cache: &Path) -> Result<PreparationLock> {
        fs::create_dir_all(cache).with_context(|| format!("make {}", cache.display()))?;
        let file = File::create(cache.join("lock")).context("make the lock of the server cache")?;
        if file.try_lock().is_err() {
            eprintln!("another chore is preparing servers; waiting for it");
            file.lock().context("wait for the lock of the server cache")?;
        }
        Ok(PreparationLock(file))
    }

    /// The standard input of a program that prepares something. The kernel holds
    /// the lock for as long as anybody has the file open, so a program that
    /// outlives its killed chore is waited for by the next one.
    pub fn share(&self) -> Result<Stdio> {
        Ok(self.0.try_clone().context("share the lock of the server cache")?.into())
    }
}

/// Gives a prepared directory its final name. What stood there before without its
/// marker was left by an interruption and is of no use.
#[allow(clippy::disallowed_methods, reason = "a cache that a crash leaves behind is rebuilt, not recovered")]
fn publish(made: &Path, place: &Path) -> Result<()> {
    remove_tree(place)?;
    fs::rename(made, place).with_context(|| format!("rename {} to {}", made.display(), place.display()))
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
