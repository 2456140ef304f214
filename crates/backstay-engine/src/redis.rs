//! Redis 7.0 and newer, and Valkey.
//!
//! Everything goes over the wire, as to a replica: the server's files need not be readable from
//! here, and none is written for us but by a server with `repl-diskless-sync no`. Where its directory
//! is named, a base is the file that it saves there.
//!
//! Responsible for the protocol, for what a server says of itself, and for what its snapshot and
//! its stream of commands mean. Refuses to take a part of a snapshot for the whole, and a
//! position of one server for that of another.

pub mod aof;
pub mod aux_fields;
pub mod base;
mod beside;
pub mod commands;
pub mod connection;
pub mod dump;
pub mod error;
pub mod facts;
pub mod lineage;
pub mod place;
pub mod programs;
pub mod prove;
pub mod reply;
pub mod rights;
pub mod saved;
mod saving;
pub mod scratch;
mod sentinel;
pub mod settings;
pub mod source;
mod standing;
pub mod stream;
pub mod sync;

pub use error::RedisError;
pub use settings::RedisSettings;
