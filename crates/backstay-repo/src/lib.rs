//! Stored backups: blocks, frames, packs, maps, manifests, keys and stores.
//!
//! This crate decides where bytes go and never what they mean. It is responsible
//! for one promise: what it called committed can be read again, or it says
//! exactly what cannot.
//!
//! Refuses: to write over anything; to delete anything but by the collector's
//! plan; to know a database.

pub mod catalogue;
pub mod container;
mod crc;
pub mod description;
pub mod document;
pub mod dump;
pub mod error;
pub mod frame;
pub mod init;
pub mod key;
pub mod kit;
pub mod large_buffer;
pub mod large_write;
pub mod layout;
pub mod log;
pub mod manifest;
pub mod map;
pub mod protocol;
pub mod reader;
pub mod repo;
pub mod seal;
pub mod shelf;
pub mod sliced;
pub mod store;
pub mod usage;
pub mod varint;
pub mod verify;
pub mod writer;

pub use error::{Error, Result};
