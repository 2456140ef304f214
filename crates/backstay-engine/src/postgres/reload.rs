//! A portable dump put back: what a server lacks for it is listed before the first byte,
//! `pg_restore` or `psql` do the rest as children, and what they leave to others (owners
//! of sequences, foreign keys that were not looked at, TimescaleDB's own words) is done
//! and checked afterwards.
//!
//! Invariant: a database that is not empty is written to only in one transaction, or
//! because the caller says so; a stream that broke off is never committed.

pub mod archive;
mod checks;
mod globals;
mod needs;

mod run;
mod script;
pub mod swap;
mod target;
mod timescale;
mod unpack;
mod use_list;

pub use self::archive::{Archive, ArchiveReader, DatabaseShape, Entry, Selection};
pub use self::globals::GlobalsReload;
pub use self::needs::{DumpNeeds, Preflight};
pub use self::run::{ReloadInput, ReloadOptions, ReloadRun};
pub use self::swap::{SwapStep, Swapped, kept_name};
pub use self::target::ReloadTarget;
pub use self::timescale::{TimescaleJob, TimescaleReload};
pub use self::unpack::DirectoryUnpack;
