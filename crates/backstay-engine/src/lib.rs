//! Databases as the source of a backup and the target of a restore.
//!
//! An engine knows what the files of its database mean: which of them belong to a
//! backup, how to tell the server that a copy begins and ends, how a restored
//! directory is made to start, and how to prove that it did.
//!
//! What this crate refuses: it never knows where bytes go. It hands out the steps
//! of [`model::parts`] and takes parts back; blocks, packs, keys and stores are
//! the repository's. It has no clock and keeps nothing between two calls.

pub mod address;
pub mod error;
pub mod postgres;
mod private;
pub mod redis;
pub mod snapshot;

pub mod tls;

pub use backstay_model as model;
pub use error::Error;

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
